"""Bring what a command wrote into the project, with its own styles, in a group."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingLayerPostProcessorInterface, QgsVectorLayer

SHOWN = ("not_covered", "review", "cells", "detections", "detection_points", "scanned")
"""Layers that are shown where a file has them, uppermost first; empty ones are left out."""

_ALWAYS = ("detections",)

_TIP = '<b>[% "class" %]</b>, score [% round("score", 2) %]'
_TURNED_TIP = (
    '<br/>[% round("length_m", 1) %] m x [% round("width_m", 1) %] m, '
    '[% round("azimuth_deg") %] degrees from north'
)
"""Of boxes at any angle, which have these columns."""

_kept: list[QgsProcessingLayerPostProcessorInterface] = []
"""QGIS itself keeps no reference to what is called after loading."""


class Grouped(QgsProcessingLayerPostProcessorInterface):
    """Puts a layer that Processing loads into a group of the layer tree."""

    def __init__(self, group: str, place: int) -> None:
        super().__init__()
        self._group = group
        self._place = place
        _kept.append(self)

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Move the layer into its group, to its place among those of one file, with a map tip."""
        tip = map_tip([field.name() for field in layer.fields()])
        if tip and not layer.mapTipTemplate():
            layer.setMapTipTemplate(tip)
        project = context.project()
        root = project.layerTreeRoot()
        node = root.findLayer(layer.id())
        if node is None:
            return
        group = root.findGroup(self._group) or root.insertGroup(0, self._group)
        places = [child.customProperty("geo_retina/place", 99) for child in group.children()]
        copy = node.clone()
        copy.setCustomProperty("geo_retina/place", self._place)
        index = sum(int(place) <= self._place for place in places)
        group.insertChildNode(index, copy)
        node.parent().removeChildNode(node)


def map_tip(columns: Collection[str]) -> str:
    """Say what a map tip shows of objects with these columns; nothing of other layers."""
    if not {"class", "score"} <= set(columns):
        return ""
    return _TIP + (_TURNED_TIP if "azimuth_deg" in columns else "")


def layers_of(path: str) -> list[str]:
    """List the layers of a GeoPackage that have a row, and the detections even without."""
    names = []
    for name in SHOWN:
        layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
        if layer.isValid() and (layer.featureCount() or name in _ALWAYS):
            names.append(name)
    return names


def load_on_completion(context: Any, path: str, destination: str | None = None) -> None:
    """Have Processing load a file's layers in place of its first one, if it loads that.

    Args:
        context: of the algorithm.
        path: GeoPackage, or a file of another format.
        destination: what Processing would load; left out, the path.
    """
    waiting = context.layersToLoadOnCompletion()
    key = destination or path
    if key not in waiting:
        return
    details = waiting.pop(key)
    group = Path(path).stem
    if Path(path).suffix.lower() != ".gpkg":
        uris = {Path(path).stem: path}
    else:
        uris = {name: f"{path}|layername={name}" for name in layers_of(path)}
    for place, (name, uri) in enumerate(uris.items()):
        new = QgsProcessingContext.LayerDetails(name, details.project, name)
        new.setPostProcessor(Grouped(group, place))
        waiting[uri] = new
    context.setLayersToLoadOnCompletion(waiting)
