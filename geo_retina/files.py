"""Small text files, whole or not at all; JSON from others; the names that people give files."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from geo_retina.errors import OutputError

_SUBDATASET = re.compile(
    r"""(?P<driver>[A-Za-z][A-Za-z0-9_]+:(?!//)(?:(?:off:)?\d+:)?)  # GTIFF_DIR:2: has a number
    (?P<quote>"?)(?P<file>(?:[A-Za-z]:[\\/]|[a-z0-9+]+://)?[^:"]+)(?P=quote)
    (?P<inside>:.*)?""",
    re.VERBOSE,
)
"""``netcdf:cube.nc:Band1``, ``HDF5:"a.h5"://data`` and ``GPKG:a.gpkg:tiles``, by their parts."""

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
        The text without the mark, lines ending as ``\\n``.

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
    """Whether a path is GDAL's name of one raster inside a file, such as ``netcdf:cube.nc:Band1``.

    A file of that very name goes first.
    """
    return _SUBDATASET.fullmatch(path) is not None and not os.path.exists(path)


def subdataset_file(path: str) -> str:
    """The file that a subdataset's name holds; any other path as it is."""
    found = _SUBDATASET.fullmatch(path)
    return found["file"] if found and is_subdataset(path) else path


def with_file(path: str, change: Callable[[str], str]) -> str:
    """Change a path, or in the name of a subdataset the file in it.

    >>> with_file("netcdf:cube.nc:Band1", lambda file: f"data/{file}")
    'netcdf:data/cube.nc:Band1'
    """
    found = _SUBDATASET.fullmatch(path)
    if found is None or not is_subdataset(path):
        return change(path)
    quote, inside = found["quote"], found["inside"] or ""
    return f"{found['driver']}{quote}{change(found['file'])}{quote}{inside}"


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
