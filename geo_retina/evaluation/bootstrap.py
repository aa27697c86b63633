"""95 % intervals from draws of ground blocks.

Objects near one another are found or missed together, so not objects but blocks of ground are
drawn, with replacement and as many as there are (Efron 1979; by blocks, Hall 1985).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.evaluation.curves import RECALLS
from geo_retina.evaluation.matches import IGNORED, TRUE
from geo_retina.evaluation.measures import NOWHERE, cell_keys, to_lon_lat
from geo_retina.evaluation.objects import Problem
from geo_retina.evaluation.outcomes import Outcome, States
from geo_retina.evaluation.scores import AVERAGES, Scores
from geo_retina.evaluation.tally import Rows, Tally

_ENDS = (2.5, 97.5)
_FEWEST_BLOCKS = 60
_MOST_BLOCKS = 20_000
_RANKS = 1000
"""AP of a draw is taken at this many ranks at most, evenly spread; exact below."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The ground blocks that objects lie in.

    Attributes:
        side_m: of a block.
        found: (N,) key of each detection's block: that of its label where it has one.
        truth: (M,) key of each label's block.
    """

    side_m: float
    found: NDArray[np.int64]
    truth: NDArray[np.int64]


def ground_blocks(problem: Problem, outcome: Outcome, side_m: float | None) -> Blocks:
    """Deal objects to ground blocks.

    Without a side, the longest power of two metres at which labels lie in 60 blocks or more is
    taken, and 16 m where there is none.
    """
    truth = to_lon_lat(problem.truth.centres, problem.crs)
    found = to_lon_lat(problem.found.centres, problem.crs)
    if side_m is None:
        side_m = _choose_side(truth if len(truth) else found)
    truth_keys, found_keys = cell_keys(truth, side_m), cell_keys(found, side_m)
    true = outcome.other >= 0
    found_keys[true] = truth_keys[outcome.other[true]]
    return Blocks(side_m, found_keys, truth_keys)


def _choose_side(lon_lat: NDArray[np.float64]) -> float:
    for power in range(20, 4, -1):
        if len(np.unique(cell_keys(lon_lat, 2.0**power))) >= _FEWEST_BLOCKS:
            return 2.0**power
    return 16.0


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each block is in each draw, and the block of each object.

    Attributes:
        times: (R, B) float64.
        found: (N,) position of the block of each detection, or -1.
        truth: (M,) position of the block of each label, or -1.
    """

    times: Numbers
    found: NDArray[np.int64]
    truth: NDArray[np.int64]

    def sums(self, blocks: NDArray[np.int64], weights: Numbers | None = None) -> Numbers:
        """(R,) number, or sum of weights, of objects in each draw, by their blocks."""
        placed = blocks >= 0
        weights = None if weights is None else weights[placed]
        n = self.times.shape[1]
        return np.asarray(self.times @ np.bincount(blocks[placed], weights, minlength=n))


def draw_blocks(tally: Tally, blocks: Blocks, *, resamples: int, seed: int) -> Draws | None:
    """Draw blocks that hold an object that counts; None where they are fewer than two.

    Raises:
        LabelError: they are too many.
    """
    counted = tally.outcome.states != IGNORED
    keys = np.union1d(blocks.found[counted], blocks.truth[tally.counts])
    keys = keys[keys != NOWHERE]
    if len(keys) < 2:
        return None
    if len(keys) > _MOST_BLOCKS:
        raise LabelError(
            f"ground blocks of {blocks.side_m:g} m would be {len(keys):,}, wanted at most "
            f"{_MOST_BLOCKS:,}; give a longer side with --block"
        )
    share = np.full(len(keys), 1 / len(keys))
    times = np.random.default_rng(seed).multinomial(len(keys), share, size=resamples)
    return Draws(
        times.astype(np.float64), _positions(blocks.found, keys), _positions(blocks.truth, keys)
    )


def _positions(codes: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    at = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[at] == codes, at, -1)


def with_intervals(scores: Scores, tally: Tally, draws: Draws, found: Rows, truth: Rows) -> Scores:
    """The same scores of these detections and labels, with intervals of their rates and AP."""
    states = tally.outcome.states[found]
    true = found[states == TRUE]
    labels = draws.sums(draws.truth[truth[tally.counts[truth]]])
    hits, given = draws.sums(draws.found[true]), draws.sums(draws.found[found[states != IGNORED]])
    numbers = {
        "precision": _ratio(hits, given),
        "recall": _ratio(hits, labels),
        "f1": _ratio(2 * hits, given + labels),
    }
    if tally.by_iou:
        numbers |= dict(zip(AVERAGES, _averages(tally, draws, found, truth), strict=True))
    elif len(true):
        far = draws.sums(draws.found[true], tally.outcome.value[true])
        numbers["position_error_m"] = _ratio(far, hits)
    known = {name for name in numbers if getattr(scores, name) is not None}
    ends = {name: interval(numbers[name]) for name in numbers if name in known}
    return replace(scores, intervals={k: v for k, v in ends.items() if v is not None})


def count_error_interval(tally: Tally, draws: Draws) -> tuple[float, float] | None:
    """Interval of detections minus labels, over labels."""
    labels = draws.sums(draws.truth[tally.counts])
    given = draws.sums(draws.found[tally.outcome.states != IGNORED])
    return interval(_ratio(given - labels, labels))


def interval(values: Numbers) -> tuple[float, float] | None:
    """The middle 95 % of the draws' values that are numbers; None where none is."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, _ENDS)
    return float(low), float(high)


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _averages(tally: Tally, draws: Draws, found: Rows, truth: Rows) -> tuple[Numbers, ...]:
    """(R,) AP50, AP75 and AP of each draw: the mean of the classes it has labels of."""
    there = truth[tally.counts[truth]]
    classes = tally.problem.truth.classes[there]
    found_classes = tally.problem.found.classes[found]
    total = np.zeros((len(tally.by_iou), len(draws.times)))
    known = np.zeros(len(draws.times))
    for name in np.unique(classes):
        labels = draws.sums(draws.truth[there[classes == name]])
        rows = found[found_classes == name]
        for t, states in enumerate(tally.by_iou):
            total[t] += _average_precisions(states[rows], draws, draws.found[rows], labels)
        known += labels > 0
    mean = np.divide(total, known, out=np.full(total.shape, np.nan), where=known > 0)
    return mean[0], mean[5], mean.mean(axis=0)


def _average_precisions(
    states: States, draws: Draws, blocks: NDArray[np.int64], labels: Numbers
) -> Numbers:
    """(R,) average precision of each draw; 0 where it has no label."""
    valid = (states != IGNORED) & (blocks >= 0)
    true, blocks = states[valid] == TRUE, blocks[valid]
    if not true.any():
        return np.zeros(len(labels))
    hits, given = (_running(blocks, keep, draws) for keep in (true, np.ones(len(true), bool)))
    precision = np.divide(hits, given, out=np.zeros_like(hits), where=given > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(hits, labels[:, None], out=np.zeros_like(hits), where=labels[:, None] > 0)
    # One sorted list of all draws: each has its own stretch, as recalls end at 1.
    start = 2.0 * np.arange(len(labels))[:, None]
    ranks = recall.shape[1]
    at = np.searchsorted((recall + start).ravel(), (RECALLS + start).ravel()).reshape(-1, 101)
    at -= ranks * np.arange(len(labels))[:, None]
    best = np.append(envelope, np.zeros((len(labels), 1)), axis=1)
    return np.take_along_axis(best, np.minimum(at, ranks), axis=1).mean(axis=1) * (labels > 0)


def _running(blocks: NDArray[np.int64], keep: NDArray[np.bool_], draws: Draws) -> Numbers:
    """(R, T) number of detections up to each of T ranks, of those to keep, in each draw."""
    from scipy.sparse import coo_array

    ranks = min(len(blocks), _RANKS)
    rank = np.arange(len(blocks)) * ranks // len(blocks)
    cells = coo_array(
        (np.ones(int(keep.sum())), (rank[keep], blocks[keep])),
        shape=(ranks, draws.times.shape[1]),
    ).tocsr()
    return np.cumsum((cells @ draws.times.T).T, axis=1)
