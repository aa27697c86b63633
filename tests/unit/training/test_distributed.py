"""Two processes that share each batch learn what one does."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.fields import field
from support.tiny_training import FakeScores, tiny

from geo_retina.cli._report import TrainingLine
from geo_retina.dataset.samples import EpochSampler
from geo_retina.errors import TrainingError
from geo_retina.training import distributed, epoch_end, loggers, train
from geo_retina.training.distributed import SharedSampler


@pytest.mark.parametrize(("per_epoch", "processes"), [(12, 2), (13, 3), (3, 4)])
def test_processes_share_each_batch(
    per_epoch: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "_place", lambda rank=rank: (rank, processes))
        sampler = SharedSampler(EpochSampler(per_epoch))
        sampler.set_epoch(2)
        parts.append(list(sampler))
        assert len(parts[-1]) == len(sampler) == per_epoch // processes
    # The n-th sample of each process, taken together, are the next ones of a single process.
    together = [number for step in zip(*parts, strict=True) for number in step]
    whole = list(range(2 * per_epoch, 2 * per_epoch + per_epoch))
    assert together == whole[: len(together)]


@pytest.mark.parametrize("boxes", ["upright", pytest.param("oriented", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(
    boxes: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without batch norms, whose statistics are each process' own, only rounding differs."""
    scene, labels, _ = field(tmp_path, side=200)
    network = {"backbone": "test_resnet", "channels": 16, "convs": 1, "norm": "none"}
    network["boxes"] = boxes
    options = {"network": network, "epochs": 2, "lr": 1e-3, "optimizer": "sgd", "freeze": 4}
    one = train(tiny(scene, labels, **options))
    out = tmp_path / "two.safetensors"
    two = train(tiny(scene, labels, devices=2, **options), out, progress=TrainingLine())
    assert out.exists()
    # The first process tells, in words as the command does without a terminal.
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]
    lines = [line for line in told if ", step " not in line]  # a slow machine tells of steps too
    assert [line.split(",")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("class_loss" in line and "f1" in line for line in lines)
    learned, other = one.network.state_dict(), two.network.state_dict()
    for name, tensor in learned.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=2e-6)
    # So that being equal is no wonder: the prior's bias has moved by far more.
    bias = learned["class_subnet.output.bias"]
    assert float((bias + math.log(0.99 / 0.01)).abs().max()) > 1e-4
    for a, b in zip(one.card.training["history"], two.card.training["history"], strict=True):
        assert a["class_loss"] == pytest.approx(b["class_loss"], rel=1e-4)
        assert a["box_loss"] == pytest.approx(b["box_loss"], rel=1e-4)


def test_progress_that_cannot_be_shared_is_refused_before_anything_is_read() -> None:
    options = tiny("nowhere.tif", "nowhere.gpkg", devices=2)
    with pytest.raises(TrainingError, match=r"^progress is .* cannot be pickled .* 2 devices"):
        train(options, progress=lambda state: None)


def test_tensorboard_is_asked_for_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"needs the package tensorboard,.* pip install"):
        train(tiny("nowhere.tif", "nowhere.gpkg", tensorboard=True))


def test_tensorboards_log_has_the_numbers_of_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(0.5))
    scene, labels, _ = field(tmp_path, side=200)
    out = tmp_path / "m.safetensors"
    model = train(tiny(scene, labels, tensorboard=True, epochs=2), out)
    events = reading.EventAccumulator(str(tmp_path / "m.safetensors.train/tensorboard/001"))
    events.Reload()
    logged = [event.value for event in events.Scalars("epoch_class_loss")]
    history = model.card.training["history"]
    assert logged == pytest.approx([record["class_loss"] for record in history])


def test_the_logs_of_every_start_stand_side_by_side(tmp_path: Path) -> None:
    folder = SimpleNamespace(path=tmp_path, facts={"starts": 2})
    (logger,) = loggers.make_loggers(folder, tensorboard=False)
    assert Path(logger.log_dir) == tmp_path / "steps" / "002"
