"""Go through the cases and cells of a review, and enter what a person decides.

All entries go through QGIS's edit buffers, one undo step each, and into the file when they are
saved. The layers are those of ``geo-retina review``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsVectorLayer,
    QgsWkbTypes,
)

from . import inputs
from .i18n import tr

REVIEW, CELLS = "review", "cells"
NEW, DONE = "new", "done"
_IN_CELL = "cell"


class ReviewError(Exception):
    """A review cannot be opened or written; the text says why."""


@dataclass(frozen=True)
class Item:
    """One thing to look at: a case, or a cell as a whole.

    Attributes:
        layer: ``review`` or ``cells``.
        fid: of the feature.
        cell: number of the cell, or None.
    """

    layer: str
    fid: int
    cell: int | None


class ReviewSession:
    """What is to be looked at in one GeoPackage, and where one is in it."""

    def __init__(self, review: Any, cells: Any, *, is_oriented: bool = False) -> None:
        """Begin with the first open case.

        Args:
            review: the layer of cases.
            cells: the layer of cells.
            is_oriented: the file's boxes lie at any angle.

        Raises:
            ReviewError: one of them cannot be edited.
        """
        self.review = review
        self.cells = cells
        self.is_oriented = is_oriented
        self._edited: list[Any] = []
        for layer in (review, cells):
            if not layer.isEditable() and not layer.startEditing():
                raise ReviewError(
                    tr("{} cannot be edited: it is read-only, or another program holds it").format(
                        layer.name()
                    )
                )
        self.items = self._collect()
        self.place = next((i for i, item in enumerate(self.items) if self.is_open(item)), 0)

    def _collect(self) -> list[Item]:
        """List cases by priority, then each cell, in its order, after the cases in it."""
        cases: list[tuple[Any, int]] = []
        in_cells: dict[int, list[int]] = {}
        for feature in self.review.getFeatures():
            cell = _whole(feature["cell"])
            if feature["reason"] == _IN_CELL and cell is not None:
                in_cells.setdefault(cell, []).append(feature.id())
            elif _whole(feature["case_id"]) is not None:
                rank = _whole(feature["priority"])
                cases.append((10**9 if rank is None else rank, feature.id()))
        items = [Item(REVIEW, fid, None) for _, fid in sorted(cases)]
        cells = sorted(
            self.cells.getFeatures(),
            key=lambda each: tuple(
                _whole(each[name]) or 0 for name in ("place", "stratum", "cell")
            ),
        )
        for feature in cells:
            cell = _whole(feature["cell"])
            items += [Item(REVIEW, fid, cell) for fid in sorted(in_cells.get(cell, []))]
            items.append(Item(CELLS, feature.id(), cell))
        return items

    @property
    def current(self) -> Item | None:
        """The item that is looked at."""
        return self.items[self.place] if self.items else None

    @property
    def feature(self) -> Any | None:
        """The feature that is looked at, as it stands in the edit buffer."""
        return None if self.current is None else self.feature_of(self.current)

    def layer_of(self, item: Item) -> Any:
        """Give the layer that an item is in."""
        return self.review if item.layer == REVIEW else self.cells

    def feature_of(self, item: Item) -> Any | None:
        """Give an item's feature; None where it was deleted."""
        feature = self.layer_of(item).getFeature(item.fid)
        return feature if feature.isValid() else None

    def is_open(self, item: Item) -> bool:
        """Tell whether nobody has decided on an item yet."""
        feature = self.feature_of(item)
        return feature is not None and feature["status"] == NEW

    @property
    def open_count(self) -> int:
        """How many items wait."""
        return sum(map(self.is_open, self.items))

    def move(self, step: int, *, to_open: bool = False) -> None:
        """Go some items on or back, and with ``to_open`` past those that are decided."""
        if not self.items:
            return
        for distance in range(1, len(self.items) + 1):
            place = (self.place + step * distance) % len(self.items)
            if self.feature_of(self.items[place]) is None:
                continue
            if not to_open or self.is_open(self.items[place]):
                self.place = place
                return

    def decide(self, status: str) -> None:
        """Enter a status for the current case, and go on to the next open item.

        Raises:
            ReviewError: it is no case.
        """
        item = self._case()
        self._change(self.review, tr("Set to {}").format(status), {item.fid: {"status": status}})
        self.move(1, to_open=True)

    def rename(self, name: str) -> None:
        """Enter another class for the current case.

        Raises:
            ReviewError: it is no case.
        """
        item = self._case()
        values = {"class": name, "status": "changed"}
        self._change(self.review, tr("Set class to {}").format(name), {item.fid: values})

    def redraw(self, geometry: Any) -> None:
        """Enter another shape for the current case.

        Args:
            geometry: polygon in the layer's CRS.

        Raises:
            ReviewError: it is no case.
        """
        item = self._case()
        self.review.beginEditCommand(tr("Redraw"))
        self.review.changeGeometry(item.fid, self._fitting(geometry))
        self._set(self.review, item.fid, "status", "changed")
        self._end(self.review)

    def add(self, geometry: Any, name: str | None) -> int:
        """Enter an object that was not found.

        Args:
            geometry: polygon in the layer's CRS.
            name: its class; None where it is not known.

        Returns:
            Its number among the features.
        """
        feature = QgsFeature(self.review.fields())
        feature.setGeometry(self._fitting(geometry))
        feature["status"] = "added"
        feature["class"] = name
        feature["weight"] = 1.0
        self.review.beginEditCommand(tr("Add an object"))
        self.review.addFeature(feature)
        self._end(self.review)
        return int(feature.id())

    def finish_cell(self) -> None:
        """Mark the current cell as looked at completely, and go on to the next open item.

        Raises:
            ReviewError: the current item is in no cell.
        """
        item = self.current
        if item is None or item.cell is None:
            raise ReviewError(tr("This case is in no cell; go to one first"))
        (fid,) = (each.fid for each in self.items if each.layer == CELLS and each.cell == item.cell)
        self._change(self.cells, tr("Mark cell done"), {fid: {"status": DONE}})
        # What is left as new in a done cell counts as accepted, so nobody needs to see it.
        while self.current is not None and self.current.cell == item.cell:
            before = self.place
            self.move(1, to_open=True)
            if self.place <= before:
                break

    def undo(self) -> None:
        """Take the last entry back."""
        while self._edited:
            layer = self._edited.pop()
            if layer.undoStack().canUndo():
                layer.undoStack().undo()
                return

    def save(self) -> None:
        """Write all entries into the file, and go on editing.

        Raises:
            ReviewError: the file cannot be written; the entries stay in the buffer.
        """
        for layer in (self.review, self.cells):
            if layer.isEditable() and layer.isModified() and not layer.commitChanges(False):
                told = "; ".join(layer.commitErrors())
                raise ReviewError(tr("{} could not be saved: {}").format(layer.name(), told))
        place = self.current
        self._edited.clear()
        self.items = self._collect()
        if place in self.items:
            self.place = self.items.index(place)

    def classes(self) -> list[str]:
        """List the classes that there are, sorted."""
        values = self.review.uniqueValues(self.review.fields().indexOf("class"))
        return sorted(str(value) for value in values if value)

    def _case(self) -> Item:
        if self.current is None or self.current.layer != REVIEW:
            raise ReviewError(tr("This is a cell; mark it done when all in it is right"))
        return self.current

    def _fitting(self, geometry: Any) -> Any:
        """Give a geometry of the layer's type."""
        if self.review.geometryType() == QgsWkbTypes.PointGeometry:
            return geometry.centroid()
        fitting = QgsGeometry(geometry)
        if QgsWkbTypes.isMultiType(self.review.wkbType()):
            fitting.convertToMultiType()
        return fitting

    def _change(self, layer: Any, text: str, changes: dict[int, dict[str, Any]]) -> None:
        layer.beginEditCommand(text)
        for fid, values in changes.items():
            for name, value in values.items():
                self._set(layer, fid, name, value)
        self._end(layer)

    def _set(self, layer: Any, fid: int, name: str, value: Any) -> None:
        layer.changeAttributeValue(fid, layer.fields().indexOf(name), value)

    def _end(self, layer: Any) -> None:
        layer.endEditCommand()
        self._edited.append(layer)


def open_session(path: str) -> ReviewSession:
    """Open a review, with the layers that the project has or with new ones.

    Raises:
        ReviewError: the file holds no review, or cannot be edited.
    """
    layers = []
    for name in (REVIEW, CELLS):
        layer = _in_project(path, name)
        if layer is None:
            layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
            if not layer.isValid():
                raise ReviewError(
                    tr("{} holds no review; run the algorithm Review queue on it").format(path)
                )
            QgsProject.instance().addMapLayer(layer)
        layer.setSubsetString("")
        layers.append(layer)
    found = QgsVectorLayer(f"{path}|layername=detections", "detections", "ogr")
    return ReviewSession(*layers, is_oriented=found.fields().indexOf("azimuth_deg") >= 0)


def _in_project(path: str, name: str) -> Any | None:
    for layer in QgsProject.instance().mapLayers().values():
        is_file = isinstance(layer, QgsVectorLayer) and layer.providerType() == "ogr"
        if is_file and inputs.layer_file(layer) == (path, name):
            return layer
    return None


def _whole(value: Any) -> int | None:
    """Read a whole number that may be missing."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
