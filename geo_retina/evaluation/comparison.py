"""``compare``: two sets of detections against the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.evaluator import Case, assess, class_parts, prepare
from geo_retina.evaluation.matching.match_table import IGNORED, TRUE
from geo_retina.evaluation.metrics.bootstrap import (
    Numbers,
    counted_blocks,
    draw_blocks,
    draw_count_errors,
    draw_numbers,
    interval,
)
from geo_retina.evaluation.metrics.scores import AVERAGES, RATES, SIDE_ERRORS, Scores
from geo_retina.evaluation.result import Evaluation
from geo_retina.evaluation.text_table import aligned
from geo_retina.options import EvaluateOptions

if TYPE_CHECKING:
    import geopandas as gpd

AGREEMENT = ("both", "only_a", "only_b", "neither")
"""By which of the two a label was found."""

_COMPARED = (*RATES, *AVERAGES, "position_error_m", *SIDE_ERRORS)
_TITLES = {"f1": "F1", "ap50": "AP50", "ap75": "AP75", "ap": "AP50:95"}
_TITLES |= {"position_error_m": "error m", "count_error": "count error"}
_TITLES |= {"angle_error_deg": "angle error", "angle_error_95_deg": "angle error, 95 %"}
_TITLES |= {"length_error_m": "length error m", "width_error_m": "width error m"}


@dataclass(frozen=True)
class Difference:
    """One number of both.

    Attributes:
        a: of the first, None where it has no meaning.
        b: of the second.
        interval: 95 % interval (low, high) of ``difference``, from draws of ground blocks that
            are the same for both; None where there were none.
    """

    a: float | None
    b: float | None
    interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float | None:
        """Second minus first; None where one has no meaning."""
        return None if self.a is None or self.b is None else self.b - self.a

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        ends = None if self.interval is None else list(self.interval)
        return {"a": self.a, "b": self.b, "difference": self.difference, "interval": ends}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of ``compare``.

    Attributes:
        a: the evaluation of the first detections.
        b: that of the second.
        overall: by the name of the number, as in ``Scores``, and ``count_error``, which is
            relative.
        classes: the same by class that both know, without ``count_error``.
        agreement: (M,) position in ``AGREEMENT`` of each label of ``a.matches.labels``, or -1
            for one that does not count.
        block_m: side of the ground blocks behind the intervals; None where none was drawn.
    """

    a: Evaluation
    b: Evaluation
    overall: dict[str, Difference]
    classes: dict[str, dict[str, Difference]]
    agreement: NDArray[np.int8]
    block_m: float | None = None

    @property
    def labels(self) -> dict[str, int]:
        """How many labels both found, only one of them, or neither."""
        return {name: int((self.agreement == i).sum()) for i, name in enumerate(AGREEMENT)}

    def labels_frame(self, which: str) -> gpd.GeoDataFrame:
        """Return the labels of a word of ``AGREEMENT``, with the score that each gave them."""
        rows = self.agreement == AGREEMENT.index(which)
        frame = self.a.matches.labels_frame()[rows][["row", "class", "scene", "geometry"]]
        frame.insert(3, "score_a", self.a.matches.labels.score[rows])
        frame.insert(4, "score_b", self.b.matches.labels.score[rows])
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers by name, ready for JSON."""
        return {
            "matching": self.a.matching,
            "overall": {name: each.to_dict() for name, each in self.overall.items()},
            "classes": {
                name: {field: each.to_dict() for field, each in known.items()}
                for name, known in self.classes.items()
            },
            "labels": self.labels,
            "block_m": self.block_m,
            "a": self.a.summary(),
            "b": self.b.summary(),
        }

    def table(self) -> str:
        """Format the main numbers as text in columns, for people."""
        parts = [f"matched by {self.a.matching}", *_table("all", self.overall)]
        for name, known in self.classes.items():
            parts += ["", *_table(name, known)]
        labels = self.labels
        parts += [
            "",
            f"labels found by both: {labels['both']:,}, only by A: {labels['only_a']:,}, "
            f"only by B: {labels['only_b']:,}, by neither: {labels['neither']:,}",
        ]
        if self.block_m is not None:
            parts.append(
                f"intervals of B - A drawn from ground blocks of {self.block_m:g} m, the same for "
                "both"
            )
        return "\n".join(parts)


def compare(
    a: str | Path | gpd.GeoDataFrame,
    b: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions = EvaluateOptions(),
) -> Comparison:
    """Score two sets of detections against the same labels, and tell what they differ in.

    Intervals of differences come from draws of ground blocks, each taken for both sides at
    once: what makes a place hard for the one does so for the other, so they are much
    narrower than the two sides' own intervals suggest.

    Args:
        a: the first detections, as in ``evaluate``.
        b: the second.
        labels: as in ``evaluate``.
        options: how either is matched with the labels.

    Returns:
        Both evaluations, second minus first, and which labels which of them found.

    Raises:
        LabelError: as ``evaluate``.

    Examples:
        >>> from geo_retina import compare
        >>> comparison = compare("detections.gpkg", "detections.gpkg", "labels.gpkg")
        >>> comparison.labels["only_a"], comparison.labels["only_b"]
        (0, 0)
    """
    first = prepare(a, labels, options)
    # The same blocks for both, also where only detections could tell their side.
    options = replace(options, block_m=first.blocks.side_m)
    second = prepare(b, labels, options)
    sides = assess(first, options), assess(second, options)
    drawn = _draw_differences((first, second), options)
    overall = _differences(sides[0].overall, sides[1].overall, drawn.get(None, {}))
    overall["count_error"] = Difference(
        sides[0].count_error.relative,
        sides[1].count_error.relative,
        drawn.get(None, {}).get("count_error"),
    )
    return Comparison(
        *sides,
        overall=overall,
        classes={
            name: _differences(scores, sides[1].classes[name], drawn.get(name, {}))
            for name, scores in sides[0].classes.items()
            if name in sides[1].classes
        },
        agreement=_agreement(*sides),
        block_m=first.blocks.side_m if drawn else None,
    )


_Intervals = Mapping[str, tuple[float, float] | None]


def _draw_differences(
    cases: tuple[Case, Case], options: EvaluateOptions
) -> dict[str | None, _Intervals]:
    """Draw intervals of differences by class, None for all; empty where none can be drawn."""
    if not options.resamples:
        return {}
    keys = np.union1d(*(counted_blocks(case.whole, case.blocks) for case in cases))
    how = {"resamples": options.resamples, "seed": options.seed}
    draws = draw_blocks(keys, [case.blocks for case in cases], **how)
    if draws is None:
        return {}
    numbers: list[dict[str | None, dict[str, Numbers]]] = []
    for case, draw in zip(cases, draws, strict=True):
        parts = class_parts(case.problem)
        *of_classes, of_all = draw_numbers(case.whole, draw, parts)
        of_all["count_error"] = draw_count_errors(case.whole, draw)
        known = zip(case.problem.class_names, of_classes, strict=False)
        numbers.append({None: of_all, **dict(known)})
    a, b = numbers
    common = [name for name in a if name in b]
    return {name: _intervals(a[name], b[name]) for name in common}


def _intervals(a: Mapping[str, Numbers], b: Mapping[str, Numbers]) -> _Intervals:
    return {field: interval(b[field] - a[field]) for field in a if field in b}


def _differences(a: Scores, b: Scores, intervals: _Intervals) -> dict[str, Difference]:
    """Subtract all numbers that one of them has."""
    found = {}
    for field in _COMPARED:
        ends = getattr(a, field), getattr(b, field)
        if ends != (None, None):
            found[field] = Difference(*ends, None if None in ends else intervals.get(field))
    return found


def _agreement(a: Evaluation, b: Evaluation) -> NDArray[np.int8]:
    by_a, by_b = a.matches.labels.outcome, b.matches.labels.outcome
    assert len(by_a) == len(by_b)  # labels do not depend on what was detected
    agreement = np.full(len(by_a), AGREEMENT.index("neither"), np.int8)
    agreement[(by_a == TRUE) & (by_b == TRUE)] = AGREEMENT.index("both")
    agreement[(by_a == TRUE) & (by_b != TRUE)] = AGREEMENT.index("only_a")
    agreement[(by_a != TRUE) & (by_b == TRUE)] = AGREEMENT.index("only_b")
    agreement[(by_a == IGNORED) | (by_b == IGNORED)] = -1
    return agreement


def _table(title: str, known: Mapping[str, Difference]) -> list[str]:
    cells = [[title, "A", "B", "B - A", "95 % from", "to"]]
    for field, each in known.items():
        both = ("-" if x is None else f"{x:.3f}" for x in (each.a, each.b))
        change = "-" if each.difference is None else f"{each.difference:+.3f}"
        ends = ("", "") if each.interval is None else (f"{x:+.3f}" for x in each.interval)
        cells.append([_TITLES.get(field, field), *both, change, *ends])
    return aligned(cells)
