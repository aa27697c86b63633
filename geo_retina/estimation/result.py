"""What an estimate says, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geo_retina.estimation.totals import Estimate
from geo_retina.evaluation.text_table import aligned


@dataclass(frozen=True, kw_only=True)
class CountRow:
    """How many objects of a kind, or in a zone, there are.

    Attributes:
        name: of the class or the zone; ``all`` of all together.
        detected: detections that count.
        cells: completed cells behind it.
        total: objects.
        per_hectare: their density; None where the ground has no size.
        precision: share of the detections that are objects; None by zone.
        recall: share of the objects that are detected; None by zone.
    """

    name: str
    detected: int
    cells: int
    total: Estimate
    per_hectare: Estimate | None
    precision: Estimate | None
    recall: Estimate | None


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """How many completed cells an interval of some width will take, about.

    Attributes:
        share: half of the interval over the total.
        cells: completed cells of use count with the help of the detections; None where even
            all cells would not do.
        cells_to_draw: cells of both uses among which so many are to count by.
        cells_alone: the same without detections.
        is_measured: whether from the spread of completed cells; otherwise from what is usual.
    """

    share: float
    cells: int | None
    cells_to_draw: int | None
    cells_alone: int | None
    is_measured: bool


@dataclass(frozen=True, kw_only=True)
class CountEstimate:
    """How many objects there are, with 95 % intervals.

    Attributes:
        overall: of all classes, on all ground; None where no cell was completed and only a plan
            was asked for.
        classes: by class, where asked for.
        zones: by zone, where asked for.
        objects_seen: in the completed cells.
        cells: completed cells that count.
        population: all cells.
        estimator: how detections helped.
        plan: cells that the target takes, where one was given.
        notes: what else should be known, a sentence each.
    """

    overall: CountRow | None
    classes: tuple[CountRow, ...]
    zones: tuple[CountRow, ...]
    objects_seen: int
    cells: int
    population: int
    estimator: str
    plan: TargetPlan | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Write the numbers that people look at first, under one another."""
        lines: list[str] = []
        if self.overall is not None:
            lines = [
                f"{self.objects_seen:,} objects in {self.cells:,} completed cells of "
                f"{self.population:,}; estimator {self.estimator}",
                *_totals("class" if self.classes else "", [*self.classes, self.overall]),
                *_shares([*self.classes, self.overall]),
            ]
        if self.zones:
            lines += ["", *_totals("zone", self.zones)]
        if self.plan is not None:
            lines += _plan_lines(self.plan)
        return "\n".join([*lines, *self.notes])


def _totals(title: str, rows: Sequence[CountRow]) -> list[str]:
    cells = [[title, "cells", "detected", "objects", "95 % from", "to", "+-", "per ha"]]
    for row in rows:
        ends = row.total.interval
        shown = ["-", "-", "-"]
        if ends is not None:
            half = (ends[1] - ends[0]) / 2 / row.total.value if row.total.value > 0 else None
            shown = [*(f"{end:,.0f}" for end in ends), "-" if half is None else f"{half:.1%}"]
        density = "-" if row.per_hectare is None else f"{row.per_hectare.value:,.3g}"
        total = f"{row.total.value:,.0f}"
        cells.append([row.name, f"{row.cells:,}", f"{row.detected:,}", total, *shown, density])
    return aligned(cells)


def _shares(rows: Sequence[CountRow]) -> list[str]:
    lines = []
    for row in rows:
        for name, share in (("precision", row.precision), ("recall", row.recall)):
            if share is not None and share.interval is not None:
                low, high = share.interval
                lines.append(
                    f"{name} of {row.name}: {share.value:.3f} (95 % from {low:.3f} to {high:.3f})"
                )
    return lines


def _plan_lines(plan: TargetPlan) -> list[str]:
    whence = "by the spread of the completed cells"
    if not plan.is_measured:
        whence = "as detectors usually do; ask again once some cells are completed"
    if plan.cells is None:
        return [f"+-{plan.share:.1%} takes all cells, {whence}"]
    alone = "all" if plan.cells_alone is None else f"{plan.cells_alone:,}"
    return [
        f"+-{plan.share:.1%} takes about {plan.cells:,} completed cells to count by, "
        f"{alone} without detections, {whence}; a review of {plan.cells_to_draw} cells "
        "has as many beside those to learn from"
    ]
