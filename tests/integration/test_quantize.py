"""A model is quantized on a drawn scene, and detects in integers what it detected before."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import geopandas as gpd
import pandas as pd
import pytest
import torch

import geo_retina
from geo_retina import IntegerCost
from geo_retina.cli import main
from geo_retina.engine import has_openvino
from geo_retina.evaluation.comparison import Difference
from geo_retina.model import load_card, load_model
from geo_retina.model.cards import find_model
from geo_retina.training.validation import integer_cost


def test_a_model_is_quantized_and_detects_in_integers(tmp_path, monkeypatch):
    if not has_openvino():
        pytest.skip("needs the extra cpu")
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


def test_points_of_one_of_two_scenes_tell_the_cost_without_openvino(tmp_path, monkeypatch):
    monkeypatch.setattr(integer_cost, "has_openvino", lambda: False)
    scenes = [tmp_path / "seen.tif", tmp_path / "labelled.tif"]
    for seed, scene in enumerate(scenes):
        options = geo_retina.SynthOptions(height=320, width=320, seed=seed, density=900)
        geo_retina.draw_scene(scene, options, truth=scene.with_suffix(".gpkg"))
    labels = [
        gpd.read_file(scene.with_suffix(".gpkg")).assign(scene=scene.stem) for scene in scenes
    ]
    points = pd.concat(labels)
    points.geometry = points.geometry.centroid
    points.to_file(tmp_path / "points.gpkg")
    out = tmp_path / "int8.safetensors"
    command = ["quantize", "demo", "--scenes", str(scenes[0]), "--labelled-scenes", str(scenes[1])]
    command += ["--labels", str(tmp_path / "points.gpkg"), "--class-column", "class"]
    command += ["--scene-column", "scene", "--point-size", "3", "--tiles", "1", "--radius", "2m"]
    assert main([*command, "--bands", "1,2,3", "--out", str(out)]) == 0
    about = load_card(out).metrics["quantization"]
    assert about["labels"] == pytest.approx(len(labels[1]), abs=3)  # some lie on no valid pixel
    assert "centre distance within 2 m" in about["measured_on"]
    assert about["tiles"] == 1
    assert about["ap"]["a"] is None
    assert about["f1"]["a"] > 0.8
    assert abs(about["f1"]["difference"]) < 0.1
    # Kernels that lose nothing in half precision are stored in it, others as they are.
    assert out.stat().st_size < 1.05 * find_model("demo").stat().st_size
    exact = load_model(out)
    with torch.no_grad():
        exact.network.class_subnet.convs[0].weight += 1e-6
    again = load_model(exact.save(tmp_path / "exact.safetensors", half=None))
    kernels = exact.network.class_subnet.convs[0].weight, again.network.class_subnet.convs[0].weight
    assert torch.equal(*kernels)


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
    cost = IntegerCost(labels=2000, measured_on="", f1=changed, ap=same)
    assert cost.is_high is is_high
    assert replace(cost, f1=same, ap=changed).is_high is is_high
    assert cost.is_measurable
    assert not replace(cost, labels=1999).is_measurable
