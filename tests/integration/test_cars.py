"""The bundled cars model, on real imagery."""

from __future__ import annotations

import geopandas as gpd
import pytest

import geo_retina
from geo_retina.model import find_model, load_card

SCENE = "image_0_04_05"


def test_the_card_says_what_a_user_must_know():
    card = load_card("cars")
    assert card.classes == ("car",)
    assert [band.name for band in card.bands] == ["red", "green", "blue"]
    assert card.gsd_m == pytest.approx(0.2, rel=0.05)
    assert card.metrics["test"]["overall"]["ap50"] > 0.8
    assert "Estonian Land Board" in card.attribution
    assert "MIT" in card.attribution
    assert find_model("cars").stat().st_size < 8e6


def test_cars_of_a_sheet_that_it_never_saw_are_found(data_root, tmp_path):
    folder = data_root / "cars"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not there")
    out = tmp_path / "cars.gpkg"
    geo_retina.detect_to_file(folder / f"{SCENE}.tif", "cars", out)
    scores = geo_retina.evaluate(
        out,
        folder / "cars.gpkg",
        geo_retina.EvaluateOptions(
            where=f"kind = 'Car' AND scene = '{SCENE}'", scene_column="scene", resamples=0
        ),
    )
    assert scores.f1 > 0.75
    found = gpd.read_file(out, layer="detections")
    assert found.area.median() == pytest.approx(4 * 4, rel=0.3)
