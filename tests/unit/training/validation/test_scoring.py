"""Validation reads the validation ground and not the rest of its scenes."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from affine import Affine
from support.stubs import UTM, paint, stub_model, write_scene

from geo_retina import DetectOptions, EvaluateOptions, RunOptions, detect, open_scene
from geo_retina.boxes import to_polygons
from geo_retina.dataset.labelled_scenes import LabelledScene
from geo_retina.dataset.split import Split, Subset, frame_name
from geo_retina.evaluation import evaluate
from geo_retina.scene import Scene
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import (
    SCORE_FLOOR,
    choose_thresholds,
    steady_threshold,
    validate,
)


@pytest.mark.parametrize("unit", [UTM, "EPSG:2225"])  # metres; US survey feet
def test_validation_reads_the_tuning_ground_only(tmp_path, monkeypatch, unit):
    boxes = np.array(
        [[x, y, x + 10, y + 16] for x in range(30, 1100, 64) for y in range(40, 1100, 64)], float
    )
    foot_m = 1200 / 3937
    scale = 1.0 if unit == UTM else 1 / foot_m
    affine = Affine(0.5 * scale, 0, 400_000 * scale, 0, -0.5 * scale, 5_000_000 * scale)
    path = write_scene(tmp_path / "a.tif", paint((1200, 1200), boxes), affine=affine, crs=unit)
    scene = open_scene(path, bands=(1, 2, 3))
    crs = scene.grid.crs
    labels = LabelledScene(scene, boxes, np.zeros(len(boxes), np.int64), None)
    # One block of 100 m, columns 400 to 600, rows 200 to 400 of the scene's pixels.
    split = Split(100.0, frozenset({(frame_name(crs), 4002, 49998)}), 1 / 36)
    on = split.on_val(scene.grid, labels.centres_px)
    assert 0 < on.sum() < len(boxes)
    truth = gpd.GeoDataFrame(
        {"class": ["tree"] * int(on.sum()), "scene": ["a"] * int(on.sum())},
        geometry=to_polygons(boxes[on], scene.grid),
        crs=crs,
    )
    options = DetectOptions(score=0.05, tile_px=128, overlap_px=32)
    ground = ValidationGround(
        (labels,),
        ("a",),
        split.on_val,
        "one block",
        truth,
        crs,
        EvaluateOptions(scene_column="scene", class_column="class"),
        int(on.sum()),
        options,
        split.outlines(Subset.VAL),
    )
    run = RunOptions(device="cpu", block_px=256)
    whole = detect(path, stub_model(), options, run)
    read: list[int] = []
    real = Scene.read
    monkeypatch.setattr(Scene, "read", lambda s, w: read.append(w.height * w.width) or real(s, w))
    scores = validate(stub_model(), ground, run)
    assert scores.f1 == pytest.approx(1.0)
    assert sum(read) < 0.3 * scene.grid.height * scene.grid.width
    assert len(whole) == len(boxes)


def test_the_squares_are_the_blocks():
    crs = pyproj.CRS(UTM)
    split = Split(50.0, frozenset({("EPSG:32633", 2, 3), ("EPSG:32634", 9, 9)}), 0.5)
    (square,) = split.outlines(Subset.VAL)(crs)
    assert square.bounds == (100, 150, 150, 200)
    assert len(split.outlines(Subset.TEST)(crs)) == 0


def test_a_threshold_between_true_and_false_has_most_room_on_both_sides():
    scores = np.array([0.1, 0.12, 0.9, 0.85])
    chosen = steady_threshold(scores, np.array([False, False, True, True]), labels=2)
    assert chosen == pytest.approx((0.12 + 0.85) / 2, abs=0.002)


def test_a_lucky_peak_is_not_taken_for_the_best_threshold():
    """F1 is highest at 0.65 for three false ones just below, and good from 0.3 to 0.5."""
    true = np.concatenate([np.linspace(0.5, 0.62, 30), np.linspace(0.66, 0.9, 70)])
    false = np.concatenate([np.linspace(0.1, 0.3, 40), np.linspace(0.626, 0.655, 34)])
    scores = np.concatenate([true, false])
    is_true = np.arange(len(scores)) < len(true)

    def f1(threshold):
        kept = scores >= threshold
        return 2 * (kept & is_true).sum() / (kept.sum() + 100)

    assert f1(0.656) > 0.82
    chosen = steady_threshold(scores, is_true, labels=100)
    assert 0.3 < chosen < 0.5
    # Counted threshold by threshold, as a person would.
    averages = {
        t: np.mean([f1(t + d) for d in np.linspace(-0.05, 0.05, 101)])
        for t in np.arange(0.1, 0.95, 0.01)
    }
    assert averages[max(averages, key=averages.get)] == pytest.approx(
        np.mean([f1(chosen + d) for d in np.linspace(-0.05, 0.05, 101)]), abs=1e-3
    )


@pytest.mark.parametrize("scores", [[], [0.3, 0.9]])
def test_where_nothing_matches_all_detections_are_kept(scores):
    is_true = np.zeros(len(scores), bool)
    assert steady_threshold(np.array(scores), is_true, labels=3) == SCORE_FLOOR


def objects(count, *, score, kind="a", left=0.0, shift=0.0):
    """Squares of 4 m in a row, 20 m apart."""
    return gpd.GeoDataFrame(
        {"score": [score] * count, "class": kind, "scene": "s"},
        geometry=[
            shapely.box(left + 20 * i + shift, 0, left + 20 * i + shift + 4, 4)
            for i in range(count)
        ],
        crs=UTM,
    )


def test_each_class_has_its_threshold_and_one_with_few_labels_that_of_all():
    labels = pd.concat(
        [
            objects(60, score=1, kind="a"),
            objects(60, score=1, kind="b", left=5000),
            objects(5, score=1, kind="c", left=9000),
        ]
    )
    found = pd.concat(
        [
            objects(60, score=0.8, kind="a"),
            objects(60, score=0.6, kind="a", left=20_000),  # false
            objects(60, score=0.4, kind="b", left=5000),
            objects(60, score=0.2, kind="b", left=30_000),  # false
            objects(5, score=0.9, kind="c", left=9000),
        ]
    )
    every = evaluate(found, labels, EvaluateOptions(scene_column="scene", class_column="class"))
    a, b, c = choose_thresholds(every, ("a", "b", "c"))
    assert (a, b) == pytest.approx((0.7, 0.3), abs=0.002)
    assert c == pytest.approx(0.3, abs=0.002)  # by itself it would have 0.475
    alike = evaluate(found, labels, EvaluateOptions(scene_column="scene"))
    assert c == choose_thresholds(alike, ("any",))[0]


def test_what_need_not_be_found_moves_no_threshold():
    labels = objects(60, score=1).assign(doubtful=0)
    doubtful = objects(60, score=1, left=5000).assign(doubtful=1)
    found = pd.concat(
        [
            objects(60, score=0.5),
            objects(60, score=0.9, left=5000),  # ignored
            objects(60, score=0.3, left=20_000),  # false
        ]
    )
    options = EvaluateOptions(scene_column="scene", ignore_where="doubtful = 1")
    every = evaluate(found, pd.concat([labels, doubtful]), options)
    assert choose_thresholds(every, ("a",))[0] == pytest.approx(0.4, abs=0.002)


def test_a_doubtful_detection_nearer_to_a_point_takes_it_from_no_sure_one():
    labels = objects(60, score=1)
    labels["geometry"] = labels.centroid
    found = pd.concat([objects(60, score=0.8, shift=1.0), objects(60, score=0.2)])
    every = evaluate(found, labels, EvaluateOptions(scene_column="scene", radius_m=3.0))
    assert every.overall.best_f1 == 1
    assert choose_thresholds(every, ("a",))[0] == pytest.approx(0.5, abs=0.002)
