"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geo_retina.evaluation.matching.match_table import IGNORED, TRUE, MatchTable
from geo_retina.evaluation.metrics.counts import CountError, Counts
from geo_retina.evaluation.metrics.reliability import Reliability, measure_reliability
from geo_retina.evaluation.metrics.scores import Confusion, Scores, SizeScores
from geo_retina.evaluation.text_table import (
    confusion_table,
    count_notes,
    duplicate_notes,
    ignored_notes,
    not_scanned_notes,
    score_table,
    size_tables,
    unpaired_notes,
    worst_scenes,
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of ``evaluate``.

    Attributes:
        matching: how detections and labels were matched, in words.
        overall: all classes together.
        classes: by class, sorted; empty where classes were not distinguished.
        best_scores: the best threshold of each class that has a match. Where classes were
            not told apart, all that were detected have the common one.
        count_error: how far the number found is from the number there.
        matches: what became of each detection and label.
        score: detections below it were left out of all but AP, the curves and the best F1;
            or None.
        scenes_without_labels: scenes that have detections and no label among those
            evaluated. Their detections count as false.
        scenes_without_detections: names of scenes that labels name and no detection does. Their
            labels count as missed.
        labels_not_scanned: labels that count, and so as missed, though they lie on ground that was
            not scanned; 0 where detections do not say which ground was.
        duplicate_labels: labels that count and repeat one before them, with its geometry, class
            and scene; a detection matches one of them.
        ignored_labels: labels that do not count: outside the labelled ground, on ground or
            among labels that are to be ignored.
        sizes: by ranges of size, px before m, small before large; empty for point labels,
            and without px where metres a pixel are not known.
        scenes: by scene, sorted; empty where labels were not tied to scenes.
        counts: ``scene``, ``cell`` and ``zone``, those that were asked for and have a part.
        confusion: between classes; None where classes were not distinguished.
        gsd_m: metres a pixel behind sizes in px, the median over the detections; or None.
        block_m: side of the ground blocks behind the intervals; None where none was drawn.

    Examples:
        >>> from geo_retina import evaluate
        >>> evaluation = evaluate("detections.gpkg", "labels.gpkg")
        >>> list(evaluation.matches.labels_frame().columns)[:2]
        ['row', 'class']
    """

    matching: str
    overall: Scores
    classes: dict[str, Scores]
    best_scores: dict[str, float]
    count_error: CountError
    matches: MatchTable
    score: float | None = None
    scenes_without_labels: int = 0
    scenes_without_detections: tuple[str, ...] = ()
    labels_not_scanned: int = 0
    duplicate_labels: int = 0
    ignored_labels: int = 0
    sizes: tuple[SizeScores, ...] = ()
    scenes: dict[str, Scores] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    confusion: Confusion | None = None
    gsd_m: float | None = None
    block_m: float | None = None

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
    def ap75(self) -> float | None:
        """Overall average precision at IoU 0.75."""
        return self.overall.ap75

    @property
    def ap(self) -> float | None:
        """Overall average precision over IoU 0.5 to 0.95."""
        return self.overall.ap

    @property
    def reliability(self) -> Reliability | None:
        """How the scores of detections that count compare with the share of true ones."""
        found = self.matches.detections
        counts = found.outcome != IGNORED
        return measure_reliability(found.score[counts], found.outcome[counts] == TRUE)

    def summary(self) -> dict[str, Any]:
        """Return the single numbers, overall and by class: few enough for a model's card."""
        return {
            "matching": self.matching,
            "score": self.score,
            "overall": self.overall.numbers(),
            "classes": {name: scores.numbers() for name, scores in self.classes.items()},
            "best_scores": dict(self.best_scores),
            "count_error": {"total": self.count_error.total, "relative": self.count_error.relative},
            "scenes_without_labels": self.scenes_without_labels,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers by name, ready for JSON; docs/evaluation.md describes them."""
        return {
            **self.summary(),
            "overall": self.overall.to_dict(),
            "classes": {name: scores.to_dict() for name, scores in self.classes.items()},
            "count_error": self.count_error.to_dict(),
            "scenes_without_detections": list(self.scenes_without_detections),
            "labels_not_scanned": self.labels_not_scanned,
            "duplicate_labels": self.duplicate_labels,
            "ignored_labels": self.ignored_labels,
            "sizes": [each.to_dict() for each in self.sizes],
            "scenes": {name: scores.to_dict() for name, scores in self.scenes.items()},
            "counts": {unit: counts.to_dict() for unit, counts in self.counts.items()},
            "confusion": None if self.confusion is None else self.confusion.to_dict(),
            "reliability": None if self.reliability is None else self.reliability.to_dict(),
            "gsd_m": self.gsd_m,
            "block_m": self.block_m,
        }

    def table(self) -> str:
        """Format the main numbers as text in columns, for people."""
        since = "" if self.score is None else f", scores from {self.score:g}"
        rows = {**self.classes, "all": self.overall}
        tables = [
            f"matched by {self.matching}{since}",
            *score_table("class", rows, self.overall.intervals),
            *size_tables(self.sizes),
            *confusion_table(self.confusion),
        ]
        notes = [
            *count_notes(self.count_error, self.counts),
            *worst_scenes(self.scenes),
            *ignored_notes(self.overall.ignored, self.ignored_labels),
            *not_scanned_notes(self.labels_not_scanned),
            *duplicate_notes(self.duplicate_labels),
            *unpaired_notes(self.scenes_without_labels, self.scenes_without_detections),
        ]
        if self.block_m is not None:
            notes.append(f"intervals drawn from ground blocks of {self.block_m:g} m")
        return "\n".join([*tables, "", *notes])
