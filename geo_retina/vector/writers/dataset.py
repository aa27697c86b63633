"""A folder of GeoParquet files by place, for more objects than one file serves well.

Each file holds a square of the Earth, named by its quadkey, and few enough objects; its rows
follow a Hilbert curve, so that those of a row group lie together. ``_metadata`` has the footers of
all files. Names that begin with ``_`` are skipped by readers of data sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.files import scratch_beside
from geo_retina.geodesy import is_on_earth, transformer
from geo_retina.vector.formats import GEOMETRY
from geo_retina.vector.wkb import wkb_to_rings
from geo_retina.vector.writers.geoparquet import write_parquet_table

FOOTERS = "_metadata"
"""File with the footers of all others."""

_LEVELS = 16
"""Of squares within squares: the smallest are some 600 m wide at the equator."""

_FILE_ROWS = 1 << 19
_GROUP_ROWS = 1 << 16
_SORTED_ROWS = 1 << 18
_BATCH_ROWS = 1 << 12

_WGS84 = pyproj.CRS("OGC:CRS84")
_MOST_LATITUDE = 85.05112878
_PLANE = float(1 << 25)
"""Half the side of the square that stands for the Earth in a local CRS, in its units."""


def write_dataset(
    folder: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    crs: pyproj.CRS | None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write batches with WKB in ``geometry`` to a new folder of GeoParquet files.

    Memory holds half a million rows. All rows wait beside the folder meanwhile.

    Args:
        folder: to be made.
        schema: of every batch.
        batches: read once, one by one; none give one file without rows.
        crs: of the geometries; None says that there is none.
        about: further texts of each file's footer, by key.
    """
    import pyarrow.parquet as pq

    folder.mkdir()
    footers: list[pq.FileMetaData] = []
    with scratch_beside(folder) as scratch, _Sorter(scratch / "rows.arrow", schema) as rows:
        for batch in batches:
            rows.add(batch, places_of(batch.column(GEOMETRY), crs))
        for name, part in rows.parts():
            path = folder / name
            write_parquet_table(path, part, crs, about, group_rows=_GROUP_ROWS)
            footer = pq.read_metadata(path)
            footer.set_file_path(name)
            footers.append(footer)
    columns = footers[0].schema.to_arrow_schema().with_metadata(_of_all(footers))
    pq.write_metadata(columns, folder / FOOTERS, metadata_collector=footers)


def _of_all(footers: Sequence[Any]) -> dict[bytes, bytes]:
    """Join what the footers of all files say: their bounds; all else is the same."""
    about = dict(footers[0].metadata)
    geo = [json.loads(footer.metadata[b"geo"]) for footer in footers]
    boxes = [
        each["columns"][GEOMETRY]["bbox"] for each in geo if "bbox" in each["columns"][GEOMETRY]
    ]
    kinds = {kind for each in geo for kind in each["columns"][GEOMETRY]["geometry_types"]}
    column = geo[0]["columns"][GEOMETRY] | {"geometry_types": sorted(kinds)}
    if boxes:
        sides = np.array(boxes)
        column["bbox"] = [*sides[:, :2].min(axis=0), *sides[:, 2:].max(axis=0)]
    whole = json.dumps(geo[0] | {"columns": {GEOMETRY: column}})
    return {**about, b"geo": whole.encode()}


class _Sorter:
    """Rows on disk by place."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._waiting: list[tuple[pa.RecordBatch, NDArray[np.int64]]] = []
        self._count = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        stored = schema.append(pa.field(_PLACE, pa.int64()))
        self._writer = pa.ipc.new_file(str(path), stored, options=options)
        self._ranges: list[tuple[int, int]] = []
        self._places: dict[int, int] = {}

    def __enter__(self) -> _Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, batch: pa.RecordBatch, places: NDArray[np.int64]) -> None:
        """Take some, with their places."""
        self._waiting.append((batch, places))
        self._count += len(places)
        if self._count >= _SORTED_ROWS:
            self._write()

    def _write(self) -> None:
        if not self._count:
            return
        table = pa.Table.from_batches([batch for batch, _ in self._waiting])
        places = np.concatenate([places for _, places in self._waiting])
        self._waiting, self._count = [], 0
        order = np.argsort(places, kind="stable")
        places = places[order]
        for start in range(0, len(order), _BATCH_ROWS):
            here = slice(start, start + _BATCH_ROWS)
            part = table.take(order[here]).append_column(_PLACE, pa.array(places[here]))
            [batch] = part.combine_chunks().to_batches()
            self._writer.write_batch(batch)
            self._ranges.append((int(places[here][0]), int(places[here][-1])))
        cells, counts = np.unique(places >> _COUNTED, return_counts=True)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
            self._places[cell] = self._places.get(cell, 0) + count

    def parts(self) -> Iterator[tuple[str, pa.Table]]:
        """Hand out names of files and their rows, place by place."""
        self._write()
        self._writer.close()
        if not self._ranges:
            yield "empty.parquet", self._schema.empty_table()
            return
        cells = np.array(sorted(self._places), dtype=np.int64)
        counts = np.array([self._places[cell] for cell in cells.tolist()])
        ranges = np.array(self._ranges)
        with pa.OSFile(str(self._path)) as source, pa.ipc.open_file(source) as reader:
            for start, size in _squares(cells << _COUNTED, np.cumsum(counts)):
                near = (ranges[:, 0] < start + size) & (ranges[:, 1] >= start)
                tables = []
                for number in np.flatnonzero(near).tolist():
                    table = pa.Table.from_batches([reader.get_batch(number)])
                    places = table[_PLACE].to_numpy()
                    first, last = np.searchsorted(places, [start, start + size])
                    tables.append(table.slice(first, last - first))
                part = pa.concat_tables(tables)
                order = np.argsort(part[_PLACE].to_numpy(), kind="stable")
                part = part.take(order).drop_columns([_PLACE]).combine_chunks()
                yield f"{_quadkey(start, size)}.parquet", part


_PLACE = "geo_retina_place"
_COUNTED = 4
"""Bits of a place that are not counted: files hold whole squares of level 14 at the least."""


def _squares(starts: NDArray[np.int64], totals: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Divide the Earth into squares within squares with few enough rows, leaving out empty ones.

    Args:
        starts: (C,) first places of small squares, in order.
        totals: (C,) rows up to each, itself included.

    Yields:
        First place and size of each.
    """
    waiting = [(0, 1 << (2 * _LEVELS))]
    while waiting:
        start, size = waiting.pop()
        first, last = np.searchsorted(starts, [start, start + size])
        rows = totals[last - 1] - (totals[first - 1] if first else 0) if last > first else 0
        if rows and (rows <= _FILE_ROWS or size <= 1 << _COUNTED):
            yield start, size
        elif rows:
            waiting += [(start + k * (size // 4), size // 4) for k in (3, 2, 1, 0)]


def places_of(wkb: pa.Array, crs: pyproj.CRS | None) -> NDArray[np.int64]:
    """Assign (N,) numbers to places, along a Hilbert curve over the tiles of web maps of level 16.

    In a local CRS, or none, the curve runs over a square around its origin. What has no place comes
    first.
    """
    rings = wkb_to_rings(wkb)
    if rings is not None:
        xy = (rings[:, :4].min(axis=1) + rings[:, :4].max(axis=1)) / 2
    else:
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        bounds = shapely.bounds(geometries).reshape(-1, 4)
        xy = (bounds[:, :2] + bounds[:, 2:]) / 2
    if crs is not None and is_on_earth(crs):
        lon, lat = transformer(crs, _WGS84).transform(xy[:, 0], xy[:, 1])
        lat = np.radians(np.clip(lat, -_MOST_LATITUDE, _MOST_LATITUDE))
        share = np.stack([(lon / 360 + 0.5) % 1, 0.5 - np.arcsinh(np.tan(lat)) / (2 * np.pi)], 1)
    else:
        share = np.stack([xy[:, 0], -xy[:, 1]], axis=1) / (2 * _PLANE) + 0.5
    known = np.isfinite(share).all(axis=1)
    side = 1 << _LEVELS
    cell = (np.clip(np.where(known[:, None], share, 0), 0, 1 - 2**-40) * side).astype(np.int64)
    return np.where(known, _hilbert(cell[:, 0], cell[:, 1]), 0)


def _hilbert(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute positions on a Hilbert curve of squares x, y."""
    place = np.zeros_like(x)
    for level in reversed(range(_LEVELS)):
        right, lower = x >> level & 1, y >> level & 1
        place = place << 2 | ((3 * right) ^ lower)
        mask = (1 << level) - 1
        flips = (lower == 0) & (right == 1)
        x, y = np.where(flips, ~x, x) & mask, np.where(flips, ~y, y) & mask
        swaps = lower == 0
        x, y = np.where(swaps, y, x), np.where(swaps, x, y)
    return place


def _quadkey(start: int, size: int) -> str:
    """Name the square that a part of the curve covers, as web maps do."""
    levels = _LEVELS - (size.bit_length() - 1) // 2
    x, y = _square_of(start, levels)
    digits = (str((x >> k & 1) + 2 * (y >> k & 1)) for k in reversed(range(levels)))
    return "".join(digits) or "all"


def _square_of(start: int, levels: int) -> tuple[int, int]:
    """Find the square of a level at a position on the curve."""
    x = y = 0
    for level in range(levels):
        digit = start >> 2 * (_LEVELS - levels + level) & 3
        right = digit >> 1 & 1
        lower = (digit ^ right) & 1
        side = 1 << level
        if lower == 0:
            if right == 1:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        x, y = x + side * right, y + side * lower
    return x, y
