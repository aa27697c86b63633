"""A rate that works is found, and kept when the run goes on; every loss can be trained on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.fields import field
from support.tiny_training import FakeScores, tiny

from geo_retina.config import dump_options, load_train_options
from geo_retina.errors import TrainingError
from geo_retina.options import AssignOptions, LossOptions
from geo_retina.training import epoch_end, lr_finder, train, trainer
from geo_retina.training.lr_finder import steepest
from geo_retina.training.run_folder import RunFolder


def test_the_steepest_fall_is_taken() -> None:
    """A loss that falls as a logistic curve of the log rate is steepest at its middle."""
    rates = np.geomspace(1e-6, 1, 61)
    losses = 2 - 1 / (1 + np.exp(-4 * (np.log10(rates) + 3))) + np.maximum(np.log10(rates) + 1, 0)
    assert steepest(rates.tolist(), losses.tolist()) == pytest.approx(1e-3)


@pytest.mark.parametrize("losses", [[1.0] * 5, np.linspace(1, 2, 30).tolist()])
def test_a_loss_that_never_falls_is_said(losses: list[float]) -> None:
    rates = np.geomspace(1e-6, 1, len(losses)).tolist()
    with pytest.raises(TrainingError, match=r"no learning rate could be found.* give lr"):
        steepest(rates, losses)


def test_a_rate_is_found_on_a_copy_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(0.5))
    monkeypatch.setattr(RunFolder, "finish", lambda self: None)
    monkeypatch.setattr(lr_finder, "_STEPS", 14)
    scene, labels, _ = field(tmp_path, side=200)
    out = tmp_path / "m.safetensors"
    model = train(tiny(scene, labels, lr="find", epochs=1), out)
    folder = tmp_path / "m.safetensors.train"
    with (folder / "rates.csv").open() as file:
        rows = [(float(r["lr"]), float(r["smoothed_loss"])) for r in csv.DictReader(file)]
    rates, losses = zip(*rows, strict=True)
    assert sorted(rates) == list(rates)
    assert min(losses) < losses[0]
    rate = model.card.training["lr"]
    assert rate in rates
    assert 1e-6 < rate < 1
    assert json.loads((folder / "run.json").read_text())["facts"]["lr"] == rate
    # Trying changed nothing: the rate given as a number leads to the same weights.
    again = train(tiny(scene, labels, lr=rate, epochs=1))
    for name, tensor in model.network.state_dict().items():
        assert tensor.equal(again.network.state_dict()[name]), name
    # A run that goes on does not try again.
    out.unlink()
    monkeypatch.setattr(trainer, "find_rate", None)
    resumed = train(tiny(scene, labels, lr="find", epochs=1), out, resume=True)
    assert resumed.card.training["lr"] == rate


@pytest.mark.parametrize(
    ("loss", "assign"),
    [
        ({"classification": "balanced", "box": "giou", "class_weights": "inverse"}, "atss"),
        ({"classification": "ce", "box": "l1"}, "iou"),
    ],
)
def test_other_losses_and_assignments_train_from_a_config(
    loss: dict[str, str], assign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(0.5))
    scene, labels, _ = field(tmp_path, side=200)
    plain = tiny(scene, labels, epochs=3, lr=2e-3)
    options = replace(plain, loss=LossOptions(**loss), assign=AssignOptions(method=assign))
    (tmp_path / "c.yaml").write_text(dump_options(options))
    read = load_train_options(tmp_path / "c.yaml")
    assert read == options
    history = train(read).card.training["history"]
    total = [record["class_loss"] + record["box_loss"] for record in history]
    assert total[2] < total[0]
