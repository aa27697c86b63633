"""The variance, its degrees of freedom and the skewness, against every possible sample."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import t

from geo_retina.errors import LabelError
from geo_retina.estimation.stratified import Design, Spread, interval, spread_of

STRATA = (np.array([0.0, 1, 1, 4, 9]), np.array([2.0, 2, 7, 30]))


def all_samples(*drawn):
    """Every sample of that many cells of each stratum, which are all as likely."""
    population = np.array([len(values) for values in STRATA])
    strata = np.repeat(np.arange(len(STRATA)), drawn)
    design = Design(strata, population)
    parts = [combinations(values, n) for values, n in zip(STRATA, drawn, strict=True)]
    return design, [np.concatenate(each) for each in product(*parts)]


def test_the_total_and_its_variance_are_unbiased_over_all_samples():
    design, samples = all_samples(3, 2)
    totals = np.array([design.total(values) for values in samples])
    variances = [spread_of(values, design).variance for values in samples]
    assert totals.mean() == pytest.approx(sum(values.sum() for values in STRATA))
    assert np.mean(variances) == pytest.approx(totals.var())


def test_one_stratum_has_the_degrees_of_students_t_and_its_interval():
    values = np.array([0.0, 1, 1, 4, 9, 0, 2])
    spread = spread_of(values, Design(np.zeros(7, np.int64), np.array([1_000_000])))
    assert spread.degrees == pytest.approx(6)
    plain = Spread(spread.variance, spread.degrees, 0.0)
    half = t.ppf(0.975, 6) * 1_000_000 * values.std(ddof=1) / np.sqrt(7)
    low, high = interval(10.0, plain)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-5)
    assert low + high == pytest.approx(20.0)


def test_fitted_coefficients_cost_degrees_of_freedom():
    values = np.array([0.0, 1, 1, 4, 9, 0, 2])
    design = Design(np.zeros(7, np.int64), np.array([50]))
    free, fitted = spread_of(values, design), spread_of(values, design, fitted=1)
    assert fitted.degrees == pytest.approx(5)
    assert fitted.variance == pytest.approx(free.variance * 6 / 5)


def test_cells_that_are_all_drawn_leave_no_doubt():
    spread = spread_of(STRATA[0], Design(np.zeros(5, np.int64), np.array([5])))
    assert spread.variance == 0
    assert interval(15.0, spread) == (15.0, 15.0)


def test_the_skewness_is_that_of_the_mean_in_a_large_population():
    random = np.random.default_rng(0)
    design = Design(np.zeros(4000, np.int64), np.array([10**9]))
    spread = spread_of(random.exponential(size=4000), design)
    assert spread.skewness == pytest.approx(2 / np.sqrt(4000), rel=0.2)


def test_an_interval_of_a_skewed_total_reaches_further_up():
    even, skewed = interval(0.0, Spread(1.0, 30, 0.0)), interval(0.0, Spread(1.0, 30, 0.4))
    assert skewed[1] > even[1]
    assert skewed[0] > even[0]
    mirrored = interval(0.0, Spread(1.0, 30, -0.4))
    assert mirrored == pytest.approx((-skewed[1], -skewed[0]))


@pytest.mark.parametrize("skewness", [-9.0, 9.0])
def test_an_extreme_skewness_keeps_the_interval_in_order(skewness):
    low, high = interval(0.0, Spread(1.0, 2.0, skewness))
    assert low < high
    assert np.isfinite([low, high]).all()


def test_one_cell_a_stratum_is_refused_with_the_reason():
    with pytest.raises(LabelError, match=r"stratum 1 has.*\[1\].*one cell shows no spread"):
        Design(np.array([0, 0, 1]), np.array([10, 10]))
    with pytest.raises(LabelError, match="at most as many as there are"):
        Design(np.array([0, 0, 0]), np.array([2]))


def test_a_stratum_of_one_cell_may_be_whole():
    design = Design(np.array([0, 0, 1]), np.array([10, 1]))
    assert design.total(np.array([1.0, 3.0, 5.0])) == pytest.approx(25.0)
