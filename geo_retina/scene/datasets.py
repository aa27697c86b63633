"""Opening datasets: what GDAL calls them, and why it may refuse them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyproj
import rasterio
from pyproj.exceptions import CRSError
from rasterio._err import CPLE_BaseError
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geo_retina.errors import SceneError
from geo_retina.files import say_missing, subdataset_driver, subdataset_file, with_file
from geo_retina.quiet import ignored_warnings
from geo_retina.scene.remote import about_access, gdal_settings, is_remote

BLOCK_CACHE_BYTES = 256 << 20
"""Decoded blocks that GDAL keeps for all datasets of the process."""

# Left alone GDAL keeps a twentieth of the machine's memory, so that a run would grow with its scene
# until that is full. Blocks are read once, but for the overlap with the next, so little is enough;
# only strips as wide as a large scene are shared by blocks side by side. GDAL_CACHEMAX in the
# environment wins. GDAL looks at it when it first reads.
os.environ.setdefault("GDAL_CACHEMAX", str(BLOCK_CACHE_BYTES >> 20))

_SCHEMES = {"http": "vsicurl/http:/", "https": "vsicurl/https:/", "s3": "vsis3", "gs": "vsigs"}
_SCHEMES |= {"az": "vsiaz", "zip": "vsizip", "file": ""}

_DRIVERS = {
    ".avif": ("AVIF",),
    ".ecw": ("ECW",),
    ".h4": ("HDF4",),
    ".h5": ("HDF5",),
    ".hdf": ("HDF4", "HDF5"),
    ".heic": ("HEIF",),
    ".heif": ("HEIF",),
    ".j2k": ("JP2OpenJPEG", "JP2KAK", "JP2ECW"),
    ".jp2": ("JP2OpenJPEG", "JP2KAK", "JP2ECW"),
    ".jxl": ("JPEGXL",),
    ".kea": ("KEA",),
    ".nc": ("netCDF",),
    ".ntf": ("NITF",),
    ".sid": ("MrSID",),
}
"""GDAL's drivers, by suffix, for what many builds of it are made without."""

_PREFIXES = ("HDF4", "HDF5", "netCDF", "GPKG", "Zarr")
"""Drivers whose names begin those of rasters inside files, such as ``HDF4_EOS:``."""

_HDF4_MAGIC = b"\x0e\x03\x13\x01"
_MOST_RASTERS = 10


_POINTERS = ("Read failed", "Read or write failed", "Write failed", "See previous exception")
"""How rasterio begins a text that only says that the reason is in the error before."""


def open_dataset(path: str, **how: Any) -> rasterio.DatasetReader:
    """Open a raster with a handle of its own.

    Raises:
        SceneError: the file is missing or no raster, or GDAL lacks its driver.
    """
    lacking = about_access(path, "")
    if lacking is not None:
        raise SceneError(lacking)
    if path.lower().endswith(".vrt") and os.path.isfile(path):
        _refuse_foreign_text(path)
    try:
        with ignored_warnings("", category=NotGeoreferencedWarning), gdal_settings(path):
            return rasterio.open(path, sharing=False, **how)
    except (RasterioError, CPLE_BaseError, UnicodeError, ValueError) as error:
        inside = subdataset_file(path)
        if not (is_remote(path) or path.startswith("<") or os.path.exists(inside)):
            raise SceneError(say_missing(inside)) from error
        said = reason(error)
        raise SceneError(about_access(path, said) or _refusal(path, said)) from error


def _refuse_foreign_text(path: str) -> None:
    """Refuse a VRT whose text GDAL would quote in errors that rasterio cannot read.

    Raises:
        SceneError: it is not UTF-8.
    """
    try:
        Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(
            f"{path} cannot be read ({error}), expected a VRT in UTF-8; write it again with "
            "gdalbuildvrt"
        ) from error


@contextmanager
def refuse_damage(path: str) -> Iterator[None]:
    """Turn what GDAL and PROJ say while they read a file into one sentence about it.

    Raises:
        SceneError: the file is damaged, or of a kind that rasterio has no word for.
    """
    try:
        yield
    except SceneError:
        raise
    except (
        *(RasterioError, CPLE_BaseError, CRSError, UnicodeError),
        *(OSError, ValueError, KeyError, OverflowError, MemoryError),
    ) as error:
        raise SceneError(f"{path} cannot be read: {reason(error)}") from error


def gdal_name(path: str) -> str:
    """Name a path as GDAL does, from any folder, as a virtual dataset must name its source."""
    scheme, colon, rest = path.partition("://")
    if colon and scheme in _SCHEMES:
        return f"/{_SCHEMES[scheme]}/{rest}"
    return with_file(path, lambda file: os.path.abspath(file) if os.path.exists(file) else file)


def crs_of(dataset: rasterio.DatasetReader) -> pyproj.CRS | None:
    """Read the file's CRS, as pyproj has it."""
    return _crs_from_wkt(dataset.crs.to_wkt()) if dataset.crs else None


@lru_cache(maxsize=64)
def _crs_from_wkt(wkt: str) -> pyproj.CRS:
    """Make one object per CRS: making and comparing them costs more than opening a small file."""
    return pyproj.CRS.from_wkt(wkt)


def reason(error: BaseException) -> str:
    """Say why GDAL failed: what it said first and, beneath that, what it met.

    GDAL reports one failure several times over, from the file up to the read that was asked for;
    rasterio chains these, under a text that only points to them.
    """
    said: list[str] = []
    step: BaseException | None = error
    while step is not None:
        said.append(_first_line(step))
        step = step.__cause__ or step.__context__
    telling = [text for text in said if not text.startswith(_POINTERS)] or said
    outer, inner = telling[0], telling[-1]
    return outer if inner in outer else f"{outer}: {inner}"


def _first_line(error: BaseException) -> str:
    """Read the first line of an error's text, without its full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _refusal(path: str, said: str) -> str:
    needed = _needed_drivers(path)
    with Env() as env:
        present = env.drivers()
    if needed and not any(driver in present for driver in needed):
        return (
            f"{path} needs GDAL's driver {' or '.join(needed)}, which is not in this build of "
            f"rasterio (GDAL {rasterio.__gdal_version__}); install a build that has it, or convert "
            "the file to GeoTIFF with gdal_translate"
        )
    remedy = ""
    if "codec" in said or "ompression" in said:
        remedy = "; convert it elsewhere with gdal_translate -co COMPRESS=DEFLATE"
    elif held := _held(path):
        remedy = f"; the file holds {listed_rasters(held)}; name one as {held[0]}"
    return f"{path} is not a raster that GDAL can open: {said}{remedy}"


def listed_rasters(names: Sequence[str]) -> str:
    """List rasters inside a file by the part of their names that differs, the first ones."""
    first, last = (sorted(names)[0], sorted(names)[-1])
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = "".join(character for character, _ in alike)
    start = shared.rfind(":") + 1 if len(names) > 1 else 0
    more = f" and {len(names) - _MOST_RASTERS} more" if len(names) > _MOST_RASTERS else ""
    return ", ".join(name[start:] for name in names[:_MOST_RASTERS]) + more


def _held(path: str) -> list[str]:
    """List the rasters in the file of a subdataset's name, which may be misspelt."""
    file = subdataset_file(path)
    if file == path or not os.path.isfile(file):
        return []
    try:
        with (
            ignored_warnings("", category=NotGeoreferencedWarning),
            rasterio.open(file, sharing=False) as dataset,
        ):
            return list(dataset.subdatasets)
    except RasterioError:
        return []


def _needed_drivers(path: str) -> tuple[str, ...]:
    """Choose GDAL's drivers for a file, by its subdataset's name, first bytes or suffix."""
    prefix = (subdataset_driver(path) or "").partition("_")[0]
    for driver in _PREFIXES:
        if prefix == driver.upper():
            return (driver,)
    file = subdataset_file(path)
    suffix = Path(file).suffix.lower()
    if suffix in (".hdf", ".h4") and os.path.isfile(file):
        with open(file, "rb") as content:
            if content.read(4) == _HDF4_MAGIC:
                return ("HDF4",)
    return _DRIVERS.get(suffix, ())
