"""GeoParquet 1.1, written as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.vector.tables import GEOMETRY

_VERSION = "1.1.0"


def write_parquet(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], crs: pyproj.CRS | None
) -> None:
    """Write batches with WKB in ``geometry`` to a GeoParquet file.

    Args:
        path: the new file.
        schema: of every batch.
        batches: written one by one; none give a valid file without rows.
        crs: stored as PROJJSON; None says that there is none.
    """
    import pyarrow.parquet as pq

    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    kinds: set[str] = set()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            geometries = shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False))
            here = shapely.total_bounds(geometries)
            bounds[:2], bounds[2:] = np.fmin(bounds[:2], here[:2]), np.fmax(bounds[2:], here[2:])
            kinds |= {_name(kind) for kind in np.unique(shapely.get_type_id(geometries))} - {""}
            writer.write_batch(batch)
        # Types and bounds are known only now; the footer is written last.
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(bounds, kinds, crs))})


def _metadata(bounds: Any, kinds: set[str], crs: pyproj.CRS | None) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds),
        "crs": None if crs is None else crs.to_json_dict(),
    }
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return {"version": _VERSION, "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _name(kind: int) -> str:
    names = {0: "Point", 1: "LineString", 3: "Polygon", 4: "MultiPoint", 6: "MultiPolygon"}
    return names.get(int(kind), "")
