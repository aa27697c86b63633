"""Tables to vector files: streamed, beside the target, then renamed into place."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.errors import GeoRetinaError, OutputError
from geo_retina.vector.parquet import write_parquet
from geo_retina.vector.tables import DETECTION_SCHEMA, GEOMETRY
from geo_retina.vector.transforms import reproject


class _Format(NamedTuple):
    driver: str
    layer_options: dict[str, str]
    dataset_options: dict[str, str]


FORMATS = {
    # Version 1.3 is the newest that a GIS of some years ago opens without a warning.
    ".gpkg": _Format("GPKG", {"SPATIAL_INDEX": "YES"}, {"VERSION": "1.3"}),
    ".shp": _Format("ESRI Shapefile", {"ENCODING": "UTF-8"}, {}),
    # 12 decimals of a degree are a tenth of a micrometre, so that boxes come back exact.
    ".geojson": _Format("GeoJSON", {"RFC7946": "YES", "COORDINATE_PRECISION": "12"}, {}),
    ".fgb": _Format("FlatGeobuf", {}, {}),
    ".parquet": _Format("Parquet", {}, {}),
}
"""What can be written, by suffix."""

GEOJSON_CRS = pyproj.CRS("EPSG:4326")
"""The one CRS of GeoJSON (RFC 7946)."""

_BATCH_ROWS = 65_536
_SHAPEFILE_NAME = 10
_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj")
_SQLITE_JOURNALS = ("-wal", "-shm", "-journal")


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a vector output that could not be written, before work is spent on it.

    Raises:
        OutputError: the suffix is of no known format, the file exists and ``overwrite`` is
            false, or its folder does not exist or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise OutputError(
            f"{path} ends in {path.suffix or 'no suffix'}, wanted one of {', '.join(FORMATS)}"
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder, wanted the name of a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give --overwrite or another name")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path.parent} cannot be written; choose another")


def check_crs(path: str | Path, crs: pyproj.CRS | None) -> None:
    """Refuse a format that cannot hold geometries of a CRS, before work is spent on them.

    Raises:
        OutputError: GeoJSON, which is always in longitudes and latitudes, lacks a CRS.
    """
    if Path(path).suffix.lower() == ".geojson" and crs is None:
        raise OutputError(
            f"{path} would need longitudes and latitudes, but the scene has no CRS; "
            "write .gpkg instead"
        )


def write_vector(
    path: str | Path,
    tables: Iterable[pa.Table],
    *,
    crs: pyproj.CRS | None,
    overwrite: bool,
    layer: str = "detections",
) -> int:
    """Write tables one after the other to a vector file, holding one of them at a time.

    The file is written in a hidden folder beside the target and renamed into place, so a
    failure, of the disk or of the iterable, leaves the folder as it was.

    Args:
        path: ends in .gpkg, .shp, .geojson, .fgb or .parquet.
        tables: tables of one schema with the geometry as WKB in ``geometry``. None at all
            give an empty layer with the columns of ``detections_table``.
        crs: CRS of the geometries; None for those of an image without a place. GeoJSON is
            always EPSG:4326 and is reprojected. Shapefile names are cut to 10 characters.
        overwrite: replace an existing file.
        layer: name of the layer in formats that have layers.

    Returns:
        Rows written. Each got an ``id``, its position from 0; a column of that name in the
        tables is replaced.

    Raises:
        OutputError: as ``check_output``, or the disk refuses, or GeoJSON lacks a CRS.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    check_crs(path, crs)
    suffix = path.suffix.lower()
    target_crs = file_crs(path, crs)
    rows = _Rows(tables, crs, target_crs)
    with beside(path) as folder, rows.passing_errors_on(path):
        draft = folder / path.name
        if suffix == ".parquet":
            write_parquet(draft, rows.schema, rows, target_crs)
        else:
            _write_gdal(draft, rows, target_crs, layer)
        if path.exists() and not overwrite:
            raise OutputError(f"{path} appeared while it was being written; it was left as it is")
        _move_into_place(folder, path)
    return rows.count


def file_crs(path: str | Path, crs: pyproj.CRS | None) -> pyproj.CRS | None:
    """The CRS in which geometries of a CRS end up in a file: GeoJSON has but one."""
    return GEOJSON_CRS if Path(path).suffix.lower() == ".geojson" else crs


class _Rows:
    """The tables as a stream of batches with ids, in the CRS of the file.

    Attributes:
        schema: columns of the batches, ``id`` first.
        geometry_type: of the first rows, as OGR calls it; polygons where there are none.
        count: rows handed out so far.
    """

    def __init__(
        self, tables: Iterable[pa.Table], source: pyproj.CRS | None, target: pyproj.CRS | None
    ) -> None:
        self._source, self._target = source, target
        self._error: BaseException | None = None
        self.count = 0
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
        self.geometry_type = _geometry_type(first)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for table in self._tables:
                for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                    yield self._finish(batch)
        except BaseException as error:
            # Arrow's C stream carries only a text across; the caller wants the error itself.
            self._error = error
            raise

    def _finish(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids = pa.array(np.arange(self.count, self.count + batch.num_rows))
        self.count += batch.num_rows
        arrays = [
            self._place(batch.column(f.name)) if f.name == GEOMETRY else batch.column(f.name)
            for f in self._columns
        ]
        return pa.RecordBatch.from_arrays([ids, *arrays], schema=self.schema)

    def _place(self, wkb: pa.Array) -> pa.Array:
        if self._source is self._target or self._source == self._target:
            return wkb
        geometries = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        return pa.array(shapely.to_wkb(reproject(geometries, self._source, self._target)), wkb.type)

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


def _geometry_type(table: pa.Table) -> str:
    wkb = table[GEOMETRY].slice(0, _BATCH_ROWS).to_numpy()
    kinds = {str(kind) for kind in np.unique(shapely.get_type_id(shapely.from_wkb(wkb)))}
    kinds.discard("-1")  # a missing geometry
    return {"0": "Point", "3": "Polygon"}.get(kinds.pop(), "Unknown") if kinds else "Polygon"


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden folder next to a file, on the same disk, that goes away in any case.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
    except OSError as error:
        raise OutputError(
            f"the folder {path.parent} cannot be written ({error.strerror}); choose another"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_gdal(path: Path, rows: _Rows, crs: pyproj.CRS | None, layer: str) -> None:
    import pyogrio

    driver, layer_options, dataset_options = FORMATS[path.suffix.lower()]
    batches: Iterator[pa.RecordBatch] = iter(rows)
    schema = rows.schema
    if driver == "ESRI Shapefile":
        schema = _short_names(schema)
        batches = (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in batches)
    with warnings.catch_warnings():
        # Without a CRS there is none to warn about: an image without a place has been asked for.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            layer=path.stem if driver == "ESRI Shapefile" else layer,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=rows.geometry_type,
            crs=None if crs is None else crs.to_wkt(),
            layer_options=layer_options,
            dataset_options=dataset_options,
        )


def _short_names(schema: pa.Schema) -> pa.Schema:
    """Column names cut to what a shapefile holds, made unique by a number."""
    names: list[str] = []
    for name in schema.names:
        short, n = name[:_SHAPEFILE_NAME], 1
        while short in names:
            short = f"{name[: _SHAPEFILE_NAME - len(str(n))]}{n}"
            n += 1
        names.append(short if name != GEOMETRY else GEOMETRY)
    return pa.schema([f.with_name(n) for f, n in zip(schema, names, strict=True)])


def _move_into_place(folder: Path, path: Path) -> None:
    """Move every part of the finished file beside the target, the named one last."""
    parts = sorted(folder.iterdir(), key=lambda part: part.name == path.name)
    if path.suffix.lower() == ".shp":
        # Parts of an older shapefile, such as an index, must not outlive it.
        new = {part.name for part in parts}
        for suffix in _SHAPEFILE_PARTS:
            if path.with_suffix(suffix).name not in new:
                path.with_suffix(suffix).unlink(missing_ok=True)
    if path.suffix.lower() == ".gpkg":
        # What a crash left of an older file's transactions, SQLite would replay into this one.
        for suffix in _SQLITE_JOURNALS:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    for part in parts:
        os.replace(part, path.with_name(part.name))
