"""The bundled model of boxes at any angle, on a scene that it never saw."""

from __future__ import annotations

import json

import pytest

from geo_retina import (
    DetectOptions,
    EvaluateOptions,
    SynthOptions,
    detect,
    draw_scene,
    evaluate,
)
from geo_retina.cli import _demo, main
from geo_retina.engine import has_openvino
from geo_retina.model import find_model, load_card


def test_the_card_says_what_a_user_must_know():
    card = load_card(_demo.ORIENTED_MODEL)
    assert card.classes == ("lorry", "wagon", "container")
    assert card.network.boxes == "oriented"
    assert [band.name for band in card.bands] == ["red", "green", "blue"]
    assert card.gsd_m == pytest.approx(0.3)
    assert card.licence == "Apache-2.0"
    assert find_model("demo-oriented").stat().st_size < 8e6


def test_the_model_reaches_its_goals_on_ground_that_it_never_saw(tmp_path):
    scene, truth = tmp_path / "scene.tif", tmp_path / "truth.gpkg"
    draw_scene(scene, SynthOptions(height=768, width=768, seed=77, content="freight"), truth=truth)
    found = detect(scene, "demo-oriented", DetectOptions(min_score=0.05))
    options = EvaluateOptions(class_column="class", resamples=0)
    scores = evaluate(found, truth, options).overall
    assert scores.ap50 > 0.97
    assert scores.ap75 > 0.85
    assert scores.angle_error_deg < 2
    turned = found.area < 0.9 * found.envelope.area
    assert turned.mean() > 0.5
    assert found["length_m"].between(3, 25).mean() > 0.95


@pytest.fixture(scope="module")
def scene_and_truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("freight")
    options = SynthOptions(height=384, width=384, seed=78, content="freight")
    paths = folder / "scene.tif", folder / "truth.gpkg"
    draw_scene(paths[0], options, truth=paths[1])
    return tuple(map(str, paths))


def test_integers_and_calibration_keep_what_it_finds(scene_and_truth, tmp_path, monkeypatch):
    if not has_openvino():
        pytest.skip("needs the extra cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scene, truth = scene_and_truth
    ground = ["--scenes", scene, "--labels", truth, "--class-column", "class"]
    model, again = str(tmp_path / "int8.safetensors"), str(tmp_path / "here.safetensors")
    assert main(["quantize", "demo-oriented", *ground, "--out", model]) == 0
    about = load_card(model).metrics["quantization"]
    assert about["f1"]["a"] > 0.8
    assert abs(about["f1"]["difference"]) < 0.05
    out = str(tmp_path / "found.gpkg")
    line = ["detect", scene, "--model", model, "--precision", "int8", "--device", "cpu"]
    assert main([*line, "--out", out]) == 0
    numbers = tmp_path / "numbers.json"
    scored = ["evaluate", out, truth, "--class-column", "class", "--json", str(numbers)]
    assert main(scored) == 0
    overall = json.loads(numbers.read_text())["overall"]
    assert overall["f1"] > 0.8
    assert overall["angle_error_deg"] < 2.0
    told = tmp_path / "told.json"
    calibrating = ["calibrate", "demo-oriented", *ground, "--out", again, "--no-search-nms"]
    assert main([*calibrating, "--json", str(told)]) == 0
    assert json.loads(told.read_text())["f1_after"] > 0.8
