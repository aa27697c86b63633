"""The bundled trees model, on real imagery and as everybody will first run it."""

from __future__ import annotations

import json

import geopandas as gpd
import pytest

import geo_retina
from geo_retina.cli import main
from geo_retina.engine import has_openvino
from geo_retina.model import find_model, load_card
from geo_retina.vector import read_metadata


@pytest.mark.parametrize(
    ("model", "bands", "f1"),
    [
        ("trees-naip", ["red", "green", "blue", "nir"], 0.78),
        ("trees-naip-rgb", ["red", "green", "blue"], 0.74),
    ],
)
def test_the_card_says_what_a_user_must_know(model, bands, f1):
    card = load_card(model)
    assert [band.name for band in card.bands] == bands
    assert card.metrics["test"]["overall"]["f1"] > f1
    assert "Ventura et al. 2024" in card.attribution
    assert "CC BY 4.0" in card.attribution
    assert card.metrics["quantization"]["costs_little"] is True
    assert card.metrics["quantization"]["labels"] > 2000
    assert find_model(model).stat().st_size < 15e6


@pytest.mark.parametrize("model", ["trees-naip", "trees-naip-rgb"])
def test_trees_of_a_city_are_found_by_the_command_of_the_readme(data_root, tmp_path, capsys, model):
    scenes = sorted(data_root.glob("naip_trees/val/long_beach_2020_*.tif"))
    assert len(scenes) > 5
    out = tmp_path / "trees.gpkg"
    assert main(["detect", *map(str, scenes), "--model", model, "--out", str(out)]) == 0
    names = [path.stem for path in scenes]
    scores = geo_retina.evaluate(
        out,
        data_root / "naip_trees" / "trees.gpkg",
        geo_retina.EvaluateOptions(
            where=f"tile IN ({', '.join(map(repr, names))})",
            scene_column="tile",
            radius_m=6.0,
            resamples=0,
        ),
    )
    assert scores.f1 > 0.78
    found = gpd.read_file(out, layer="detections")
    assert set(found["scene"]) <= set(names)
    assert found.area.median() == pytest.approx(7.8**2, rel=0.15)
    told = read_metadata(out)
    chosen = ("openvino", "int8") if has_openvino() else ("torch", told["precision"])
    assert (told["runtime"], told["precision"]) == chosen  # of itself, as the card says
    assert json.loads(told["out_of_range_tiles"]) == 0
    assert "have been resampled, by a factor of 0.5" in capsys.readouterr().err
