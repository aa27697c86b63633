"""The provider under which Processing lists the algorithms."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS


class GeoRetinaProvider(QgsProcessingProvider):
    """The algorithms of geo-retina."""

    def id(self) -> str:
        """Name it for scripts: ``georetina:detect``."""
        return "georetina"

    def name(self) -> str:
        """Name it for people."""
        return "geo-retina"

    def icon(self) -> QIcon:
        """Show the plugin's icon."""
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def loadAlgorithms(self) -> None:
        """List the algorithms; none of them asks geo-retina for anything yet."""
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def defaultVectorFileExtension(self, hasGeometry: bool = True) -> str:
        """Write GeoPackages, which hold all layers of a run."""
        return "gpkg"

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """List the endings that geo-retina writes, the one to use first."""
        return ["gpkg", "parquet", "fgb", "geojson", "shp"]

    def supportsNonFileBasedOutput(self) -> bool:
        """Write no layer that lives in memory alone: another process writes."""
        return False
