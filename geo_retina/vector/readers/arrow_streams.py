"""Vector files as streams of Arrow tables, so that their size does not matter."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyproj

from geo_retina.errors import LabelError
from geo_retina.vector.formats import DATES, GEOMETRY, full_name, parquet_files
from geo_retina.vector.readers.encodings import encoding_to_tell
from geo_retina.vector.readers.frames import check_readable, detections_layer, is_parquet
from geo_retina.vector.readers.refusing import geo_column, refuse_damage, refuse_damaged
from geo_retina.vector.writers.geoparquet import BBOX

_BATCH_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class Stream:
    """One layer of a vector file, open.

    Attributes:
        crs: of its geometries; None where it has none.
        tables: its rows in the order of the file, in parts, with the geometry as WKB in
            ``geometry``; to be read once.
    """

    crs: pyproj.CRS | None
    tables: Iterator[pa.Table]


@contextmanager
def open_stream(
    path: str | Path, layer: str | None = None, *, encoding: str | None = None
) -> Iterator[Stream]:
    """Open one layer of a vector file.

    Args:
        path: any file GDAL reads, or GeoParquet.
        layer: left out, the one named ``detections``, or the only one.
        encoding: of texts, where the file does not say it.

    Raises:
        LabelError: the file is missing, cannot be read, or has other layers.
    """
    check_readable(path)
    if is_parquet(path):
        with _open_parquet(path) as stream:
            yield stream
        return
    from pyogrio.raw import open_arrow

    name = layer or detections_layer(path)
    how: dict[str, Any] = {"use_pyarrow": True, "batch_size": _BATCH_ROWS}
    how["encoding"] = encoding_to_tell(path, name, encoding)
    with ExitStack() as stack:
        with refuse_damage(path):
            meta, reader = stack.enter_context(open_arrow(path, layer=name, **how))
            wkb = meta["geometry_name"] or "wkb_geometry"
            if wkb not in reader.schema.names:
                raise LabelError(
                    f"{path} is a table without geometries, expected points or polygons"
                )
            crs = pyproj.CRS.from_user_input(meta["crs"]) if meta["crs"] else None
        tables = (_tidy(pa.Table.from_batches([batch]), wkb) for batch in reader)
        with closing(tables):
            yield Stream(crs, refuse_damaged(path, tables))


def read_layer(path: str | Path, layer: str) -> tuple[pa.Table, pyproj.CRS | None]:
    """Read a small layer whole."""
    with open_stream(path, layer) as stream:
        parts = list(stream.tables)
        crs = stream.crs
    if parts:
        return pa.concat_tables(parts), crs
    from pyogrio.raw import read_arrow

    with refuse_damage(path):
        meta, table = read_arrow(path, layer=layer)
        return _tidy(table, meta["geometry_name"] or "wkb_geometry"), crs


@contextmanager
def _open_parquet(path: str | Path) -> Iterator[Stream]:
    geometry, crs = geo_column(path)
    with closing(_parquet_tables(path, geometry)) as tables:
        yield Stream(crs, refuse_damaged(path, tables))


def _parquet_tables(path: str | Path, geometry: str) -> Generator[pa.Table, None, None]:
    """Read a file, or the files of a data set one after the other, in parts."""
    import pyarrow.parquet as pq

    for each in parquet_files(path):
        with pq.ParquetFile(each) as file:
            names = [name for name in file.schema_arrow.names if name != BBOX]
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield _tidy(pa.Table.from_batches([batch]), geometry)


def _tidy(table: pa.Table, wkb: str) -> pa.Table:
    """Make columns and types plain, whichever driver they come from, the geometry last."""
    names = [n for n in table.column_names if n not in (wkb, "fid", "OGC_FID")]
    columns = {full_name(name): _plain(table[name]) for name in names}
    if "joined" in columns:  # a shapefile has no such type
        columns["joined"] = columns["joined"].cast(pa.bool_())
    for name in DATES:  # a FlatGeobuf has no dates without a time of day
        if name in columns and pa.types.is_timestamp(columns[name].type):
            columns[name] = columns[name].cast(pa.date32(), safe=False)
    return pa.table({**columns, GEOMETRY: table[wkb].cast(pa.binary())})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    return column
