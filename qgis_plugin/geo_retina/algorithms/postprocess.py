"""Filter detections, and merge runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingParameterCrs,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .. import inputs, results
from ..i18n import tr
from .base import Algorithm


class OnDetections(Algorithm):
    """An algorithm that makes detections of detections."""

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Detections")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "detections"

    def finish(self, out: str, context: Any, count: int) -> dict[str, Any]:
        """Have the layers loaded, and give the outputs."""
        results.load_on_completion(context, out)
        is_package = Path(out).suffix.lower() == ".gpkg"
        name = f"{out}|layername={inputs.DETECTIONS}" if is_package else out
        return {"OUTPUT": name, "COUNT": count}

    def add_outputs(self, title: str) -> None:
        """Define what comes out."""
        self.add(QgsProcessingParameterVectorDestination("OUTPUT", title))
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Objects in it")))


class Filter(OnDetections):
    """``geo-retina filter``."""

    ID = "filter"
    COMMAND = "filter"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Filter detections")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Keeps detections by score, class and place, without running the network again. "
            "Detect with a lower score to have some to choose among."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        self.add(QgsProcessingParameterFeatureSource("DETECTIONS", tr("Detections"), kinds))
        score = QgsProcessingParameterNumber(
            *("SCORE", tr("Least score")),
            type=QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0,
            maxValue=1,
        )
        self.add(score, about=tr("Left out, the model's own threshold of each class"))
        classes = QgsProcessingParameterString("CLASSES", tr("Classes to keep"), optional=True)
        self.add(classes, about=tr("Names with commas between them; left out, all"))
        kinds = [QgsProcessing.TypeVectorPolygon]
        area = QgsProcessingParameterFeatureSource(
            "AOI", tr("Polygons to keep objects in"), kinds, optional=True
        )
        self.add(area, about=tr("An object is where its centre is"))
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, advanced=True)
        self.add_outputs(tr("Filtered"))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Filter."""
        found = self.layer_path(parameters, "DETECTIONS", context, feedback)
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        arguments = [str(found), f"--out={out}", "--overwrite"]
        arguments += self.number_flags(parameters, context, {"SCORE": "--score"})
        arguments += self.text_flags(parameters, context, {"CLASSES": "--classes"})
        area = self.parameterAsSource(parameters, "AOI", context)
        if area is not None:
            path = inputs.write_features(area, self.temporary("aoi.gpkg"), feedback)
            arguments.append(f"--aoi={path}")
        arguments += self.extra_flags(parameters, context)
        outcome = self.run_geo_retina(arguments, feedback)
        return self.finish(out, context, outcome.result.get("kept", 0))


class Merge(OnDetections):
    """``geo-retina merge``."""

    ID = "merge"
    COMMAND = "merge"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Merge runs")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Makes one set of objects of runs over neighbouring or overlapping scenes: an object "
            "that two scenes show is kept once, and one that a border cuts is joined. Each layer "
            "stands for the whole file it comes from."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        kind = QgsProcessing.TypeVectorPolygon
        self.add(QgsProcessingParameterMultipleLayers("RUNS", tr("Detections of runs"), kind))
        self.add(
            QgsProcessingParameterCrs("CRS", tr("CRS of the output"), optional=True), advanced=True
        )
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, advanced=True)
        self.add_outputs(tr("Merged"))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Merge."""
        files = {}
        for layer in self.parameterAsLayerList(parameters, "RUNS", context):
            path, name = inputs.layer_file(layer)
            if name not in (None, inputs.DETECTIONS):
                raise QgsProcessingException(
                    tr("{} is the layer {} of its file, expected detections").format(
                        layer.name(), name
                    )
                )
            if layer.subsetString():
                feedback.pushWarning(
                    tr("{} is merged as a whole; its filter is not used").format(layer.name())
                )
            files[path] = None
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        arguments = [*files, f"--out={out}", "--overwrite"]
        crs = self.parameterAsCrs(parameters, "CRS", context)
        if crs.isValid():
            arguments.append(f"--crs={crs.authid() or crs.toWkt()}")
        arguments += self.extra_flags(parameters, context)
        outcome = self.run_geo_retina(arguments, feedback)
        return self.finish(out, context, outcome.result.get("written", 0))
