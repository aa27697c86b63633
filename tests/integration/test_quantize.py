"""A model is quantized on a drawn scene, and detects in integers what it detected before."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

import geo_retina
from geo_retina.calibration.quantizing import Cost
from geo_retina.cli import main
from geo_retina.evaluation.comparison import Difference
from geo_retina.model import load_card, load_model


def test_a_model_is_quantized_and_detects_in_integers(tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="needs the extra cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = geo_retina.SynthOptions(height=384, width=384, seed=3, density=900)
    scene, truth = tmp_path / "scene.tif", tmp_path / "truth.gpkg"
    geo_retina.draw_scene(scene, options, truth=truth)
    out, found = tmp_path / "int8.safetensors", tmp_path / "found.gpkg"
    command = ["quantize", "demo", "--scenes", str(scene), "--labels", str(truth)]
    assert main([*command, "--class-column", "class", "--out", str(out)]) == 0
    about = load_card(out).metrics["quantization"]
    assert about["cost"] == "not measurable"  # so few labels
    assert about["costs_little"] is False
    assert about["f1"]["a"] > 0.8
    assert abs(about["f1"]["difference"]) < 0.05
    assert not load_model(out).is_quantized_well
    detecting = ["detect", str(scene), "--model", str(out), "--device", "cpu"]
    assert main([*detecting, "--precision", "int8", "--out", str(found)]) == 0
    with closing(sqlite3.connect(found)) as file:
        told = dict(file.execute("SELECT name, value FROM metadata"))
    assert (told["runtime"], told["precision"]) == ("openvino", "int8")
    assert json.loads(told["packages"])["openvino"]


def test_without_labels_the_cost_stays_unknown(tmp_path, capsys):
    scene, out = tmp_path / "scene.tif", tmp_path / "int8.safetensors"
    geo_retina.draw_scene(scene, geo_retina.SynthOptions(height=300, width=300, seed=4))
    command = ["quantize", "demo", "--scenes", str(scene), "--out", str(out)]
    assert main([*command, "--where", "split = 'val'"]) == 2
    assert "--where is given without labels" in capsys.readouterr().err
    assert main(command) == 0
    about = load_card(out).metrics["quantization"]
    assert (about["tiles"] > 0, about["costs_little"], "f1" in about) == (True, False, False)
    assert load_model(out).quantization


@pytest.mark.parametrize(
    ("difference", "interval", "is_high"),
    [
        (-0.01, (-0.015, -0.005), True),
        (-0.01, (-0.015, 0.001), False),
        (-0.002, (-0.003, -0.001), False),
        (0.01, (0.005, 0.015), False),
        (-0.01, None, True),
    ],
)
def test_a_cost_is_high_where_it_is_large_and_sure(difference, interval, is_high):
    same = Difference(0.8, 0.8, (0.0, 0.0))
    changed = Difference(0.8, 0.8 + difference, interval)
    cost = Cost(labels=2000, measured_on="", f1=changed, ap=same)
    assert cost.is_high is is_high
    assert replace(cost, f1=same, ap=changed).is_high is is_high
    assert cost.is_measurable
    assert not replace(cost, labels=1999).is_measurable
