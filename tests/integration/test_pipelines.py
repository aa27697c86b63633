"""The pipelines and benchmarks, run as people run them, on scenes small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine

import geo_retina
from geo_retina.errors import OutputError
from geo_retina.model import load_model
from geo_retina.options import LossOptions
from geo_retina.review import fitted_cells, read_review
from tests.support.modules import load_module

ROOT = Path(__file__).parents[2]

SMALL = [
    "network.backbone=test_resnet",
    "network.channels=16",
    "network.convs=1",
    "pretrained=false",
    "samples.window_px=96",
    "samples_per_epoch=48",
    "split.block_m=40",
    "split.val_fraction=0.3",
    "batch=4",
    "epochs=2",
    "validate_every=2",
    "workers=0",
    "device=cpu",
]

NO_SEARCH = ["nms_iou=0.5", "quantize=false"]
"""What follows a training, where it is not what is tested."""


@pytest.fixture
def pipeline():
    return load_module(ROOT / "pipelines" / "train_and_evaluate.py")


def test_freight_is_drawn_where_asked(tmp_path, pipeline):
    _, labels = pipeline.draw(tmp_path, "freight", 512, 3, "freight")
    truth = gpd.read_file(labels)
    assert {"lorry", "wagon", "container"} >= set(truth["class"])
    area, hull = truth.area, truth.envelope.area
    assert (hull > 1.2 * area).mean() > 0.3


def test_labels_become_a_scored_model(tmp_path, pipeline, capsys):
    out = tmp_path / "out"
    arguments = [str(ROOT / "configs" / "demo.yaml"), "--out", str(out), "--draw", "640"]
    arguments += ["--class-column", "class", "--overwrite"]
    arguments += [part for value in SMALL for part in ("--set", value)]
    assert pipeline.main(arguments) == 0
    scores = json.loads((out / "scores.json").read_text())
    f1 = scores["overall"]["f1"]
    assert 0 <= f1 <= 1
    assert f"{f1:.3f}"[:4] in capsys.readouterr().out
    [weights] = out.glob("*.safetensors")
    model = load_model(weights)
    card = model.card
    assert model.quantization is not None
    truth = gpd.read_file(out / "train.gpkg")
    assert set(card.classes) == set(truth["class"])
    assert card.network.backbone == "test_resnet"
    assert card.metrics
    detections = gpd.read_file(out / "detections.gpkg")
    assert len(detections) == scores["run"]["detections"]
    # The scene of the test is another one than the one that was trained on.
    test_truth = gpd.read_file(out / "test.gpkg")
    assert not test_truth.geometry.iloc[:50].equals(truth.geometry.iloc[:50])
    # A score that was to be accepted and is missed is said by the exit code.
    assert pipeline.main([*arguments, "--accept", "1.0"]) == 1


def test_a_detection_that_was_interrupted_is_made_anew(tmp_path, pipeline, monkeypatch):
    out = tmp_path / "out"
    arguments = [str(ROOT / "configs" / "demo.yaml"), "--out", str(out), "--draw", "640"]
    arguments += ["--class-column", "class"]
    small = [*SMALL, *NO_SEARCH, "epochs=1", "validate_every=1", "samples_per_epoch=8"]
    arguments += [part for value in small for part in ("--set", value)]

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geo_retina.detector.write_outputs", stop)
        with pytest.raises(KeyboardInterrupt):
            pipeline.main(arguments)
    assert (out / "detections.gpkg.run").is_dir()
    # Another model now, so that what is left can't be continued.
    assert pipeline.main([*arguments, "--overwrite", "--set", "seed=5"]) == 0
    assert not (out / "detections.gpkg.run").exists()


@pytest.mark.parametrize("name", ["detections.gpkg", "detections.gpkg.run", "scores.json"])
def test_results_that_exist_are_refused_before_any_work(tmp_path, pipeline, monkeypatch, name):
    monkeypatch.setattr(pipeline, "draw", lambda *args: pytest.fail("work was begun"))
    (tmp_path / name).write_text("precious")
    arguments = [str(ROOT / "configs" / "demo.yaml"), "--out", str(tmp_path), "--draw", "640"]
    with pytest.raises(OutputError, match=f"{name} exists; give --overwrite"):
        pipeline.main(arguments)
    assert (tmp_path / name).read_text() == "precious"


def test_the_scene_of_the_test_is_not_trained_on(tmp_path, pipeline, capsys):
    arguments = ["configs/demo.yaml", "--out", str(tmp_path), "--draw", "640", "--draw-seed", "2"]
    with pytest.raises(SystemExit, match="2"):
        pipeline.main(arguments)
    assert "--draw-seed 2 draws the scene that the model is tested on" in capsys.readouterr().err


def test_scenes_must_come_from_somewhere(pipeline, capsys):
    with pytest.raises(SystemExit) as stopped:
        pipeline.main([str(ROOT / "configs" / "demo.yaml"), "--out", "nowhere"])
    assert stopped.value.code == 2
    assert "--test-scenes" in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_a_region_is_detected_in_one_run_and_merged(tmp_path, monkeypatch, capsys):
    from support.stubs import LOADED_BY_RUNS, NORTH_UP, load_stub_model, paint, tiny_model
    from support.stubs import write_scene as write

    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    boxes = np.array([[20, 30, 44, 40], [200, 100, 210, 130], [300, 60, 330, 70.0]])
    pixels = paint((200, 400), boxes)
    folder = tmp_path / "scenes"
    folder.mkdir()
    # Two scenes on one grid that share columns 150 to 250, and one that is no raster.
    for name, first, last in [("west", 0, 250), ("east", 150, 400)]:
        affine = NORTH_UP @ Affine.translation(first, 0)
        write(folder / f"{name}.tif", pixels[:, :, first:last], affine=affine)
    (folder / "notes.tif").write_text("no raster")
    weights = tiny_model().save(tmp_path / "m.safetensors")
    region = load_module(ROOT / "pipelines" / "detect_region.py")
    out = tmp_path / "region.gpkg"
    arguments = [str(folder), "--model", str(weights), "--out", str(out), "--device", "cpu"]
    assert region.main(arguments) == 3
    told = capsys.readouterr()
    assert "notes.tif" in told.err
    assert len(gpd.read_file(out, layer="detections")) == 3  # the middle one is in both scenes
    # Once it is repaired, the same command does what is missing.
    write(folder / "notes.tif", paint((50, 50), boxes[:0]))
    assert region.main(arguments) == 0
    assert len(gpd.read_file(out, layer="detections")) == 3
    alone = tmp_path / "alone.gpkg"
    assert region.main([*arguments[:-3], str(alone), *arguments[-2:], "--each-alone"]) == 0
    assert len(gpd.read_file(alone, layer="detections")) == 4
    assert region.main(arguments) == 1
    assert "exists" in capsys.readouterr().err


def test_the_loss_study_compares_six_losses_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch, capsys
):
    draw = load_module(ROOT / "pipelines" / "train_and_evaluate.py").draw
    scene, labels = draw(tmp_path, "train", 640, 1, "mixed")
    study = load_module(ROOT / "pipelines" / "loss_study.py")
    out = tmp_path / "out"
    small = [*SMALL, *NO_SEARCH, "epochs=1", "validate_every=1", "samples_per_epoch=8"]
    small += [f"data.scenes=['{scene}']", f"data.labels='{labels}'", "loss.box=l1"]
    arguments = [str(ROOT / "configs" / "demo.yaml"), "--out", str(out), "--seeds", "1"]
    arguments += [part for value in small for part in ("--set", value)]
    seen: list[geo_retina.TrainOptions] = []
    train = geo_retina.train

    def stopping(options):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(options)
        return train(options)

    monkeypatch.setattr(geo_retina, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.main(arguments)
    assert len(json.loads((out / "losses.json").read_text())["runs"]) == 4
    monkeypatch.setattr(geo_retina, "train", lambda options: seen.append(options) or train(options))
    assert study.main(arguments) == 0
    boxes = LossOptions(box="l1")  # learnt as the config says
    assert [each.loss for each in seen] == [replace(boxes, **x) for x in study.LOSSES.values()]
    assert {each.split.test_fraction for each in seen} == {0.2}
    runs = json.loads((out / "losses.json").read_text())["runs"].values()
    told = capsys.readouterr().out
    for run in runs:
        assert f"| {run['loss']} | {run['f1']:.3f} | 0.000 |" in told
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(geo_retina.TrainingError, match="was made with other options"):
        study.main([*arguments, "--set", "lr=0.5"])


def test_a_round_of_review_is_played_on_a_drawn_scene(tmp_path, capsys):
    """A model with too high a threshold is put right by a person who knows the truth."""
    scene, labels = tmp_path / "scene.tif", tmp_path / "truth.gpkg"
    options = geo_retina.SynthOptions(height=640, width=640, seed=3, density=900, difficulty=0.3)
    geo_retina.draw_scene(scene, options, truth=labels)
    demo = load_model("demo")
    shy = replace(demo.card, thresholds=(0.97,) * len(demo.card.classes))
    geo_retina.Model(demo.network, shy).save(tmp_path / "shy.safetensors")
    played = load_module(ROOT / "pipelines" / "review_round.py")
    bands = [band.index for band in demo.card.bands]
    names = [band.name for band in demo.card.bands]
    settings = [
        *("epochs=1", "validate_every=1", "samples_per_epoch=8", "batch=4", "workers=0"),
        *("nms_iou=0.5", "samples.window_px=128", "split.block_m=30", "split.val_fraction=0.3"),
        f"data.classes={list(demo.card.classes)}",
        *(f"data.bands={bands}", f"data.band_names={names}", f"data.gsd_m={demo.card.gsd_m}"),
    ]
    out = tmp_path / "out"
    arguments = ["--model", str(tmp_path / "shy.safetensors"), "--scenes", str(scene)]
    arguments += ["--labels", str(labels), "--class-column", "class", "--out", str(out)]
    arguments += ["--cells", "60", "--cases", "40", "--cell-size-m", "16", "--device", "cpu"]
    arguments += [part for value in settings for part in ("--set", value)]
    assert played.main([*arguments, "--accept", "0.1"]) == 0
    before, calibrated, adapted = json.loads((out / "round.json").read_text())
    told = capsys.readouterr().out
    review = read_review(out / "before.gpkg")
    counting = review.is_done & (review.frame.use == "count")
    for step in (before, calibrated, adapted):
        assert step["cells"] == counting.sum() == 30
        f1 = step["shares"]["f1"]
        assert abs(f1["b"]["value"] - step["true_f1"]) < 0.15
        low, high = step["counts"][1]["total"]["interval"]
        assert 0.8 * low < len(gpd.read_file(labels)) < 1.2 * high
        assert f"| {step['step']} | {f1['b']['value']:.3f} (" in told
    assert before["shares"]["f1"]["difference"]["value"] == 0
    for step in (calibrated, adapted):
        assert step["shares"]["f1"]["difference"]["interval"][0] > 0
        assert step["true_f1"] > before["true_f1"] + 0.1
    # No model was fitted to the cells that it is judged by.
    for name in ("calibrated", "adapted"):
        used = fitted_cells(out / f"{name}.gpkg", review.frame)
        assert len(used) >= 30
        assert not np.isin(used, np.flatnonzero(counting)).any()
    assert (gpd.read_file(out / "before.gpkg", layer="review")["status"] != "new").sum() > 40


@pytest.mark.slow
def test_a_round_of_review_over_a_town(data_root, tmp_path):
    """Real trees; its numbers are in docs/guide-round.md, of a model that knows no such town."""
    played = load_module(ROOT / "pipelines" / "review_round.py")
    trees = data_root / "naip_trees"
    arguments = ["--model", "trees-naip", "--out", str(tmp_path / "out"), "--radius-m", "6"]
    arguments += ["--scenes", str(trees / "val" / "santa_monica_2018_*.tif")]
    arguments += ["--labels", str(trees / "trees.gpkg"), "--cells", "40", "--cases", "40"]
    arguments += [
        "--where",
        "split = 'val' AND site = 'santa_monica' AND year = 2018",
        "--device",
        "cpu",
    ]
    settings = ["epochs=1", "validate_every=1", "samples_per_epoch=8", "batch=4", "workers=0"]
    arguments += [part for value in settings for part in ("--set", value)]
    assert played.main([*arguments, "--accept", "-0.1"]) == 0
    steps = json.loads((tmp_path / "out" / "round.json").read_text())
    assert [step["step"] for step in steps] == ["before", "calibrated", "adapted"]
    assert all(step["cells"] == 20 for step in steps)
    assert all(0.5 < step["true_f1"] < 1 for step in steps)
