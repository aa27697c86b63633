"""Score maps and thresholds against distributions whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from geo_retina.calibration.fitting import MatchedScores, fit_classes, fit_elsewhere, limits
from geo_retina.calibration.score_maps import best_threshold, fit_score_map
from geo_retina.errors import ModelError
from geo_retina.evaluation import measure_reliability
from geo_retina.model import ScoreMap, load_card


def drawn(n, true_map, seed=0):
    random = np.random.default_rng(seed)
    scores = random.uniform(0.05, 0.99, n)
    return scores, random.random(n) < true_map.apply(scores)


def test_the_map_that_made_the_truth_is_found_again():
    wanted = ScoreMap(intercept=-0.8, slope=1.6)
    found = fit_score_map(*drawn(20_000, wanted))
    assert found.intercept == pytest.approx(wanted.intercept, abs=0.1)
    assert found.slope == pytest.approx(wanted.slope, abs=0.1)


def test_the_map_rises_and_stays_a_probability():
    scores = np.linspace(0, 1, 101)
    for each in (
        ScoreMap(-3.0, 0.2),
        ScoreMap(2.0, 5.0),
        fit_score_map(*drawn(30, ScoreMap(0, 1))),
    ):
        mapped = each.apply(scores)
        assert (np.diff(mapped) >= 0).all()
        assert mapped.min() >= 0
        assert mapped.max() <= 1


def test_few_or_separable_detections_stay_near_the_scores():
    assert fit_score_map(np.empty(0), np.empty(0, bool)) == ScoreMap(0.0, 1.0)
    separable = fit_score_map(np.array([0.2, 0.9]), np.array([False, True]))
    assert abs(separable.intercept) < 1
    assert separable.slope < 3


def test_a_map_that_falls_is_refused():
    with pytest.raises(ModelError, match="the second above 0"):
        ScoreMap(0.0, -1.0)


def test_the_threshold_is_where_the_probability_is_half_the_best_f1():
    """Lipton, Elkan and Naryanaswamy 2014, theorem 1: so the best threshold is known."""
    scores = np.linspace(0.01, 0.99, 5001)
    labels = int(scores.sum())
    threshold = best_threshold(scores, scores, labels)
    kept = scores >= threshold
    f1 = 2 * scores[kept].sum() / (kept.sum() + labels)
    assert threshold == pytest.approx(f1 / 2, abs=0.002)


def test_a_threshold_does_not_part_equal_scores():
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    threshold = best_threshold(scores, np.array([1.0, 0.9, 0.9, 0.0, 0.0]), 3)
    assert threshold in {0.3, 0.7}
    assert best_threshold(np.empty(0), np.empty(0), 3) is None


def matched(n=2000, seed=0, few=10):
    scores, is_true = drawn(n, ScoreMap(-0.5, 1.2), seed)
    random = np.random.default_rng(seed)
    names = np.array(["a"] * n, dtype=object)
    names[:few] = "b"
    labels = np.array(["a"] * int(is_true.sum() * 1.2) + ["b"] * few, dtype=object)
    blocks = random.integers(0, 12, n), random.integers(0, 12, len(labels))
    return MatchedScores(np.arange(n), names, scores, is_true, blocks[0], labels, blocks[1])


def test_a_class_with_few_labels_takes_what_suits_all():
    fit = fit_classes(matched(), ("b", "a", "c"), (0.5, 0.5, 0.5))
    shared = fit_score_map(matched().scores, matched().is_true)
    assert fit.maps[0] == fit.maps[2] == shared
    assert fit.maps[1] != shared
    assert fit.thresholds[0] == fit.thresholds[2] != 0.5


def test_blocks_are_judged_by_what_was_fitted_to_others():
    table = matched()
    kept, probabilities = fit_elsewhere(table, ("a", "b"), (0.5, 0.5))
    whole = fit_classes(table, ("a", "b"), (0.5, 0.5))
    same = table.scores >= limits(table.name, ("a", "b"), whole.thresholds)
    assert 0 < (kept != same).mean() < 0.1
    assert measure_reliability(probabilities, table.is_true).error < 0.04
    # What a block holds changes nothing for itself.
    one = table.block == table.block[0]
    turned = MatchedScores(
        table.row, table.name, table.scores, table.is_true ^ one, table.block,
        table.labels, table.label_block,
    )  # fmt: skip
    again, _ = fit_elsewhere(turned, ("a", "b"), (0.5, 0.5))
    assert (again[one] == kept[one]).all()
    alone = MatchedScores(
        table.row, table.name, table.scores, table.is_true, 0 * table.block,
        table.labels, 0 * table.label_block,
    )  # fmt: skip
    assert fit_elsewhere(alone, ("a", "b"), (0.5, 0.5)) is None


def test_a_card_keeps_its_maps_and_refuses_a_wrong_number():
    from dataclasses import replace

    card = load_card("trees-naip")
    assert card.score_maps == ()
    calibrated = replace(card, score_maps=(ScoreMap(0.5, 0.8),))
    assert type(card).from_json(calibrated.to_json()) == calibrated
    scores = np.array([0.3, 0.8], np.float32)
    wanted = ScoreMap(0.5, 0.8).apply(scores.astype(np.float64))
    assert calibrated.probabilities(scores, np.zeros(2, np.int32)) == pytest.approx(wanted)
    with pytest.raises(ModelError, match="2 maps of scores for 1 classes"):
        replace(card, score_maps=(ScoreMap(0, 1), ScoreMap(0, 1)))
