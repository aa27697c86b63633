"""Styles that QGIS finds inside a GeoPackage."""

from __future__ import annotations

import sqlite3
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.vector.writers.styles import (
    CLASS_COLOURS,
    NOT_COVERED_COLOUR,
    SCANNED_COLOUR,
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
    names = ["car", "Größe <&\"'>", *"cdefghijklm"]
    found = colours(class_style(names, colours={"c": "#010203"}))
    assert found["car"] == "255,212,0,255"
    assert found["c"] == "1,2,3,255"
    assert found["m"] == found["car"]  # colours repeat after the last
    assert list(found) == [*names, ""]
    assert len(CLASS_COLOURS) == 12
    assert colours(class_style(["car"], kind="Point"))["car"] == "255,212,0,255"
    assert list(colours(class_style([]))) == [""]


def test_colours_of_classes_are_told_apart_on_imagery():
    """By distance in CIE Lab, where 2 can just be seen; imagery is grey, and mostly dark."""
    others = [SCANNED_COLOUR, NOT_COVERED_COLOUR, "#ffffff", "#999999", "#000000"]
    lab = np.array([to_lab(colour) for colour in (*CLASS_COLOURS, *others)])
    apart = np.linalg.norm(lab[:12, None] - lab, axis=-1)
    apart[np.arange(12), np.arange(12)] = np.inf
    assert apart.min() > 30
    assert lab[:12, 0].min() > 60  # bright
    assert np.hypot(*lab[:12, 1:].T).min() > 35  # and coloured


def to_lab(colour):
    """CIE 1976 L*a*b* of an sRGB colour under D65."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


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
