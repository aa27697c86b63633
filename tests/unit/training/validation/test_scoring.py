"""Validation reads the validation ground and not the rest of its scenes."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyproj
import pytest
from affine import Affine
from support.stubs import UTM, paint, stub_model, write_scene

from geo_retina import DetectOptions, EvaluateOptions, RunOptions, detect, open_scene
from geo_retina.boxes import to_polygons
from geo_retina.dataset.labelled_scenes import LabelledScene
from geo_retina.dataset.split import Split, Subset, frame_name
from geo_retina.scene import Scene
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import validate


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
