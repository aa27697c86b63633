"""Why each detection is false and each label was missed, and which classes were mixed up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Objects, Problem
from geo_retina.evaluation.matching.candidates import Pairs
from geo_retina.evaluation.matching.match_table import (
    FALSE,
    IGNORED,
    KINDS,
    TRUE,
    Matched,
    MatchTable,
)
from geo_retina.evaluation.matching.one_to_one import match_by_score
from geo_retina.evaluation.matching.outcomes import Matcher, Outcome, States
from geo_retina.evaluation.metrics.scores import Confusion
from geo_retina.evaluation.metrics.subsets import Tally

LOCATION_IOU = 0.1
"""A false detection of at least this overlap, but too little for a match, is badly placed."""

_CLASS, _DUPLICATE, _LOCATION, _BACKGROUND = (
    KINDS.index(kind) for kind in ("class", "duplicate", "location", "background")
)


@dataclass(frozen=True, eq=False)
class Side:
    """One side while its kinds are being found.

    Attributes:
        states: as ``outcome`` in ``Matched``, and so the others.
        kind: filled bit by bit.
        other: likewise.
        value: likewise.
    """

    states: States
    kind: NDArray[np.int8]
    other: NDArray[np.int64]
    value: NDArray[np.float64]

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which are false, or missed, for a reason not yet known."""
        return np.asarray((self.states == FALSE) & (self.kind == 0))

    def explain(
        self,
        rows: NDArray[np.int64],
        others: NDArray[np.int64],
        values: NDArray[np.float64],
        kind: int,
    ) -> None:
        """Give a kind to those of the rows that have none; the first pair of each is meant."""
        rows, first = np.unique(rows, return_index=True)
        fresh = self.open[rows]
        rows, first = rows[fresh], first[fresh]
        self.kind[rows], self.other[rows], self.value[rows] = kind, others[first], values[first]


def attribute(problem: Problem, matcher: Matcher, outcome: Outcome) -> tuple[Side, Side]:
    """Attribute kinds and partners to detections and to labels."""
    truth_states = np.where(problem.truth.counts, FALSE, IGNORED).astype(np.int8)
    true = np.flatnonzero(outcome.states == TRUE)
    truth_states[outcome.other[true]] = TRUE
    found = Side(outcome.states, *_blank(len(problem.found)))
    truth = Side(truth_states, *_blank(len(problem.truth)))
    label = outcome.other[true]
    found.other[true], truth.other[label] = label, true
    found.value[true] = truth.value[label] = outcome.value[true]
    pairs = matcher.near
    # What does not count explains nothing.
    pairs = pairs.take((found.states[pairs.found] != IGNORED) & problem.truth.counts[pairs.truth])
    close = matcher.close(pairs)
    left = pairs.take(close & found.open[pairs.found] & truth.open[pairs.truth])
    mixed = match_by_score(left.found, left.truth, len(problem.found), len(problem.truth))
    mixed = mixed[mixed >= 0]
    for kind, causes in (
        (_CLASS, left.take(mixed)),
        (_DUPLICATE, pairs.take(close)),
        (_LOCATION, pairs),
    ):
        _explain_both(found, truth, causes, kind, nearest=matcher.value_name == "distance_m")
    for side in (found, truth):
        side.kind[side.open] = _BACKGROUND
    return found, truth


def _blank(n: int) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64]]:
    return np.zeros(n, np.int8), np.full(n, -1, dtype=np.int64), np.full(n, np.nan)


def _explain_both(found: Side, truth: Side, pairs: Pairs, kind: int, *, nearest: bool) -> None:
    """Explain both by pairs that come by detection, the best first; for labels they are sorted."""
    found.explain(pairs.found, pairs.truth, pairs.value, kind)
    pairs = pairs.take(truth.open[pairs.truth])
    best = pairs.take(np.argsort(pairs.value if nearest else -pairs.value, kind="stable"))
    truth.explain(best.truth, best.found, best.value, kind)


def confusion(problem: Problem, found: Side, truth: Side) -> Confusion | None:
    """Count true class by found class; None where classes are not distinguished."""
    k = len(problem.class_names)
    if not k:
        return None
    is_seen = (found.states == TRUE) | (found.kind == _CLASS)
    seen = np.flatnonzero(is_seen)
    false = np.flatnonzero((found.states == FALSE) & ~is_seen)
    missed = np.flatnonzero((truth.states == FALSE) & (truth.kind != _CLASS))
    cells = np.concatenate(
        [
            problem.truth.classes[found.other[seen]] * (k + 1) + problem.found.classes[seen],
            k * (k + 1) + problem.found.classes[false],
            problem.truth.classes[missed] * (k + 1) + k,
        ]
    )
    matrix = np.bincount(cells, minlength=(k + 1) ** 2).reshape(k + 1, k + 1)
    return Confusion(problem.class_names, matrix.astype(np.int64))


def match_table(
    whole: Tally,
    sides: tuple[Side, Side],
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    value_name: str,
    block_m: float,
) -> MatchTable:
    """Build the public table of each object's outcome, without detections below the threshold."""
    problem, (found, truth) = whole.problem, sides
    rows = np.flatnonzero(whole.kept)
    place = np.cumsum(whole.kept) - 1
    label_scores = np.full(len(problem.truth), np.nan)
    has = (truth.states == TRUE) & (truth.other >= 0)
    label_scores[has] = problem.found.scores[truth.other[has]]
    detections = _matched(
        problem.found, found, problem.found.scores, blocks[0], by_score=whole.by_score
    )
    labels = _matched(problem.truth, truth, label_scores, blocks[1], by_score=truth.states)
    has = labels.other >= 0
    labels.other[has] = place[labels.other[has]]
    return MatchTable(detections.take(rows), labels, problem.crs, value_name, block_m)


def _matched(
    objects: Objects,
    side: Side,
    scores: NDArray[np.float64],
    blocks: NDArray[np.int64],
    *,
    by_score: States,
) -> Matched:
    return Matched(
        geometries=objects.geometries,
        row=objects.row,
        class_name=objects.class_text,
        scene=objects.scene_text,
        score=scores,
        outcome=side.states,
        by_score=by_score,
        kind=side.kind,
        other=side.other,
        value=side.value,
        block=blocks,
    )
