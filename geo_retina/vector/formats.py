"""What can be written, and the limits of each format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyproj

from geo_retina.errors import OutputError
from geo_retina.files import check_file_output, check_overwrite, check_parent
from geo_retina.vector.review_layers import entries_in

GEOMETRY = "geometry"
"""Name of the column that holds the WKB."""

PACKAGE = ".gpkg"
"""The one format here that holds several layers, styles and tables."""

GEOJSON_CRS = pyproj.CRS("EPSG:4326")
"""The one CRS of GeoJSON (RFC 7946)."""

AZIMUTH = "azimuth_deg"
"""Column of oriented boxes, which no others have: the direction of the long side."""

SCENE_DATE, FIRST_SEEN = DATES = ("scene_date", "first_seen")
"""Columns of dates: of a detection's scene, and of the earliest scene that shows the object."""

UNKNOWN_CLASS = "unknown"
"""What a shapefile, which has no null, says in place of a missing text."""


class Format(NamedTuple):
    """How GDAL writes a format."""

    driver: str
    layer_options: dict[str, str]
    dataset_options: dict[str, str]


FORMATS = {
    # Version 1.3 is the newest that a GIS of some years ago opens without a warning.
    PACKAGE: Format("GPKG", {"SPATIAL_INDEX": "YES"}, {"VERSION": "1.3"}),
    ".shp": Format("ESRI Shapefile", {"ENCODING": "UTF-8"}, {}),
    # 12 decimals of a degree are a tenth of a micrometre, so that boxes come back exact.
    ".geojson": Format("GeoJSON", {"RFC7946": "YES", "COORDINATE_PRECISION": "12"}, {}),
    ".fgb": Format("FlatGeobuf", {}, {}),
    ".parquet": Format("Parquet", {}, {}),
}
"""What can be written, by suffix."""

_SHAPEFILE_NAME = 10
_SHAPEFILE_BYTES = 2**31 - 1
_SHAPEFILE_TEXT = (80, 254)
"""Bytes of a text column as GDAL makes it, and as wide as it can grow."""


def check_output(path: str | Path, *, overwrite: bool, keeps_review: bool = False) -> None:
    """Refuse a vector output that could not be written, before work is spent on it.

    Raises:
        OutputError: the suffix is of no known format, the file exists and ``overwrite`` is
            false, or it holds what a person entered and the writer does not keep that, or its
            folder does not exist or cannot be written.
    """
    path = Path(path)
    if is_dataset_name(path):
        _check_dataset(path, overwrite=overwrite)
        return
    check_file_output(path, FORMATS, overwrite=overwrite)
    entries = 0 if keeps_review else entries_in(path)
    if entries:
        raise OutputError(
            f"{path} holds a person's review with {entries:,} entries, which would be lost; name "
            "another output"
        )


def is_dataset_name(path: str | Path) -> bool:
    """Check whether an output of that name is a folder of GeoParquet files: it has no suffix."""
    return not Path(path).suffix


def parquet_files(path: str | Path) -> list[Path]:
    """List the files of a GeoParquet data set, in order; a file is one by itself.

    Names that begin with ``_`` or ``.`` are other files.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.glob("*.parquet") if each.name[0] not in "_.")


def _check_dataset(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder to write that could not be made, or would replace something else.

    Raises:
        OutputError: it is so.
    """
    if path.exists() and not (path.is_dir() and (parquet_files(path) or not any(path.iterdir()))):
        raise OutputError(
            f"{path} exists and is no folder of detections; name another folder, or a file that "
            f"ends in one of {', '.join(FORMATS)}"
        )
    if path.exists() and any(path.iterdir()):
        check_overwrite(path, overwrite=overwrite)
        foreign = [
            e.name for e in path.iterdir() if e.suffix != ".parquet" and e.name[0] not in "_."
        ]
        if foreign:
            raise OutputError(
                f"{path} holds {min(foreign)}, which is no part of a folder of detections and "
                "would be deleted with it; move it elsewhere"
            )
    check_parent(path)


PROBABILITY = "probability"
"""Column beside ``score`` where the model was calibrated."""

LONG_NAMES = (PROBABILITY, AZIMUTH)
"""Columns of detections whose names are too long for a shapefile."""


def is_package(path: str | Path) -> bool:
    """Check whether a file of that name holds several layers."""
    return Path(path).suffix.lower() == PACKAGE


def file_crs(path: str | Path, crs: pyproj.CRS | None) -> pyproj.CRS | None:
    """Return the CRS in which geometries of a CRS end up in a file: GeoJSON has but one."""
    return GEOJSON_CRS if Path(path).suffix.lower() == ".geojson" else crs


def short_names(schema: pa.Schema) -> pa.Schema:
    """Cut column names to what a shapefile holds, made unique by a number."""
    names: list[str] = []
    for name in schema.names:
        short, n = name[:_SHAPEFILE_NAME], 1
        while short in names:
            short = f"{name[: _SHAPEFILE_NAME - len(str(n))]}{n}"
            n += 1
        names.append(short if name != GEOMETRY else GEOMETRY)
    return pa.schema([f.with_name(n) for f, n in zip(schema, names, strict=True)])


def full_name(name: str) -> str:
    """Return the name of a column of detections that a shapefile has cut; others as they are."""
    return next((full for full in LONG_NAMES if name == full[:_SHAPEFILE_NAME]), name)


def check_shapefile_size(
    path: Path, schema: pa.Schema, rows: int, longest_texts: Mapping[str, int]
) -> None:
    """Refuse a shapefile whose table would pass 2 GB, before it is begun.

    Args:
        path: of the shapefile, for the message.
        schema: of its rows.
        rows: how many there will be.
        longest_texts: bytes of the longest value of text columns.

    Raises:
        OutputError: it would be larger.
    """
    size = shapefile_table_bytes(schema, rows, longest_texts)
    if size > _SHAPEFILE_BYTES:
        raise OutputError(
            f"{path} would need a table of {size / 1e9:.1f} GB for {rows:,} objects, and a "
            "shapefile holds 2 GB; write .gpkg or .parquet instead"
        )


def shapefile_table_bytes(schema: pa.Schema, rows: int, longest_texts: Mapping[str, int]) -> int:
    """Estimate the size of the .dbf, which in a shapefile of boxes is the largest part."""
    fields = [field for field in schema if field.name != GEOMETRY]
    width = 1 + sum(_field_bytes(field, longest_texts.get(field.name, 0)) for field in fields)
    return 32 * (len(fields) + 1) + 1 + rows * width + 1


def _field_bytes(field: pa.Field, longest: int) -> int:
    """Return the width of a column as GDAL makes it from Arrow."""
    least, most = _SHAPEFILE_TEXT
    if pa.types.is_floating(field.type):
        return 24
    if pa.types.is_boolean(field.type):
        return 1
    if pa.types.is_date(field.type):
        return 8
    if pa.types.is_integer(field.type):
        return 18 if field.type.bit_width == 64 else 9
    return min(max(least, longest), most)
