"""Lists, STAC items, mosaics and areas on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from support.stubs import (
    LOADED_BY_RUNS,
    NORTH_UP,
    UTM,
    load_stub_model,
    paint,
    tiny_model,
    write_scene,
)

from geo_retina.cli import main

BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48]])
MODEL = ["--model", "m.safetensors"]
CPU = ["--device", "cpu", "--block-px", "256"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Two overlapping pieces of one scene, a list, a STAC item, an area and a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    pixels = paint((300, 400), BOXES)
    Path("in").mkdir()
    for col in (0, 120):
        affine = NORTH_UP @ Affine.translation(col, 0)
        write_scene(tmp_path / "in" / f"{col}.tif", pixels[:, :, col : col + 280], affine=affine)
    Path("list.txt").write_text("in/0.tif\nin/120.tif\n")
    assets = {name: {"href": "in/0.tif", "type": "image/tiff"} for name in ("visual", "red")}
    item = {"type": "Feature", "stac_version": "1.1.0", "id": "x", "assets": assets}
    Path("item.json").write_text(json.dumps(item))
    area = shapely.box(*(NORTH_UP @ (0, 50)), *(NORTH_UP @ (50, 0)))
    gpd.GeoDataFrame(geometry=[area], crs=UTM).to_file("aoi.gpkg")
    tiny_model().save(tmp_path / "m.safetensors")
    return tmp_path


def blocks(text: str) -> list[dict[str, str]]:
    """Paragraphs of label and text, as printed."""
    lines = (
        [re.split(r"\s{2,}", x, maxsplit=1) for x in p.splitlines()] for p in text.split("\n\n")
    )
    return [{pair[0]: pair[1] for pair in each if len(pair) == 2} for each in lines]


def test_info_with_a_model_tells_what_would_be_done(here, capsys):
    assert main(["info", "list.txt", *MODEL, "--aoi", "aoi.gpkg"]) == 0
    first, second = blocks(capsys.readouterr().out)
    assert first["scene"].endswith("0.tif")
    assert first["bands"] == "red from 1, green from 2, blue from 3"
    assert first["values"] == "uint8, read as (value - 127.5) / 127.5"
    assert first["grid"] == "280 x 300 px at 0.5 m; the file's own pixels"
    assert first["area"] == f"{50 * 50 / (280 * 300):.2%} of the grid is of interest"
    assert first["tiles"].startswith("1 of ")
    assert second["tiles"].startswith("0 of ")
    assert second["area"].startswith("0.00%")
    assert main(["info", "in", *MODEL, "--gsd", "1m", "--mosaic"]) == 0
    (mosaic,) = blocks(capsys.readouterr().out)
    assert mosaic["scene"] == "in"
    assert mosaic["grid"].startswith("200 x 150 px at 1 m; of ")
    assert main(["info", "in/0.tif", *MODEL, "--gsd", "1m"]) == 0
    assert "resampled, 2 of the file's pixels" in capsys.readouterr().out


def test_info_takes_every_source(here, capsys):
    assert main(["info", "item.json", "--asset", "visual"]) == 0
    assert capsys.readouterr().out.startswith("file")
    assert main(["info", "item.json"]) == 1
    assert "2 images: visual, red" in capsys.readouterr().err
    Path("in/bad.tif").write_text("no picture")
    assert main(["info", "in"]) == 3
    out, err = capsys.readouterr()
    assert len(blocks(out)) == 2
    assert "bad.tif" in err


def test_plan_and_detect_on_an_area_of_a_mosaic(here, capsys):
    line = ["list.txt", *MODEL, *CPU, "--mosaic", "--aoi", "aoi.gpkg", "--tile-px", "128"]
    assert main(["plan", *line]) == 0
    out = capsys.readouterr().out
    assert "400 x 300 px" in out
    assert "are scanned" in out
    assert main(["detect", *line, "--out", "out.gpkg"]) == 0
    assert "outside, not read" in capsys.readouterr().out
    found = gpd.read_file("out.gpkg")
    assert found["scene"].tolist() == ["list"]
    assert main(["plan", "in/120.tif", *MODEL, *CPU, "--aoi", "aoi.gpkg"]) == 0
    assert capsys.readouterr().out == "1 scene outside the area of interest\n"


def test_an_area_that_cannot_be_read_is_one_sentence(here, capsys):
    assert main(["detect", "in", *MODEL, *CPU, "--aoi", "no.gpkg", "--out", "o.gpkg"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["plan", "in", *MODEL, "--aoi-rule", "within"]) == 2
    assert "--aoi-rule is given without an area" in capsys.readouterr().err
