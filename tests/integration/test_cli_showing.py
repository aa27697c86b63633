"""``preview``, ``compare`` and reports, as people type them."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from matplotlib.image import imread
from support.stubs import NORTH_UP, UTM, write_scene

from geo_retina.cli import app, main

BOXES_PX = np.array([[20, 30, 40, 44], [60, 90, 75, 120], [200, 150, 230, 170]], float)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A scene, its detections and the labels of it: two are found, one missed, one is false."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_scene(tmp_path / "scene.tif", rng.integers(0, 255, (3, 200, 300)).astype(np.uint8))
    x, y = NORTH_UP @ (BOXES_PX[:, 0::2].T, BOXES_PX[:, 1::2].T)
    shapes = shapely.box(x[0], y[1], x[1], y[0])
    labels = gpd.GeoDataFrame({"class": ["car", "tree", "car"]}, geometry=shapes, crs=UTM)
    labels.to_file("labels.gpkg", layer="labels")
    moved = shapely.transform(shapes[2:], lambda xy: xy + 12)
    found = gpd.GeoDataFrame(
        {"class": ["car", "tree", "car"], "score": [0.9, 0.8, 0.3], "scene": ["scene"] * 3},
        geometry=np.concatenate([shapes[:2], moved]),
        crs=UTM,
    )
    found.to_file("a.gpkg", layer="detections")
    found[:1].to_file("b.gpkg", layer="detections")
    return tmp_path


def test_preview_draws_a_picture(here, capsys):
    assert main(["preview", "a.gpkg", "scene.tif", "--out", "p.png"]) == 0
    assert capsys.readouterr().out == "written to p.png\n"
    whole = imread("p.png")
    assert min(whole.shape[:2]) > 400
    assert main(["preview", "a.gpkg", "scene.tif", "--out", "p.png"]) == 1
    assert "p.png exists; give --overwrite" in capsys.readouterr().err
    line = ["preview", "a.gpkg", "scene.tif", "--out", "p.png", "--overwrite"]
    assert main([*line, "--score", "0.5", "--crops", "0", "--bands", "3,2,1"]) == 0
    assert imread("p.png").shape[1] < whole.shape[1]


def test_preview_maps_density(here, capsys):
    line = ["preview", "a.gpkg", "--density", "50m", "--out", "d.tif"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "3 objects in 3 x 2 cells of 50 m, at most 1 in one" in out
    assert "written to d.tif, in EPSG:32633" in out
    with rasterio.open("d.tif") as file:
        assert file.descriptions == ("all", "car", "tree")
        assert file.read(1).sum() == 3
        assert file.res == (50, 50)
    # With the scene, the map covers all of it.
    assert main([*line, "--overwrite", "--score", "0.5"]) == 0
    assert "2 objects" in capsys.readouterr().out
    scene = ["preview", "a.gpkg", "scene.tif", "--density", "50", "--out", "s.tif"]
    assert main(scene) == 0
    with rasterio.open("s.tif") as file:
        assert (file.width, file.height) == (3, 2)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("preview a.gpkg --out p.png", 2, "needs the scene"),
        ("preview a.gpkg scene.tif --out p.jpg", 1, "does not end in .png"),
        ("preview a.gpkg --density 50m --out d.png", 1, "expected .tif or .tiff"),
        ("preview a.gpkg --density 0 --out d.tif", 2, "more than 0 m"),
        ("preview no.gpkg scene.tif --out p.png", 1, "does not exist"),
        ("evaluate a.gpkg labels.gpkg --scenes scene.tif", 2, "--report"),
        ("evaluate a.gpkg labels.gpkg --report a.gpkg", 1, "cannot be made"),
        ("evaluate a.gpkg labels.gpkg --report r --scenes no.tif", 1, "does not exist"),
        ("compare a.gpkg b.gpkg labels.gpkg --out c.shp", 1, ".gpkg"),
        ("compare a.gpkg no.gpkg labels.gpkg", 1, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(here, capsys, line, code, said):
    before = sorted(path.name for path in here.iterdir())
    assert main(line.split()) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert [n for n in sorted(path.name for path in here.iterdir()) if n != "r"] == before


def test_evaluate_leaves_a_report(here, capsys):
    line = ["evaluate", "a.gpkg", "labels.gpkg", "--class-column", "class", "--json", "s.json"]
    assert main([*line, "--report", "out/report", "--scenes", "scene.tif"]) == 0
    assert "written to out/report/report.html" in capsys.readouterr().out
    page = (here / "out" / "report" / "report.html").read_text(encoding="utf-8")
    scores = json.loads((here / "s.json").read_text())
    assert f'data-at="/overall/f1">{scores["overall"]["f1"]:.3f}<' in page
    assert "data:image/jpeg;base64," in page
    assert [len(gpd.read_file("out/report/errors.gpkg", layer=name)) for name in (
        "true_positive", "false_positive", "missed"
    )] == [2, 1, 1]  # fmt: skip
    assert main([*line, "--report", "out/report", "--overwrite"]) == 0
    assert main([*line[:-2], "--report", "out/report"]) == 1
    assert "give --overwrite" in capsys.readouterr().err


def test_compare_tells_both_sides(here, capsys):
    line = ["compare", "a.gpkg", "b.gpkg", "labels.gpkg", "--class-column", "class"]
    assert main([*line, "--out", "c.gpkg", "--json", "c.json"]) == 0
    out = capsys.readouterr().out
    assert "labels found by both: 1, only by A: 1, only by B: 0, by neither: 1" in out
    values = json.loads((here / "c.json").read_text())
    assert values["overall"]["recall"]["difference"] == pytest.approx(-1 / 3)
    assert values["labels"]["only_a"] == 1
    assert gpd.read_file("c.gpkg", layer="only_a")["class"].tolist() == ["tree"]
    assert main([*line, "--out", "c.gpkg"]) == 1
    assert "c.gpkg exists" in capsys.readouterr().err


def test_lengths_may_have_their_unit():
    for text in ("100m", "100", "1e2 m"):
        _, bound, _ = app.parse_args(
            ["preview", "d.gpkg", "--density", text, "--out", "d.tif"], exit_on_error=False
        )
        assert bound.arguments["density_m"] == 100
