"""Rows on their way into a file: in even batches, with ids, in its CRS."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import GeoRetinaError, LabelError, OutputError
from geo_retina.geodesy import (
    crs_label,
    full_turn,
    is_same,
    near_longitude,
    reproject,
    reproject_rings,
    turn_azimuths,
)
from geo_retina.vector.formats import AZIMUTH, GEOMETRY
from geo_retina.vector.tables import DETECTION_SCHEMA, geometry_of, is_oriented
from geo_retina.vector.wkb import centres, points_to_wkb, rings_to_wkb, wkb_to_rings

Shape = Literal["asis", "point"]
"""Geometries as they are, or the centres of boxes."""

BATCH_ROWS = 131_072
"""Rows that are written at once; in Parquet they form a row group."""

_LOOK_ROWS = 4096


@dataclass(frozen=True)
class Written:
    """What one pass over tables wrote.

    Attributes:
        rows: how many.
        counts: rows by class, in the order in which the classes came; those without one in none.
        joined: rows that were made of fragments.
    """

    rows: int
    counts: Mapping[str, int]
    joined: int


class Rows:
    """Tables as a stream of batches with ids, in the CRS of the file.

    Longitudes come as they are counted, or, ``bounded``, with the middle of each geometry from -180
    to 180.

    Attributes:
        schema: columns of the batches, ``id`` first.
        geometry_type: of the first rows, as OGR calls it; polygons where there are none.
    """

    def __init__(
        self,
        tables: Iterable[pa.Table],
        source: pyproj.CRS | None,
        target: pyproj.CRS | None,
        shape: Shape = "asis",
        *,
        bounded: bool = False,
    ) -> None:
        self._turn = full_turn(target) if bounded else None
        self._source, self._target, self._shape = source, target, shape
        self._error: BaseException | None = None
        self._count = self._joined = 0
        self._classes: Counter[str] = Counter()
        iterator = iter(tables)
        # Drivers want the geometry type first, so look ahead to the first table with rows.
        head: list[pa.Table] = []
        for table in iterator:
            head = [table]
            if table.num_rows:
                break
        first = head[0] if head else DETECTION_SCHEMA.empty_table()
        self._tables = itertools.chain([first], iterator)
        self._columns = [f for f in first.schema if f.name != "id"]
        self.schema = pa.schema([pa.field("id", pa.int64()), *self._columns])
        self.geometry_type = "Point" if shape == "point" else _geometry_type(first)

    @property
    def written(self) -> Written:
        """What was handed out."""
        return Written(self._count, dict(self._classes), self._joined)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in even_batches(self._tables):
                yield self._finish(batch)
        except BaseException as error:
            # Arrow's C stream carries only a text across; the caller wants the error itself.
            self._error = error
            raise

    def _finish(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids = pa.array(np.arange(self._count, self._count + batch.num_rows))
        self._note(batch)
        arrays = [
            self._place(batch.column(f.name)) if f.name == GEOMETRY else batch.column(f.name)
            for f in self._columns
        ]
        if is_oriented(self.schema.names) and not is_same(self._source, self._target):
            at = [f.name for f in self._columns].index(AZIMUTH)
            arrays[at] = azimuths_in(batch, self._source, self._target)
        return pa.RecordBatch.from_arrays([ids, *arrays], schema=self.schema)

    def _note(self, batch: pa.RecordBatch) -> None:
        self._count += batch.num_rows
        if "class" in batch.schema.names:
            for each in batch.column("class").drop_null().value_counts().to_pylist():
                self._classes[each["values"]] += each["counts"]
        if "joined" in batch.schema.names:
            self._joined += pc.sum(batch.column("joined")).as_py() or 0

    def _place(self, wkb: pa.Array) -> pa.Array:
        moves = not is_same(self._source, self._target)
        if not moves and self._shape == "asis" and self._turn is None:
            return wkb
        rings = wkb_to_rings(wkb)
        if rings is None or self._leaps(rings):
            return self._place_any(wkb)
        rings = reproject_rings(rings, self._source, self._target)
        self._check_finite(rings)
        moved = points_to_wkb(centres(rings)) if self._shape == "point" else rings_to_wkb(rings)
        return moved.combine_chunks() if moved.num_chunks != 1 else moved.chunk(0)

    def _place_any(self, wkb: pa.Array) -> pa.Array:
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        geometries = reproject(geometries, self._source, self._target)
        if self._turn is not None:
            geometries = near_longitude(geometries, self._turn, 0.0)
        self._check_finite(shapely.get_coordinates(geometries))
        if self._shape == "point":
            geometries = shapely.centroid(geometries)
        return pa.array(shapely.to_wkb(geometries), wkb.type)

    def _leaps(self, rings: NDArray[np.float64]) -> bool:
        """Check whether longitudes go beyond half a turn, which this file does not allow."""
        if self._turn is None or not is_same(self._source, self._target):
            return False
        return bool(np.abs(rings[..., 0]).max(initial=0.0) > self._turn / 2)

    def _check_finite(self, positions: NDArray[np.float64]) -> None:
        if not np.isfinite(positions).all():
            assert self._target is not None  # else nothing was moved
            raise OutputError(
                f"some objects lie where {crs_label(self._target)} has no coordinates; write "
                "them in another CRS"
            )

    @contextmanager
    def passing_errors_on(self, path: Path) -> Iterator[None]:
        """Raise what stopped the tables as it is, and anything else as an OutputError."""
        try:
            yield
        except GeoRetinaError:
            raise
        except Exception as error:
            if self._error is not None and self._error is not error:
                raise self._error from None
            if self._error is error:
                raise
            raise OutputError(f"{path} could not be written: {error}") from error


def azimuths_in(
    rows: pa.RecordBatch | pa.Table, source: pyproj.CRS | None, target: pyproj.CRS | None
) -> pa.Array:
    """Give the azimuths of oriented boxes, which count from the north of a CRS, by another's.

    Raises:
        LabelError: they are no numbers.
    """
    column = rows.column(AZIMUTH)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise LabelError(
            f"the column {AZIMUTH} of the detections holds {column.type} values, expected degrees "
            "as numbers"
        )
    wkb = geometry_of(rows) if isinstance(rows, pa.Table) else rows.column(GEOMETRY)
    rings = wkb_to_rings(wkb)
    if rings is not None:
        places = centres(rings)
    else:
        bounds = shapely.bounds(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))
        places = (bounds[:, :2] + bounds[:, 2:]) / 2
    azimuths = np.asarray(column.to_pandas(), dtype=np.float64)
    return pa.array(turn_azimuths(azimuths, places, source, target), from_pandas=True)


def even_batches(tables: Iterable[pa.Table], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Cut and gather tables into batches of one size, the last one smaller.

    Thousands of scenes with a few objects each would otherwise be as many row groups.
    """
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= rows:
            head = table.slice(0, rows - count)
            yield _one_batch([*waiting, head])
            table = table.slice(rows - count)
            waiting, count = [], 0
        if table.num_rows:
            waiting.append(table)
            count += table.num_rows
    if count:
        yield _one_batch(waiting)


def _one_batch(tables: list[pa.Table]) -> pa.RecordBatch:
    columns = tables[0].schema.names
    table = pa.concat_tables([t.select(columns) for t in tables])
    return table.combine_chunks().to_batches()[0]


def _geometry_type(table: pa.Table) -> str:
    head = table[GEOMETRY].slice(0, _LOOK_ROWS).combine_chunks()
    if isinstance(head, pa.Array) and wkb_to_rings(head) is not None:
        return "Polygon"
    wkb = head.to_numpy(zero_copy_only=False)
    kinds = {str(kind) for kind in np.unique(shapely.get_type_id(shapely.from_wkb(wkb)))}
    kinds.discard("-1")  # a missing geometry
    names = {"0": "Point", "3": "Polygon", "6": "MultiPolygon"}
    return names.get(kinds.pop(), "Unknown") if kinds else "Polygon"
