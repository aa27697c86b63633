"""What was found rightly, wrongly or not at all, as layers to open in a GIS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.evaluation import AGREEMENT, FALSE, TRUE, Comparison, MatchTable
from geo_retina.vector import plain_style, write_layers
from geo_retina.vector.writers.styles import Kind

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

TRUE_COLOUR, FALSE_COLOUR, MISSED_COLOUR = "#00c8f0", "#ff5533", "#ffd400"
"""Told apart on imagery, and by colour-blind eyes; the page's pictures have them too."""

A_COLOUR, B_COLOUR = "#ff7f0e", "#00c8f0"
"""Of what the first alone found, and the second alone; of their false detections too."""


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
    _write(path, layers, colours, overwrite=overwrite)


def write_agreement(comparison: Comparison, path: str | Path, *, overwrite: bool) -> None:
    """Write which labels were found by whom into a GeoPackage.

    Args:
        comparison: as ``compare`` gives it.
        path: ends in .gpkg. Layers ``both``, ``only_a``, ``only_b`` and ``neither`` hold the
            labels, with the scores that each side gave them; ``false_a`` and ``false_b`` the
            detections of each side that are false. QGIS opens them in colours.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    layers = {which: comparison.labels_frame(which) for which in AGREEMENT}
    layers["false_a"] = comparison.a.matches.detections_frame(FALSE)
    layers["false_b"] = comparison.b.matches.detections_frame(FALSE)
    colours = ("#9aa4ae", A_COLOUR, B_COLOUR, MISSED_COLOUR, A_COLOUR, B_COLOUR)
    _write(path, layers, colours, overwrite=overwrite)


def _write(
    path: str | Path,
    layers: Mapping[str, GeoDataFrame],
    colours: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    styles = {}
    for (name, layer), colour in zip(layers.items(), colours, strict=True):
        kind: Kind = "Point" if set(layer.geom_type) == {"Point"} else "Polygon"
        styles[name] = plain_style(colour, kind=kind)
    write_layers(path, layers, styles=styles, overwrite=overwrite)
