"""Evaluate detections, and compare two runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .. import inputs, results
from ..i18n import tr
from .base import Algorithm

_SCORES = ("f1", "precision", "recall", "ap50")


class AgainstLabels(Algorithm):
    """An algorithm that scores detections against labels."""

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Evaluation")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "evaluation"

    def add_labels(self) -> None:
        """Define labels and how they are matched."""
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        labels = QgsProcessingParameterFeatureSource("LABELS", tr("Labels"), kinds)
        self.add(labels, about=tr("The true objects: polygons or points"))
        field = QgsProcessingParameterField(
            "CLASS_FIELD", tr("Field with the class"), None, "LABELS", optional=True
        )
        self.add(field, about=tr("Left out, classes are not told apart"))
        kinds = [QgsProcessing.TypeVectorPolygon]
        ground = QgsProcessingParameterFeatureSource(
            "GROUND", tr("Ground that was labelled"), kinds, optional=True
        )
        self.add(ground)
        radius = QgsProcessingParameterNumber(
            *("RADIUS", tr("Greatest distance of centres, in metres")),
            type=QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0,
        )
        self.add(radius, about=tr("For labels that are points"))
        in_box = QgsProcessingParameterBoolean("IN_BOX", tr("A point counts in any box"), False)
        self.add(in_box, advanced=True)
        about = tr("Labels count as the smallest rectangles around them, at any angle")
        self.add(QgsProcessingParameterBoolean("RECTANGLES", about, False), advanced=True)
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, about=tr("As on the command line, such as --iou 0.4"), advanced=True)

    def label_arguments(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> list[str]:
        """Give labels and how they are matched as arguments."""
        labels = self.parameterAsSource(parameters, "LABELS", context)
        if labels is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, "LABELS"))
        path = inputs.write_features(labels, self.temporary("labels.gpkg"), feedback)
        arguments = [str(path)]
        arguments += self.text_flags(parameters, context, {"CLASS_FIELD": "--class-column"})
        ground = self.parameterAsSource(parameters, "GROUND", context)
        if ground is not None:
            path = inputs.write_features(ground, self.temporary("ground.gpkg"), feedback)
            arguments.append(f"--ground={path}")
        arguments += self.number_flags(parameters, context, {"RADIUS": "--radius"})
        if self.parameterAsBool(parameters, "IN_BOX", context):
            arguments.append("--in-box")
        if self.parameterAsBool(parameters, "RECTANGLES", context):
            arguments.append("--rectangles")
        return [*arguments, *self.extra_flags(parameters, context)]


class Evaluate(AgainstLabels):
    """``geo-retina evaluate``."""

    ID = "evaluate"
    COMMAND = "evaluate"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Evaluate detections")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Scores detections against labels on the ground that was labelled: precision, recall, "
            "F1 and average precision with 95 % intervals. The report is a page with curves and "
            "a GeoPackage of what was found rightly, wrongly and not at all."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        self.add(QgsProcessingParameterFeatureSource("DETECTIONS", tr("Detections"), kinds))
        self.add_labels()
        self.add(QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder for the report")))
        self.addOutput(QgsProcessingOutputHtml("HTML", tr("Report")))
        for name in _SCORES:
            self.addOutput(QgsProcessingOutputNumber(name.upper(), name))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Evaluate, and give the page and the numbers."""
        found = self.layer_path(parameters, "DETECTIONS", context, feedback)
        out = Path(self.parameterAsString(parameters, "OUTPUT", context))
        arguments = [str(found), *self.label_arguments(parameters, context, feedback)]
        outcome = self.run_geo_retina([*arguments, f"--report={out}", "--overwrite"], feedback)
        overall = outcome.result.get("overall", outcome.result)
        scores = {name.upper(): overall.get(name) for name in _SCORES}
        return {"OUTPUT": str(out), "HTML": str(out / "report.html"), **scores}


class Compare(AgainstLabels):
    """``geo-retina compare``."""

    ID = "compare"
    COMMAND = "compare"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Compare two runs")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Scores two sets of detections against the same labels. The differences, B - A, have "
            "intervals that tell whether they are more than chance; the layers say which labels "
            "only one of them found."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        self.add(QgsProcessingParameterFeatureSource("A", tr("Detections A"), kinds))
        self.add(QgsProcessingParameterFeatureSource("B", tr("Detections B"), kinds))
        self.add_labels()
        self.add(QgsProcessingParameterVectorDestination("OUTPUT", tr("Agreement")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Compare."""
        runs = [str(self.layer_path(parameters, name, context, feedback)) for name in "AB"]
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        arguments = [*runs, *self.label_arguments(parameters, context, feedback)]
        self.run_geo_retina([*arguments, f"--out={out}", "--overwrite"], feedback)
        results.load_on_completion(context, out)
        return {"OUTPUT": out}
