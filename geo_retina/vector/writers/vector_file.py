"""Write tables to vector files, as streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyproj

from geo_retina.errors import OutputError
from geo_retina.files import new_file
from geo_retina.geodesy import crs_label, is_on_earth, missing_crs
from geo_retina.quiet import ignored_warnings
from geo_retina.vector.formats import (
    FORMATS,
    GEOMETRY,
    UNKNOWN_CLASS,
    check_output,
    file_crs,
    is_dataset_name,
    short_names,
)
from geo_retina.vector.writers.dataset import write_dataset
from geo_retina.vector.writers.geoparquet import write_parquet
from geo_retina.vector.writers.rows import Rows, Shape, Written

_SHAPEFILE = "ESRI Shapefile"


@dataclass(frozen=True)
class Layer:
    """Where rows go within a file, and how.

    Attributes:
        name: of the layer, in formats that have layers.
        crs: of the geometries given; None for those of an image without georeferencing.
        shape: write geometries as they are, or the centres of boxes.
        append: add the layer to a file that exists.
        geometry_type: as OGR calls it; left out, that of the first rows.
        about: texts that a Parquet file carries in its footer, by key.
    """

    name: str = "detections"
    crs: pyproj.CRS | None = None
    shape: Shape = "asis"
    append: bool = False
    geometry_type: str | None = None
    about: Mapping[str, str] | None = None


def write_vector(
    path: str | Path,
    tables: Iterable[pa.Table],
    *,
    crs: pyproj.CRS | None,
    overwrite: bool,
    layer: str = "detections",
) -> int:
    """Write tables one after the other to a vector file, holding one of them at a time.

    A failure, of the disk or of the iterable, leaves the folder as it was.

    Args:
        path: ends in .gpkg, .shp, .geojson, .fgb or .parquet.
        tables: tables of one schema with the geometry as WKB in ``geometry``. None at all
            give an empty layer with the columns of ``detections_table``.
        crs: CRS of the geometries; None for those of an image without georeferencing. GeoJSON is
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
    check_has_place(path, crs)
    with new_file(path, overwrite=overwrite) as draft:
        return write_draft(draft, tables, Layer(layer, crs), target=path).rows


def write_draft(draft: Path, tables: Iterable[pa.Table], layer: Layer, *, target: Path) -> Written:
    """Write one layer of a file that is not in its place yet.

    Args:
        draft: the file, in a folder of its own.
        tables: as in ``write_vector``.
        layer: where in the file.
        target: the file's place to be, for messages.

    Returns:
        What was written.

    Raises:
        OutputError: the disk refuses.
    """
    crs = file_crs(target, layer.crs)
    # GeoJSON has longitudes up to 180, and GDAL cuts in two what reaches beyond.
    bounded = target.suffix.lower() == ".geojson"
    rows = Rows(tables, layer.crs, crs, layer.shape, bounded=bounded)
    with rows.passing_errors_on(target):
        if is_dataset_name(draft):
            write_dataset(draft, rows.schema, rows, crs, layer.about)
        elif draft.suffix.lower() == ".parquet":
            write_parquet(draft, rows.schema, rows, crs, layer.about)
        else:
            _write_gdal(draft, rows, crs, layer)
    return rows.written


def _is_bound(crs: pyproj.CRS | None) -> bool:
    """Check whether a CRS, or a part of it, is bound to another by a datum shift."""
    return crs is not None and (crs.is_bound or any(map(_is_bound, crs.sub_crs_list)))


def check_has_place(path: Path, crs: pyproj.CRS | None) -> None:
    """Refuse a format that cannot say where its objects lie, before work is spent on it.

    Raises:
        OutputError: GeoJSON, of an image without georeferencing on Earth; or a shapefile in a CRS
            with parameters of a datum shift (``+towgs84``), which a .prj file cannot hold.
    """
    if path.suffix.lower() == ".shp" and _is_bound(crs):
        raise OutputError(
            f"{path} would lose the datum shift (towgs84) of the CRS, which a .prj file cannot "
            "hold, and lie beside its place; write .gpkg instead, or another CRS, such as "
            "EPSG:4326"
        )
    if path.suffix.lower() != ".geojson" or is_on_earth(crs):
        return
    if crs is None:
        so = f"it has no longitudes and latitudes, which {path} needs"
        raise OutputError(missing_crs("the scene", so, otherwise=", or write .gpkg instead"))
    raise OutputError(
        f"{path} needs longitudes and latitudes, but the scene is in the local CRS "
        f"{crs_label(crs)}, which has no place on Earth; write .gpkg instead"
    )


def _write_gdal(path: Path, rows: Rows, crs: pyproj.CRS | None, layer: Layer) -> None:
    import pyogrio

    driver, layer_options, dataset_options = FORMATS[path.suffix.lower()]
    batches: Iterator[pa.RecordBatch] = iter(rows)
    schema = rows.schema
    if driver == _SHAPEFILE:
        schema = short_names(schema)
        batches = (_without_null_class(b, schema) for b in batches)
    # Without a CRS there is none to warn about: an image without georeferencing has been asked for.
    with ignored_warnings("'crs' was not provided"):
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            layer=path.stem if driver == _SHAPEFILE else layer.name,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=layer.geometry_type or rows.geometry_type,
            crs=None if crs is None else crs.to_wkt(),
            append=layer.append,
            layer_options=layer_options,
            dataset_options={} if layer.append else dataset_options,
        )


def _without_null_class(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch fit a shapefile: dBASE has no null text, and an empty one seems a mistake."""
    arrays = [
        pc.fill_null(array, UNKNOWN_CLASS)
        if name == "class" and pa.types.is_string(array.type)
        else array
        for name, array in zip(schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
