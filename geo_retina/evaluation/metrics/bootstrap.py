"""95 % intervals from draws of ground blocks.

Objects near one another are found or missed together, so not objects but blocks of ground are
drawn, with replacement and as many as there are (Efron 1979; by blocks, Hall 1985).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.evaluation.inputs.ground_lengths import NOWHERE, cell_keys
from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.evaluation.matching.match_table import IGNORED, TRUE
from geo_retina.evaluation.matching.outcomes import Outcome, States
from geo_retina.evaluation.metrics.score_curves import RECALLS, average_precision
from geo_retina.evaluation.metrics.scores import Scores
from geo_retina.evaluation.metrics.subsets import Rows, Tally
from geo_retina.geodesy import is_on_earth, to_lon_lat

_ENDS = (2.5, 97.5)
_FEWEST_BLOCKS = 60
_MOST_BLOCKS = 20_000
_RANKS = 256
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
    flat = not is_on_earth(problem.crs)
    if side_m is None:
        side_m = _choose_side(truth if len(truth) else found, flat=flat)
    truth_keys, found_keys = (cell_keys(each, side_m, flat=flat) for each in (truth, found))
    true = outcome.other >= 0
    found_keys[true] = truth_keys[outcome.other[true]]
    return Blocks(side_m, found_keys, truth_keys)


def _choose_side(lon_lat: NDArray[np.float64], *, flat: bool) -> float:
    for power in range(20, 4, -1):
        if len(np.unique(cell_keys(lon_lat, 2.0**power, flat=flat))) >= _FEWEST_BLOCKS:
            return 2.0**power
    return 16.0


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each block is in each draw, and the block of each object.

    Attributes:
        times: (1 + R, B) float64; the first is all ones: the whole itself.
        found: (N,) position of the block of each detection, or -1.
        truth: (M,) position of the block of each label, or -1.
    """

    times: Numbers
    found: NDArray[np.int64]
    truth: NDArray[np.int64]

    def sums(self, blocks: NDArray[np.int64], weights: Numbers | None = None) -> Numbers:
        """Sum (1 + R,) objects, or their weights, in each draw, by their blocks."""
        placed = blocks >= 0
        weights = None if weights is None else weights[placed]
        n = self.times.shape[1]
        return np.asarray(self.times @ np.bincount(blocks[placed], weights, minlength=n))


def counted_blocks(tally: Tally, blocks: Blocks) -> NDArray[np.int64]:
    """List the keys of the blocks that hold an object that counts, ascending."""
    counted = tally.outcome.states != IGNORED
    keys = np.union1d(blocks.found[counted], blocks.truth[tally.counts])
    return np.asarray(keys[keys != NOWHERE])


def draw_blocks(
    keys: NDArray[np.int64], sides: Sequence[Blocks], *, resamples: int, seed: int
) -> list[Draws] | None:
    """Draw blocks, the same ones for the objects of one or several evaluations.

    Args:
        keys: of the blocks to draw from, ascending.
        sides: the blocks of each evaluation's objects, of one ``side_m``.
        resamples: how often.
        seed: of the draws.

    Returns:
        The draws for each of ``sides``; None where there are fewer than two blocks.

    Raises:
        LabelError: there are too many.
    """
    if len(keys) < 2:
        return None
    if len(keys) > _MOST_BLOCKS:
        raise LabelError(
            f"ground blocks of {sides[0].side_m:g} m would be {len(keys):,}, expected at most "
            f"{_MOST_BLOCKS:,}; give a longer side with EvaluateOptions.block_m"
        )
    share = np.full(len(keys), 1 / len(keys))
    times = np.random.default_rng(seed).multinomial(len(keys), share, size=resamples)
    times = np.concatenate([np.ones((1, len(keys)), np.int64), times])
    weights = times.astype(np.float64)
    return [Draws(weights, _positions(s.found, keys), _positions(s.truth, keys)) for s in sides]


def _positions(codes: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    at = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[at] == codes, at, -1)


def add_intervals(
    scores: list[Scores], tally: Tally, draws: Draws, parts: list[tuple[Rows, Rows]]
) -> list[Scores]:
    """Add intervals of rates and AP to scores.

    Args:
        scores: of the parts.
        tally: where they come from.
        draws: of its blocks.
        parts: positions of the detections and labels of each class, and last those of all.
    """
    return [
        replace(each, intervals=_intervals(each, numbers))
        for each, numbers in zip(scores, draw_numbers(tally, draws, parts), strict=True)
    ]


def _intervals(scores: Scores, numbers: Mapping[str, Numbers]) -> dict[str, tuple[float, float]]:
    known = {k: interval(v) for k, v in numbers.items() if getattr(scores, k) is not None}
    return {k: v for k, v in known.items() if v is not None}


def draw_numbers(
    tally: Tally, draws: Draws, parts: list[tuple[Rows, Rows]]
) -> list[dict[str, Numbers]]:
    """Compute (1 + R,) rates, and AP or the position error, of each part in each draw.

    Args:
        tally: as in ``add_intervals``, and so the others.
        draws: of its blocks.
        parts: of its detections and labels.
    """
    averages: list[Numbers | None] = [None] * len(parts)
    if tally.by_iou:
        known = [_draw_averages(tally, draws, *part) for part in parts[:-1]]
        averages = [*known, _mean_average(known)]
    return [_rates(tally, draws, *each) for each in zip(parts, averages, strict=True)]


def _rates(
    tally: Tally, draws: Draws, part: tuple[Rows, Rows], averages: Numbers | None
) -> dict[str, Numbers]:
    found, truth = part
    states = tally.outcome.states[found]
    true = found[states == TRUE]
    labels = draws.sums(draws.truth[truth[tally.counts[truth]]])
    hits, given = draws.sums(draws.found[true]), draws.sums(draws.found[found[states != IGNORED]])
    numbers = {
        "precision": _ratio(hits, given),
        "recall": _ratio(hits, labels),
        "f1": _ratio(2 * hits, given + labels),
    }
    if averages is not None:
        numbers |= {"ap50": averages[0], "ap75": averages[5], "ap": averages.mean(axis=0)}
    elif len(true):
        far = draws.sums(draws.found[true], tally.outcome.value[true])
        numbers["position_error_m"] = _ratio(far, hits)
    return numbers


def draw_count_errors(tally: Tally, draws: Draws) -> Numbers:
    """Compute (1 + R,) detections minus labels, over labels, in each draw."""
    labels = draws.sums(draws.truth[tally.counts])
    given = draws.sums(draws.found[tally.outcome.states != IGNORED])
    return _ratio(given - labels, labels)


def interval(values: Numbers) -> tuple[float, float] | None:
    """Find the middle 95 % of the draws' values that are numbers; None where none is.

    Args:
        values: (1 + R,), the first that of the whole.
    """
    values = values[1:][np.isfinite(values[1:])]
    if not len(values):
        return None
    low, high = np.percentile(values, _ENDS)
    return float(low), float(high)


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _draw_averages(tally: Tally, draws: Draws, found: Rows, truth: Rows) -> Numbers:
    """Compute (T, 1 + R) AP at each IoU of each draw; NaN where it has no label."""
    labels = draws.sums(draws.truth[truth[tally.counts[truth]]])
    blocks = draws.found[found]
    each = [_average_precisions(s[found], draws, blocks, labels) for s in tally.by_iou]
    return np.where(labels > 0, np.stack(each), np.nan)


def _mean_average(averages: list[Numbers]) -> Numbers:
    """Average (T, 1 + R) over the classes of which a draw has labels; NaN where it has none."""
    every = np.stack(averages)
    known = np.isfinite(every)
    count = known.sum(axis=0)
    total = np.where(known, every, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _average_precisions(
    states: States, draws: Draws, blocks: NDArray[np.int64], labels: Numbers
) -> Numbers:
    """Compute (1 + R,) average precision of each draw; any value where it has no label.

    It is taken at ``_RANKS`` ranks at most. What that takes from the AP of the whole, which
    is known exactly, is given back to each draw.
    """
    valid = (states != IGNORED) & (blocks >= 0)
    true, blocks = states[valid] == TRUE, blocks[valid]
    if not true.any():
        return np.zeros(len(labels))
    hits = _running(blocks, true, draws)
    given = _running(blocks, np.ones(len(true), np.bool_), draws)
    precision = np.divide(hits, given, out=np.zeros_like(hits), where=given > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(labels, 1)[:, None]
    # One sorted list of all draws: each has a stretch of its own, as recalls end at 1.
    start = 2.0 * np.arange(len(labels))[:, None]
    ranks = recall.shape[1]
    at = np.searchsorted((recall + start).ravel(), (RECALLS + start - 1e-9).ravel())
    at = at.reshape(-1, len(RECALLS)) - ranks * np.arange(len(labels))[:, None]
    best = np.append(envelope, np.zeros((len(labels), 1)), axis=1)
    found = np.take_along_axis(best, np.clip(at, 0, ranks), axis=1).mean(axis=1)
    exact = average_precision(true, int(labels[0]))
    return np.asarray(found + ((exact or 0.0) - found[0]))


def _running(blocks: NDArray[np.int64], keep: NDArray[np.bool_], draws: Draws) -> Numbers:
    """Count (1 + R, T) detections to keep up to each of T ranks, in each draw."""
    from scipy.sparse import coo_array

    ranks = min(len(blocks), _RANKS)
    rank = np.arange(len(blocks)) * ranks // len(blocks)
    cells = coo_array(
        (np.ones(int(keep.sum())), (rank[keep], blocks[keep])),
        shape=(ranks, draws.times.shape[1]),
    ).tocsr()
    return np.cumsum((cells @ draws.times.T).T, axis=1)
