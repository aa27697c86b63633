"""What was found rightly, wrongly or not at all, as layers to open in a GIS."""

from __future__ import annotations

from pathlib import Path

from geo_retina.evaluation import FALSE, TRUE, MatchTable
from geo_retina.vector import plain_style, write_layers
from geo_retina.vector.styles import Kind

TRUE_COLOUR, FALSE_COLOUR, MISSED_COLOUR = "#00c8f0", "#ff5533", "#ffd400"
"""Told apart on imagery, and by colour-blind eyes; the page's pictures have them too."""


def write_errors(matches: MatchTable, path: str | Path, *, overwrite: bool) -> None:
    """Write the layers true_positive, false_positive and missed into a GeoPackage.

    Args:
        matches: what became of each object.
        path: ends in .gpkg. Layers have the columns of ``MatchTable``'s frames; QGIS opens
            them in colours.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    layers = {
        "true_positive": matches.detections_frame(TRUE),
        "false_positive": matches.detections_frame(FALSE),
        "missed": matches.labels_frame(FALSE),
    }
    colours = (TRUE_COLOUR, FALSE_COLOUR, MISSED_COLOUR)
    styles = {
        name: plain_style(colour, kind=kind_of(layer.geom_type))
        for (name, layer), colour in zip(layers.items(), colours, strict=True)
    }
    write_layers(path, layers, styles=styles, overwrite=overwrite)


def kind_of(geometry_types: object) -> Kind:
    """How QGIS has to draw geometries of these types, a pandas series of names."""
    return "Point" if set(geometry_types) == {"Point"} else "Polygon"  # type: ignore[call-overload]
