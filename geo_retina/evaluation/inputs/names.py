"""Classes and scenes by name: read from columns, compared, and numbered for both sides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.options import it_has, same_text
from geo_retina.scene import match_names

if TYPE_CHECKING:
    import geopandas as gpd

_MOST_NAMES = 10


def is_full(frame: gpd.GeoDataFrame, column: str) -> bool:
    """Tell whether a table has a column without gaps."""
    return column in frame.columns and not frame[column].isna().any()


def read_names(frame: gpd.GeoDataFrame, column: str, name: str) -> NDArray[np.object_]:
    """Read a column of names as text.

    Raises:
        LabelError: there is no such column, or it has gaps.
    """
    import pandas as pd

    if column not in frame.columns:
        raise LabelError(
            f"{name} has no column {column}; "
            f"{it_has(column, list(map(str, frame.columns)), say='its columns are')}"
        )
    codes, values = pd.factorize(frame[column])
    gaps = int((codes < 0).sum())
    if gaps:
        raise LabelError(f"{gaps} detections in {name} have no {column}; fill the column")
    words = map(str, values)
    words = map(same_text, words) if column == "class" else words  # a scene's is its file's
    return np.array(list(words), dtype=object)[codes]


def number_names(
    found: NDArray[np.object_], truth: NDArray[np.object_]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """List the names of both sides, sorted, and each one's position."""
    import pandas as pd

    codes, names = pd.factorize(np.concatenate([found, truth]), sort=True)
    codes = codes.astype(np.int64)
    return tuple(map(str, names)), codes[: len(found)], codes[len(found) :]


def rename_as_found(
    truth: NDArray[np.object_], found: NDArray[np.object_], column: str | None, labels: str
) -> NDArray[np.object_]:
    """Name the scenes of labels as detections do: without suffix and folders."""
    import pandas as pd

    codes, names = pd.factorize(truth)
    stems = sorted(set(found.tolist()))
    same = match_names(list(names), stems, given_in=f"column {column} of {labels}")
    renamed = [stems[same[i]] if i in same else name for i, name in enumerate(names)]
    return np.array(renamed, dtype=object)[codes] if len(codes) else truth


def known_names(
    table: str | Path | gpd.GeoDataFrame, column: str | None, values: NDArray[np.object_]
) -> set[str]:
    """List the names in a column, and those that a categorical one declares but has in no row."""
    names = set(values.tolist())
    if not names or isinstance(table, (str, Path)) or str(table[column].dtype) != "category":
        return names
    return names | {same_text(str(name)) for name in table[column].cat.categories}


def check_classes(found: set[str], truth: set[str], found_name: str, truth_name: str) -> None:
    """Refuse labels of classes that the detections have otherwise: they could not match, by a slip.

    Raises:
        LabelError: no class is in common, or one differs by capitals alone.
    """
    if found and truth and not found & truth:
        raise LabelError(
            f"no class is in common: {found_name} has {_listed(found)}, {truth_name} has "
            f"{_listed(truth)}; give the labels the names that the detections have, or leave the "
            "class column out"
        )

    folded = {name.casefold(): name for name in found}
    slips = sorted(name for name in truth - found if name.casefold() in folded)
    if slips:
        raise LabelError(
            f"{truth_name} has the class {slips[0]}, which {found_name} has as "
            f"{folded[slips[0].casefold()]}; give the labels the names that the detections have"
        )


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:_MOST_NAMES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if names - {*shown} else "")


def check_scenes(
    found: NDArray[np.int64],
    truth: NDArray[np.int64],
    names: tuple[str, ...],
    found_name: str,
    truth_name: str,
) -> None:
    """Refuse two sides that name no scene in common: nothing could match, by a slip of names."""
    if names and len(found) and len(truth) and not np.isin(found, truth).any():
        raise LabelError(
            f"no scene of {found_name}, such as {names[found[0]]}, is named by {truth_name}, which "
            f"has {names[truth[0]]}; the scene column must hold the stems of the scene files"
        )
