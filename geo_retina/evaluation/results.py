"""What an evaluation found, as values that print themselves."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """How well the objects of one class, or of all, were found.

    Where a number has no meaning, such as precision without detections, it is None.

    Attributes:
        labels: objects that are there.
        detections: objects found, from the score threshold on.
        matches: pairs of them, one to one.
        precision: matches over detections.
        recall: matches over labels.
        f1: 2 x matches over detections + labels.
        best_f1: the highest F1 that any score threshold gives.
        best_score: that threshold: detections of this score are still kept. None where
            nothing matches.
        ap50: average precision at IoU 0.5, interpolated at 101 recalls as COCO does; only
            where matched by overlap. Overall it is the mean of the classes that have labels.
        ap: the mean of that over IoU 0.5, 0.55 .. 0.95.
        position_error_m: mean distance of matched centres on the ground; only where not
            matched by overlap.
    """

    labels: int
    detections: int
    matches: int
    best_f1: float | None = None
    best_score: float | None = None
    ap50: float | None = None
    ap: float | None = None
    position_error_m: float | None = None

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

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, ready for JSON."""
        rates = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        numbers = asdict(self)
        first = ("labels", "detections", "matches")
        return {k: numbers.pop(k) for k in first} | rates | numbers


@dataclass(frozen=True)
class CountError:
    """Detections minus labels, in all, and scene by scene where labels are tied to scenes.

    Attributes:
        total: the difference over all of them; above 0 where too many were found.
        relative: that over the number of labels; None without labels.
        scenes: scenes that have a detection or a label. None, as what follows, where labels
            were not tied to scenes.
        bias: mean of the differences of the scenes.
        mae: mean of their absolute values.
        rmse: root of the mean of their squares.
    """

    total: int
    relative: float | None
    scenes: int | None = None
    bias: float | None = None
    mae: float | None = None
    rmse: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of ``evaluate``.

    Attributes:
        matching: how detections and labels were matched, in words.
        overall: all classes together.
        classes: by class, sorted; empty where classes were not told apart.
        best_scores: the best threshold of each class that has a match. Where classes were
            not told apart, all that were detected have the common one.
        count_error: how far the number found is from the number there.
        score: detections below it were left out of all but AP and the best F1; or None.
        scenes_without_labels: scenes that have detections and no label among those
            evaluated. Their detections count as false.
    """

    matching: str
    overall: Scores
    classes: dict[str, Scores]
    best_scores: dict[str, float]
    count_error: CountError
    score: float | None = None
    scenes_without_labels: int = 0

    @property
    def precision(self) -> float | None:
        """Overall precision."""
        return self.overall.precision

    @property
    def recall(self) -> float | None:
        """Overall recall."""
        return self.overall.recall

    @property
    def f1(self) -> float | None:
        """Overall F1."""
        return self.overall.f1

    @property
    def ap50(self) -> float | None:
        """Overall average precision at IoU 0.5."""
        return self.overall.ap50

    @property
    def ap(self) -> float | None:
        """Overall average precision over IoU 0.5 to 0.95."""
        return self.overall.ap

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, ready for JSON."""
        return {
            "matching": self.matching,
            "score": self.score,
            "overall": self.overall.to_dict(),
            "classes": {name: scores.to_dict() for name, scores in self.classes.items()},
            "best_scores": dict(self.best_scores),
            "count_error": asdict(self.count_error),
            "scenes_without_labels": self.scenes_without_labels,
        }

    def table(self) -> str:
        """All numbers as text in columns, for people."""
        rows = {**self.classes, "all": self.overall}
        columns = {title: field for field, title in _COLUMNS.items() if self._has(field)}
        lines = [["class", *columns]]
        for name, scores in rows.items():
            lines.append([name, *(_text(getattr(scores, field)) for field in columns.values())])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"matched by {self.matching}{self._threshold_text()}"]
        for name, *cells in lines:
            right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            text.append("  ".join([name.ljust(widths[0]), *right]))
        return "\n".join([*text, *self._notes()])

    def _has(self, field: str) -> bool:
        return any(getattr(s, field) is not None for s in (self.overall, *self.classes.values()))

    def _threshold_text(self) -> str:
        return "" if self.score is None else f", scores from {self.score:g}"

    def _notes(self) -> list[str]:
        error = self.count_error
        share = "" if error.relative is None else f", {error.relative:+.1%} of the labels"
        notes = [f"count error: {error.total:+d}{share}"]
        if error.scenes is not None:
            notes.append(
                f"count error per scene, over {error.scenes}: bias {error.bias:+.2f}, "
                f"mean absolute {error.mae:.2f}, root mean square {error.rmse:.2f}"
            )
        if self.scenes_without_labels:
            notes.append(
                f"{self.scenes_without_labels} scenes have detections and no label; their "
                "detections count as false"
            )
        return notes


_COLUMNS = {
    "labels": "labels",
    "detections": "found",
    "matches": "matched",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ap50": "AP50",
    "ap": "AP50:95",
    "position_error_m": "error m",
    "best_f1": "best F1",
    "best_score": "at score",
}


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
