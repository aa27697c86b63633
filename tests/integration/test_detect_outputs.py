"""What a run leaves: several files, the ground it looked at, and how all came about."""

from __future__ import annotations

import dataclasses
import json

import geopandas as gpd
import numpy as np
import pytest
from support.stubs import paint, stub_model, write_scene

from geo_retina.detector import detect_to_file
from geo_retina.errors import OptionError, OutputError
from geo_retina.options import DetectOptions, FilterOptions, RunOptions
from geo_retina.postprocess import filter_detections
from geo_retina.scene import Scene
from geo_retina.vector import read_detections, read_metadata

CPU = RunOptions(device="cpu", block_px=128)
BOXES = np.array(
    [[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48], [390, 290, 397, 296.0]]
)
TILES = DetectOptions(tile_px=96, min_score=0.1)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", paint((300, 400), BOXES))


def test_several_outputs_say_the_same_and_where_they_looked(tmp_path, scene):
    outs = [tmp_path / "a.gpkg", tmp_path / "b.parquet"]
    model = stub_model()
    report = detect_to_file(scene, model, outs, TILES, CPU)
    assert report.outs == tuple(outs)
    one, two = map(read_detections, outs)
    assert one.equals(two[one.columns])
    assert len(one) == 4
    # A pixel is 0.5 m: 20 x 10 of them are 50 square metres, but for what UTM stretches.
    assert one["area_m2"].max() == pytest.approx(60, rel=2e-3)
    assert one["longest_m"].max() == pytest.approx(15, rel=2e-3)
    ground = gpd.read_file(outs[0], layer="scanned")
    assert ground.geometry.area.tolist() == pytest.approx([300 * 400 * 0.25])
    about = read_metadata(outs[0])
    assert about == read_metadata(outs[1])
    assert about["model_sha256"] == model.fingerprint
    assert json.loads(about["options"])["tile_px"] == 96
    assert json.loads(about["packages"])["torch"]
    # From here the model's own threshold of 0.5 and others can be chosen.
    kept = filter_detections(outs[1], tmp_path / "c.gpkg", FilterOptions(classes=("tree",)))
    assert (kept.read, kept.kept) == (4, 1)


def test_a_run_replaces_all_of_its_own_outputs_and_no_others(tmp_path, scene, monkeypatch):
    outs = [tmp_path / "a.gpkg", tmp_path / "b.fgb"]
    whole = Scene.read

    def broken(self, window):
        if window.row == 0 and window.col == 0:
            raise OSError("bad sector")
        return whole(self, window)

    monkeypatch.setattr(Scene, "read", broken)
    once = dataclasses.replace(CPU, retries=0)
    assert not detect_to_file(scene, stub_model(), outs, TILES, once).complete
    missing = gpd.read_file(outs[0], layer="not_covered").geometry
    looked_at = gpd.read_file(outs[0], layer="scanned").geometry
    assert (missing.area.sum() + looked_at.area.sum()) == pytest.approx(300 * 400 * 0.25)
    assert missing.iloc[0].intersection(looked_at.iloc[0]).area == pytest.approx(0)
    assert (tmp_path / "b.fgb.not_covered.gpkg").exists()
    monkeypatch.setattr(Scene, "read", whole)
    stranger = tmp_path / "c.gpkg"
    stranger.write_text("precious")
    with pytest.raises(OutputError, match=r"c\.gpkg exists"):
        detect_to_file(scene, stub_model(), [*outs, stranger], TILES, CPU)
    assert detect_to_file(scene, stub_model(), outs, TILES, CPU).complete
    assert not (tmp_path / "b.fgb.not_covered.gpkg").exists()
    assert len(read_detections(outs[1])) == 4
    assert stranger.read_text() == "precious"


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path, scene):
    with pytest.raises(OptionError, match="several different ones"):
        detect_to_file(scene, stub_model(), [tmp_path / "a.gpkg"] * 2, run=CPU)
    both = dataclasses.replace(CPU, geometry="both")
    with pytest.raises(OutputError, match="holds one layer"):
        detect_to_file(scene, stub_model(), tmp_path / "a.fgb", run=both)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
