"""Encodings of texts in shapefiles and other formats that may not say theirs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.errors import LabelError
from geo_retina.vector.readers.refusing import refuse_damage

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_SHAPEFILE = "ESRI Shapefile"
_FORMATS = (_SHAPEFILE, "MapInfo File", "CSV", "OGR_VRT")
"""Drivers of formats whose texts may be of any encoding; those of the others are UTF-8."""

_SUFFIXES = (".shp", ".dbf", ".shz", ".zip")
"""Of what may hold a shapefile, besides folders."""

_ASSUMED = "ISO-8859-1"
"""What GDAL takes a shapefile's texts to be where nothing says it."""

ENCODING_REMEDY = (
    "name it with the option encoding, or in a .cpg file beside it, such as GBK or cp1252"
)


def encoding_to_tell(path: str | Path, layer: str, encoding: str | None) -> str | None:
    """Choose the encoding for GDAL to read a layer by; None where the format itself settles it.

    Args:
        path: a file that GDAL reads.
        layer: of the file.
        encoding: as the user says; None for what the file says, or GDAL takes it to be.
    """
    driver, found = _driver_and_encoding(path, layer)
    if driver not in _FORMATS:
        return None
    if encoding is not None:
        return encoding
    # Its guess must be told to GDAL: Arrow streams would be given the bare bytes. Where it knows
    # the encoding, it gives UTF-8 of its own accord.
    return found if driver == _SHAPEFILE and found != "UTF-8" else None


def encoding_doubt(
    path: str | Path, layer: str | None, texts: pd.DataFrame | list[str]
) -> str | None:
    """Warn in one sentence where a layer's texts were read by a guess they do not support.

    Args:
        path: a file that GDAL reads.
        layer: of the file; None for its only one.
        texts: what was read of it.

    Returns:
        The sentence; None where all texts are ASCII, or the file says its encoding.
    """
    if not _is_guessed(path, layer):
        return None
    values = texts if isinstance(texts, list) else _texts_of(texts)
    strange = next((text for text in values if not text.isascii()), None)
    if strange is None:
        return None
    likely = "they are likely UTF-8; " if _is_utf8(strange) else "if they look wrong, "
    return (
        f"{path} does not say the encoding of its texts, such as {strange}, and they were read as "
        f"{_ASSUMED}; {likely}{ENCODING_REMEDY}"
    )


def undecodable(path: str | Path, error: UnicodeDecodeError) -> LabelError:
    """Make the error for texts that are not of the encoding by which they were read."""
    return LabelError(
        f"{path} holds texts that are not {error.encoding.upper()}, as which they were read; find "
        f"out the encoding and {ENCODING_REMEDY}"
    )


def _is_guessed(path: str | Path, layer: str | None) -> bool:
    beside = Path(path)
    if beside.suffix.lower() not in _SUFFIXES and not beside.is_dir():
        return False
    if any(beside.with_suffix(suffix).exists() for suffix in (".cpg", ".CPG")):
        return False
    return _driver_and_encoding(path, layer) == (_SHAPEFILE, _ASSUMED)


def _driver_and_encoding(path: str | Path, layer: str | None) -> tuple[str, str | None]:
    from pyogrio import read_info

    with refuse_damage(path):
        try:
            info = read_info(path, layer=layer)
        except UnicodeDecodeError as error:  # names of columns, by an encoding that the file claims
            return _SHAPEFILE, error.encoding
    return info["driver"], info["encoding"]


def _texts_of(frame: pd.DataFrame) -> list[str]:
    kinds = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    columns = [name for name, kind in kinds.items() if kind in ("object", "str", "string")]
    unique = (value for name in columns for value in frame[name].dropna().unique())
    return [value for value in unique if isinstance(value, str)] + [str(n) for n in kinds]


def _is_utf8(text: str) -> bool:
    try:
        text.encode(_ASSUMED).decode("utf-8")
    except UnicodeError:
        return False
    return True
