"""Read text files and JSON that others wrote; write text files whole or not at all."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

from geo_retina.files.drafts import new_file

_MARKS = (
    # UTF-32's mark begins with UTF-16's, so it is looked for first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, or in the encoding that its byte-order mark names.

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


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    with new_file(path, overwrite=overwrite) as draft:
        draft.write_text(text, encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that somebody else may have written.

    >>> parse_json('{"a": [1]}')
    {'a': [1]}

    Raises:
        ValueError: it is not JSON in UTF-8, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def is_broken_link(path: str | Path) -> bool:
    """Check whether a path is a link to nothing, as to a disk that is not there."""
    return os.path.islink(path) and not os.path.exists(path)


def say_missing(path: str | Path) -> str:
    """Say that a file does not exist, and where a link leads that is broken."""
    if is_broken_link(path):
        return f"{path} is a link to {os.path.realpath(path)}, which does not exist"
    return f"{path} does not exist"
