"""Put the provider and the menu into QGIS, and take them out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction

from .i18n import install_translator, tr
from .provider import GeoRetinaProvider

_MENU = "geo-retina"


class GeoRetinaPlugin:
    """What QGIS starts and stops."""

    def __init__(self, iface: Any) -> None:
        """Remember QGIS's window, which is None in qgis_process."""
        self._iface = iface
        self._translator = install_translator()
        self._provider: GeoRetinaProvider | None = None
        self._actions: list[QAction] = []
        self._dock: Any = None

    def initProcessing(self) -> None:
        """Add the provider; qgis_process calls this alone."""
        self._provider = GeoRetinaProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the provider and the menu."""
        self.initProcessing()
        self._add_action(tr("Detect objects…"), lambda: self._open("georetina:detect"))
        self._add_action(tr("Review…"), self.show_dock)
        self._add_action(tr("Status…"), lambda: self._open("georetina:status"))

    def unload(self) -> None:
        """Take out what was put in."""
        for action in self._actions:
            self._iface.removePluginMenu(_MENU, action)
        self._actions.clear()
        if self._dock is not None:
            self._dock.close_down()
            self._iface.removeDockWidget(self._dock)
            self._dock.deleteLater()
            self._dock = None
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None

    def show_dock(self) -> Any:
        """Show the dock for reviewing, and give it."""
        if self._dock is None:
            from .review_dock import ReviewDock

            self._dock = ReviewDock(self._iface)
            self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._dock)
        self._dock.show()
        return self._dock

    def _add_action(self, text: str, run: Any) -> QAction:
        icon = QIcon(str(Path(__file__).with_name("icon.svg")))
        action = QAction(icon, text, self._iface.mainWindow())
        action.triggered.connect(run)
        self._iface.addPluginToMenu(_MENU, action)
        self._actions.append(action)
        return action

    def _open(self, algorithm: str) -> None:
        import processing

        processing.execAlgorithmDialog(algorithm, {})
