"""What each detection is, true, false or of no account, by one manner of matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.evaluation.inputs.scored_ground import on_ignored_ground, shares_ignored
from geo_retina.evaluation.matching.candidates import Pairs
from geo_retina.evaluation.matching.match_table import FALSE, IGNORED, TRUE
from geo_retina.evaluation.matching.one_to_one import gains, match_by_score, match_optimally

AP_IOUS = np.linspace(0.5, 0.95, 10)

States = NDArray[np.int8]
"""(N,) ``TRUE``, ``FALSE`` or ``IGNORED`` of each detection, by score."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What each detection from the score threshold on is.

    Attributes:
        states: (N,) of detections; those below the threshold are ``IGNORED``.
        other: (N,) position of the label that counts which each one has, or -1.
        value: (N,) IoU or distance of the two; NaN where there is none.
    """

    states: States
    other: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matching:
    """All that one choice of what counts makes of the detections.

    Attributes:
        by_iou: for AP, at each IoU of ``AP_IOUS``; none where IoU plays no part.
        by_score: for curves: a detection is true where it adds a match to those before it.
        outcome: for all numbers at one threshold.
    """

    by_iou: list[States]
    by_score: States
    outcome: Outcome


class Matcher(Protocol):
    """A manner of matching, ready for any choice of what counts."""

    @property
    def value_name(self) -> str:
        """What the value of a pair is: ``iou`` or ``distance_m``."""

    @property
    def words(self) -> str:
        """The manner in words."""

    @property
    def near(self) -> Pairs:
        """Pairs of any two classes, beyond those close enough to match, the best first."""

    def close(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Find (P,) pairs that are close enough to match."""

    def match(self, counts: NDArray[np.bool_], false: NDArray[np.bool_]) -> Matching:
        """Match detections and labels.

        Args:
            counts: (M,) labels that must be found.
            false: (N,) detections that are false without a match.
        """


class ByOverlap:
    """By IoU, each detection in order of score taking the best label that is free."""

    value_name = "iou"

    def __init__(self, problem: Problem, near: Pairs, iou: float, kept: NDArray[np.bool_]) -> None:
        self.words = f"IoU {iou:g}"
        self.near = near
        self._iou = iou
        self._kept = kept
        pairs = near.of_one_class(problem)
        self._pairs = pairs.take(pairs.value >= _attainable(min(iou, AP_IOUS[0])))
        self._shares = shares_ignored(problem)
        self._labels = len(problem.truth)

    def close(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Find close pairs as ``Matcher`` says."""
        return pairs.value >= _attainable(self._iou)

    def match(self, counts: NDArray[np.bool_], false: NDArray[np.bool_]) -> Matching:
        """Match as ``Matcher`` says; what later detections get changes nothing for earlier ones."""
        ordered = self._ordered(counts)
        by_score, pair = self._states(ordered, self._iou, counts, false)
        by_iou = [
            by_score if iou == self._iou else self._states(ordered, iou, counts, false)[0]
            for iou in AP_IOUS.tolist()
        ]
        states = np.where(self._kept, by_score, IGNORED).astype(np.int8)
        outcome = _outcome(states, ordered, np.where(states == TRUE, pair, -1))
        return Matching(by_iou, by_score, outcome)

    def _ordered(self, counts: NDArray[np.bool_]) -> Pairs:
        """Sort pairs so that labels that count come before others, then by ignored ground's share.

        That ground is as a label of its own, which any number of detections may take; its
        position is one beyond the labels.
        """
        rows = np.flatnonzero(self._shares > 0)
        if not len(rows) and counts.all():
            return self._pairs
        if not len(rows):
            turn = 2 * self._pairs.found + ~counts[self._pairs.truth]
            return self._pairs.take(np.argsort(turn, kind="stable"))
        ground = np.full(len(rows), self._labels)
        pairs = Pairs(
            np.concatenate([self._pairs.found, rows]),
            np.concatenate([self._pairs.truth, ground]),
            np.concatenate([self._pairs.value, self._shares[rows]]),
        )
        last = ~np.append(counts, False)[pairs.truth]
        return pairs.ordered(last.astype(np.int64), -pairs.value, -pairs.truth)

    def _states(
        self,
        ordered: Pairs,
        iou: float,
        counts: NDArray[np.bool_],
        false: NDArray[np.bool_],
    ) -> tuple[States, NDArray[np.int64]]:
        """Find the outcomes, and the position in ``ordered`` of each detection's pair or -1."""
        rows = np.flatnonzero(ordered.value >= _attainable(iou))
        found, truth = ordered.found[rows], ordered.truth[rows]
        chosen = match_by_score(found, truth, len(false), self._labels)
        has = chosen >= 0
        states = np.where(false, FALSE, IGNORED).astype(np.int8)
        good = np.append(counts, False)[truth[chosen[has]]]
        states[has] = np.where(good, TRUE, IGNORED)
        pair = np.full(len(false), -1, dtype=np.int64)
        pair[has] = rows[chosen[has]]
        return states, pair


class ByCentre:
    """By centres: the most matches possible, and of those the least distance in all."""

    value_name = "distance_m"

    def __init__(self, problem: Problem, near: Pairs, words: str, kept: NDArray[np.bool_]) -> None:
        self.words = words
        self.near = near
        self._kept = kept
        self._pairs = near.of_one_class(problem)
        self._on_ignored_ground = on_ignored_ground(problem)

    def close(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Find close pairs as ``Matcher`` says."""
        return np.ones(len(pairs), np.bool_)

    def match(self, counts: NDArray[np.bool_], false: NDArray[np.bool_]) -> Matching:
        """Match as ``Matcher`` says."""
        pairs = self._pairs.take(counts[self._pairs.truth])
        unmatched = self._unmatched(counts, false)
        by_score = np.where(gains(pairs, len(false)), TRUE, unmatched).astype(np.int8)
        chosen = match_optimally(pairs.take(self._kept[pairs.found]))
        states = np.where(self._kept, unmatched, IGNORED).astype(np.int8)
        states[chosen.found] = TRUE
        pair = np.full(len(false), -1, dtype=np.int64)
        pair[chosen.found] = np.arange(len(chosen))
        return Matching([], by_score, _outcome(states, chosen, pair))

    def _unmatched(self, counts: NDArray[np.bool_], false: NDArray[np.bool_]) -> States:
        """Mark unmatched detections as false, or as ignored where they may be an ignored label."""
        excused = ~false | self._on_ignored_ground
        excused[self._pairs.found[~counts[self._pairs.truth]]] = True
        return np.where(excused, IGNORED, FALSE).astype(np.int8)


def _attainable(iou: float) -> float:
    """Lower the least IoU of a match by pycocotools' own guard, so that IoU 1 can be given."""
    return min(iou, 1 - 1e-10)


def _outcome(states: States, pairs: Pairs, pair: NDArray[np.int64]) -> Outcome:
    has = pair >= 0
    other = np.full(len(pair), -1, dtype=np.int64)
    value = np.full(len(pair), np.nan)
    other[has], value[has] = pairs.truth[pair[has]], pairs.value[pair[has]]
    return Outcome(states, other, value)
