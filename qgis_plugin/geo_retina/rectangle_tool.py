"""Draw a rectangle at any angle on the map, by three clicks."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsGeometry, QgsPointXY, QgsWkbTypes
from qgis.gui import QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor


class RectangleTool(QgsMapTool):
    """Takes both ends of one side, and then a point on the side across from it.

    The right button, or Escape, begins anew.
    """

    drawn = pyqtSignal(QgsGeometry)

    def __init__(self, canvas: Any) -> None:
        """Make it for a map."""
        super().__init__(canvas)
        self._points: list[Any] = []
        self._band = QgsRubberBand(canvas, QgsWkbTypes.PolygonGeometry)
        self._band.setColor(QColor(255, 0, 255))
        self._band.setFillColor(QColor(0, 0, 0, 0))
        self._band.setWidth(2)
        self.setCursor(Qt.CursorShape.CrossCursor)

    def canvasReleaseEvent(self, event: Any) -> None:
        """Take a point; with the third the rectangle is drawn."""
        if event.button() == Qt.MouseButton.RightButton:
            self._begin_anew()
            return
        self._points.append(self.toMapCoordinates(event.pos()))
        if len(self._points) == 3:
            shape = rectangle(*self._points)
            self._begin_anew()
            if shape is not None:
                self.drawn.emit(shape)

    def canvasMoveEvent(self, event: Any) -> None:
        """Show what a click at this place would give."""
        points = [*self._points, self.toMapCoordinates(event.pos())]
        if len(points) == 2:
            self._band.setToGeometry(QgsGeometry.fromPolygonXY([[*points, points[0]]]), None)
        elif len(points) == 3 and (shape := rectangle(*points)) is not None:
            self._band.setToGeometry(shape, None)

    def keyPressEvent(self, event: Any) -> None:
        """Begin anew at Escape."""
        if event.key() == Qt.Key.Key_Escape and self._points:
            self._begin_anew()
            event.ignore()  # as QGIS asks of a tool that has used the key

    def deactivate(self) -> None:
        """Forget what was begun when another tool takes over."""
        self._begin_anew()
        super().deactivate()

    def _begin_anew(self) -> None:
        self._points.clear()
        self._band.reset(QgsWkbTypes.PolygonGeometry)


def rectangle(first: Any, second: Any, across: Any) -> QgsGeometry | None:
    """Give the rectangle between a side and a point of the side across from it.

    Args:
        first: one end, in the map's CRS.
        second: the other end.
        across: anywhere on the line of the side across from it.

    Returns:
        The polygon in the map's CRS; None where all three lie on one line.
    """
    along_x, along_y = second.x() - first.x(), second.y() - first.y()
    length = (along_x**2 + along_y**2) ** 0.5
    if length == 0:
        return None
    normal_x, normal_y = -along_y / length, along_x / length
    width = (across.x() - second.x()) * normal_x + (across.y() - second.y()) * normal_y
    if width == 0:
        return None
    move_x, move_y = normal_x * width, normal_y * width
    third = QgsPointXY(second.x() + move_x, second.y() + move_y)
    fourth = QgsPointXY(first.x() + move_x, first.y() + move_y)
    return QgsGeometry.fromPolygonXY([[first, second, third, fourth, first]])
