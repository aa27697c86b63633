"""The benchmarks of speed run, in the tiny form that gpu.sh has for machines without a GPU."""

from __future__ import annotations

import dataclasses
import json
import runpy
import shlex
import sys
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest

from geo_retina import SynthOptions, draw_scene, load_model
from geo_retina.model import Model, Prescreen

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


def commands() -> tuple[list[list[str]], list[list[str]]]:
    """What gpu.sh measures, as words: in its small mode, and on a GPU."""
    text = (FOLDER / "gpu.sh").read_text().replace("\\\n", " ").replace("$runtimes", "eager")
    lines = [shlex.split(line) for line in text.splitlines() if "measure " in line]
    small = [line[1:] for line in lines if line[0] == "measure"]
    tiny = text[: text.index("exit $worst")].count("    measure ")
    return small[:tiny], small[tiny:]


SMALL, LARGE = commands()


def run(monkeypatch: pytest.MonkeyPatch, words: list[str], *more: str) -> None:
    """As gpu.sh would, without its time limit, in this process."""
    _, name, *arguments = words
    script = FOLDER / f"{name.partition('-')[0]}.py"
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, *more])
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("words", SMALL, ids=lambda words: words[1])
def test_the_small_mode_measures(tmp_path, monkeypatch, capsys, words):
    out = tmp_path / "result.json"
    run(monkeypatch, words, "--out", str(out))
    result = json.loads(out.read_text())
    assert {"date", "hardware", "cores", "torch", "device"} <= result.keys()
    assert result["device"] == "cpu"
    rates = [row[key] for row in result["runs"] for key in row if key.endswith("mpx_s")]
    assert rates
    assert all(rate > 0 for rate in rates)
    assert "error" not in {key for row in result["runs"] for key in row}
    assert "mpx_s" in capsys.readouterr().out


@pytest.mark.parametrize("words", LARGE, ids=lambda words: words[1])
def test_the_arguments_for_a_gpu_are_known(monkeypatch, words):
    """Only parsed: --help ends a script once it has understood what is before it."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, words, "--help")
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, words, "--unheard-of")
    assert ended.value.code == 2


def test_all_steps_together_fit_into_nine_minutes():
    text = (FOLDER / "gpu.sh").read_text()
    steps = [line.split() for line in text.splitlines() if line.startswith("step ")]
    assert sum(int(words[0]) for words in LARGE) + sum(int(words[1]) for words in steps) < 540
    assert [words[1].partition("-")[0] for words in SMALL] == [
        "network",
        "decode",
        "read",
        "end_to_end",
    ]
    assert {words[1].partition("-")[0] for words in LARGE} == {
        "network",
        "decode",
        "read",
        "end_to_end",
    }


def test_a_first_look_is_measured_on_scenes_of_few_objects(tmp_path, monkeypatch):
    """On ground without objects all is screened out; a look that keeps every tile loses nothing."""
    demo, out = load_model("demo"), tmp_path / "result.json"
    rows = {}
    for score in (0.01, 0.999):
        first = Prescreen(factor=2, score=score, thresholds=demo.card.thresholds)
        metrics = {**demo.card.metrics, "prescreen": {"gains": True}}
        card = dataclasses.replace(demo.card, prescreen=first, metrics=metrics)
        Model(demo.network, card).save(tmp_path / f"{score}.safetensors")
        words = [str(tmp_path / f"{score}.safetensors"), "--density", "2", "--size", "768"]
        run(monkeypatch, ["", "prescreen", *words], "--repeats", "1", "--out", str(out))
        rows[score] = json.loads(out.read_text())["runs"]
    for every, none in zip(rows[0.01], rows[0.999], strict=True):
        assert every["objects"] == none["objects"] > 0
        assert every["found"] == none["found"] > 0
        assert (every["lost"], none["lost"]) == (0, none["found"])
        assert (every["false"], every["screened"]) == (every["false_first"], 0)
        assert (none["false_first"], none["screened"]) == (0, 1)


def test_thresholds_are_judged_by_scenes_that_did_not_choose_them(tmp_path, monkeypatch):
    tables = []
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        options = SynthOptions(height=512, width=512, seed=seed)
        draw_scene(tmp_path / f"{name}.tif", options, truth=tmp_path / f"{name}.gpkg")
        tables.append(gpd.read_file(tmp_path / f"{name}.gpkg").assign(scene=name))
    labels, out = tmp_path / "labels.geojson", tmp_path / "result.json"
    pd.concat(tables).drop(columns="id").to_crs(4326).to_file(labels)
    words = ["", "thresholds", "drawn=demo", "--scenes", str(tmp_path / "*.tif")]
    words += ["--labels", str(labels), "--scene-column", "scene", "--draws", "5", "--few", "1"]
    run(monkeypatch, words, "--out", str(out), "--picture", str(tmp_path / "f1.png"))
    (model,) = json.loads(out.read_text())["models"]
    assert model["model"] == "drawn"
    assert model["best_f1"] >= model["f1"] > 0.9
    assert model["from"] <= model["at"] <= model["to"]
    few = model["chosen_on_few_scenes"]["1"]
    assert few["draws"] == 5
    assert 20 <= few["labels"] < sum(map(len, tables))
    assert 0 <= few["by_best_f1"] < 0.1
    assert 0 <= few["as_trained"] < 0.1
    assert (tmp_path / "f1.png").stat().st_size > 5000
