"""A training that is killed goes on to the result that it would have had."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from support.fields import field, write_labels
from support.tiny_training import FakeScores, tiny
from torch import Tensor

from geo_retina.dataset.samples import TrainSamples
from geo_retina.errors import TrainingError
from geo_retina.model import load_model
from geo_retina.options import SampleOptions, SplitOptions, TrainOptions
from geo_retina.scene import open_scene
from geo_retina.training import epoch_end, train, trainer
from geo_retina.training.lightning_module import RetinaNetTask
from geo_retina.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return field(tmp_path_factory.mktemp("field"), side=200)[:2]


@pytest.fixture
def chancy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's own chance decide too, as dropout would; keep the state when all is done."""
    step = RetinaNetTask.training_step

    def shaken(self: RetinaNetTask, batch: Any, batch_idx: int) -> Tensor:
        return step(self, batch, batch_idx) * (0.5 + torch.rand(()))

    monkeypatch.setattr(RetinaNetTask, "training_step", shaken)
    monkeypatch.setattr(RunFolder, "finish", lambda self: None)


def kill_at(sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop when a sample is to be read, as a kill would: nothing is tidied up."""
    read = TrainSamples.__getitem__

    def fail(self: TrainSamples, number: int) -> Any:
        if number >= sample:
            raise KeyError("killed")
        return read(self, number)

    monkeypatch.setattr(TrainSamples, "__getitem__", fail)


def rising(monkeypatch: pytest.MonkeyPatch, scores: dict[int, float] | None = None) -> None:
    """Score every epoch by its number, so that the last one is the best."""

    def score(self: Any, epoch: int) -> dict[str, float]:
        monkeypatch.setattr(
            epoch_end,
            "validate",
            lambda *_: FakeScores((scores or {}).get(epoch, epoch / 10)),
        )
        return original(self, epoch)

    original = epoch_end.Validation._score
    monkeypatch.setattr(epoch_end.Validation, "_score", score)
    for module in (epoch_end, trainer):  # curves are not what is tested here
        monkeypatch.setattr(module, "draw_training_curves", lambda *_: None)


def assert_same(one: Any, other: Any, place: str = "state") -> None:
    """Compare checkpoints to the last bit; times differ."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            if key not in ("seconds", "starts"):
                assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{i}")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


ORIENTED = {
    "network": {"backbone": "test_resnet", "channels": 16, "convs": 1, "boxes": "oriented"},
    "samples": SampleOptions(window_px=64, rotate="any", hard_share=0.2, hard_from_epoch=1),
    "ema": 0.9,
}


@pytest.mark.parametrize(
    "how",
    [{"workers": 1}, {"optimizer": "sgd", "lr": 1e-2, "accumulate": 2}, ORIENTED],
    ids=["workers", "sgd", "oriented"],
)
def test_a_killed_run_ends_as_an_unbroken_one(
    how: dict[str, Any],
    scene_and_labels: tuple[Path, Path],
    chancy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rising(monkeypatch)
    options = tiny(*scene_and_labels, **how)
    whole = train(options, tmp_path / "whole.safetensors")
    with monkeypatch.context() as broken:
        kill_at(8 * 2 + 5, broken)  # in the second step of the third epoch
        with pytest.raises(KeyError, match="killed"):
            train(options, tmp_path / "parts.safetensors")
    folder = tmp_path / "parts.safetensors.train"
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1
    best = state["callbacks"]["Validation"]["best"]
    assert best["value"] == pytest.approx(0.2)  # the best so far is kept
    parts = train(options, tmp_path / "parts.safetensors", resume=True)
    assert_same(parts.network.state_dict(), whole.network.state_dict())
    assert parts.card.training["history"] == whole.card.training["history"]
    assert len(parts.card.training["history"]) == 4
    assert (whole.card.training["starts"], parts.card.training["starts"]) == (1, 2)
    ends = [
        torch.load(tmp_path / f"{name}.safetensors.train" / "last.ckpt", weights_only=True)
        for name in ("whole", "parts")
    ]
    assert {"optimizer_states", "lr_schedulers", "callbacks", "state_dict"} <= ends[0].keys()
    for end in ends:
        end.pop("loops")  # Lightning counts restarts there
    assert_same(*ends)
    tables = [
        (tmp_path / f"{name}.safetensors.train" / "epochs.csv").read_text()
        for name in ("whole", "parts")
    ]
    assert tables[0] == tables[1]


def test_killed_in_the_first_epoch_or_after_the_last(
    scene_and_labels: tuple[Path, Path],
    chancy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rising(monkeypatch)
    options = tiny(*scene_and_labels, epochs=2)
    whole = train(options)
    with monkeypatch.context() as broken:
        kill_at(5, broken)
        with pytest.raises(KeyError, match="killed"):
            train(options, tmp_path / "m.safetensors")
    parts = train(options, tmp_path / "m.safetensors", resume=True)
    assert_same(parts.network.state_dict(), whole.network.state_dict())
    # Killed when all was learned and nothing written: the state alone gives the model.
    (tmp_path / "m.safetensors").unlink()
    with monkeypatch.context() as broken:
        kill_at(0, broken)
        train(options, tmp_path / "m.safetensors", resume=True)
    again = load_model(tmp_path / "m.safetensors")
    assert again.card.training["history"] == whole.card.training["history"]
    learned = json.loads((tmp_path / "m.safetensors.train" / "run.json").read_text())["facts"]
    assert again.card.training["seconds"] >= learned["seconds"] > 0


def test_a_run_that_ended_early_ends_there_again(
    scene_and_labels: tuple[Path, Path],
    chancy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores 0.5, 0.4, 0.4: with a patience of two the third epoch is the last."""
    rising(monkeypatch, {1: 0.5, 2: 0.4, 3: 0.4, 4: 0.9})
    options = tiny(*scene_and_labels, patience=2)
    model = train(options, tmp_path / "m.safetensors")
    assert [r["epoch"] for r in model.card.training["history"]] == [1, 2, 3]
    assert model.card.training["best_epoch"] == 1
    (tmp_path / "m.safetensors").unlink()
    again = train(options, tmp_path / "m.safetensors", resume=True)
    assert again.card.training["history"] == model.card.training["history"]


def begun(options: TrainOptions, out: Path, monkeypatch: pytest.MonkeyPatch, sample: int) -> Path:
    with monkeypatch.context() as broken:
        kill_at(sample, broken)
        with pytest.raises(KeyError, match="killed"):
            train(options, out)
    return out.with_name(f"{out.name}.train")


def test_what_does_not_fit_the_folder_says_what_to_do(
    scene_and_labels: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising(monkeypatch)
    out, options = tmp_path / "m.safetensors", tiny(*scene_and_labels)
    with pytest.raises(
        TrainingError, match=r"train holds no training run to resume; leave out res"
    ):
        train(options, out, resume=True)
    folder = begun(options, out, monkeypatch, sample=9)
    with pytest.raises(
        TrainingError, match=r"did not finish; give resume=True .* or overwrite=True"
    ):
        train(options, out)
    other = tiny(*scene_and_labels, batch=2, epochs=5, workers=1)
    with pytest.raises(TrainingError, match=r"other options: batch was 4 and is 2; epochs was 4"):
        train(other, out, resume=True)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["facts"]["data"]["labels"] = "0" * 64
    (folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="the labels or the scenes' names or shapes changed"):
        train(options, out, resume=True)
    (folder / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json cannot be read .* overwrite=True"):
        train(options, out, resume=True)


def test_other_pixels_or_areas_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch)
    scene, labels, _ = field(tmp_path)
    areas, out = tmp_path / "areas.gpkg", tmp_path / "m.safetensors"
    grid = open_scene(scene).grid

    def deal(width: int) -> None:
        areas.unlink(missing_ok=True)
        write_labels(areas, [[0, 0, width, 400]], grid=grid, part=["val"])

    deal(150)
    split = SplitOptions(areas=str(areas), column="part", val=("val",))
    options = tiny(scene, labels, split=split, epochs=2)
    begun(options, out, monkeypatch, sample=9)
    deal(160)
    with pytest.raises(TrainingError, match="the validation or test ground changed since"):
        train(options, out, resume=True)
    deal(150)  # the same ground in another file
    before = scene.stat()
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(np.full((1, 9, 9), 7, np.uint8), [1], window=((0, 9), (0, 9)))
    os.utime(scene, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(TrainingError, match="the scenes' files changed since"):
        train(options, out, resume=True)


def test_a_run_of_an_earlier_version_is_refused_in_a_sentence(tmp_path, monkeypatch):
    rising(monkeypatch)
    scene, labels, _ = field(tmp_path)
    options, out = tiny(scene, labels, epochs=2), tmp_path / "m.safetensors"
    begun(options, out, monkeypatch, sample=9)
    manifest = tmp_path / "m.safetensors.train" / "run.json"
    state = json.loads(manifest.read_text())
    state["facts"]["data"] = "a fingerprint"
    manifest.write_text(json.dumps(state))
    with pytest.raises(TrainingError, match="begun by another version"):
        train(options, out, resume=True)


def test_what_ended_before_its_first_epoch_is_in_nobodys_way(
    scene_and_labels: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising(monkeypatch)
    out, options = tmp_path / "m.safetensors", tiny(*scene_and_labels, epochs=1)
    begun(options, out, monkeypatch, sample=3)
    assert train(tiny(*scene_and_labels, epochs=1, batch=2), out).card.training["starts"] == 1


def test_overwriting_begins_anew_and_spares_what_is_not_ours(
    scene_and_labels: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising(monkeypatch)
    out = tmp_path / "m.safetensors"
    options = tiny(*scene_and_labels, epochs=2)
    folder = begun(options, out, monkeypatch, sample=9)
    (folder / "notes.txt").write_text("mine")
    model = train(options, out, overwrite=True)
    assert model.card.training["starts"] == 1
    assert [r["epoch"] for r in model.card.training["history"]] == [1, 2]
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "last.ckpt").exists()


class Malicious:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trap),)


def test_a_checkpoint_is_never_unpickled(
    scene_and_labels: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising(monkeypatch)
    out, options = tmp_path / "m.safetensors", tiny(*scene_and_labels)
    folder = begun(options, out, monkeypatch, sample=9)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    trap = tmp_path / "trap"
    torch.save({**state, "extra": Malicious(trap)}, folder / "last.ckpt")
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be read .* overwrite=True"):
        train(options, out, resume=True)
    assert not trap.exists()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Malicious(tmp_path / "no" / "trap")))  # so it was a trap
