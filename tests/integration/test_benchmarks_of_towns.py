"""The benchmarks of counts and of towns, on ground whose numbers are known beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine

import geo_retina
from tests.support.modules import load_module
from tests.support.rasters import write_raster

FOLDER = Path(__file__).parents[2] / "benchmarks"
UTM = "EPSG:32633"


def ground(module, seed=0, cells=800):
    """Cells of a poor detector: it finds three objects of four, and adds false ones."""
    random = np.random.default_rng(seed)
    true = random.poisson(random.gamma(1.0, 4.0, cells)).astype(float)
    found = random.binomial(true.astype(int), 0.75) + random.poisson(0.3, cells)
    return module.Town("made up", true, found.astype(float), 0.9 * found)


def test_intervals_of_an_estimate_hold_the_truth_and_detections_narrow_them():
    estimate = load_module(FOLDER / "estimate.py")
    town = ground(estimate)
    about = estimate.about(town)
    assert about["objects"] == town.true.sum()
    assert -0.3 < about["raw_count_error"] < -0.05
    rows = {row["way"]: row for row in estimate.measure(town, 80, draws=150, seed=1)}
    helped, alike = rows["prediction-powered"], rows["plain, all ground alike"]
    for row in rows.values():
        assert row["coverage"] > 0.86
        assert row["truth_below"] + row["truth_above"] == pytest.approx(
            1 - row["coverage"], abs=3e-4
        )
        assert abs(row["bias"]) < 0.02
    assert helped["half_width"] < 0.6 * alike["half_width"]
    # Fewer cells do as well with detections, and the formula goes through the measured point.
    assert estimate.cells_for([helped], 800, 0.1) < estimate.cells_for([alike], 800, 0.1) / 2
    assert estimate.cells_for([helped], 800, helped["half_width"]) == pytest.approx(80)


def test_cells_of_a_scene_hold_its_labels_and_detections():
    estimate = load_module(FOLDER / "estimate.py")
    affine = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
    grid = geo_retina.Grid(pyproj.CRS(UTM), affine, 128, 192)
    of_scene = {"s": grid}
    # Cells are 32 m wide: three columns, two rows.
    xy = np.add([[1, -1], [40, -1], [41, -40], [95, -63]], [500_000, 5_300_000])
    labels = gpd.GeoDataFrame({"scene": ["s"] * 4}, geometry=shapely.points(xy), crs=UTM)
    found = gpd.GeoDataFrame(
        {"scene": ["s"] * 3, "score": [0.9, 0.2, 0.6]}, geometry=shapely.points(xy[:3]), crs=UTM
    )
    town = estimate.town("drawn", (labels, found), of_scene, 0.29)
    assert town.true.tolist() == [1, 1, 0, 0, 1, 1]
    assert town.found.tolist() == [1, 0, 0, 0, 1, 0]
    assert town.scores.tolist() == pytest.approx([0.9, 0.2, 0, 0, 0.6, 0])


def test_the_picture_of_cells_is_drawn_from_the_results(tmp_path, monkeypatch, capsys):
    estimate = load_module(FOLDER / "estimate.py")
    result = json.loads((FOLDER / "results" / "2026-11-29-estimate.json").read_text())
    out = tmp_path / "cells.png"
    estimate.draw(result, out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "+-10% takes 91 of 2112 cells" in capsys.readouterr().out


@pytest.fixture
def town():
    """Forty scenes of a town: true detections score high, false ones low, a quarter is missed."""
    random = np.random.default_rng(3)
    labels, found = [], []
    for at in range(40):
        origin = np.array([500_000 + 200.0 * at, 5_300_000])
        there = origin + random.uniform(0, 150, (40, 2))
        false = origin + random.uniform(0, 150, (30, 2))
        seen = there[random.random(40) < 0.75]
        scores = np.concatenate([random.beta(5, 3, len(seen)), random.beta(2, 6, 30)])
        xy = np.concatenate([seen, false])
        boxes = shapely.box(*(xy - 3).T, *(xy + 3).T)
        table = gpd.GeoDataFrame({"score": scores}, geometry=boxes, crs=UTM)
        found.append(table.assign(scene=f"s{at}", **{"class": "tree"}))
        table = gpd.GeoDataFrame(geometry=shapely.points(there), crs=UTM)
        labels.append(table.assign(scene=f"s{at}", kind="tree", year=2018 + at % 2))
    return tuple(gpd.pd.concat(each, ignore_index=True) for each in (found, labels))


def test_a_town_is_judged_at_the_models_own_threshold(town):
    towns = load_module(FOLDER / "leave_a_town_out.py")
    found, labels = town
    told = towns.judge(found, labels, 0.4)
    kept = found[found["score"] >= 0.4]
    assert (told["labels"], told["found"]) == (len(labels), len(kept))
    assert told["count_error"] == pytest.approx(len(kept) / len(labels) - 1)
    low, high = told["intervals"]["f1"]
    assert low < told["f1"] < high
    assert told["best_f1"] >= told["f1"]
    assert set(told["f1_by_year"]) == {"2018", "2019"}
    assert sum(told["reliability"]["detections"]) == len(found)
    lowest, middle, highest = told["f1_of_scenes_10_50_90"]
    assert lowest < middle < highest


def test_five_scenes_put_a_wrong_threshold_right_and_leave_a_right_one(town):
    towns = load_module(FOLDER / "leave_a_town_out.py")
    found, labels = town
    best = towns.judge(found, labels, 0.4)["best_threshold"]
    for wrong in (0.05, 0.8):
        told = towns.few_scenes(found, labels, wrong, draws=6)
        assert told["best_gain"] > 0.05
        assert told["share"] > 0.5
        assert told["left_as_it_was"] == 0
    told = towns.few_scenes(found, labels, best, draws=6)
    assert abs(told["gain"]) < 0.02
    assert told["best_gain"] < 0.01


def test_the_picture_of_a_town_and_its_command(tmp_path, monkeypatch, town):
    towns = load_module(FOLDER / "leave_a_town_out.py")
    found, labels = town
    out = tmp_path / "towns.json"
    monkeypatch.setattr(towns, "detect", lambda *args: found)
    monkeypatch.setattr(towns, "labels_of", lambda *args: labels)
    command = ["--model", "trees-naip", "--towns", "chico", "--draws", "0", "--out", str(out)]
    towns.main([*command, "--models", str(tmp_path / "models")])
    result = json.loads(out.read_text())
    assert result["f1_mean"] == pytest.approx(result["towns"]["chico"]["f1"], abs=1e-4)
    towns.main(["--out", str(out), "--picture", str(tmp_path / "reliability.png")])
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", load_module(FOLDER / "changed_pictures.py").CHANGES)
def test_a_changed_picture_shows_the_same_ground(tmp_path, name):
    """A bright square of 12 m stays where it is in map coordinates, whatever the picture's grid."""
    changed = load_module(FOLDER / "changed_pictures.py")
    pixels = np.full((4, 200, 200), 60, np.uint8)
    pixels[:, 90:110, 120:140] = 200
    middle = shapely.Point(500_000 + 130 * 0.6, 4_000_000 - 100 * 0.6)
    before = write_raster(
        tmp_path / "a.tif", pixels, crs="EPSG:32611", transform=Affine(0.6, 0, 5e5, 0, -0.6, 4e6)
    )
    (tmp_path / "changed").mkdir()
    (after,) = changed.change_all(name, [before], [1, 2, 3, 4], tmp_path / "changed")
    assert after.name == before.name
    with rasterio.open(after) as scene:
        there = gpd.GeoSeries([middle], crs="EPSG:32611").to_crs(scene.crs)[0]
        bright = scene.read(1) > 130
        rows, cols = np.nonzero(bright)
        place = scene.transform @ (cols.mean() + 0.5, rows.mean() + 0.5)
        metres = 111_000 if scene.crs.is_geographic else 1
        assert np.hypot(place[0] - there.x, place[1] - there.y) * metres < 0.7
        shares = {"resampled to 1 m": (0.6 / 1) ** 2, "EPSG:3857": 1.0, "EPSG:4326": 1.0}
        assert bright.sum() == pytest.approx(400 * shares.get(name, 1.0), rel=0.3)
        assert scene.count == 4
