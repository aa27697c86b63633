"""Layer styles inside a GeoPackage, so that QGIS shows a layer in colours at once.

QGIS keeps a style as QML, its own XML, and looks for the default one of a GeoPackage's layer in
the table ``layer_styles``. Other programs pass both by.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from geo_retina.vector.readers.refusing import open_package

Kind = Literal["Polygon", "Point"]

CLASS_COLOURS = (
    *("#ffd400", "#00e5ff", "#ff4fa3", "#ff7f0e", "#7cff4f", "#b07cff"),
    *("#44bb77", "#ee8877", "#bbaa55", "#ffbbff", "#99bb00", "#ff55ff"),
)
"""Colours by class, in order; bright on imagery, none of them a grey, and told apart by
colour-blind eyes in the first few. The later ones are those that lie farthest from all before
them, and from the colours below. They repeat after the last."""

SCANNED_COLOUR = "#4da6ff"
"""Outline of scanned ground."""

NOT_COVERED_COLOUR = "#e31a1c"
"""Hatching of ground that was not."""

_MILLIMETRES = "MM"

_STYLES_TABLE = """
CREATE TABLE IF NOT EXISTS layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME)
"""
"""As QGIS makes it."""


def class_style(
    classes: Sequence[str],
    *,
    column: str = "class",
    kind: Kind = "Polygon",
    colours: Mapping[str, str] | None = None,
) -> str:
    """Make a style that draws every class in its colour.

    Args:
        classes: values of the column, in the order of the legend. None give one symbol.
        column: the column that tells the class.
        kind: of the layer's geometries: polygons get outlines without a filling, points dots.
        colours: ``#rrggbb`` by class; a class left out has its place's of ``CLASS_COLOURS``.

    Returns:
        QML.
    """
    root, renderer = _style("categorizedSymbol")
    renderer.set("attr", column)
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for place, name in enumerate(classes):
        colour = (colours or {}).get(name, CLASS_COLOURS[place % len(CLASS_COLOURS)])
        labels = {"value": name, "label": name, "symbol": str(place), "render": "true"}
        ET.SubElement(categories, "category", labels)
        _add_symbol(symbols, str(place), kind, colour)
    rest = str(len(classes))
    ET.SubElement(
        categories,
        "category",
        {"value": "", "label": "all others", "symbol": rest, "render": "true"},
    )
    _add_symbol(symbols, rest, kind, "#999999")
    return _text(root)


def plain_style(colour: str, *, kind: Kind = "Polygon", hatched: bool = False) -> str:
    """Make a style that draws all of a layer alike.

    Args:
        colour: ``#rrggbb``.
        kind: of the layer's geometries.
        hatched: fill polygons with diagonal lines; otherwise they are outlines.

    Returns:
        QML.
    """
    root, renderer = _style("singleSymbol")
    _add_symbol(ET.SubElement(renderer, "symbols"), "0", kind, colour, hatched=hatched)
    return _text(root)


def write_styles(path: str | Path, styles: Mapping[str, str]) -> None:
    """Put default styles of layers into a GeoPackage.

    Args:
        path: a GeoPackage that no other program is writing.
        styles: QML by name of layer. An older style of a layer is replaced.

    Raises:
        sqlite3.Error: it is no GeoPackage, or cannot be written.
    """
    with closing(sqlite3.connect(path)) as database, database:
        put_styles(database, styles)


def put_styles(
    database: sqlite3.Connection, styles: Mapping[str, str], *, replace: bool = True
) -> None:
    """Put default styles of layers into an open GeoPackage, inside the caller's transaction.

    Args:
        database: the GeoPackage.
        styles: QML by name of layer.
        replace: in place of older ones; otherwise a layer that has a style keeps it.
    """
    database.execute(_STYLES_TABLE)
    database.execute(
        "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles')"
    )
    has = {name for (name,) in database.execute("SELECT f_table_name FROM layer_styles")}
    for layer, qml in styles.items():
        if replace or layer not in has:
            _write_style(database, layer, qml)


def read_styles(path: str | Path) -> dict[str, str]:
    """Read the default styles in a GeoPackage, as QML by name of layer; none where it has none."""
    with open_package(path) as database:
        query = "SELECT name FROM sqlite_master WHERE name = 'layer_styles'"
        if not database.execute(query).fetchall():
            return {}
        return dict(
            database.execute(
                "SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault ORDER BY id"
            ).fetchall()
        )


def _write_style(database: sqlite3.Connection, layer: str, qml: str) -> None:
    found = database.execute(
        "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
    ).fetchone()
    database.execute("DELETE FROM layer_styles WHERE f_table_name = ?", (layer,))
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
        "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
        "update_time) VALUES ('', '', ?, ?, ?, ?, '', 1, 'written by geo-retina', '', "
        "(SELECT last_change FROM gpkg_contents WHERE table_name = ?))",
        (layer, found[0] if found else "", layer[:30], qml, layer),
    )


def _style(renderer: str) -> tuple[ET.Element, ET.Element]:
    root = ET.Element("qgis", {"version": "3.16.0", "styleCategories": "Symbology"})
    settings = {"type": renderer, "symbollevels": "0", "enableorderby": "0", "forceraster": "0"}
    return root, ET.SubElement(root, "renderer-v2", settings)


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _add_symbol(
    symbols: ET.Element, name: str, kind: Kind, colour: str, *, hatched: bool = False
) -> None:
    settings = {"name": name, "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
    symbol = ET.SubElement(symbols, "symbol", {**settings, "type": _SYMBOL_TYPES[kind]})
    rgb = ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5)) + ",255"
    if kind == "Point":
        about = {"name": "circle", "size": "1.6", "size_unit": _MILLIMETRES, "color": rgb}
        about |= {"outline_color": "0,0,0,255", "outline_style": "solid", "outline_width": "0.1"}
        _add_layer(symbol, "SimpleMarker", about)
        return
    about = {"color": rgb, "style": "b_diagonal" if hatched else "no"}
    about |= {"outline_color": rgb, "outline_style": "solid", "outline_width": "0.4"}
    _add_layer(symbol, "SimpleFill", {**about, "outline_width_unit": _MILLIMETRES})


_SYMBOL_TYPES = {"Polygon": "fill", "Point": "marker"}


def _add_layer(symbol: ET.Element, kind: str, about: Mapping[str, str]) -> None:
    """Add properties twice: QGIS before 3.18 reads ``prop`` and later ones ``Option``."""
    layer = ET.SubElement(symbol, "layer", {"class": kind, "enabled": "1", "pass": "0"})
    options = ET.SubElement(layer, "Option", {"type": "Map"})
    for name, value in about.items():
        ET.SubElement(options, "Option", {"type": "QString", "name": name, "value": value})
        ET.SubElement(layer, "prop", {"k": name, "v": value})
