"""What epochs are compared by."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina import EvaluateOptions, evaluate
from geo_retina.errors import TrainingError
from geo_retina.training.validation.epoch_measure import (
    choose_measure,
    mean_f1_around_best,
    measure_epoch,
)

CRS = "EPSG:32633"


def frame(x, scores=None):
    columns = {"class": ["tree"] * len(x)} | ({} if scores is None else {"score": scores})
    points = shapely.points(500_000 + 100.0 * np.asarray(x), 5_000_000.0)
    return gpd.GeoDataFrame(columns, geometry=shapely.buffer(points, 3, quad_segs=1), crs=CRS)


def evaluation(scores, true, labels):
    """Detections in a row, of which some lie on the labels, one each."""
    x = np.where(true, np.arange(len(scores)), 1000 + np.arange(len(scores)))
    hit = np.flatnonzero(true)
    missed = 2000 + np.arange(labels - len(hit))
    return evaluate(
        frame(x, scores), frame(np.concatenate([hit, missed])), EvaluateOptions(radius_m=5)
    )


def test_band_is_the_mean_of_f1_at_each_threshold():
    """Counted threshold by threshold, as a person would."""
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.05, 0.95, 60).round(3)
    true = rng.uniform(size=60) < scores
    labels = int(true.sum()) + 7
    found = evaluation(scores, true, labels)
    best = found.overall.best_score
    by_hand = []
    for step in range(-5, 6):
        kept = scores >= best + step / 50 - 1e-9
        by_hand.append(2 * true[kept].sum() / (kept.sum() + labels))
    assert max(by_hand) == pytest.approx(found.overall.best_f1)
    assert mean_f1_around_best(found) == pytest.approx(np.mean(by_hand))
    assert mean_f1_around_best(found) < found.overall.best_f1


def test_band_prefers_a_plateau_to_a_peak_of_the_same_height():
    true = np.array([True] * 8 + [False] * 8)
    apart = evaluation(np.r_[np.full(8, 0.8), np.full(8, 0.1)], true, 10)
    close = evaluation(np.r_[np.full(8, 0.8), np.full(8, 0.79)], true, 10)
    assert apart.overall.best_f1 == close.overall.best_f1
    # The five thresholds above 0.8 keep nothing.
    assert mean_f1_around_best(apart) == pytest.approx(6 / 11 * apart.overall.best_f1)
    assert mean_f1_around_best(close) < mean_f1_around_best(apart)


def test_band_where_nothing_matches():
    assert mean_f1_around_best(evaluation(np.array([0.5]), np.array([False]), 1)) == 0


def test_boxes_are_measured_by_f1_and_fit_together():
    every = evaluation(np.array([0.5]), np.array([True]), 1)
    assert measure_epoch("f1_and_ap", 0.8, 0.4, every) == pytest.approx(0.6)
    assert measure_epoch("f1_and_ap", 0.8, None, every) == pytest.approx(0.4)
    assert measure_epoch("f1", 0.8, 0.4, every) == 0.8


def test_the_measure_follows_the_kind_of_labels():
    assert choose_measure("auto", by_radius=False) == "f1_and_ap"
    assert choose_measure("auto", by_radius=True) == "f1_band"
    assert choose_measure("f1", by_radius=True) == "f1"
    assert choose_measure("f1_band", by_radius=False) == "f1_band"
    with pytest.raises(TrainingError, match=r"gives no AP50:95; take f1_band"):
        choose_measure("f1_and_ap", by_radius=True)
