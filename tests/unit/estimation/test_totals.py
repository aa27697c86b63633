"""Estimators of totals against their formulas, and their intervals in repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, hypergeom

from geo_retina.estimation import Design, estimate_share, estimate_total
from geo_retina.estimation.totals import unseen_errors


def town(seed=0, cells=1500, hit=0.75, false=0.4):
    """Objects, detections and hits in each cell of a town that is denser in places."""
    random = np.random.default_rng(seed)
    true = random.poisson(random.gamma(1.2, 3.0, cells))
    hits = random.binomial(true, hit)
    found = hits + random.poisson(false, cells)
    return true.astype(float), found.astype(float), hits.astype(float)


def in_strata(found):
    return np.digitize(found, [1, 3, 5, 8])


def drawn(strata, each, random):
    population = np.bincount(strata)
    rows = [random.choice(np.flatnonzero(strata == h), each, False) for h in range(len(population))]
    rows = np.concatenate(rows)
    return rows, Design(strata[rows], population)


def test_the_estimators_are_their_formulas_in_one_stratum():
    true, found, _ = town(cells=12)
    design = Design(np.zeros(12, np.int64), np.array([100]))
    x, weight = 500.0, 100 / 12
    slope = np.cov(true, found)[0, 1] / found.var(ddof=1)
    wanted = {
        "plain": weight * true.sum(),
        "difference": x + weight * (true - found).sum(),
        "ratio": x * true.sum() / found.sum(),
        "prediction-powered": slope * x + weight * (true - slope * found).sum(),
    }
    for method, value in wanted.items():
        assert estimate_total(true, found, x, design, method).value == pytest.approx(value)


def test_detections_scaled_by_a_constant_change_nothing():
    true, found, _ = town(cells=20)
    design = Design(np.zeros(20, np.int64), np.array([400]))
    one = estimate_total(true, found, 900.0, design)
    other = estimate_total(true, 3 * found, 2700.0, design)
    assert other.value == pytest.approx(one.value)
    assert other.interval == pytest.approx(one.interval)


@pytest.mark.parametrize("method", ["prediction-powered", "difference", "ratio", "plain"])
def test_intervals_hold_the_truth_as_often_as_they_say(method):
    true, found, _ = town()
    strata = in_strata(found)
    random = np.random.default_rng(3)
    held, widths = 0, []
    for _ in range(600):
        rows, design = drawn(strata, 16, random)
        each = estimate_total(true[rows], found[rows], found.sum(), design, method)
        held += each.interval[0] <= true.sum() <= each.interval[1]
        widths.append(each.interval[1] - each.interval[0])
    # 0.95 within three standard errors of so many draws
    assert 0.923 <= held / 600 <= 0.977
    assert np.median(widths) / 2 < 0.12 * true.sum()


def test_detections_make_the_interval_narrower_than_the_cells_alone():
    true, found, _ = town()
    random = np.random.default_rng(4)
    rows, design = drawn(np.zeros(len(found), np.int64), 80, random)
    widths = {
        method: np.diff(
            estimate_total(true[rows], found[rows], found.sum(), design, method).interval
        )
        for method in ("plain", "prediction-powered")
    }
    assert widths["prediction-powered"] < 0.6 * widths["plain"]


def test_useless_detections_cost_nothing():
    true, found, _ = town()
    random = np.random.default_rng(5)
    noise = random.permutation(found)
    rows, design = drawn(np.zeros(len(found), np.int64), 100, random)
    with_noise = estimate_total(true[rows], noise[rows], noise.sum(), design)
    alone = estimate_total(true[rows], noise[rows], noise.sum(), design, "plain")
    assert with_noise.standard_error <= 1.02 * alone.standard_error


def test_no_detection_anywhere_leaves_the_cells_alone():
    true = np.array([0.0, 2, 1, 4])
    design = Design(np.zeros(4, np.int64), np.array([10]))
    found = np.zeros(4)
    for method in ("prediction-powered", "ratio", "difference"):
        assert estimate_total(true, found, 0.0, design, method).value == pytest.approx(17.5)


def test_an_interval_is_never_below_what_was_seen():
    true = np.array([0.0, 0, 0, 50])
    design = Design(np.zeros(4, np.int64), np.array([40]))
    estimate = estimate_total(true, np.zeros(4), 0.0, design)
    assert estimate.interval[0] >= 50


def test_shares_hold_the_truth_as_often_as_they_say():
    true, found, hits = town()
    strata = in_strata(found)
    random = np.random.default_rng(6)
    wholes = {"recall": true, "precision": found}
    held = dict.fromkeys(wholes, 0)
    for _ in range(500):
        rows, design = drawn(strata, 16, random)
        for name, whole in wholes.items():
            low, high = estimate_share(hits[rows], whole[rows], design).interval
            held[name] += low <= hits.sum() / whole.sum() <= high
            assert 0 <= low <= high <= 1
    assert all(0.92 <= each / 500 <= 0.98 for each in held.values()), held


def test_a_share_of_all_or_none_has_the_exact_interval():
    design = Design(np.zeros(3, np.int64), np.array([30]))
    whole = np.array([4.0, 3, 3])
    assert estimate_share(whole, whole, design).interval == pytest.approx(
        (beta.ppf(0.025, 10, 1), 1.0)
    )
    assert estimate_share(0 * whole, whole, design).interval == pytest.approx(
        (0.0, beta.ppf(0.975, 1, 10))
    )


def test_a_share_of_nothing_has_no_number():
    nothing = estimate_share(np.zeros(3), np.zeros(3), Design(np.zeros(3, int), np.array([9])))
    assert np.isnan(nothing.value)
    assert nothing.interval is None


@pytest.mark.parametrize(("drawn", "cells"), [(2, 400), (4, 8), (40, 400), (80, 1225), (300, 400)])
def test_unseen_errors_bound_the_exact_number(drawn, cells):
    wrong = np.arange(cells - drawn + 1)
    escape = hypergeom.pmf(0, cells, wrong, drawn)
    exact = wrong[escape >= 0.025].max()
    assert exact <= unseen_errors(drawn, cells) <= 1.35 * exact + 1
    assert unseen_errors(cells, cells) == 0


@pytest.mark.parametrize("method", ["prediction-powered", "difference"])
@pytest.mark.parametrize("wrong", [1, 10, 40])
def test_intervals_hold_the_truth_where_errors_are_too_rare_to_be_seen(method, wrong):
    """A variance of drawn cells without an error is none, though other cells may have some."""
    _, found, _ = town(cells=1200)
    random = np.random.default_rng(wrong)
    true = found.copy()
    true[random.choice(1200, wrong, False)] += 1
    strata, held = in_strata(found), 0
    for _ in range(200):
        rows, design = drawn(strata, 16, random)
        low, high = estimate_total(true[rows], found[rows], found.sum(), design, method).interval
        held += low <= true.sum() <= high
    assert held / 200 >= 0.95


def test_nothing_in_the_drawn_cells_is_not_nothing_at_all():
    design = Design(np.zeros(40, np.int64), np.array([400]))
    none = estimate_total(np.zeros(40), np.zeros(40), 0.0, design)
    assert none.value == none.interval[0] == 0
    assert 30 < none.interval[1] < 40  # the rule of three: 3.7 of 40 cells at the most
    # False detections that take more away than there is leave none, not less.
    wrong = estimate_total(np.zeros(40), np.full(40, 2.0), 40.0, design, "difference")
    assert wrong.value == 0
