"""The names that people give files, GDAL's of one raster inside a file among them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

_SUBDATASET = re.compile(
    r"""(?P<driver>HDF4_[A-Z]+:[A-Z_]+:|[A-Za-z][A-Za-z0-9_]+:(?!//)(?:(?:off:)?\d+:)?)
    (?:"(?P<quoted>[^"]+)"|(?P<file>(?:[A-Za-z]:[\\/]|[a-z0-9+]+://)?[^:"]+))
    (?P<inside>:.*)?""",
    re.VERBOSE,
)
"""``netcdf:cube.nc:Band1``, ``HDF5:"a.h5"://data`` and ``GPKG:a.gpkg:tiles``, by their parts;
``GTIFF_DIR:2:a.tif`` has a number, and ``HDF4_EOS:EOS_GRID:"a.hdf":grid:band`` a kind."""


def is_subdataset(path: str) -> bool:
    """Check whether a path is GDAL's name of a raster in a file, such as ``netcdf:cube.nc:Band1``.

    A file of that very name goes first.
    """
    return _parts(path) is not None


def subdataset_driver(path: str) -> str | None:
    """Read the driver, in upper case, that a subdataset's name begins with; None of other paths."""
    parts = _parts(path)
    return None if parts is None else parts[0].partition(":")[0].upper()


def subdataset_file(path: str) -> str:
    """Read the file that a subdataset's name holds; any other path as it is."""
    parts = _parts(path)
    return path if parts is None else parts[1]


def with_file(path: str, change: Callable[[str], str]) -> str:
    """Change a path, or in the name of a subdataset the file in it.

    >>> with_file("netcdf:cube.nc:Band1", lambda file: f"data/{file}")
    'netcdf:data/cube.nc:Band1'
    """
    parts = _parts(path)
    if parts is None:
        return change(path)
    before, file, after = parts
    return f"{before}{change(file)}{after}"


def find_spelling(path: str, folder: str | Path = "") -> str | None:
    """Find a file or folder by its path, or by what is the same path for people.

    Slashes may be those of Windows, and accents parted from their letters, as macOS does, or not.

    Args:
        path: as it was given.
        folder: from which it goes.

    Returns:
        The path from the folder as the disk has it; None where there is no such file.
    """
    slashed = dict.fromkeys((path, path.replace("\\", "/")))
    forms = [unicodedata.normalize(form, each) for form in ("NFC", "NFD") for each in slashed]
    spellings = (os.path.join(folder, each) for each in dict.fromkeys((*slashed, *forms)))
    return next((each for each in spellings if os.path.exists(each)), None)


def from_folder(folder: str | Path, path: str) -> str:
    """Resolve a path that a file of a folder names, found as ``find_spelling`` does.

    An absolute path of Windows stays as it was given where there is no such file.
    """
    found = find_spelling(path, folder)
    if found is None and PureWindowsPath(path).is_absolute():
        return path
    return os.path.normpath(found or os.path.join(folder, path))


def _parts(path: str) -> tuple[str, str, str] | None:
    """Split a subdataset's name into what stands before the file, the file, and what follows."""
    found = _SUBDATASET.match(path)
    if found is None or os.path.exists(path):
        return None
    if found["quoted"] is not None:
        start, end = found.span("quoted")
    else:
        start, end = found.span("file")
        # A colon may belong to the file's own name.
        ends = [i for i, character in enumerate(path) if character == ":" and i > end]
        end = next((i for i in [*ends, len(path)] if os.path.isfile(path[start:i])), end)
    after = path[end:].removeprefix('"' if found["quoted"] is not None else "")
    if after and not after.startswith(":"):
        return None
    return path[:start], path[start:end], path[end:]
