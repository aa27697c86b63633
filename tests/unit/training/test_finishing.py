"""At the end of a training, ranges of integers are measured, and what they cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support.fields import field
from support.tiny_training import tiny

from geo_retina.errors import ModelError
from geo_retina.model import load_model
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.quantizing import quantize
from geo_retina.training import finishing, train
from geo_retina.training.validation import integer_cost


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return field(tmp_path_factory.mktemp("field"), side=200)[:2]


def test_ranges_are_in_the_file_and_the_cost_of_few_labels_is_not_measurable(
    scene_and_labels: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model.safetensors"
    model = train(tiny(*scene_and_labels, epochs=1, quantize=True), out)
    again = load_model(out)
    about = again.card.metrics["quantization"]
    assert again.card == model.card
    assert about["labels"] < 2000
    assert (about["cost"], about["costs_little"]) == ("not measurable", False)
    assert (about["tiles"], about["tiles_from"]) == (64, "training windows")
    assert not again.is_quantized_well
    assert again.quantization is not None
    assert model.quantization is not None
    assert again.quantization.ranges == model.quantization.ranges
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        folded = fold_batch_norms(again.network).eval()
        exact, rounded = (
            each(image).logits[0] for each in (folded, quantize(folded, again.quantization))
        )
    assert 0 < float((exact - rounded).std() / exact.std()) < 0.3


def test_the_cost_is_measured_where_labels_are_enough(
    scene_and_labels: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (finishing, integer_cost):
        monkeypatch.setattr(module, "FEWEST_LABELS", 10)
    monkeypatch.setattr(integer_cost, "has_openvino", lambda: False)
    model = train(tiny(*scene_and_labels, epochs=1, quantize=True))
    about = model.card.metrics["quantization"]
    assert about["cost"] == "measured"
    assert about["f1"]["a"] is not None
    assert about["f1"]["b"] is not None
    assert model.is_quantized_well is about["costs_little"]


def test_networks_that_cannot_be_folded_are_written_without_ranges(
    scene_and_labels: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(network: object) -> None:
        raise ModelError("folding changes it")

    monkeypatch.setattr(finishing, "fold_batch_norms", fail)
    model = train(tiny(*scene_and_labels, epochs=1, quantize=True))
    assert model.quantization is None
    assert "folding changes it" in caplog.text
    assert "quantization" not in model.card.metrics


def test_a_training_on_a_node_of_a_cluster_says_nothing_of_its_queue(
    scene_and_labels: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    train(tiny(*scene_and_labels, epochs=1))  # a warning would be an error
