"""Queue what a person should look at, and estimate counts from what was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
)

from .. import inputs
from ..i18n import tr
from .base import Algorithm, show_text
from .detect import Collecting


class OnReview(Algorithm):
    """An algorithm on a GeoPackage that a person reviews."""

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Review")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "review"

    def add_package(self) -> None:
        """Define the GeoPackage, by one of its layers."""
        kind = [QgsProcessing.TypeVectorAnyGeometry]
        package = QgsProcessingParameterVectorLayer("DETECTIONS", tr("Detections"), kind)
        self.add(package, about=tr("Any layer of the GeoPackage that Detect objects wrote"))

    def add_zones(self) -> None:
        """Define zones with counts of their own."""
        kinds = [QgsProcessing.TypeVectorPolygon]
        zones = QgsProcessingParameterFeatureSource("ZONES", tr("Zones"), kinds, optional=True)
        self.add(zones, about=tr("Districts with counts of their own"))
        column = QgsProcessingParameterField(
            "ZONE_FIELD", tr("Field with the name of the zone"), None, "ZONES", optional=True
        )
        self.add(column)

    def package(self, parameters: Mapping[str, Any], context: Any) -> str:
        """Give the GeoPackage.

        Raises:
            QgsProcessingException: the layer is of no GeoPackage, or has edits.
        """
        layer = self.parameterAsVectorLayer(parameters, "DETECTIONS", context)
        if layer is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, "DETECTIONS"))
        if layer.isEditable() and layer.isModified():
            raise QgsProcessingException(
                tr("{} has edits that are not saved; save them first").format(layer.name())
            )
        path, _ = inputs.layer_file(layer)
        if not path.lower().endswith(".gpkg"):
            raise QgsProcessingException(
                tr("{} is no GeoPackage, which a review needs").format(path)
            )
        return path

    def zone_arguments(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> list[str]:
        """Give zones as arguments, if there are any."""
        zones = self.parameterAsSource(parameters, "ZONES", context)
        if zones is None:
            return []
        path = inputs.write_features(zones, self.temporary("zones.gpkg"), feedback)
        flags = self.text_flags(parameters, context, {"ZONE_FIELD": "--zone-column"})
        return [f"--zones={path}", *flags]


class ReviewQueue(OnReview):
    """``geo-retina review``."""

    ID = "reviewqueue"
    COMMAND = "review"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Review queue")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Adds to a GeoPackage of detections what a person should look at: doubtful cases, and "
            "squares drawn at random to be looked at completely, from which counts with intervals "
            "and training data come. Running again fills the queue up and keeps all that was "
            "entered. The dock Review leads through it."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        self.add_package()
        for name, text, value in (
            ("BUDGET", tr("Cases that wait"), 300),
            ("CELLS", tr("Cells drawn in all"), 80),
        ):
            number = QgsProcessingParameterNumber(name, text, defaultValue=value, minValue=0)
            self.add(number)
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        against = QgsProcessingParameterFeatureSource(
            "AGAINST", tr("Another run of the same ground"), kinds, optional=True
        )
        self.add(against, about=tr("Where the two disagree, there are cases"))
        labels = QgsProcessingParameterFeatureSource(
            "LABELS", tr("or labels of it"), kinds, optional=True
        )
        self.add(labels)
        self.add_zones()
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, about=tr("As on the command line, such as --cell-size 40m"), advanced=True)
        self.addOutput(QgsProcessingOutputFile("OUTPUT", tr("GeoPackage")))
        self.addOutput(QgsProcessingOutputNumber("CASES", tr("Cases that wait")))
        self.addOutput(QgsProcessingOutputNumber("CELLS_OPEN", tr("Cells that wait")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Fill the queue up; the dock opens its layers."""
        path = self.package(parameters, context)
        budget = self.parameterAsInt(parameters, "BUDGET", context)
        cells = self.parameterAsInt(parameters, "CELLS", context)
        arguments = [path, f"--budget={budget}", f"--cells={cells}"]
        against = self.layer_path(parameters, "AGAINST", context, feedback)
        if against is not None:
            arguments.append(f"--against={against}")
        labels = self.parameterAsSource(parameters, "LABELS", context)
        if labels is not None:
            written = inputs.write_features(labels, self.temporary("labels.gpkg"), feedback)
            arguments.append(f"--labels={written}")
        arguments += self.zone_arguments(parameters, context, feedback)
        arguments += self.extra_flags(parameters, context)
        outcome = self.run_geo_retina(arguments, feedback)
        given = outcome.result
        counts = {"CASES": given.get("cases_open"), "CELLS_OPEN": given.get("cells_open")}
        return {"OUTPUT": path, **counts}


class EstimateCounts(OnReview):
    """``geo-retina estimate``."""

    ID = "estimatecounts"
    COMMAND = "estimate"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Estimate counts")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Says how many objects there are, with a 95 % interval, from the detections and the "
            "cells that a person completed; where zones were given when cells were drawn, for "
            "each of them."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        self.add_package()
        self.add(
            QgsProcessingParameterBoolean("BY_CLASS", tr("Also for each class"), defaultValue=False)
        )
        self.add_zones()
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, about=tr("As on the command line, such as --target 5%"))
        self.addOutput(QgsProcessingOutputHtml("HTML", tr("Counts")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Estimate, and show the table as a page."""
        texts: list[str] = []
        arguments = [self.package(parameters, context)]
        if self.parameterAsBool(parameters, "BY_CLASS", context):
            arguments.append("--by=class")
        arguments += self.zone_arguments(parameters, context, feedback)
        arguments += self.extra_flags(parameters, context)
        self.run_geo_retina(arguments, Collecting(feedback, texts))
        return {"HTML": show_text(self.temporary("counts.html"), "\n".join(texts))}
