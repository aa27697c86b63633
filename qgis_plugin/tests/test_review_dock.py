"""The dock of a review beside a map, with the mouse and the keys."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from tests.support import start_qgis, write_layer

QGIS = start_qgis()

from qgis.core import QgsCoordinateReferenceSystem, QgsPointXY, QgsProject, QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapMouseEvent, QgsMessageBar
from qgis.PyQt.QtCore import QEvent, QSize, Qt
from qgis.PyQt.QtWidgets import QMainWindow

from geo_retina.rectangle_tool import rectangle
from geo_retina.review_dock import ReviewDock

X, Y = 500000.0, 5300000.0


class Window:
    """What the dock uses of QGIS's own window."""

    def __init__(self) -> None:
        self.window, self.canvas, self.bar = QMainWindow(), QgsMapCanvas(), QgsMessageBar()
        self.canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:32632"))
        self.canvas.resize(QSize(400, 400))
        self.canvas.setExtent(QgsRectangle(X - 20, Y - 20, X + 20, Y + 20))

    def mainWindow(self) -> QMainWindow:
        return self.window

    def mapCanvas(self) -> QgsMapCanvas:
        return self.canvas

    def messageBar(self) -> QgsMessageBar:
        return self.bar

    def activeLayer(self) -> None:
        return None


class TestDock(unittest.TestCase):
    def opened(self, **columns: list) -> ReviewDock:
        """Open a review of one case and one cell."""
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.addCleanup(QgsProject.instance().clear)
        path, box = Path(scratch.name) / "found.gpkg", [(X, Y, X + 1, Y + 1)]
        case = {"class": ["lorry"], "score": [0.5], "reason": ["seam"], "priority": ["1"]}
        case |= {"status": ["new"], "note": [""], "weight": [1.0], "cell": [None], "case_id": ["1"]}
        write_layer(path, "detections", box, **{"class": ["lorry"], "score": [0.5], **columns})
        write_layer(path, "review", box, **case)
        cell = {"cell": ["1"], "status": ["new"], "use": ["count"], "stratum": ["0"]}
        write_layer(path, "cells", [(X - 9, Y - 9, X + 9, Y + 9)], **cell, place=["0"])
        self.window = Window()
        dock = ReviewDock(self.window)
        self.addCleanup(dock.close_down)
        dock.open(str(path))
        return dock

    def press(self, key: str) -> None:
        (action,) = (a for a in self.window.window.actions() if a.shortcut().toString() == key)
        action.setEnabled(True)
        action.trigger()

    def click(self, *places: tuple[float, float], button=Qt.MouseButton.LeftButton) -> None:
        """Click on the map at some places, in metres from the middle."""
        canvas = self.window.canvas
        for x, y in places:
            at = canvas.getCoordinateTransform().transform(QgsPointXY(X + x, Y + y)).toQPointF()
            for kind in (QEvent.Type.MouseMove, QEvent.Type.MouseButtonRelease):
                event = QgsMapMouseEvent(canvas, kind, at.toPoint(), button)
                tool = canvas.mapTool()
                if kind == QEvent.Type.MouseMove:
                    tool.canvasMoveEvent(event)
                else:
                    tool.canvasReleaseEvent(event)

    def added(self, dock: ReviewDock) -> list:
        layer = dock._session.review
        return [f for f in layer.getFeatures() if f["status"] == "added"]

    def test_three_clicks_draw_a_rectangle_at_any_angle_where_boxes_are_oriented(self) -> None:
        dock = self.opened(azimuth_deg=[30.0])
        self.window.canvas.setExtent(QgsRectangle(X - 20, Y - 20, X + 20, Y + 20))
        self.press("I")
        self.click((0, 0), (1, 1), button=Qt.MouseButton.RightButton)  # begins anew
        self.click((0, 0), (6, 8), (2, 11))
        (feature,) = self.added(dock)
        _, area, _, width, height = feature.geometry().orientedMinimumBoundingBox()
        self.assertAlmostEqual(max(width, height), 10, delta=0.3)
        self.assertAlmostEqual(min(width, height), 5, delta=0.3)
        self.assertAlmostEqual(feature.geometry().area(), area, delta=0.01)
        self.assertIsNone(self.window.canvas.mapTool())

    def test_a_case_is_redrawn_at_an_angle(self) -> None:
        dock = self.opened(azimuth_deg=[30.0])
        self.window.canvas.setExtent(QgsRectangle(X - 20, Y - 20, X + 20, Y + 20))
        fid = dock._session.current.fid
        self.press("D")
        self.click((0, 0), (6, 8), (2, 11))
        feature = dock._session.review.getFeature(fid)
        self.assertEqual(feature["status"], "changed")
        self.assertAlmostEqual(feature.geometry().area(), 50, delta=3)

    def test_keys_decide_and_undo(self) -> None:
        dock = self.opened()
        self.assertFalse(dock._session.is_oriented)
        fid = dock._session.current.fid
        self.press("R")
        self.assertEqual(dock._session.review.getFeature(fid)["status"], "rejected")
        self.press("U")
        self.assertEqual(dock._session.review.getFeature(fid)["status"], "new")


class TestRectangle(unittest.TestCase):
    def test_points_on_one_line_are_none(self) -> None:
        a, b, c = QgsPointXY(0, 0), QgsPointXY(1, 1), QgsPointXY(2, 2)
        self.assertIsNone(rectangle(a, b, c))
        self.assertIsNone(rectangle(a, a, c))
        self.assertAlmostEqual(rectangle(a, b, QgsPointXY(0, 1)).area(), 1)


if __name__ == "__main__":
    unittest.main()
