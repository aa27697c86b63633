"""Small text files, whole or not at all; JSON from others; the names that people give files."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from geo_retina.errors import OutputError

_SUBDATASET = re.compile(
    r"""(?P<driver>HDF4_[A-Z]+:[A-Z_]+:|[A-Za-z][A-Za-z0-9_]+:(?!//)(?:(?:off:)?\d+:)?)
    (?:"(?P<quoted>[^"]+)"|(?P<file>(?:[A-Za-z]:[\\/]|[a-z0-9+]+://)?[^:"]+))
    (?P<inside>:.*)?""",
    re.VERBOSE,
)
"""``netcdf:cube.nc:Band1``, ``HDF5:"a.h5"://data`` and ``GPKG:a.gpkg:tiles``, by their parts;
``GTIFF_DIR:2:a.tif`` has a number, and ``HDF4_EOS:EOS_GRID:"a.hdf":grid:band`` a kind."""

_MARKS = (
    # UTF-32's mark begins with UTF-16's, so it is looked for first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, or in what its byte-order mark says.

    Windows programs save UTF-8 with a mark, and some UTF-16.

    Returns:
        The text without the mark, its lines ending in a line feed.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is in another encoding.
    """
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place, in UTF-8, and move it there.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


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


def from_folder(folder: str | Path, path: str) -> str:
    """Resolve a path that a file of a folder names, which may be one as Windows writes it.

    An absolute path of Windows stays as it was given where there is no such file.
    """
    spellings = [os.path.join(folder, each) for each in (path, path.replace("\\", "/"))]
    found = next((each for each in spellings if os.path.exists(each)), None)
    if found is None and PureWindowsPath(path).is_absolute():
        return path
    return os.path.normpath(found or spellings[0])


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


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that somebody else may have written.

    >>> parse_json('{"a": [1]}')
    {'a': [1]}

    Raises:
        ValueError: it is no JSON in UTF-8, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
