"""Training of oriented boxes: what is refused, what is fitted, and a whole tiny run."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.fields import field
from support.tiny_training import FakeScores, tiny

from geo_retina.dataset.augment import Sample
from geo_retina.detector import detect
from geo_retina.errors import TrainingError
from geo_retina.model import load_model
from geo_retina.nn.rotated_coding import OFFSETS, hull
from geo_retina.options import AssignOptions, DetectOptions, LossOptions, SampleOptions
from geo_retina.quiet import ignored_warnings
from geo_retina.training import check_labels, epoch_end, lr_finder, train
from geo_retina.training.anchor_fit import about_anchors, square_sides
from geo_retina.training.hard_negatives import is_false
from geo_retina.training.lightning_module import loss_settings
from geo_retina.training.setup import prepare

ORIENTED = {"backbone": "test_resnet", "channels": 16, "convs": 1, "boxes": "oriented"}


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory):
    return field(tmp_path_factory.mktemp("field"))[:2]


@pytest.fixture(scope="module")
def trained(scene_and_labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "m.safetensors"
    samples = SampleOptions(window_px=64, rotate="any", hard_share=0.2, hard_from_epoch=1)
    options = tiny(*scene_and_labels, network=ORIENTED, epochs=2, samples=samples, ema=0.9)
    return train(options, out), out


def test_an_oriented_model_is_trained_saved_and_detects(trained, scene_and_labels):
    model, out = trained
    loaded = load_model(out)
    assert loaded.card.network.boxes == "oriented"
    assert loaded.network.box_subnet.outputs_per_anchor == OFFSETS
    assert set(loaded.card.network.anchor_ratios) == {1.0}
    sure = replace(model.card, thresholds=(0.01,))
    options = DetectOptions(candidates=200, max_per_tile=10_000)
    with ignored_warnings("1 tile reached a limit"):
        found = detect(scene_and_labels[0], replace(model, card=sure), options)
    assert len(found)


def test_training_goes_on_from_an_oriented_model_of_itself(trained, scene_and_labels):
    prepared = prepare(tiny(*scene_and_labels, weights=str(trained[1])))
    assert prepared.card.network.boxes == "oriented"
    assert prepared.loss.assign == "atss"


def test_a_rate_is_found_for_oriented_boxes(scene_and_labels, tmp_path, monkeypatch):
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(0.5))
    monkeypatch.setattr(lr_finder, "_STEPS", 14)
    options = tiny(*scene_and_labels, network=ORIENTED, lr="find", epochs=1)
    found = train(options, tmp_path / "m.safetensors").card.training["lr"]
    with (tmp_path / "m.safetensors.train" / "rates.csv").open() as file:
        losses = {float(row["lr"]): float(row["smoothed_loss"]) for row in csv.DictReader(file)}
    assert found in losses
    assert min(losses.values()) < losses[min(losses)]


def test_the_other_kind_of_model_is_refused_before_anything_is_read(trained, tmp_path):
    nowhere = tmp_path / "none.tif", tmp_path / "none.gpkg"
    upright = {"weights": str(trained[1]), "network": {"boxes": "upright"}}
    with pytest.raises(TrainingError, match=r"finds oriented boxes, but network\.boxes is upright"):
        train(tiny(*nowhere, **upright))
    oriented = {"weights": "demo", "network": {"boxes": "oriented"}}
    with pytest.raises(TrainingError, match=r"demo finds upright boxes, but network\.boxes is ori"):
        train(tiny(*nowhere, **oriented))
    with pytest.raises(TrainingError, match=r"loss\.box is giou, which is for upright boxes"):
        train(tiny(*nowhere, network=ORIENTED, loss=LossOptions(box="giou")))


def test_a_file_of_upright_weights_with_an_oriented_card_is_refused(tmp_path):
    from support.stubs import tiny_model

    from geo_retina.errors import ModelError

    model = tiny_model()
    network = replace(model.card.network, boxes="oriented")
    replace(model, card=replace(model.card, network=network)).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"do not fit its card: .* such as box_subnet\.output"):
        load_model(tmp_path / "m.safetensors")


def test_anchors_are_fitted_to_squares_of_the_objects_area(scene_and_labels):
    options = tiny(*scene_and_labels, network=ORIENTED)
    own = prepare(options).card.network
    assert set(own.anchor_ratios) == {1.0}
    report = check_labels(options)
    assert report.anchor_ratios == own.anchor_ratios
    long = np.array([[5.0, 5, 64, 4, 45], [9, 9, 16, 1, 0]])
    assert square_sides(long).tolist() == [[16, 16], [4, 4]]


def test_the_method_follows_the_kind_of_boxes():
    auto = AssignOptions()
    assert (auto.chosen_for("upright"), auto.chosen_for("oriented")) == ("iou", "atss")
    assert AssignOptions(method="iou").chosen_for("oriented") == "iou"
    assert loss_settings(LossOptions(), auto, {"a": 1}).assign == "iou"
    assert loss_settings(LossOptions(), auto, {"a": 1}, "oriented").assign == "atss"
    assert about_anchors(0.5, auto, "oriented") is None
    assert "0.5" in (about_anchors(0.5, auto, "upright") or "")


def test_what_lies_beside_an_oriented_object_is_false_though_hulls_overlap():
    objects = torch.tensor([[50.0, 50, 60, 10, 45]])
    found = objects + torch.tensor([[0.0, 0, 0, 0, 0], [14, -14, 0, 0, 0]])
    labels = torch.zeros(2, dtype=torch.int64)
    everywhere = torch.ones(100, 100, dtype=torch.bool)
    sample = Sample(
        torch.zeros(3, 100, 100),
        hull(objects),
        labels[:1],
        torch.zeros(0, 4),
        everywhere,
        everywhere,
        objects,
    )
    assert is_false(hull(found), labels, sample, found).tolist() == [False, True]
    assert is_false(hull(found), labels, sample).tolist() == [False, False]
