"""GeoParquet 1.1, written as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.vector.formats import GEOMETRY
from geo_retina.vector.wkb import wkb_to_rings

BBOX = "bbox"
"""Column with the bounds of each geometry, by whose statistics readers skip row groups."""

_VERSION = "1.1.0"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_REPEATED = ("class", "scene")
_BBOX_FIELD = pa.field(BBOX, pa.struct([(side, pa.float64()) for side in _SIDES]))


def write_parquet(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    crs: pyproj.CRS | None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write batches with WKB in ``geometry`` to a GeoParquet file, each as a row group.

    Args:
        path: the new file.
        schema: of every batch. A struct column ``bbox`` joins it.
        batches: written one by one; none give a valid file without rows.
        crs: stored as PROJJSON; None says that there is none.
        about: further texts of the file's footer, by key.
    """
    import pyarrow.parquet as pq

    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    kinds: set[str] = set()
    whole = schema.append(_BBOX_FIELD)
    # A dictionary of numbers that hardly repeat costs three quarters of the time.
    texts = [name for name in _REPEATED if name in schema.names]
    with pq.ParquetWriter(path, whole, compression="snappy", use_dictionary=texts) as writer:
        for batch in batches:
            sides, found = _bounds(batch.column(GEOMETRY))
            here = _total(sides)
            bounds[:2], bounds[2:] = np.fmin(bounds[:2], here[:2]), np.fmax(bounds[2:], here[2:])
            kinds |= found
            writer.write_batch(
                pa.RecordBatch.from_arrays([*batch.columns, _bbox_column(sides)], schema=whole)
            )
        # Types and bounds are known only now; the footer is written last.
        geo = json.dumps(_metadata(bounds, kinds, crs))
        writer.add_key_value_metadata({**(about or {}), "geo": geo})


def write_parquet_table(
    path: Path,
    table: pa.Table,
    crs: pyproj.CRS | None,
    about: Mapping[str, str] | None = None,
    *,
    group_rows: int,
) -> None:
    """Write a whole table to a GeoParquet file, compressed as well as it reads fast.

    What the footer says stands in Arrow's schema too, where readers of several files look.

    Args:
        path: the new file.
        table: with WKB in ``geometry``. A struct column ``bbox`` joins it.
        crs: as for ``write_parquet``.
        about: further texts of the file's footer, by key.
        group_rows: rows of a row group.
    """
    import pyarrow.parquet as pq

    sides, kinds = _bounds(table[GEOMETRY].combine_chunks())
    geo = json.dumps(_metadata(_total(sides), kinds, crs))
    whole = table.append_column(_BBOX_FIELD, _bbox_column(sides))
    whole = whole.replace_schema_metadata({**(about or {}), "geo": geo})
    texts = [name for name in _REPEATED if name in table.column_names]
    pq.write_table(whole, path, compression="zstd", use_dictionary=texts, row_group_size=group_rows)


def _bbox_column(sides: Sequence[pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(sides, list(_SIDES), mask=sides[0].is_null())


def _bounds(wkb: pa.Array) -> tuple[list[pa.Array], set[str]]:
    """Bound geometries in columns x_min, y_min, x_max, y_max, null for missing; list the kinds."""
    rings = wkb_to_rings(wkb)
    if rings is not None:
        x, y = rings[:, :4, 0].T, rings[:, :4, 1].T
        sides = (x.min(axis=0), y.min(axis=0), x.max(axis=0), y.max(axis=0))
        return [pa.array(side) for side in sides], {"Polygon"} if len(rings) else set()
    geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
    kinds = {_name(kind) for kind in np.unique(shapely.get_type_id(geometries))} - {""}
    boxes = shapely.bounds(geometries).reshape(-1, 4)
    return [pa.array(np.ascontiguousarray(v), from_pandas=True) for v in boxes.T], kinds


def _total(sides: Sequence[pa.Array]) -> NDArray[np.float64]:
    ends = [pc.min(side) for side in sides[:2]] + [pc.max(side) for side in sides[2:]]
    return np.array([end.as_py() for end in ends], dtype=np.float64)


def _metadata(bounds: Any, kinds: set[str], crs: pyproj.CRS | None) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds),
        "crs": None if crs is None else crs.to_json_dict(),
        "covering": {"bbox": {side: [BBOX, side] for side in _SIDES}},
    }
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return {"version": _VERSION, "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _name(kind: int) -> str:
    names = {0: "Point", 1: "LineString", 3: "Polygon", 4: "MultiPoint", 6: "MultiPolygon"}
    return names.get(int(kind), "")
