"""Columns of label layers as arrays, with one clear sentence for what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.options import it_has, same_text

if TYPE_CHECKING:
    import geopandas as gpd

_TRUE = {"true", "t", "yes", "y", "1", "1.0"}
_FALSE = {"false", "f", "no", "n", "0", "0.0", "", "none", "nan", "<na>"}


def text_column(
    frame: gpd.GeoDataFrame, column: str | None, role: str, name: str, *, gaps: bool = False
) -> NDArray[np.object_] | None:
    """Read a column as text.

    Args:
        frame: one feature per row.
        column: its name; None for no column.
        role: what it holds, for messages.
        name: what messages call the layer.
        gaps: take a missing value, or a blank one, as None instead of refusing it.

    Returns:
        (N,) text, whole numbers without a decimal point, in one form of Unicode (NFC) and
        without blanks around it unless it names scenes; None where no column is named.

    Raises:
        LabelError: there is no such column, or it has gaps.
    """
    if column is None:
        return None
    values = _column(frame, column, role, name)
    missing = values.isna().to_numpy()
    void = _void_texts(values)
    missing = missing | values.isin(void).to_numpy()
    if missing.any() and not gaps:
        blank = ", ".join(f"'{text}'" for text in void)
        rest = f"{column} NOT IN ({blank})" if void else f"{column} IS NOT NULL"
        raise LabelError(
            f"{int(missing.sum())} of {len(frame)} labels in {name} have no value in the {role} "
            f'column {column}; fill them, or leave them out with the filter "{rest}"'
        )
    known = values[~missing]
    if values.dtype.kind == "f" and (known == np.floor(known)).all():
        known = known.astype(np.int64)
    text = np.full(len(values), None, dtype=object)
    words = map(str, known)
    # Names of scenes are those of files, which have the form that their disk gives them.
    text[~missing] = list(words if role == "scene" else map(same_text, words))
    return text


def _void_texts(values: Any) -> list[str]:
    """List the different texts of a column that hold nothing but blanks."""
    if values.dtype.kind in "biuf":
        return []
    return [text for text in values.unique() if isinstance(text, str) and not text.strip()]


def _column(frame: gpd.GeoDataFrame, column: str, role: str, name: str) -> Any:
    known = [str(c) for c in frame.columns if c != frame.geometry.name]
    if column not in known:
        raise LabelError(
            f"{name} has no {role} column {column}; {it_has(column, known, say='its columns are')}"
        )
    return frame[column]


def size_column(
    frame: gpd.GeoDataFrame, column: str | None, name: str, *, role: str = "size"
) -> NDArray[np.float64] | None:
    """Read a column of lengths in metres; (N,) float64, or None where no column is named.

    Raises:
        LabelError: there is no such column, or a value is no number above 0.
    """
    if column is None:
        return None
    sizes_m = _numbers(frame, column, name, role=role, unit="metres")
    wrong = int((~(np.isfinite(sizes_m) & (sizes_m > 0))).sum())
    if wrong:
        raise LabelError(
            f"{wrong} of {len(frame)} labels in {name} have no {role} above 0 in the column "
            f'{column}; fill them, or leave them out with the filter "{column} > 0"'
        )
    return np.asarray(sizes_m)


def angle_column(frame: gpd.GeoDataFrame, column: str, name: str) -> NDArray[np.float64]:
    """Read a column of angles in degrees, any number of turns; (N,) float64.

    Raises:
        LabelError: there is no such column, or a value is no number.
    """
    angles = _numbers(frame, column, name, role="azimuth", unit="degrees")
    wrong = int((~np.isfinite(angles)).sum())
    if wrong:
        raise LabelError(
            f"{wrong} of {len(frame)} labels in {name} have no azimuth in the column {column}; "
            f'fill them, or leave them out with the filter "{column} IS NOT NULL"'
        )
    return angles


def _numbers(
    frame: gpd.GeoDataFrame, column: str, name: str, *, role: str, unit: str
) -> NDArray[np.float64]:
    values = _column(frame, column, role, name)
    try:
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError):
        raise LabelError(
            f"the {role} column {column} of {name} holds text, expected {unit} as numbers"
        ) from None


def flag_column(frame: gpd.GeoDataFrame, column: str | None, name: str) -> NDArray[np.bool_] | None:
    """Read a column as truth values; (N,) bool, or None where no column is named.

    A gap is false, and a number other than 0 is true.

    Raises:
        LabelError: there is no such column, or a value is neither true nor false.
    """
    if column is None:
        return None
    values = _column(frame, column, "ignore", name)
    if values.dtype.kind in "biuf":
        return np.asarray(values.fillna(0).to_numpy() != 0)
    words = [str(value).strip().lower() for value in values]
    unknown = sorted(set(words) - _TRUE - _FALSE)
    if unknown:
        raise LabelError(
            f"the ignore column {column} of {name} holds {unknown[0]}, expected true or false, or "
            "1 or 0"
        )
    return np.array([word in _TRUE for word in words], dtype=np.bool_)
