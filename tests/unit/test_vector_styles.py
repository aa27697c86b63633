"""Styles that QGIS finds inside a GeoPackage."""

from __future__ import annotations

import sqlite3
from xml.etree import ElementTree as ET

import geopandas as gpd
import pytest
import shapely

from geo_retina.vector.styles import (
    CLASS_COLOURS,
    class_style,
    plain_style,
    read_styles,
    write_styles,
)


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "a.gpkg"
    frame = gpd.GeoDataFrame({"class": ["car"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=32632)
    frame.to_file(path, layer="detections")
    return path


def colours(qml: str) -> dict[str, str]:
    """Colour of each category's symbol, as QGIS resolves it: category -> symbol -> property."""
    root = ET.fromstring(qml)
    outlines = {
        symbol.get("name"): next(
            o.get("value")
            for o in symbol.iter("Option")
            if o.get("name") == ("outline_color" if symbol.get("type") == "fill" else "color")
        )
        for symbol in root.iter("symbol")
    }
    return {c.get("value"): outlines[c.get("symbol")] for c in root.iter("category")}


def test_every_class_has_its_colour():
    names = ["car", "Größe <&\"'>", "c", "d", "e", "f", "g", "h"]
    found = colours(class_style(names, colours={"c": "#010203"}))
    assert found["car"] == "255,212,0,255"
    assert found["c"] == "1,2,3,255"
    assert found["h"] == found["car"]  # colours repeat after the last
    assert list(found) == [*names, ""]
    assert len(CLASS_COLOURS) == 7
    assert colours(class_style(["car"], kind="Point"))["car"] == "255,212,0,255"
    assert list(colours(class_style([]))) == [""]


def test_old_and_new_properties_agree():
    layer = next(ET.fromstring(plain_style("#ff0000", hatched=True)).iter("layer"))
    new = {o.get("name"): o.get("value") for o in layer.iter("Option") if o.get("name")}
    assert new == {p.get("k"): p.get("v") for p in layer.iter("prop")}
    assert new["style"] == "b_diagonal"


def test_a_style_is_the_default_of_its_layer(package):
    assert read_styles(package) == {}
    write_styles(package, {"detections": class_style(["car"])})
    write_styles(package, {"detections": class_style(["car", "ship"])})
    assert read_styles(package) == {"detections": class_style(["car", "ship"])}
    database = sqlite3.connect(package)
    rows = database.execute(
        "SELECT f_table_name, f_geometry_column, useAsDefault FROM layer_styles"
    ).fetchall()
    kinds = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
    database.close()
    assert rows == [("detections", "geom", 1)]
    assert kinds == {"detections": "features", "layer_styles": "attributes"}
    assert len(gpd.read_file(package, layer="detections")) == 1


def test_what_is_no_geopackage_stays_as_it_is(tmp_path):
    path = tmp_path / "a.gpkg"
    path.write_text("precious")
    with pytest.raises(sqlite3.Error):
        write_styles(path, {"detections": class_style(["car"])})
    assert path.read_text() == "precious"
