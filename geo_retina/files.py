"""Small text files, whole or not at all, and JSON from others."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from geo_retina.errors import OutputError


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
