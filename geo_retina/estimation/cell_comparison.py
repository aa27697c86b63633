"""``compare_on_cells``: two sets of detections on the ground that a person completed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geo_retina.errors import LabelError
from geo_retina.estimation.cell_counts import CellCounts, read_counts
from geo_retina.estimation.counting import check_samples, count_all, sampling_design
from geo_retina.estimation.result import CountRow
from geo_retina.estimation.stratified import Design, Floats, interval, spread_of
from geo_retina.estimation.totals import Estimate, estimate_share
from geo_retina.evaluation.text_table import aligned
from geo_retina.options import EstimateOptions
from geo_retina.review import Review, fitted_cells, read_review
from geo_retina.review.detections import read_looked_at

_MOST_UNSEEN = 0.01
"""Share of the cells' ground that one side need not have looked at: borders of pixels."""


@dataclass(frozen=True, kw_only=True)
class SharePair:
    """A share, such as F1, of both sides.

    Attributes:
        a: of the first detections; None where there is nothing to take a share of.
        b: of the second.
        difference: second minus first, with an interval from the same cells for both; None
            where one is.
    """

    a: Estimate | None
    b: Estimate | None
    difference: Estimate | None


@dataclass(frozen=True, kw_only=True)
class CellComparison:
    """What two sets of detections are worth, on completed cells to count by.

    Attributes:
        shares: by name: precision, recall and f1.
        classes: the same by class, where there are several.
        counts: of both, what was detected and how many objects there are by help of it.
        cells: completed cells to count by.
        population: all cells.
        objects_seen: in the completed cells.
        notes: what else should be known, a sentence each.
    """

    shares: Mapping[str, SharePair]
    classes: Mapping[str, Mapping[str, SharePair]]
    counts: tuple[CountRow, CountRow]
    cells: int
    population: int
    objects_seen: int
    notes: tuple[str, ...]

    @property
    def count_errors(self) -> tuple[Estimate, Estimate]:
        """Of both, detections over objects on all ground, less 1."""
        first, second = (_count_error(row) for row in self.counts)
        return first, second

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**asdict(self), "count_errors": [asdict(each) for each in self.count_errors]}

    def table(self) -> str:
        """Write the numbers that people look at first, under one another."""
        lines = [
            f"{self.objects_seen:,} objects in {self.cells:,} completed cells to count by, of "
            f"{self.population:,}",
            *_share_table("all", self.shares),
        ]
        for name, shares in self.classes.items():
            lines += ["", *_share_table(name, shares)]
        cells = [["", "detected", "objects", "95 % from", "to", "+-", "count error", "from", "to"]]
        for side, row, error in zip("AB", self.counts, self.count_errors, strict=True):
            ends = row.total.interval or (row.total.value, row.total.value)
            half = (ends[1] - ends[0]) / 2 / row.total.value if row.total.value > 0 else 0.0
            cells.append(
                [
                    side,
                    *(f"{n:,.0f}" for n in (row.detected, row.total.value, *ends)),
                    f"{half:.1%}",
                    *("-" if x is None else f"{x:+.1%}" for x in (error.value, *_ends(error))),
                ]
            )
        return "\n".join([*lines, "", *aligned(cells), *self.notes])


def compare_on_cells(
    a: str | Path,
    b: str | Path,
    review: str | Path,
    options: EstimateOptions = EstimateOptions(),
) -> CellComparison:
    """Tell what a round of review gained, on cells that neither model was fitted to.

    Each stratum's cells weigh as many as they stand for, so the numbers are those of all ground
    but the cells that one of the models was fitted to. Both sides are matched with the objects by
    their centres.

    Args:
        a: detections, such as those before.
        b: others on the same ground.
        review: a GeoPackage with completed cells of use count; may be that of ``b``.
        options: up to which distance they match, and the threshold of both.

    Returns:
        Precision, recall and F1 with the interval of their differences, and counts.

    Raises:
        LabelError: a file cannot be read, too few cells are completed, one of the models was
            fitted to them, or one side did not look at their ground.

    Examples:
        >>> from geo_retina import compare_on_cells
        >>> compared = compare_on_cells("reviewed.gpkg", "reviewed.gpkg", "reviewed.gpkg")
        >>> compared.shares["f1"].difference.value
        0.0
    """
    read = read_review(review)
    fitted = np.union1d(*(fitted_cells(path, read.frame) for path in (a, b)))
    for path in (a, b):
        _check_looked_at(path, read)
    first, second = (read_counts(path, options, read, fitted) for path in (a, b))
    check_samples(first.samples, review)
    pairs = {name: _share_pairs(first, second, name) for name in (None, *_classes(first, second))}
    one, two = (count_all(each, options) for each in (first, second))
    return CellComparison(
        shares=pairs[None],
        classes={name: pair for name, pair in pairs.items() if name is not None},
        counts=(one, two),
        cells=len(first.cells),
        population=len(read.frame),
        objects_seen=int(np.isin(first.true.cell, first.cells).sum()),
        notes=_notes(first, fitted),
    )


def _classes(first: CellCounts, second: CellCounts) -> tuple[str, ...]:
    names = sorted({*first.class_names, *second.class_names})
    return tuple(names) if len(names) > 1 else ()


def _check_looked_at(path: str | Path, review: Review) -> None:
    """Refuse detections that say nothing of some of the cells: none there is no loss."""
    ground = read_looked_at(path, review.crs)
    squares = review.frame.squares(np.flatnonzero(review.is_done & (review.frame.use == "count")))
    own = read_looked_at(review.path, review.crs)
    cells = shapely.intersection(shapely.union_all(squares), shapely.union_all(own))
    unseen = shapely.area(shapely.difference(cells, shapely.union_all(ground)))
    if unseen > _MOST_UNSEEN * shapely.area(cells):
        raise LabelError(
            f"{path} covers {1 - unseen / shapely.area(cells):.0%} of the completed cells of "
            f"{review.path}, expected all of them, as nothing found there would mean nothing; "
            "detect on the same scenes"
        )


def _share_pairs(first: CellCounts, second: CellCounts, name: str | None) -> dict[str, SharePair]:
    """Compare precision, recall and F1 of a class, or of all."""
    sides = [_tallies(each, name) for each in (first, second)]
    design = sampling_design(first)
    pairs = {}
    for share, parts in _SHARES.items():
        a, b = ((side @ parts[0], side @ parts[1]) for side in sides)
        pairs[share] = SharePair(
            a=_share(a, design), b=_share(b, design), difference=_difference(a, b, design)
        )
    return pairs


_SHARES = {
    "precision": (np.array([1.0, 0, 0]), np.array([0, 1.0, 0])),
    "recall": (np.array([1.0, 0, 0]), np.array([0, 0, 1.0])),
    "f1": (np.array([2.0, 0, 0]), np.array([0, 1.0, 1.0])),
}
"""Numerator and denominator in objects found, detections, and objects."""


def _tallies(counts: CellCounts, name: str | None) -> Floats:
    """(n, 3) objects found, detections, and objects of each completed cell."""
    found, true, n = counts.found, counts.true, len(counts.frame)
    found_own = found.counts & (np.True_ if name is None else found.name == name)
    true_own = np.ones(len(true), bool) if name is None else true.name == name
    columns = (
        true.per_cell(n, true_own & true.is_hit),
        found.per_cell(n, found_own),
        true.per_cell(n, true_own),
    )
    return np.stack(columns, axis=1)[counts.cells]


def _share(tally: tuple[Floats, Floats], design: Design) -> Estimate | None:
    part, whole = tally
    return estimate_share(part, whole, design) if whole.any() else None


def _difference(
    a: tuple[Floats, Floats], b: tuple[Floats, Floats], design: Design
) -> Estimate | None:
    """Subtract two shares of the same cells, linearised together (Särndal et al. 1992, 5.6)."""
    if not (a[1].any() and b[1].any()):
        return None
    values, residuals = zip(*(_linearised(*tally, design) for tally in (a, b)), strict=True)
    value = values[1] - values[0]
    spread = spread_of(residuals[1] - residuals[0], design)
    low, high = interval(value, spread)
    return Estimate(value, (low, high), spread.standard_error)


def _linearised(part: Floats, whole: Floats, design: Design) -> tuple[float, Floats]:
    total = design.total(whole)
    share = design.total(part) / total
    return share, (part - share * whole) / total


def _count_error(row: CountRow) -> Estimate:
    total = row.total
    if total.value <= 0 or total.interval is None:
        return Estimate(float("nan"), None, None)
    low, high = total.interval
    ends = None if low <= 0 else (row.detected / high - 1, row.detected / low - 1)
    return Estimate(row.detected / total.value - 1, ends, None)


def _ends(estimate: Estimate) -> tuple[float | None, float | None]:
    return (None, None) if estimate.interval is None else estimate.interval


def _notes(counts: CellCounts, fitted: Any) -> tuple[str, ...]:
    notes = []
    beyond = sum(s.not_counted for s in counts.samples)
    if beyond:
        notes.append(f"{beyond} completed cells lie beyond a gap in their order: not counted")
    if len(fitted):
        notes.append(f"of the {len(fitted)} cells that a model was fitted to, none is among these")
    return tuple(notes)


_TITLES = {"f1": "F1"}


def _share_table(title: str, shares: Mapping[str, SharePair]) -> list[str]:
    cells = [[title, "A", "B", "B - A", "95 % from", "to"]]
    for name, pair in shares.items():
        row = [_TITLES.get(name, name)]
        row += ["-" if each is None else f"{each.value:.3f}" for each in (pair.a, pair.b)]
        change = pair.difference
        if change is None or change.interval is None:
            row += ["-", "", ""]
        else:
            row += [f"{x:+.3f}" for x in (change.value, *change.interval)]
        cells.append(row)
    return aligned(cells)
