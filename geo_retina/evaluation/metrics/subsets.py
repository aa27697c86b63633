"""Scores of any part of the detections and labels, from one matching of all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.evaluation.matching.match_table import IGNORED, TRUE
from geo_retina.evaluation.matching.outcomes import Matcher, Outcome, States
from geo_retina.evaluation.metrics.rectangle_errors import SideErrors, side_errors
from geo_retina.evaluation.metrics.score_curves import average_precision, best_f1, rate_curve
from geo_retina.evaluation.metrics.scores import Scores

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tally:
    """What one choice of what counts makes of all detections.

    Attributes:
        problem: detections, by score, and labels.
        kept: (N,) detections from the score threshold on.
        counts: (M,) labels that must be found.
        by_iou: states at the IoUs of AP; none where IoU plays no part.
        by_score: states for curves.
        outcome: states at the threshold.
    """

    problem: Problem
    kept: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    by_iou: list[States]
    by_score: States
    outcome: Outcome

    def scores(self, found: Rows, truth: Rows) -> Scores:
        """Score the detections and labels at positions that ascend, without curve."""
        labels = int(self.counts[truth].sum())
        states = self.outcome.states[found]
        true = found[states == TRUE]
        ranked = self.by_score[found]
        valid = ranked != IGNORED
        f1, threshold = best_f1(
            ranked[valid] == TRUE, self.problem.found.scores[found[valid]], labels
        )
        ap50, ap75, ap = self._averages(found, truth)
        by_centre = not self.by_iou and len(true)
        return Scores(
            labels=labels,
            detections=int((states != IGNORED).sum()),
            matches=len(true),
            ignored=int((self.kept[found] & (states == IGNORED)).sum()),
            best_f1=f1,
            best_score=threshold,
            ap50=ap50,
            ap75=ap75,
            ap=ap,
            position_error_m=float(self.outcome.value[true].mean()) if by_centre else None,
            **self._side_errors(true)._asdict(),
        )

    def _side_errors(self, true: Rows) -> SideErrors:
        """Compare the rectangles of matched detections with those of their labels."""
        if self.problem.sides is None or not self.by_iou:
            return SideErrors()
        found, truth = self.problem.sides
        return side_errors(found[true], truth[self.outcome.other[true]])

    def with_curve(self, scores: Scores, found: Rows) -> Scores:
        """Add the curve of these detections to scores."""
        ranked = self.by_score[found]
        valid = ranked != IGNORED
        at = self.problem.found.scores[found[valid]]
        return replace(scores, curve=rate_curve(ranked[valid] == TRUE, at, scores.labels))

    def _averages(self, found: Rows, truth: Rows) -> tuple[float | None, ...]:
        """Compute AP at IoU 0.5, at 0.75 and over all; the mean of the classes that have labels."""
        if not self.by_iou:
            return None, None, None
        there = self.problem.truth.classes[truth[self.counts[truth]]]
        classes = self.problem.found.classes[found]
        names, labels = np.unique(there, return_counts=True)
        if not len(names):
            return None, None, None
        ap = np.empty((len(names), len(self.by_iou)))
        for k, (name, count) in enumerate(zip(names.tolist(), labels.tolist(), strict=True)):
            rows = found[classes == name]
            for t, states in enumerate(self.by_iou):
                ranked = states[rows]
                ap[k, t] = average_precision(ranked[ranked != IGNORED] == TRUE, count)
        mean = ap.mean(axis=0)
        return float(mean[0]), float(mean[5]), float(mean.mean())


def tally(
    problem: Problem,
    matcher: Matcher,
    kept: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    false: NDArray[np.bool_],
) -> Tally:
    """Match for one choice of what counts: ``counts`` and ``false`` as ``Matcher`` has them."""
    matching = matcher.match(counts, false)
    return Tally(problem, kept, counts, matching.by_iou, matching.by_score, matching.outcome)


def rows_by(codes: NDArray[np.int64], groups: int) -> list[Rows]:
    """List positions of each of 0 .. groups - 1 among the codes, ascending."""
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(1, groups))
    return np.split(order, ends) if groups else []
