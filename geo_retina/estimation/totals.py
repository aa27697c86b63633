"""Estimate how many objects there are: detections everywhere, corrected by completed cells.

Särndal, Swensson and Wretman 1992, *Model Assisted Survey Sampling*, chapters 6 and 7: with x the
detections and y the objects of a cell, and X the detections in all cells,

    difference          T = X + sum_h N_h mean_h(y - x)
    ratio               T = X R,  R = sum_h N_h mean_h(y) / sum_h N_h mean_h(x)
    prediction-powered  T = b X + sum_h N_h mean_h(y - b x),  b for the least variance

The last is the combined regression estimator; Angelopoulos, Duchi and Zrnic 2023, *PPI++: Efficient
Prediction-Powered Inference* (arXiv:2311.01453), have it as power tuning, after Angelopoulos et al.
2023, *Science* 382, 669. The variance is that of e = y - b x within strata.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo_retina.estimation.stratified import CONFIDENCE, Design, Floats, Spread, interval, spread_of
from geo_retina.options import Estimator


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        interval: its ends; None where the cells are too few.
        standard_error: root of the estimated variance; None as ``interval``.
    """

    value: float
    interval: tuple[float, float] | None
    standard_error: float | None


def estimate_total(
    true: Floats,
    predicted: Floats,
    predicted_total: float,
    design: Design,
    estimator: Estimator = "prediction-powered",
) -> Estimate:
    """Estimate the number of objects in all cells.

    Args:
        true: (n,) objects in each drawn cell.
        predicted: (n,) detections in it, or another count that is known everywhere.
        predicted_total: the same over all cells.
        design: what the drawn cells stand for.
        estimator: which estimator.

    Returns:
        The total, at the least what was seen in the drawn cells, as are the ends of its interval,
        which reaches ``unseen_errors`` to either side or further.
    """
    slope = _slope(true, predicted, design, estimator)
    residual = true - slope * predicted
    value = slope * predicted_total + design.total(residual)
    fitted = int(estimator in ("prediction-powered", "ratio"))
    spread = spread_of(residual, design, fitted=fitted)
    low, high = interval(value, spread)
    # A variance of cells that are nearly all right knows little of errors elsewhere.
    partly = design.drawn < design.population
    reach = unseen_errors(int(design.drawn[partly].sum()), int(design.population[partly].sum()))
    low, high = min(low, value - reach), max(high, value + reach)
    seen = float(true.sum())
    return Estimate(max(value, seen), (max(low, seen), max(high, seen)), spread.standard_error)


def unseen_errors(drawn: int, cells: int) -> float:
    """Bound how many objects all cells may be off by although none of the drawn ones is.

    The most cells, each off by one object, of which none is drawn with a chance of 2.5 % (the rule
    of three, by its bounds for few and for many drawn cells).

    Args:
        drawn: cells that were drawn of all.
        cells: how many there are; 0 of them may be wrong where all are drawn.
    """
    if drawn >= cells or not drawn:
        return float(cells - drawn)
    tail = (1 - CONFIDENCE) / 2
    few, many = cells * (1 - tail ** (1 / drawn)), np.log(tail) / np.log1p(-drawn / cells)
    return float(min(cells - drawn, few, many))


def _slope(true: Floats, predicted: Floats, design: Design, estimator: Estimator) -> float:
    """Fit how many objects one detection counts for."""
    if estimator == "plain":
        return 0.0
    if estimator == "difference":
        return 1.0
    if estimator == "ratio":
        known = design.total(predicted)
        return design.total(true) / known if known > 0 else 1.0
    # cov(y, x) / var(x) of the estimated totals, by their polarised variances
    both = spread_of(true + predicted, design).variance
    apart = spread_of(true - predicted, design).variance
    alone = spread_of(predicted, design).variance
    return (both - apart) / (4 * alone) if alone > 0 else 1.0


def estimate_share(part: Floats, whole: Floats, design: Design) -> Estimate:
    """Estimate a share of totals that lies between 0 and 1, such as precision.

    The ratio of two estimated totals, its variance by linearisation (Särndal et al. 1992, result
    5.6.2), its interval on the scale of the logit, which keeps it between 0 and 1. Where the share
    is 0 or 1 among the drawn cells, the interval is the exact one of so many objects.

    Args:
        part: (n,) objects of each drawn cell that count.
        whole: (n,) objects of it that could.
        design: what the drawn cells stand for.

    Returns:
        The share; nan without an interval where there is no object.
    """
    total = design.total(whole)
    if total <= 0:
        return Estimate(float("nan"), None, None)
    share = min(design.total(part) / total, 1.0)
    many = float(whole.sum())
    if share in (0.0, 1.0):
        reach = 1 - 0.025 ** (1 / many)
        ends = (0.0, reach) if share == 0 else (1 - reach, 1.0)
        return Estimate(share, ends, 0.0)
    spread = spread_of((part - share * whole) / total, design)
    slope = 1 / (share * (1 - share))
    flat = Spread(spread.variance * slope**2, spread.degrees, 0.0)
    low, high = interval(float(np.log(share / (1 - share))), flat)
    ends = (float(1 / (1 + np.exp(-low))), float(1 / (1 + np.exp(-high))))
    return Estimate(share, ends, spread.standard_error)
