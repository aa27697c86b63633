"""Refuse entries of a review that have no meaning, naming their rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geo_retina.errors import LabelError
from geo_retina.options import same_text
from geo_retina.review.values import Flags, Floats, Frame, Ints, Texts
from geo_retina.vector.review_layers import CELLS, REVIEW, REVIEW_TABLES, columns_of_review

_MOST_ROWS = 5


def check_columns(database: sqlite3.Connection, path: Path) -> None:
    """Refuse layers and tables of a review that lost a column.

    Raises:
        LabelError: one has.
    """
    for table in REVIEW_TABLES:
        there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        lacking = [name for name in columns_of_review(table) if name not in there]
        if lacking:
            raise LabelError(
                f"{path} has no column {', '.join(lacking)} in its layer {table}, expected those "
                "that geo-retina review wrote; add it again under this name, or take the rows over "
                "from an older copy"
            )


def check_cells_in_place(path: Path, frame: Frame, cells: Ints, shapes: Texts) -> None:
    """Refuse cells whose outlines lie elsewhere than the squares that were drawn.

    Written in another CRS, a file keeps the numbers by which its cells are laid out in the old one.

    Args:
        path: of the file, for the message.
        frame: all cells.
        cells: (n,) numbers of those in the layer.
        shapes: (n,) their outlines; None where there is none.

    Raises:
        LabelError: some do.
    """
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    seen = np.isfinite(bounds).all(axis=1)
    middles = (bounds[seen, :2] + bounds[seen, 2:]) / 2
    away = frame.cell_at(middles) != cells[seen]
    if away.any():
        numbers = cells[seen][away].tolist()
        raise LabelError(
            f"{path} has {_named('cell', numbers)} elsewhere than where geo-retina review drew "
            f"{'it' if len(numbers) == 1 else 'them'}, so objects would be counted in the wrong "
            "ones; put them back in the layer cells, or, if the file was written in another CRS, "
            "go on with the one before"
        )


def check_places(path: Path, fids: Texts, centres: Floats, status: Texts) -> None:
    """Refuse objects that have no place: neither a geometry nor a detection behind them.

    Raises:
        LabelError: there are some.
    """
    lost = np.isnan(centres).any(axis=1) & (status != np.array("rejected"))
    if lost.any():
        raise LabelError(
            f"{path} has {_named('row', fids[lost])} without a geometry in its layer {REVIEW}, "
            "expected a place for each object that was added; draw it, or delete the row"
        )


def check_classes(path: Path, fids: Texts, names: Texts, status: Texts, handed_out: Texts) -> None:
    """Refuse objects without a class, and those of a known class that is written otherwise.

    Raises:
        LabelError: there are some.
    """
    is_object = status != np.array("rejected")
    bare = np.array([not str(name or "").strip() for name in names], bool) & is_object
    if bare.any():
        raise LabelError(
            f"{path} has {_named('row', fids[bare])} without a class in its layer {REVIEW}, "
            "expected one for each object; enter it"
        )
    known = {name for name in handed_out if name}
    plain = {_plain(name): name for name in sorted(known)}
    other = Counter(str(n) for n in names[is_object] if n not in known and _plain(n) in plain)
    for name, count in sorted(other.items()):
        raise LabelError(
            f"{path} has {count:,} {'object' if count == 1 else 'objects'} of class {name!r} in "
            f"its layer {REVIEW}, expected {plain[_plain(name)]!r} as the detections spell it, "
            "since these would be two classes; enter it like that"
        )


def check_statuses(path: Path, layer: str, fids: Texts, entered: Texts, known: Any) -> None:
    """Refuse statuses that are none; a missing or empty one has a meaning.

    Raises:
        LabelError: there are some.
    """
    odd: Flags = np.array([bool(text) and text not in known for text in entered], bool)
    if odd.any():
        text = entered[odd][0]
        rows = _named("cell" if layer == CELLS else "row", fids[odd & (entered == text)])
        raise LabelError(
            f"{path} has {rows} of status {text!r} in its layer {layer}, expected "
            f"{', '.join(known[:-1])} or {known[-1]}; choose one"
        )


def read_weights(path: Path, fids: Texts, entered: Texts) -> Floats:
    """Read weights as numbers; 1 where there is none.

    Raises:
        LabelError: one is none, or below 0.
    """
    weights = np.ones(len(entered))
    for at, value in enumerate(entered):
        number = isinstance(value, int | float) and 0 <= value < np.inf
        if value is not None and not number:
            raise LabelError(
                f"{path} has row {fids[at]} of weight {value!r} in its layer {REVIEW}, expected a "
                "number of 0 or more; enter one, or none"
            )
        weights[at] = 1.0 if value is None else value
    return weights


def _plain(name: Any) -> str:
    return same_text(str(name)).strip().casefold()


def _named(what: str, numbers: Sequence[Any] | Texts) -> str:
    """Name some rows by their numbers, the first ones of many."""
    shown = ", ".join(map(str, numbers[:_MOST_ROWS]))
    more = len(numbers) - _MOST_ROWS
    if len(numbers) == 1:
        return f"{what} {shown}"
    return f"{len(numbers):,} {what}s ({shown}{f' and {more:,} more' if more > 0 else ''})"
