"""Totals of a stratified sample of cells, with intervals that hold for few of them.

Notation as of Särndal, Swensson and Wretman 1992, *Model Assisted Survey Sampling*: stratum h has
N_h cells, of which n_h were drawn without replacement. A statistic is linear in the cells (or made
so, their section 5.5): it is known up to a total T = sum_h N_h mean_h(e), of which the sample gives
an estimate, its variance and its skewness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from geo_retina.errors import LabelError

CONFIDENCE = 0.95

_LARGEST_SKEW = 2.0
"""Estimated skewness of a total beyond this is noise of few cells, and would bend the interval
past what the correction is derived for."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Design:
    """Which strata the drawn cells stand for.

    Attributes:
        strata: (n,) stratum of each drawn cell, an index of ``population``.
        population: (H,) cells there are in each stratum.
    """

    strata: NDArray[np.int64]
    population: NDArray[np.int64]

    def __post_init__(self) -> None:
        drawn = self.drawn
        if len(drawn) > len(self.population) or (drawn > self.population).any():
            raise LabelError(
                f"{drawn.tolist()} cells were drawn of strata with {self.population.tolist()}, "
                "expected at most as many as there are; draw cells anew"
            )
        few = np.flatnonzero((drawn < 2) & (drawn < self.population))
        if len(few):
            raise LabelError(
                f"{_strata(few)} done cells that count: {drawn[few].tolist()}, expected two or "
                "more in each, as one cell shows no spread; do more cells, in their order"
            )

    @property
    def drawn(self) -> NDArray[np.int64]:
        """(H,) cells that were drawn of each stratum."""
        return np.bincount(self.strata, minlength=len(self.population))

    @property
    def weights(self) -> Floats:
        """(n,) cells of its stratum that each drawn cell stands for."""
        return np.asarray((self.population / np.maximum(self.drawn, 1))[self.strata])

    def total(self, values: Floats) -> float:
        """Estimate the total of a value over all cells, sum_h N_h mean_h."""
        return float(self.weights @ values)


def _strata(positions: NDArray[np.int64]) -> str:
    some = ", ".join(map(str, positions[:5].tolist()))
    more = "" if len(positions) <= 5 else f" and {len(positions) - 5} more"
    return f"the strata {some}{more} have too few" if len(positions) > 1 else f"stratum {some} has"


@dataclass(frozen=True)
class Spread:
    """How far the estimate of a total may be off.

    Attributes:
        variance: of the estimate.
        degrees: of freedom of this variance.
        skewness: third central moment of the estimate over its variance to the 3/2.
    """

    variance: float
    degrees: float
    skewness: float

    @property
    def standard_error(self) -> float:
        """Root of the variance."""
        return float(np.sqrt(self.variance))


def spread_of(values: Floats, design: Design, *, fitted: int = 0) -> Spread:
    """Tell how far ``design.total(values)`` may be off the true total.

    With s_h^2 the variance and m_h the third central moment within stratum h, and f_h = n_h / N_h,

        variance = sum_h N_h^2 (1 - f_h) s_h^2 / n_h             (Särndal et al. 1992, eq. 3.7.8)
        degrees  = (sum_h a_h)^2 / sum_h a_h^2 / (n_h - 1)       (Satterthwaite 1946; a_h the terms)
        third    = sum_h N_h^3 (1 - f_h) (1 - 2 f_h) m_h / n_h^2

    Args:
        values: (n,) of the drawn cells.
        design: their strata.
        fitted: coefficients that were fitted to these cells before, which cost degrees of freedom.
    """
    size, drawn = design.population.astype(np.float64), design.drawn.astype(np.float64)
    some = np.maximum(drawn, 1)
    deviation = values - (np.bincount(design.strata, values, len(size)) / some)[design.strata]
    squares = np.bincount(design.strata, deviation**2, len(size))
    cubes = np.bincount(design.strata, deviation**3, len(size))
    open_share = np.where(drawn < size, 1 - drawn / np.maximum(size, 1), 0.0)
    free = np.maximum(drawn - 1, 1)
    terms = size**2 * open_share * squares / free / some
    unbiased = some**2 / np.maximum((some - 1) * (some - 2), 1)
    third = size**3 * open_share * (1 - 2 * drawn / np.maximum(size, 1)) / some**2
    third_moment = float((third * unbiased * cubes / some).sum())
    variance = float(terms.sum())
    if variance <= 0:
        return Spread(0.0, float(max((drawn - 1).sum() - fitted, 1)), 0.0)
    degrees = float(variance**2 / (terms**2 / free).sum())
    left = max((degrees - fitted) / degrees, 0.5)
    variance /= left
    skewness = third_moment / variance**1.5
    return Spread(variance, max(degrees - fitted, 1.0), skewness)


def interval(value: float, spread: Spread) -> tuple[float, float]:
    """Place a 95 % interval around an estimate, moved to the side its skewness asks for.

    The studentised estimate t of a skewed total is not Student's; Hall's transformation

        g(t) = t + k (t^2 / 3 + 1 / 6) + k^2 t^3 / 27,   k the skewness

    is, to the next order (Hall 1992, *J. R. Statist. Soc. B* 54, 221-228). It rises with t, so
    Student's quantiles of g are turned back into those of t.
    """
    tail = (1 - CONFIDENCE) / 2
    quantiles = student_t.ppf([tail, 1 - tail], spread.degrees)
    skew = float(np.clip(spread.skewness, -_LARGEST_SKEW, _LARGEST_SKEW))
    if abs(skew) > 1e-6:
        quantiles = 3 / skew * (np.cbrt(1 + skew * (quantiles - skew / 6)) - 1)
    low, high = value - spread.standard_error * quantiles[::-1]
    return float(low), float(high)
