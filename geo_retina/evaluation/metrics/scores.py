"""How well objects were found, as values: scores, curves, sizes, confusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATES = ("precision", "recall", "f1")
AVERAGES = ("ap50", "ap75", "ap")
SIDE_ERRORS = ("angle_error_deg", "angle_error_95_deg", "length_error_m", "width_error_m")


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision, recall and F1 by score threshold.

    At most a few hundred thresholds, spread evenly over the ranks of the detections; the best
    F1's is always among them.

    Attributes:
        scores: (T,) thresholds, falling: detections from each on are kept.
        precision: (T,) matches over detections that count.
        recall: (T,) matches over labels; NaN without labels.
        f1: (T,) 2 x matches over detections + labels.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, list[float | None]]:
        """Return the four lists by name, ready for JSON."""
        columns = {"scores": self.scores, **{k: getattr(self, k) for k in RATES}}
        return {k: [None if np.isnan(x) else x for x in v.tolist()] for k, v in columns.items()}


@dataclass(frozen=True)
class Scores:
    """How well the objects of one class, or of all, were found.

    Where a number has no meaning, such as precision without detections, it is None.

    Attributes:
        labels: objects that are there and count.
        detections: objects found that count as true or false, from the score threshold on.
        matches: pairs of them, one to one.
        ignored: detections from that threshold on that count neither as true nor as false.
        precision: matches over detections.
        recall: matches over labels.
        f1: 2 x matches over detections + labels.
        best_f1: the highest F1 that any score threshold gives.
        best_score: that threshold: detections of this score are still kept. None where
            nothing matches.
        ap50: average precision at IoU 0.5, interpolated at 101 recalls as COCO does; only
            where matched by overlap. Overall it is the mean of the classes that have labels.
        ap75: the same at IoU 0.75.
        ap: the mean of that over IoU 0.5, 0.55 .. 0.95.
        position_error_m: mean distance of matched centres on the ground; only where not
            matched by overlap.
        angle_error_deg: median angle between the lengths of matched rectangles, from 0 to 90
            degrees, without labels that are nearly squares; only where the detections are
            oriented boxes that were matched by overlap, as the next three.
        angle_error_95_deg: its 95th percentile.
        length_error_m: median absolute error of the length, on the ground.
        width_error_m: the same of the width.
        intervals: 95 % intervals (low, high) by the name of the number, from draws of ground
            blocks; empty where none were made.
        curve: the rates by threshold; None where it was not made, as by scene.
    """

    labels: int
    detections: int
    matches: int
    ignored: int = 0
    best_f1: float | None = None
    best_score: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    ap: float | None = None
    position_error_m: float | None = None
    angle_error_deg: float | None = None
    angle_error_95_deg: float | None = None
    length_error_m: float | None = None
    width_error_m: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curve: Curve | None = field(default=None, compare=False)

    @property
    def precision(self) -> float | None:
        """Matches over detections."""
        return self.matches / self.detections if self.detections else None

    @property
    def recall(self) -> float | None:
        """Matches over labels."""
        return self.matches / self.labels if self.labels else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        total = self.labels + self.detections
        return 2 * self.matches / total if total else None

    def numbers(self) -> dict[str, Any]:
        """Return all single numbers by name, ready for JSON; errors of rectangles if there are."""
        counts = ("labels", "detections", "matches", "ignored")
        rest = ("best_f1", "best_score", *AVERAGES, "position_error_m")
        errors = [name for name in SIDE_ERRORS if getattr(self, name) is not None]
        return {name: getattr(self, name) for name in (*counts, *RATES, *rest, *errors)}

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ``intervals`` as [low, high], and ``curve`` where there is one."""
        intervals = {name: list(ends) for name, ends in self.intervals.items()}
        found = {**self.numbers(), "intervals": intervals}
        return found if self.curve is None else {**found, "curve": self.curve.to_dict()}


@dataclass(frozen=True)
class SizeScores:
    """Scores of the objects of one range of sizes.

    The size of an object is the square root of its area. Labels of other sizes need not be
    found, and a detection of another size counts only where it matches a label of this one,
    as in COCO's area ranges.

    Attributes:
        unit: ``px`` or ``m``.
        low: the least size, which belongs to the range.
        high: the least size above the range; infinity for the last one.
        overall: all classes together.
        classes: by class; empty where classes were not distinguished.
    """

    unit: str
    low: float
    high: float
    overall: Scores
    classes: dict[str, Scores]

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON; ``high`` is None for infinity."""
        return {
            "unit": self.unit,
            "low": self.low,
            "high": self.high if np.isfinite(self.high) else None,
            "overall": self.overall.to_dict(),
            "classes": {name: scores.to_dict() for name, scores in self.classes.items()},
        }


@dataclass(frozen=True, eq=False)
class Confusion:
    """Which class was taken for which, background included.

    The diagonal holds the matches of ``Scores``. What those leave over is matched once more,
    whatever the classes; what then remains was missed, or found where nothing is.

    Attributes:
        names: K classes.
        matrix: (K + 1, K + 1) int64 objects by true class (row) and found class (column). The
            last row are false detections on background, the last column missed labels, and
            the last corner is 0. Rows add up to labels, columns to detections.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return ``names``, with ``background`` last only in ``matrix``; ready for JSON."""
        return {"names": list(self.names), "matrix": self.matrix.tolist()}
