"""The commands on small real files, from the drawn scene to its score."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from support.stubs import (
    LOADED_BY_RUNS,
    TINY_NETWORK,
    load_stub_model,
    paint,
    tiny_card,
    tiny_model,
    write_scene,
)

from geo_retina.cli import _demo, _inspect, main
from geo_retina.config import load_detect_config, load_train_options
from geo_retina.model import load_card, load_model
from geo_retina.options import MergeOptions, SynthOptions

BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48]])
CPU = ["--device", "cpu", "--block-px", "256"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a scene of known boxes and a model; the network is a stub that sees them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    write_scene(tmp_path / "a.tif", paint((300, 400), BOXES), descriptions=("R", "G", "B"))
    tiny_model(description="cars and trees, for tests").save(tmp_path / "m.safetensors")
    return tmp_path


def table(text: str) -> dict[str, str]:
    """Lines of label and text, as printed."""
    pairs = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def test_detect_then_evaluate(here, capsys):
    line = ["detect", "a.tif", "--model", "m.safetensors", "--out", "out.gpkg", *CPU]
    assert main([*line, "--merge.no-join"]) == 0
    out, err = capsys.readouterr()
    assert "3 objects in 1 scene, 0." in out
    assert re.search(r"^  car +2$", out, re.MULTILINE)
    assert re.search(r"^  tree +1$", out, re.MULTILINE)
    assert "written to out.gpkg, in EPSG:32633" in out
    assert err == ""  # quiet where nobody watches
    options, run = load_detect_config("out.gpkg.config.yaml")
    assert options.merge == MergeOptions(join=False)
    assert run.block_px == 256
    assert sorted(os.listdir()) == ["a.tif", "m.safetensors", "out.gpkg", "out.gpkg.config.yaml"]

    line = ["evaluate", "out.gpkg", "out.gpkg", "--layer", "detections"]
    line += ["--class-column", "class", "--json", "s.json"]
    assert main(line) == 0
    assert capsys.readouterr().out.count("written to s.json") == 1
    assert _numbers(json.loads(Path("s.json").read_text()), "f1") == {1.0}


def _numbers(node: object, key: str) -> set[float]:
    """All values of a key, at any depth, that are numbers."""
    found = set()
    if isinstance(node, dict):
        found |= {v for k, v in node.items() if k == key and isinstance(v, float)}
        found |= set().union(*(_numbers(v, key) for v in node.values()), set())
    return found


def test_detect_a_folder_into_another_crs(here, capsys):
    Path("scenes").mkdir()
    for name in ("x", "y"):
        write_scene(Path("scenes", f"{name}.tif"), paint((150, 200), BOXES[:1]))
    line = ["detect", "scenes", "a.tif", "--model", "m.safetensors", "--out", "o.parquet", *CPU]
    assert main([*line, "--crs", "EPSG:4326"]) == 0
    found = gpd.read_parquet("o.parquet")
    assert found.crs.to_epsg() == 4326
    assert found["scene"].value_counts().to_dict() == {"a": 3, "x": 1, "y": 1}
    assert "3 scenes" in capsys.readouterr().out


def test_plan_says_what_detect_does(here, capsys):
    flags = ["--model", "m.safetensors", *CPU, "--tile-px", "64", "--overlap-px", "32"]
    assert main(["plan", "a.tif", *flags]) == 0
    rows = table(capsys.readouterr().out)
    assert sorted(os.listdir()) == ["a.tif", "m.safetensors"]
    tiles, blocks = re.match(r"([\d,]+) in (\d+) block", rows["tiles"]).groups()
    assert rows["overlap"] == "32 px"
    assert float(rows["pixel factor"]) > 1
    assert {"memory", "time"} <= set(rows)

    from geo_retina.detector import detect_to_file
    from geo_retina.options import DetectOptions, RunOptions

    options = DetectOptions(tile_px=64, overlap_px=32)
    run = RunOptions(device="cpu", block_px=256)
    seen = []
    report = detect_to_file("a.tif", "m.safetensors", "o.gpkg", options, run, progress=seen.append)
    assert report.tiles + report.skipped_tiles == int(tiles.replace(",", ""))
    assert seen[-1].task_batches == int(blocks)


def test_plan_tells_of_scenes_that_do_not_fit(here, capsys):
    Path("bad.tif").write_text("no picture")
    assert main(["plan", "a.tif", "bad.tif", "--model", "m.safetensors", *CPU]) == 3
    assert "not covered: bad.tif" in capsys.readouterr().err


def test_info_on_a_scene(here, capsys):
    assert main(["info", "a.tif"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["size"].startswith("400 x 300 px")
    assert rows["CRS"].startswith("EPSG:32633")
    assert rows["data type"] == "uint8"
    assert "1 R, 2 G, 3 B" in rows["bands"]


def test_info_on_a_model(here, capsys):
    assert main(["info", "m.safetensors"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["model"] == "tiny"
    assert rows["finds"] == "cars and trees, for tests"
    assert rows["classes"] == "car (score from 0.50), tree (score from 0.50)"
    assert rows["bands"] == "1 red, 2 green, 3 blue"
    assert rows["pixel"].startswith("0.5 m")
    assert "levels P2, P3" in rows["network"]
    assert "licence" not in rows  # what is empty is left out


def test_models_and_their_info(capsys):
    assert main(["models"]) == 0
    rows = table(capsys.readouterr().out)
    assert "demo" in rows
    for name, about in rows.items():
        assert re.search(r"\(\d+ bands, [\d.]+ m\)$", about)
        assert main(["info", name]) == 0
        card = table(capsys.readouterr().out)
        assert card["model"]
        assert card["padding"].split(",")[0] == load_card(name).padding
        assert re.match(r"F1 0\.\d{3}, precision 0\.\d{3}, recall", card["scores, val"])
        assert re.search("labels on the (tuning|validation) ground", card["measured on"])
        assert "train labels: " in card["training"]
        assert ("auto takes them" in card["integers"]) == load_card(name).integers_cost_little


def test_info_says_what_stands_where_there_is_no_ground():
    for padding in ("mirror", "constant"):
        text = _inspect.describe_card(tiny_card(padding=padding))["padding"]
        assert text.startswith(f"{padding}, where there is no ground it sees ")


def test_train_then_use_the_model(here, capsys):
    from geo_retina.synth import draw_scene

    scene = SynthOptions(height=320, width=320, density=800, nodata_corner=False, seed=3)
    draw_scene("drawn.tif", scene, truth="truth.gpkg")
    config = {
        "data": {"scenes": ["drawn.tif"], "labels": "truth.gpkg", "class_column": "class"},
        "network": {"backbone": "test_resnet", "channels": 16, "convs": 1},
        "pretrained": False,
        "epochs": 5,
        "samples_per_epoch": 4,
        "batch": 2,
        "workers": 0,
        "device": "cpu",
        "samples": {"window_px": 96},
        "split": {"block_m": 24.0, "val_fraction": 0.3},
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    line = ["train", "c.yaml", "--out", "t.safetensors", "--set", "epochs=1", "--set", "name=mine"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["model"] == "mine"
    assert "best epoch: " in rows["training"]
    assert "written to t.safetensors" in out
    assert err.startswith("epoch 1 of 1, ")
    assert err.count("\n") == 1
    again = load_train_options("t.safetensors.config.yaml")
    assert again == load_train_options("c.yaml", ["epochs=1", "name=mine"])

    assert main(["info", "t.safetensors"]) == 0
    assert table(capsys.readouterr().out)["model"] == "mine"
    line = ["detect", "drawn.tif", "--model", "t.safetensors", "--out", "found.gpkg", *CPU]
    assert main(line) == 0
    classes = set(gpd.read_file("truth.gpkg")["class"])
    assert set(gpd.read_file("found.gpkg")["class"]) <= classes


@pytest.fixture
def small_demo(here, monkeypatch):
    """The demo, with the tiny model in place of the bundled one."""
    monkeypatch.setattr(_demo, "MODEL", str(here / "m.safetensors"))
    return ["demo", "--size", "300"]


DEMO_FILES = {
    *("scene.tif", "truth.gpkg", "detections.gpkg", "preview.png", "demo.json"),
}


def test_demo_leaves_its_files_and_may_run_again(small_demo, capsys):
    folder = Path("geo-retina-demo")
    assert main(small_demo) == 0
    assert set(os.listdir(folder)) == DEMO_FILES
    first = json.loads((folder / "demo.json").read_text())
    assert first["seed"] == _demo.SEED
    text = capsys.readouterr().out
    for name in (*DEMO_FILES - {"demo.json"}, "Mpx/s", "really there"):
        assert name in text
    (folder / "notes.txt").write_text("mine")  # a demo's folder stays one
    assert main([*small_demo, "--seed", "7"]) == 0
    assert json.loads((folder / "demo.json").read_text())["seed"] == 7
    assert set(os.listdir(folder)) == {*DEMO_FILES, "notes.txt"}


def test_the_demo_of_boxes_at_any_angle(here, monkeypatch, capsys):
    network = replace(TINY_NETWORK, boxes="oriented")
    classes = ("lorry", "wagon", "container")
    model = tiny_model(gsd_m=0.3, network=network, classes=classes, thresholds=(0.9,) * 3)
    model.save(here / "turned.safetensors")
    monkeypatch.setattr(LOADED_BY_RUNS, load_model)
    monkeypatch.setattr(_demo, "ORIENTED_MODEL", str(here / "turned.safetensors"))
    assert main(["demo", "--oriented", "--size", "300", "--out", "turned"]) == 0
    assert set(os.listdir("turned")) == DEMO_FILES
    assert "angle err" not in capsys.readouterr().out  # a model of chance finds nothing
    told = json.loads(Path("turned", "demo.json").read_text())
    assert (told["oriented"], told["size"], told["seed"]) == (True, 300, _demo.SEED)
    truth = gpd.read_file(Path("turned", "truth.gpkg"))
    assert set(truth["class"]) <= set(classes)
    assert (truth.area < 0.9 * truth.envelope.area).any()


def test_demo_in_a_folder_of_others(small_demo, capsys):
    Path("mine").mkdir()
    Path("mine", "notes.txt").write_text("mine")
    assert main([*small_demo, "--out", "mine"]) == 1
    assert "notes.txt" in capsys.readouterr().err
    assert os.listdir("mine") == ["notes.txt"]
    assert main([*small_demo, "--out", "mine", "--overwrite"]) == 0
    assert set(os.listdir("mine")) == {*DEMO_FILES, "notes.txt"}
    assert Path("mine", "notes.txt").read_text() == "mine"


def test_demo_with_the_bundled_model(tmp_path):
    """As a user runs it, in a process of its own, on a smaller scene."""
    code = "import sys; from geo_retina.cli import main; sys.exit(main())"
    line = ["demo", "--size", "768", "--out", str(tmp_path / "d"), "--debug"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = gpd.read_file(tmp_path / "d" / "detections.gpkg")
    truth = gpd.read_file(tmp_path / "d" / "truth.gpkg")
    assert set(found["class"]) == set(truth["class"])
    assert found.crs == truth.crs
    scores = json.loads((tmp_path / "d" / "demo.json").read_text())["scores"]
    assert max(_numbers(scores, "f1")) > 0.6


def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from geo_retina.cli import main; sys.exit(main(['models']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_plan_tells_ground_and_price(here, capsys):
    line = [
        "plan",
        "a.tif",
        "--model",
        "m.safetensors",
        "--price-per-hour",
        "3600",
        "--json",
        "p.json",
    ]
    assert main([*line, *CPU]) == 0
    assert " km2" in capsys.readouterr().out
    cost = json.loads(Path("p.json").read_text())["cost"]
    with rasterio.open("a.tif") as scene:  # on its own pixels, in UTM
        own = scene.width * scene.height * abs(scene.transform.determinant) / 1e6
    assert cost["km2"] == pytest.approx(own, rel=0.002)
    assert cost["price"] == pytest.approx(cost["seconds"])
    for price in ("-1", "nan", "inf"):
        line[line.index("--price-per-hour") + 1] = price
        assert main([*line, *CPU, "--overwrite"]) == 2
        assert "--price-per-hour is" in capsys.readouterr().err
