"""Training that starts from a model: what is kept, what begins afresh, what is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.fields import field
from support.stubs import TINY_NETWORK, tiny_card, tiny_model
from support.tiny_training import FakeScores, tiny

from geo_retina.dataset.radiometry import BandStatistics
from geo_retina.errors import GeoRetinaError, ModelError, TrainingError
from geo_retina.model import Band, Radiometry, load_card
from geo_retina.options.training_parts import StartOptions
from geo_retina.training import epoch_end, train
from geo_retina.training.initial_weights import (
    about_resolution,
    first_network,
    keep_radiometry,
    load_start,
    stages_to_freeze,
)
from geo_retina.training.setup import prepare

RGB = tiny_card().bands
RGBN = (*RGB, Band("nir", 4))


def options(**how: object):
    return tiny("a.tif", "b.gpkg", weights="m.safetensors", **how)


def taken_over(bands, classes, start):
    return first_network(options().start, TINY_NETWORK, bands, classes, start, 100)


def test_the_same_bands_and_classes_keep_every_weight() -> None:
    start = tiny_model()
    network, source = taken_over(RGB, ("car", "tree"), start)
    assert source == "Started from the model tiny."
    for name, tensor in start.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_known_classes_keep_their_outputs_and_others_begin_afresh() -> None:
    """Logits of a class that both know are the same wherever it stands."""
    start = tiny_model()
    with torch.no_grad():
        start.network.class_subnet.output.weight.normal_()
    network, source = taken_over(RGB, ("ship", "Tree"), start)
    assert source.endswith("Class outputs that begin afresh: ship.")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        old, new = start.network.eval()(image), network.eval()(image)
    for a, b in zip(old.logits, new.logits, strict=True):
        torch.testing.assert_close(b[..., 1], a[..., 1])
        assert float(b[..., 0].sigmoid().mean()) == pytest.approx(0.01, rel=0.2)  # the prior
    for a, b in zip(old.deltas, new.deltas, strict=True):
        torch.testing.assert_close(b, a)
    _, source = taken_over(RGB, ("tree", "car"), start)
    assert "put in the order" in source


def test_further_bands_leave_the_answer_to_grey_as_it_was() -> None:
    start = tiny_model()
    network, source = taken_over(RGBN, ("car", "tree"), start)
    assert "adapted to 4 bands. Bands it did not know: nir." in source
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        old = start.network.eval()(grey.expand(1, 3, 64, 64))
        new = network.eval()(grey.expand(1, 4, 64, 64))
    for a, b in zip(old.logits, new.logits, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_bands_are_known_by_name() -> None:
    start = tiny_model()
    network, _ = taken_over((RGB[2], RGB[0]), ("car", "tree"), start)
    weight = next(iter(start.network.backbone.parameters()))
    moved = next(iter(network.backbone.parameters()))
    torch.testing.assert_close(moved, weight[:, [2, 0]] * 1.5)


def test_pixels_are_normalised_as_the_model_knows_them() -> None:
    start = tiny_model(radiometry=Radiometry("uint8", (100.0, 90.0, 80.0), (50.0, 40.0, 30.0)))
    measured = BandStatistics(
        Radiometry("uint8", (127.5,) * 4, (127.5,) * 4),
        np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        np.array([0.5, 0.6, 0.7, 0.8], np.float32),
    )
    kept = keep_radiometry(measured, RGBN, start)
    assert kept.radiometry == Radiometry(
        "uint8", (100.0, 90.0, 80.0, 127.5), (50.0, 40.0, 30.0, 127.5)
    )
    # The same pixels have the same mean and deviation, in whatever units.
    for stats in (measured, kept):
        scale, offset = np.array(stats.radiometry.scale), np.array(stats.radiometry.offset)
        np.testing.assert_allclose(
            stats.mean * scale + offset, np.array([0.1, 0.2, 0.3, 0.4]) * 127.5 + 127.5, rtol=1e-5
        )
        np.testing.assert_allclose(
            stats.std * scale, np.array([0.5, 0.6, 0.7, 0.8]) * 127.5, rtol=1e-5
        )
    other = replace(measured, radiometry=Radiometry("uint16", (1.0,) * 4, (2.0,) * 4))
    assert keep_radiometry(other, RGBN, start) is other
    assert keep_radiometry(measured, RGBN, None) is measured


def test_other_pixels_than_it_was_made_for_are_said() -> None:
    start = tiny_model()
    assert about_resolution("x.", start, 0.5) == "x."
    assert about_resolution("x.", start, 2.0).endswith(
        "made for pixels of 0.5 m, and here they are 2 m."
    )


def test_a_model_that_is_not_there_is_found_out_before_anything_is_read() -> None:
    with pytest.raises(ModelError, match="neither a model file nor a bundled model"):
        train(tiny("nowhere.tif", "nowhere.gpkg", weights="nowhere.safetensors"))
    before = torch.random.get_rng_state()
    assert load_start(tiny("a.tif", "b.gpkg", weights="demo").start, "unused") is not None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fine_tuning_from_a_file_with_frozen_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(0.5))
    scene, labels, _ = field(tmp_path, side=200)
    start = tiny_model()
    path = start.save(tmp_path / "start.safetensors", half=False)
    how = {"weights": str(path), "freeze": 4, "epochs": 1}
    model = train(tiny(scene, labels, **how))
    assert model.card.network == start.card.network
    assert model.card.classes == ("object",)
    assert model.card.radiometry == start.card.radiometry
    first = model.card.training["first_weights"]
    assert first == "Started from the model tiny. Class outputs that begin afresh: object."
    assert model.card.training["options"]["weights"] == "start.safetensors"
    before, after = start.network.state_dict(), model.network.state_dict()
    for name in before:
        if name.startswith("backbone."):
            # The average of equal weights differs from them in the last bit at most.
            torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(before["pyramid.smooth.p2.weight"], after["pyramid.smooth.p2.weight"])


@pytest.mark.parametrize(
    ("freeze", "weights", "labels", "stages"),
    [
        ("auto", "trees-naip", 150, 3),
        ("auto", "trees-naip", 200, 2),
        ("auto", "trees-naip", 4999, 1),
        ("auto", "trees-naip", 5000, 0),
        ("auto", None, 10, 0),
        (1, None, 10, 1),
    ],
)
def test_stages_to_freeze(freeze, weights, labels, stages):
    start = StartOptions(weights=weights, pretrained=False, freeze=freeze, freeze_norms=False)
    assert stages_to_freeze(start, labels, 4) == stages
    assert stages_to_freeze(start, labels, 0) == (0 if freeze == "auto" else stages)


def test_a_network_that_the_model_has_may_be_asked_for_and_another_is_refused() -> None:
    """So a config trains on from its own result."""
    nowhere = "none.tif", "none.gpkg"
    own = {"channels": 96, "levels": list(load_card("demo").network.levels)}
    with pytest.raises(GeoRetinaError, match=r"none\.tif"):
        train(tiny(*nowhere, weights="demo", network=own))
    other = {**own, "channels": 32}
    with pytest.raises(TrainingError, match=r"demo has channels 96, but network\.channels is 32"):
        train(tiny(*nowhere, weights="demo", network=other))


def test_reviews_that_the_weights_were_fitted_to_stay_on_the_card(tmp_path: Path) -> None:
    """Else cells that an earlier training saw would be counted by as if no model had seen them."""
    scene, labels, _ = field(tmp_path, side=200)
    reviews = [{"frame": "town", "cells": (3, 5)}, {"frame": "village", "cells": (4,)}]
    start = tiny_model()
    fitted = {"review": reviews[0], "earlier_reviews": reviews[1:]}
    path = replace(start, card=replace(start.card, training=fitted)).save(
        tmp_path / "a.safetensors"
    )
    card = prepare(tiny(scene, labels, weights=str(path))).card
    assert "review" not in card.training
    assert list(card.training["earlier_reviews"]) == reviews
