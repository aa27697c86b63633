"""The reliability of scores, against shares that are known."""

from __future__ import annotations

import numpy as np
import pytest

from geo_retina.evaluation import measure_reliability


def test_the_error_is_the_mean_distance_to_the_share_of_true_ones():
    is_true = np.arange(100) % 2 == 0
    assert measure_reliability(np.full(100, 0.75), is_true).error == pytest.approx(0.25)
    scores = np.repeat([0.2, 0.9], 50)
    measured = measure_reliability(scores, np.repeat([True, False], 50))
    assert measured.error == pytest.approx((0.8 + 0.9) / 2)
    assert sum(measured.detections) == 100
    assert measured.predicted == tuple(sorted(measured.predicted))


def test_scores_that_are_probabilities_lie_on_the_line():
    random = np.random.default_rng(0)
    scores = random.uniform(0.05, 0.99, 20_000)
    measured = measure_reliability(scores, random.random(20_000) < scores)
    assert measured.error < 0.02
    assert np.array(measured.share) == pytest.approx(np.array(measured.predicted), abs=0.04)


def test_nothing_and_scores_beyond_one_have_none():
    assert measure_reliability(np.empty(0), np.empty(0, bool)) is None
    assert measure_reliability(np.array([3.0]), np.array([True])) is None
    assert len(measure_reliability(np.array([0.3]), np.array([True])).share) == 1
