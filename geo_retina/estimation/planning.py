"""How many cells it will take until an interval is narrow enough."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student_t

from geo_retina.estimation.cell_counts import CellCounts
from geo_retina.estimation.result import TargetPlan
from geo_retina.estimation.stratified import CONFIDENCE, Floats
from geo_retina.estimation.totals import unseen_errors
from geo_retina.review.values import Ints

USUAL_SPREAD = 1.2
"""Variance of objects minus what detections say, over detections of a cell plus a half, of the
bundled model on towns: 0.6 to 1.7, see docs/guide-counts.md."""

_HALF = 0.5


def plan_target(counts: CellCounts, share: float) -> TargetPlan:
    """Tell about how many completed cells an interval takes, drawn as ``review`` draws them.

    The variance within stratum h is taken to be c (x_h + 1/2), x_h the mean detections of its
    cells, so that one c is told by all strata; review draws by the root of it. With n_h cells,

        variance = sum_h N_h (N_h - n_h) c (x_h + 1/2) / n_h

    Args:
        counts: detections in all cells, and what was completed.
        share: half of the requested interval over the total.
    """
    frame = counts.frame
    x = counts.found.per_cell(len(frame), counts.found.counts)
    strata, code = np.unique(frame.stratum, return_inverse=True)
    size = np.bincount(code).astype(np.float64)
    mean = np.bincount(code, x) / size
    y, at = counts.true.per_cell(len(frame), np.ones(len(counts.true), bool)), counts.cells
    helped, alone = _spreads(y[at], x[at], code[at], mean, len(strata))
    total = float(x.sum())
    if helped is not None and x[at].sum() > 0:
        total *= float(y[at].sum() / x[at].sum())
    spread = USUAL_SPREAD if helped is None else helped
    # Without detections the cells are drawn from all ground alike.
    if alone is None:
        alone = float(x.var()) / (float(x.mean()) + _HALF) + USUAL_SPREAD
    cells = _fewest(size, mean, spread, share * total)
    counting = 1 - frame.design.learn_share
    return TargetPlan(
        share=share,
        cells=cells,
        cells_to_draw=None if cells is None or not counting else math.ceil(cells / counting),
        cells_alone=_fewest(np.array([size.sum()]), np.array([x.mean()]), alone, share * total),
        is_measured=helped is not None,
    )


def _spreads(
    true: Floats, found: Floats, strata: Ints, mean: Floats, number: int
) -> tuple[float | None, float | None]:
    """Variance over mean plus a half, of objects less detections within strata, and of objects."""
    drawn = np.bincount(strata, minlength=number)
    if len(true) < 2 * number or (drawn < 2).any():
        return None, None
    slope = float(true @ found / (found @ found)) if found.any() else 0.0
    residual = true - slope * found
    deviation = residual - (np.bincount(strata, residual) / drawn)[strata]
    scale = mean + _HALF
    helped = float((deviation**2 / scale[strata]).sum() / (len(true) - number))
    weights = 1 / drawn[strata]
    middle = float(np.average(true, weights=weights))
    alone = float(np.average((true - middle) ** 2, weights=weights))
    return helped, alone / (float(found.mean()) + _HALF)


def _fewest(size: Floats, mean: Floats, spread: float, half: float) -> int | None:
    """Find the fewest cells whose interval is at most ``half`` to either side, by halving."""
    low, high = 2 * len(size), int(size.sum())
    if half <= 0:
        return None
    while low < high:
        n = (low + high) // 2
        if _half_width(n, size, mean, spread) <= half:
            high = n
        else:
            low = n + 1
    return high if _half_width(high, size, mean, spread) <= half and high < size.sum() else None


def _half_width(cells: int, size: Floats, mean: Floats, spread: float) -> float:
    scale = mean + _HALF
    claim = size * np.sqrt(scale)
    drawn = np.clip(cells * claim / claim.sum(), np.minimum(2, size), size)
    variance = float((size * (size - drawn) * spread * scale / drawn).sum())
    degrees = max(cells - len(size), 1)
    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, degrees))
    # What so few cells cannot rule out stays in the interval, however well they agree.
    return max(quantile * float(np.sqrt(variance)), unseen_errors(cells, int(size.sum())))
