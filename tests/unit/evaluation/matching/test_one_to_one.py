"""Matching and curves against brute force and cases worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geo_retina.evaluation.matching import one_to_one
from geo_retina.evaluation.matching.candidates import Pairs
from geo_retina.evaluation.matching.one_to_one import gains, match_by_score, match_optimally
from geo_retina.evaluation.matching.reduction import usable_pairs
from geo_retina.evaluation.metrics.score_curves import average_precision, best_f1


def random_pairs(seed, n=6, m=5, share=0.4):
    rng = np.random.default_rng(seed)
    found, truth = np.nonzero(rng.random((n, m)) < share)
    return Pairs(found, truth, rng.uniform(0.1, 6.0, len(found)))


def best_by_trying_all(pairs):
    """Most matches, then least distance, over every subset that shares no object."""
    best = (0, 0.0)
    edges = list(zip(pairs.found, pairs.truth, pairs.value, strict=True))
    for size in range(1, 6):
        for chosen in itertools.combinations(edges, size):
            rows, cols, values = zip(*chosen, strict=True)
            if len(set(rows)) == len(set(cols)) == size:
                best = max(best, (size, -sum(values)))
    return best[0], -best[1]


@pytest.mark.parametrize("seed", range(12))
def test_matching_equals_brute_force(seed):
    pairs = random_pairs(seed)
    count, distance = best_by_trying_all(pairs)
    chosen = match_optimally(pairs)
    assert len(set(chosen.found)) == len(set(chosen.truth)) == len(chosen) == count
    assert chosen.value.sum() == pytest.approx(distance)
    gain = gains(pairs, 6)
    for n in range(7):
        assert gain[:n].sum() == best_by_trying_all(pairs.take(pairs.found < n))[0]


def test_gains_equal_the_matching_at_every_threshold_in_a_crowd():
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rng = np.random.default_rng(3)
    truth, found = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (250, 2))
    near = np.linalg.norm(found[:, None] - truth[None], axis=2) < 6
    pairs = Pairs(*np.nonzero(near), np.zeros(int(near.sum())))
    hits = np.cumsum(gains(pairs, 250))
    for n in range(1, 251, 7):
        match = maximum_bipartite_matching(csr_array(near[:n].astype(int)), perm_type="column")
        assert hits[n - 1] == (match >= 0).sum()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimal_choice_equals_that_of_a_dense_solver(seed, share, monkeypatch):
    from scipy.optimize import linear_sum_assignment

    monkeypatch.setattr(one_to_one, "_BATCH", 9)
    pairs = random_pairs(seed, n=60, m=50, share=share)
    worth = np.zeros((60, 50))
    worth[pairs.found, pairs.truth] = 1000.0 - pairs.value
    rows, cols = linear_sum_assignment(worth, maximize=True)
    chosen = match_optimally(pairs)
    assert len(set(chosen.found)) == len(set(chosen.truth)) == len(chosen)
    assert len(chosen) == (worth[rows, cols] > 0).sum()
    assert (1000.0 - chosen.value).sum() == pytest.approx(worth[rows, cols].sum())
    assert (np.diff(chosen.found) > 0).all()


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(25))
def test_usable_pairs_are_those_of_the_greatest_matchings(seed, share):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 7, 2)
    near = rng.random((n, m)) < share
    greatest = size_of(near)
    i, j = np.nonzero(near)
    # A pair is in one where the rest without both its objects still gives all others.
    want = [
        size_of(np.delete(np.delete(near, a, axis=0), b, axis=1)) == greatest - 1
        for a, b in zip(i, j, strict=True)
    ]
    assert usable_pairs(i, j, n, m).tolist() == want


def size_of(near):
    from scipy.optimize import linear_sum_assignment

    rows, cols = linear_sum_assignment(near, maximize=True)
    return int(near[rows, cols].sum())


def test_a_radius_beyond_the_spacing_is_solved_exactly():
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(4)
    truth = rng.uniform(0, 100, (500, 2))
    found = np.concatenate(
        [truth[:400] + rng.normal(0, 1, (400, 2)), rng.uniform(0, 100, (110, 2))]
    )
    far = np.linalg.norm(found[:, None] - truth[None], axis=2)
    pairs = Pairs(*np.nonzero(far < 8), far[far < 8])
    worth = np.where(far < 8, 1e4 - far, 0)
    rows, cols = linear_sum_assignment(worth, maximize=True)
    chosen = match_optimally(pairs)
    assert len(chosen) == (worth[rows, cols] > 0).sum()
    assert chosen.value.sum() == pytest.approx(1e4 * len(chosen) - worth[rows, cols].sum())


def test_average_precision_by_hand():
    hits = np.array([True, False, True])
    # Recall 0.5 at precision 1 (51 recalls), recall 1 at precision 2/3 (50 recalls).
    assert average_precision(hits, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(hits[:0], 2) == 0
    assert average_precision(hits, 0) is None


def test_best_f1_keeps_equal_scores_together():
    hits, scores = np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1])
    # From 0.9: 2/(2+1); from 0.5: 4/(2+3); from 0.1: 4/(2+4).
    assert best_f1(hits, scores, 2) == (pytest.approx(0.8), 0.5)


def greedy(found, truth, count, shared):
    """As ``match_by_score`` says, one detection after the other."""
    chosen, taken = [-1] * count, set()
    for k, (i, j) in enumerate(zip(found, truth, strict=True)):
        if chosen[i] < 0 and j not in taken:
            chosen[i] = k
            taken |= {j} - {shared}
    return chosen


@pytest.mark.parametrize("seed", range(40))
def test_matching_by_score_takes_turns(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 40, 2)
    found, truth = np.nonzero(rng.random((n, m + 1)) < rng.random())
    order = np.lexsort([rng.random(len(found)), found])  # each one's wishes in any order
    found, truth = found[order], truth[order]
    got = match_by_score(found, truth, n, m)
    assert got.tolist() == greedy(found.tolist(), truth.tolist(), n, m)


def test_a_chain_in_which_each_displaces_the_next():
    # Each detection wants the label of the one before it first, which has it.
    n = 2000
    found = np.repeat(np.arange(n), 2)
    truth = np.stack([np.maximum(np.arange(n) - 1, 0), np.arange(n)], axis=1).ravel()
    assert (truth[match_by_score(found, truth, n, n)] == np.arange(n)).all()
