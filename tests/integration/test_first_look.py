"""What a first look keeps is measured on labelled scenes, and written on the card."""

from __future__ import annotations

import dataclasses
import functools

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from support.stubs import (
    NORTH_UP,
    UTM,
    paint,
    stub_model,
    white_rectangles,
    write_scene,
)

from geo_retina import CalibrateOptions, DataOptions, DetectOptions, RunOptions, calibrate, detect
from geo_retina.errors import LabelError
from geo_retina.model import load_model

CPU = RunOptions(device="cpu")
MEASURING = CalibrateOptions(search_nms=False, prescreen=True)


def labelled(tmp_path, thin: int, count: int = 625) -> DataOptions:
    """Draw objects on a lattice, some of which are two pixels wide."""
    side = int(count**0.5)
    corner = np.stack(np.meshgrid(range(side), range(side)), axis=-1).reshape(-1, 2) * 40 + 8
    boxes = np.hstack([corner, corner + np.array([16, 12])])
    boxes[:thin, 2] = boxes[:thin, 0] + 2
    shape = (side * 40 + 8, side * 40 + 8)
    write_scene(tmp_path / "a.tif", paint(shape, boxes))
    placed = [shapely.box(*box) for box in boxes]
    outlines = shapely.transform(placed, lambda points: np.stack(NORTH_UP @ points.T, axis=1))
    gpd.GeoDataFrame({"kind": "car"}, index=range(len(boxes)), geometry=outlines, crs=UTM).to_file(
        tmp_path / "labels.gpkg"
    )
    return DataOptions(scenes=str(tmp_path / "a.tif"), labels=str(tmp_path / "labels.gpkg"))


def of_one_class(tiles_NCHW):
    found = white_rectangles(tiles_NCHW)
    return found._replace(labels_M=found.labels_M * 0)


def one_class(find=of_one_class):
    model = stub_model(find, classes=("car",), thresholds=(0.5,))
    return dataclasses.replace(model, card=dataclasses.replace(model.card, tile_px=128))


@pytest.mark.parametrize(("thin", "factor"), [(3, 4), (40, 2)])
def test_the_coarsest_look_that_keeps_the_objects_is_chosen(tmp_path, thin, factor):
    data, out = labelled(tmp_path, thin), tmp_path / "m.safetensors"
    report = calibrate(one_class(), data, out, MEASURING, CPU)
    how, about = report.card.prescreen, report.card.metrics["prescreen"]
    assert (how.factor, how.score) == (factor, pytest.approx(0.75))
    assert how.thresholds == report.card.thresholds
    assert about["objects"] == 625
    tried = {each["factor"]: each for each in about["tried"]}
    assert tried[factor]["kept"] >= 0.995 * 625
    assert tried[factor]["tiles_kept"] == 0
    if factor == 2:
        assert tried[4]["score"] == 0  # more than 3 of 625 are lost at a quarter
    assert "a first look is at" in report.text()
    written = dataclasses.replace(load_model(out), predictor=one_class().predictor)
    options = DetectOptions(tile_px=128, overlap_px=32, prescreen=True)
    assert len(detect(tmp_path / "a.tif", written, options, CPU)) >= 622


def test_a_look_that_sees_objects_everywhere_is_none(tmp_path):
    data = labelled(tmp_path, thin=0)

    def everywhere(tiles_NCHW, size):
        found = of_one_class(tiles_NCHW)
        if tiles_NCHW.shape[-1] >= size:
            return found
        # One of these lies between the lattice's columns, whichever tile it is.
        count = len(tiles_NCHW)
        spots = torch.tensor([[x - 1.0, 0.0, x + 1.0, 2.0] for x in range(1, 10)]).repeat(count, 1)
        image = torch.cat([found.image_M, torch.arange(count).repeat_interleave(9)])
        order = image.argsort(stable=True)
        return found._replace(
            boxes_M4=torch.cat([found.boxes_M4, spots])[order],
            scores_M=torch.full((len(image),), 0.75),
            labels_M=torch.zeros(len(image), dtype=torch.int64),
            image_M=image[order],
        )

    find = functools.partial(everywhere, size=128)
    report = calibrate(one_class(find), data, tmp_path / "m.safetensors", MEASURING, CPU)
    assert report.card.prescreen is None
    assert report.card.metrics["prescreen"]["gains"] is False
    assert "would leave nearly all of the work" in report.text()


def test_too_few_objects_are_refused(tmp_path):
    data = labelled(tmp_path, thin=0, count=400)
    with pytest.raises(LabelError, match="expected 600 or more"):
        calibrate(one_class(), data, tmp_path / "m.safetensors", MEASURING, CPU)


def test_calibrating_anew_takes_the_first_look_off_the_card(tmp_path):
    data, out = labelled(tmp_path, thin=0), tmp_path / "m.safetensors"
    first = calibrate(one_class(), data, out, MEASURING, CPU)
    assert first.card.prescreen is not None
    again = dataclasses.replace(load_model(out), predictor=one_class().predictor)
    plain = dataclasses.replace(MEASURING, prescreen=False)
    second = calibrate(again, data, tmp_path / "n.safetensors", plain, CPU)
    assert second.card.prescreen is None
    assert "prescreen" not in second.card.metrics
