"""One sentence for whatever GDAL, Arrow or SQLite say about a damaged vector file."""

from __future__ import annotations

import re
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyproj
from pyproj.exceptions import CRSError

from geo_retina.errors import LabelError
from geo_retina.files import parse_json
from geo_retina.vector.formats import parquet_files
from geo_retina.vector.review_layers import in_use

T = TypeVar("T")

_ZIP_BYTES = 256 << 20
_ZIP_RATIO = 100  # tables full of blanks reach some 50, a bomb 1,000


@contextmanager
def refuse_damage(path: str | Path) -> Iterator[None]:
    """Turn what is raised while a file is read into one sentence about it.

    Only reading belongs inside: what a caller does with rows would be blamed on the file.

    Raises:
        LabelError: the file is damaged, or another program keeps it locked.
    """
    import pyarrow as pa
    import shapely
    from pyogrio import errors

    known: tuple[Any, ...] = (errors.DataSourceError, errors.DataLayerError)
    known += (errors.GeometryError, errors.FeatureError, errors.FieldError, errors.CRSError)
    known += (pa.ArrowException, shapely.errors.ShapelyError, CRSError, sqlite3.Error)
    try:
        yield
    except LabelError:
        raise
    except (*known, OSError, ValueError, KeyError, TypeError) as error:
        if is_locked(error):
            raise LabelError(
                f"{path} is in use by another program that keeps it locked, such as a GIS that is "
                "saving; save or close it there, then try again"
            ) from error
        raise LabelError(
            f"{path} cannot be read: {str(error) or type(error).__name__}; it is damaged, write "
            "or copy it again"
        ) from error


def is_locked(error: BaseException) -> bool:
    """Tell whether SQLite, or GDAL for it, says that another program has the file locked."""
    if isinstance(error, sqlite3.OperationalError):
        return in_use(error)
    return "database is locked" in str(error)


def refuse_damaged(path: str | Path, parts: Iterable[T]) -> Iterator[T]:
    """Hand on what is read of a file bit by bit, with one sentence where that ends early.

    Raises:
        LabelError: the file is damaged.
    """
    iterator = iter(parts)
    while True:
        with refuse_damage(path):
            try:
                part = next(iterator)
            except StopIteration:
                return
        yield part


@contextmanager
def open_package(path: str | Path) -> Iterator[sqlite3.Connection]:
    """Open a GeoPackage as a database, to read what is beside its features.

    Raises:
        LabelError: it is damaged.
    """
    with refuse_damage(path):
        database = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
        with closing(database):
            yield database


def refuse_zip_bomb(path: str | Path) -> None:
    """Refuse a zip that would unpack to far more than any layer of its size holds.

    Raises:
        LabelError: it would.
    """
    found = re.match(r"(?:/vsizip/|zip://)?(.*?\.zip)(?:$|[/!])", str(path), re.IGNORECASE)
    if not found or not zipfile.is_zipfile(found.group(1)):
        return  # GDAL says what else it is
    with refuse_damage(path), zipfile.ZipFile(found.group(1)) as file:
        unpacked = sum(member.file_size for member in file.infolist())
    packed = Path(found.group(1)).stat().st_size
    if unpacked > max(_ZIP_BYTES, _ZIP_RATIO * packed):
        raise LabelError(
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,}, expected at most "
            f"{_ZIP_RATIO} times as many; unpack it yourself if it is what it should be"
        )


def geo_column(path: str | Path) -> tuple[str, pyproj.CRS | None]:
    """Read the name of a GeoParquet file's primary geometry, and its CRS.

    Raises:
        LabelError: it is no GeoParquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_metadata(parquet_files(path)[0])
        geo = parse_json((stored.metadata or {})[b"geo"])
        name = str(geo["primary_column"])
        column = geo["columns"][name]
        if name not in stored.schema.to_arrow_schema().names:
            raise ValueError(f"it has no column {name}")
        # Left out, the CRS is longitude and latitude; null says that there is none.
        crs = column.get("crs", "OGC:CRS84")
        return name, None if crs is None else pyproj.CRS.from_user_input(crs)
    except (
        *(pa.ArrowException, CRSError, OSError, RecursionError),
        *(AttributeError, KeyError, TypeError, ValueError),
    ) as error:
        raise LabelError(f"{path} is not a GeoParquet file: {error or 'damaged'}") from error
