"""Check labels, and train from them."""

from __future__ import annotations

import json
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
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtCore import QUrl

from .. import inputs
from ..i18n import tr
from .base import Algorithm

CONFIG = "config.yaml"


class OnLabels(Algorithm):
    """An algorithm that takes imagery with labels, from layers or from a config."""

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Training")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "training"

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        config = QgsProcessingParameterFile(
            "CONFIG", tr("Config of the training"), extension="yaml", optional=True
        )
        self.add(config, about=tr("Instead of all layers below"))
        scenes = QgsProcessingParameterMultipleLayers(
            "SCENES", tr("Imagery"), QgsProcessing.TypeRaster, optional=True
        )
        self.add(scenes)
        folder = QgsProcessingParameterFile(
            "FOLDER", tr("or a folder of scenes"), QgsProcessingParameterFile.Folder, optional=True
        )
        self.add(folder)
        kinds = [QgsProcessing.TypeVectorAnyGeometry]
        labels = QgsProcessingParameterFeatureSource("LABELS", tr("Labels"), kinds, optional=True)
        self.add(labels, about=tr("One polygon or point per object"))
        field = QgsProcessingParameterField(
            "CLASS_FIELD", tr("Field with the class"), None, "LABELS", optional=True
        )
        self.add(field, about=tr("Left out, all are of one class"))
        size = QgsProcessingParameterNumber(
            *("POINT_SIZE", tr("Size of objects that are points, in metres")),
            type=QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0,
        )
        self.add(size)
        turned = QgsProcessingParameterBoolean("TURNED", tr("Boxes at any angle"), False)
        about = tr("Each polygon counts as the smallest rectangle around it, at any angle")
        self.add(turned, about=about)
        for name, (title, _) in _side_fields().items():
            field = QgsProcessingParameterField(name, title, None, "LABELS", optional=True)
            self.add(field, about=tr("Of labels that are points"), advanced=True)
        kinds = [QgsProcessing.TypeVectorPolygon]
        ground = QgsProcessingParameterFeatureSource(
            "GROUND", tr("Ground that was labelled"), kinds, optional=True
        )
        self.add(ground, about=tr("Left out, all that the imagery shows"))
        changes = QgsProcessingParameterString(
            "SET", tr("Changes of the config"), multiLine=True, optional=True
        )
        about = tr("One a line, such as epochs=40 or split.block_m=50; docs/training.md names all")
        self.add(changes, about=about, advanced=True)

    def config_arguments(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any, beside: Path
    ) -> list[str]:
        """Give the config and its changes as arguments; of layers, a config is written.

        Args:
            parameters: of the run.
            context: of the run.
            feedback: of the run.
            beside: folder for the config and for labels that are no file of their own.

        Raises:
            QgsProcessingException: neither config nor layers are given.
        """
        config = self.parameterAsFile(parameters, "CONFIG", context)
        if not config:
            config = str(beside / CONFIG)
            values = {"data": self._data(parameters, context, feedback, beside)}
            if self.parameterAsBool(parameters, "TURNED", context):
                values |= {"network": {"boxes": "oriented"}, "samples": {"rotate": "any"}}
            beside.mkdir(parents=True, exist_ok=True)
            # JSON is YAML too.
            Path(config).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        text = self.parameterAsString(parameters, "SET", context) or ""
        changes = [line.strip() for line in text.splitlines() if line.strip()]
        return [config, *(f"--set={change}" for change in changes)]

    def _data(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any, beside: Path
    ) -> dict[str, Any]:
        """Describe imagery and labels as a config does."""
        layers = self.parameterAsLayerList(parameters, "SCENES", context) or []
        scenes = [inputs.raster_path(layer) for layer in layers]
        folder = self.parameterAsFile(parameters, "FOLDER", context)
        if folder:
            scenes.append(folder)
        labels = self.parameterAsSource(parameters, "LABELS", context)
        if labels is None or not scenes:
            raise QgsProcessingException(
                tr("Give a config, or imagery and labels; here are {} scenes and {}").format(
                    len(scenes), tr("labels") if labels is not None else tr("no labels")
                )
            )
        data: dict[str, Any] = {
            "scenes": scenes,
            "labels": str(inputs.write_features(labels, beside / "labels.gpkg", feedback)),
        }
        if self.given(parameters, "CLASS_FIELD"):
            data["class_column"] = self.parameterAsString(parameters, "CLASS_FIELD", context)
        if self.given(parameters, "POINT_SIZE"):
            data["point_size_m"] = self.parameterAsDouble(parameters, "POINT_SIZE", context)
        for name, (_, key) in _side_fields().items():
            if self.given(parameters, name):
                data[key] = self.parameterAsString(parameters, name, context)
        ground = self.parameterAsSource(parameters, "GROUND", context)
        if ground is not None:
            path = inputs.write_features(ground, beside / "ground.gpkg", feedback)
            data["ground"] = str(path)
        return data


def _side_fields() -> dict[str, tuple[str, str]]:
    """Name the fields of points that stand for rectangles: for people, and in a config."""
    return {
        "LENGTH_FIELD": (tr("Field with the length in metres"), "length_column"),
        "WIDTH_FIELD": (tr("Field with the width in metres"), "width_column"),
        "AZIMUTH_FIELD": (tr("Field with the azimuth of the length"), "azimuth_column"),
    }


class CheckLabels(OnLabels):
    """``geo-retina check-labels``."""

    ID = "checklabels"
    COMMAND = "check-labels"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Check labels")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Says what a training would work with, before one is begun: labels by class and part "
            "of the ground, sizes, overlaps, tiles and anchors that suit them, and pictures of "
            "samples with their labels, where a wrong CRS is seen at once."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        super().initAlgorithm(configuration)
        self.add(QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder for the report")))
        self.addOutput(QgsProcessingOutputHtml("HTML", tr("Check of labels")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Check, and show the pictures as a page."""
        out = Path(self.parameterAsString(parameters, "OUTPUT", context))
        beside = out.with_name(f"{out.name}.inputs")
        arguments = self.config_arguments(parameters, context, feedback, beside)
        self.run_geo_retina([*arguments, f"--out={out}", "--overwrite"], feedback)
        page = out / "report.html"
        pictures = "".join(
            f'<p><img src="{QUrl.fromLocalFile(str(out / name)).toString()}" width="900"/></p>'
            for name in ("samples.png", "scenes.png", "sizes.png")
        )
        page.write_text(f"<meta charset='utf-8'>{pictures}", encoding="utf-8")
        return {"OUTPUT": str(out), "HTML": str(page)}


class Train(OnLabels):
    """``geo-retina train``."""

    ID = "train"
    COMMAND = "train"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Train a model")

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Trains a model from imagery and labels, or as a config says; check the labels first. "
            "Without a GPU it takes hours. A training that was stopped goes on with the same "
            "output file and Resume ticked."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        super().initAlgorithm(configuration)
        resume = QgsProcessingParameterBoolean("RESUME", tr("Resume a training"), False)
        self.add(resume, about=tr("Of this output file and the same inputs"))
        filters = tr("Models (*.safetensors)")
        self.add(QgsProcessingParameterFileDestination("OUTPUT", tr("Model"), filters))
        self.addOutput(QgsProcessingOutputNumber("F1", tr("F1 on the validation ground")))

    def stopped_text(self) -> str:
        """Say what is left after a stop."""
        return tr(
            "Stopped. The epochs that ended are kept beside the output; the same training with "
            "Resume ticked goes on from there."
        )

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Train."""
        out = Path(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        beside = out.with_name(f"{out.name}.inputs")
        resumes = self.parameterAsBool(parameters, "RESUME", context)
        if resumes and (beside / CONFIG).is_file():
            # What a training goes on with must be what it began with.
            parameters = {**parameters, "CONFIG": str(beside / CONFIG)}
        arguments = self.config_arguments(parameters, context, feedback, beside)
        arguments.append("--resume" if resumes else "--overwrite")
        outcome = self.run_geo_retina([*arguments, f"--out={out}"], feedback)
        metrics = outcome.result.get("card", {}).get("metrics", {})
        scores = next((each for name, each in metrics.items() if name == "val"), {})
        f1 = scores.get("overall", {}).get("f1") if isinstance(scores, dict) else None
        return {"OUTPUT": str(out), "F1": f1}
