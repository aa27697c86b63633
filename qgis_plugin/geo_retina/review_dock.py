"""The dock in which a person goes through a review, a key for each decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import Qgis, QgsCoordinateTransform, QgsGeometry, QgsProject, QgsVectorLayer
from qgis.gui import QgsMapToolExtent, QgsRubberBand
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor, QKeySequence
from qgis.PyQt.QtWidgets import (
    QAction,
    QComboBox,
    QDockWidget,
    QFileDialog,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from . import inputs
from .i18n import tr
from .rectangle_tool import RectangleTool
from .review_session import CELLS, ReviewError, ReviewSession, open_session

_AROUND = 5.0
"""How many times the size of a case the map shows."""


class ReviewDock(QDockWidget):
    """Shows one case after the other and takes what is decided."""

    def __init__(self, iface: Any) -> None:
        """Build it for QGIS's window."""
        super().__init__(tr("Review"), iface.mainWindow())
        self.setObjectName("geo_retina_review")
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self._session: ReviewSession | None = None
        self._band = QgsRubberBand(self._canvas)
        self._band.setColor(QColor(255, 0, 255))
        self._band.setFillColor(QColor(0, 0, 0, 0))
        self._band.setWidth(3)
        self._tool: QgsMapToolExtent | RectangleTool | None = None
        self._tool_before: Any = None
        self._actions: list[QAction] = []
        self.setWidget(self._build())
        self.show_current()

    def _build(self) -> QWidget:
        body = QWidget()
        column = QVBoxLayout(body)
        opener = QPushButton(tr("Open a review…"))
        opener.clicked.connect(self.open_chosen)
        column.addWidget(opener)
        self._count, self._about = QLabel(), QLabel()
        for label in (self._count, self._about):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
            column.addWidget(label)
        self._class = QComboBox()
        self._class.setEditable(True)
        self._class.activated.connect(self._rename)
        column.addWidget(self._class)
        grid = QGridLayout()
        for place, (text, key, run) in enumerate(self._keys()):
            button = QPushButton(f"{text} ({key})")
            action = QAction(text, self)
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)
            action.triggered.connect(self._guarded(run))
            button.clicked.connect(action.trigger)
            self._iface.mainWindow().addAction(action)
            self._actions.append(action)
            grid.addWidget(button, place // 2, place % 2)
        column.addLayout(grid)
        column.addStretch()
        self.visibilityChanged.connect(self._enable_keys)
        self._enable_keys(False)
        return body

    def _keys(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Give each decision its text, key and function."""
        return [
            (tr("Accept"), "A", lambda: self._on().decide("accepted")),
            (tr("Reject"), "R", lambda: self._on().decide("rejected")),
            (tr("Redraw"), "D", lambda: self._draw(self._redraw)),
            (tr("Add"), "I", lambda: self._draw(self._add)),
            (tr("Cell done"), "C", lambda: self._on().finish_cell()),
            (tr("Undo"), "U", lambda: self._on().undo()),
            (tr("Previous"), "P", lambda: self._on().move(-1)),
            (tr("Next"), "N", lambda: self._on().move(1)),
            (tr("Next open"), "O", lambda: self._on().move(1, to_open=True)),
            (tr("Save"), "Shift+S", lambda: self._on().save()),
        ]

    def _enable_keys(self, is_visible: bool) -> None:
        for action in self._actions:
            action.setEnabled(bool(is_visible))

    def _guarded(self, run: Callable[[], None]) -> Callable[..., None]:
        """Have an error shown, and the next case."""

        def call(*_: Any) -> None:
            try:
                run()
            except ReviewError as error:
                self._tell(str(error))
            self.show_current()

        return call

    def _on(self) -> ReviewSession:
        if self._session is None:
            raise ReviewError(tr("No review is open"))
        return self._session

    def _tell(self, text: str) -> None:
        self._iface.messageBar().pushMessage("geo-retina", text, level=Qgis.Warning)

    def open_chosen(self) -> None:
        """Open the review of the active layer's file, or of one that the user names."""
        layer = self._iface.activeLayer()
        path = ""
        if isinstance(layer, QgsVectorLayer) and layer.providerType() == "ogr":
            path = inputs.layer_file(layer)[0]
        if not path.lower().endswith(".gpkg"):
            path, _ = QFileDialog.getOpenFileName(
                self, tr("Open a review"), "", tr("GeoPackages (*.gpkg)")
            )
        if path:
            self.open(path)

    def open(self, path: str) -> None:
        """Open the review in a file and go to its first open case."""
        try:
            self._session = open_session(path)
        except ReviewError as error:
            self._tell(str(error))
            return
        session = self._session
        for layer in (session.review, session.cells):
            layer.willBeDeleted.connect(self._forget)
        self.show_current()

    def _forget(self) -> None:
        self._session = None
        self.show_current()

    def show_current(self) -> None:
        """Show the current case on the map and in words."""
        self._band.reset()
        session = self._session
        feature = None if session is None else session.feature
        if session is None or feature is None:
            self._count.setText(tr("No review is open") if session is None else tr("Nothing waits"))
            self._about.clear()
            return
        item = session.current
        assert item is not None  # nosec B101 - there is a feature, so there is an item
        waiting, number = session.open_count, session.place + 1
        counted = tr("{} of {}; {} wait").format(number, len(session.items), waiting)
        self._count.setText(counted)
        self._about.setText(_describe(feature, is_cell=item.layer == CELLS))
        self._class.clear()
        self._class.addItems(session.classes())
        if item.layer != CELLS:
            self._class.setCurrentText(str(feature["class"] or ""))
        layer = session.layer_of(item)
        self._band.setToGeometry(feature.geometry(), layer)
        self._zoom(feature.geometry(), layer.crs(), 1.2 if item.layer == CELLS else _AROUND)

    def _zoom(self, geometry: Any, crs: Any, around: float) -> None:
        target = self._canvas.mapSettings().destinationCrs()
        transform = QgsCoordinateTransform(crs, target, QgsProject.instance())
        box = transform.transformBoundingBox(geometry.boundingBox())
        if box.width() == 0 and box.height() == 0:
            box.grow(10.0 if not target.isGeographic() else 1e-4)
        box.scale(around)
        self._canvas.setExtent(box)
        self._canvas.refresh()

    def _rename(self, *_: Any) -> None:
        name = self._class.currentText().strip()
        session = self._session
        if session is None or session.feature is None or not name:
            return
        if session.current is not None and session.current.layer != CELLS:
            self._guarded(lambda: session.rename(name))()

    def _draw(self, use: Callable[[Any], None]) -> None:
        """Let the user draw a rectangle, once: at any angle where the file's boxes are."""
        session = self._on()
        self._tool_before = self._canvas.mapTool()
        if session.is_oriented:
            tool = RectangleTool(self._canvas)
            tool.drawn.connect(lambda shape: self._drawn(shape, use))
        else:
            tool = QgsMapToolExtent(self._canvas)
            tool.extentChanged.connect(lambda box: self._drawn(QgsGeometry.fromRect(box), use))
        self._tool = tool
        self._canvas.setMapTool(tool)

    def _drawn(self, polygon: Any, use: Callable[[Any], None]) -> None:
        if self._tool is None or polygon.area() == 0:
            return
        self._canvas.unsetMapTool(self._tool)
        self._tool = None
        if self._tool_before is not None:
            self._canvas.setMapTool(self._tool_before)
        session = self._on()
        source = self._canvas.mapSettings().destinationCrs()
        transform = QgsCoordinateTransform(source, session.review.crs(), QgsProject.instance())
        polygon.transform(transform)
        self._guarded(lambda: use(polygon))()

    def _redraw(self, polygon: Any) -> None:
        self._on().redraw(polygon)

    def _add(self, polygon: Any) -> None:
        self._on().add(polygon, self._class.currentText().strip() or None)

    def close_down(self) -> None:
        """Take what it put into QGIS's window out again."""
        for action in self._actions:
            self._iface.mainWindow().removeAction(action)
        self._band.reset()


def _describe(feature: Any, *, is_cell: bool) -> str:
    """Describe what is looked at, and why."""
    if is_cell:
        return tr(
            "Cell {cell}, for {use}: {status}. Look at all of it: correct what is there, add what "
            "is missing, then mark it done."
        ).format(cell=feature["cell"], use=feature["use"], status=feature["status"])
    score = feature["score"]
    number = f"{float(score):.2f}" if isinstance(score, float) else tr("none")
    return tr("{name}, score {score}: {status}. Reason: {reason}").format(
        name=feature["class"], score=number, status=feature["status"], reason=feature["reason"]
    )
