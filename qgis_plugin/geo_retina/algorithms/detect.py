"""Detect objects, and plan that."""

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
    QgsProcessingParameterCrs,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .. import inputs, results
from ..i18n import tr
from ..process import NOT_COVERED
from ..settings import known_models
from .base import Algorithm, model_table, show_text

TIMES = ("1", "2", "4", "8")


class OnScenes(Algorithm):
    """An algorithm that takes imagery and a model."""

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Detection")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "detection"

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        self._models = known_models(ask=self._is_used)
        raster = QgsProcessingParameterRasterLayer("INPUT", tr("Imagery"), optional=True)
        self.add(raster, about=tr("A raster layer; or give a folder below"))
        folder = QgsProcessingParameterFile(
            "FOLDER", tr("or a folder of scenes"), QgsProcessingParameterFile.Folder, optional=True
        )
        self.add(folder, about=tr("All images in it are one run and one result"))
        names = [model["name"] for model in self._models]
        model = QgsProcessingParameterEnum(
            "MODEL", tr("Model"), names, defaultValue=names[-1], usesStaticStrings=True
        )
        self.add(model, about=tr("The text at the side says what each one is for"))
        own = QgsProcessingParameterFile(
            "MODEL_FILE", tr("or a model file"), extension="safetensors", optional=True
        )
        self.add(own, about=tr("A model that was trained or imported with geo-retina"))
        extent = QgsProcessingParameterExtent("EXTENT", tr("Extent of interest"), optional=True)
        self.add(extent, about=tr("Nothing else is looked at"))
        kinds = [QgsProcessing.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource(
                "AOI", tr("or polygons of interest"), kinds, optional=True
            )
        )
        self._add_settings()

    def _add_settings(self) -> None:
        score = QgsProcessingParameterNumber(
            *("SCORE", tr("Keep detections from this score on")),
            type=QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0,
            maxValue=1,
        )
        self.add(score, about=tr("Left out, the model's own threshold of each class"))
        bands = QgsProcessingParameterString("BANDS", tr("Bands"), optional=True)
        about = tr("Numbers of the file's bands in the model's order, such as 4,1,2")
        self.add(bands, about=about, advanced=True)
        tta = QgsProcessingParameterEnum(
            *("TTA", tr("Passes of test-time augmentation"), list(TIMES)),
            defaultValue=TIMES[0],
            usesStaticStrings=True,
        )
        self.add(tta, about=tr("Finds a little more for so many times the work"), advanced=True)
        device = QgsProcessingParameterString("DEVICE", tr("Device"), "auto", optional=True)
        self.add(device, about=tr("auto, cpu, cuda, cuda:1 or mps"), advanced=True)
        force = QgsProcessingParameterBoolean(
            "FORCE", tr("Run although values or resolution are far from the model's"), False
        )
        self.add(force, advanced=True)
        extra = QgsProcessingParameterString("EXTRA", tr("Further flags"), optional=True)
        self.add(extra, about=tr("As on the command line, such as --nms-iou 0.4"), advanced=True)

    def _scene(self, parameters: Mapping[str, Any], context: Any) -> str:
        """Give the path of the imagery.

        Raises:
            QgsProcessingException: none is given, or two are, or the layer is no file.
        """
        folder = self.parameterAsFile(parameters, "FOLDER", context)
        has_layer = self.given(parameters, "INPUT")
        if bool(folder) == has_layer:
            raise QgsProcessingException(
                tr("Give either a raster layer or a folder of scenes; here are {}").format(
                    tr("both") if folder else tr("none")
                )
            )
        if folder:
            return folder
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        return inputs.raster_path(layer)

    def scene_arguments(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> list[str]:
        """Give scene, model and what changes the detections, as arguments."""
        own = self.parameterAsFile(parameters, "MODEL_FILE", context)
        model = own or self.parameterAsString(parameters, "MODEL", context)
        arguments = [self._scene(parameters, context), f"--model={model}"]
        area = self._area(parameters, context, feedback)
        if area is not None:
            arguments.append(f"--aoi={area}")
        arguments += self.number_flags(
            parameters, context, {"SCORE": "--score", "MIN_SCORE": "--min-score"}
        )
        flags = {"BANDS": "--bands", "TTA": "--tta", "DEVICE": "--device"}
        arguments += self.text_flags(parameters, context, flags)
        if self.parameterAsBool(parameters, "FORCE", context):
            arguments.append("--force")
        return [*arguments, *self.extra_flags(parameters, context)]

    def _area(self, parameters: Mapping[str, Any], context: Any, feedback: Any) -> Path | None:
        """Write the area of interest, if there is one, into a file.

        Raises:
            QgsProcessingException: there are two.
        """
        source = self.parameterAsSource(parameters, "AOI", context)
        has_extent = self.given(parameters, "EXTENT")
        if source is not None and has_extent:
            raise QgsProcessingException(
                tr("Give either an extent or polygons of interest; here are both")
            )
        if source is not None:
            return inputs.write_features(source, self.temporary("aoi.gpkg"), feedback)
        if not has_extent:
            return None
        crs = self.parameterAsExtentCrs(parameters, "EXTENT", context)
        polygon = self.parameterAsExtentGeometry(parameters, "EXTENT", context, crs)
        return inputs.write_polygon(polygon, crs, self.temporary("aoi.gpkg"), feedback)


class Detect(OnScenes):
    """``geo-retina detect``."""

    ID = "detect"
    COMMAND = "detect"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Detect objects")

    def shortHelpString(self) -> str:
        """Explain it, with the models that can be chosen."""
        text = tr(
            "Finds objects in imagery and writes them as polygons into a GeoPackage, with the "
            "ground that was looked at. Stop it at any time: run again with the same output file, "
            "it goes on from what is finished. Ground that could not be read is in the layer "
            "not_covered."
        )
        return f"<p>{text}</p>{model_table(known_models(ask=False))}"

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        super().initAlgorithm(configuration)
        low = QgsProcessingParameterNumber(
            *("MIN_SCORE", tr("Write detections from this lower score on")),
            type=QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0,
            maxValue=1,
        )
        self.add(low, about=tr("So that Filter detections can choose a threshold"), advanced=True)
        crs = QgsProcessingParameterCrs("CRS", tr("CRS of the output"), optional=True)
        self.add(crs, about=tr("Left out, that of the scenes"), advanced=True)
        restart = QgsProcessingParameterBoolean(
            "RESTART", tr("Discard what an unfinished run of this output left"), False
        )
        self.add(restart, advanced=True)
        output = QgsProcessingParameterVectorDestination("OUTPUT", tr("Detections"))
        self.add(output, about=tr("A file of its own lets a stopped run go on"))
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Objects found")))
        self.addOutput(QgsProcessingOutputNumber("NOT_COVERED", tr("Parts not covered")))

    def stopped_text(self) -> str:
        """Say what is left after a stop."""
        return tr(
            "Stopped. What is finished is kept beside the output; the same run with the same "
            "output file goes on from there."
        )

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Check with a plan that the imagery fits, detect, and have the layers loaded."""
        arguments = self.scene_arguments(parameters, context, feedback)
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        crs = self.parameterAsCrs(parameters, "CRS", context)
        if crs.isValid():
            arguments.append(f"--crs={crs.authid() or crs.toWkt()}")
        told = self._warn(arguments, feedback)
        if self.parameterAsBool(parameters, "RESTART", context):
            arguments.append("--restart")
        outcome = self.run_geo_retina(
            [*arguments, f"--out={out}", "--overwrite"], feedback, told=told
        )
        missing = outcome.result.get("not_covered", [])
        if outcome.code == NOT_COVERED:
            feedback.pushWarning(
                tr(
                    "Some ground was not covered: see the layer not_covered. The same run again "
                    "tries what failed."
                )
            )
        results.load_on_completion(context, out)
        is_package = Path(out).suffix.lower() == ".gpkg"
        return {
            "OUTPUT": f"{out}|layername={inputs.DETECTIONS}" if is_package else out,
            "COUNT": outcome.result.get("detections", 0),
            "NOT_COVERED": len(missing),
        }

    def _warn(self, arguments: list[str], feedback: Any) -> set[str]:
        """Warn of imagery that does not fit, before work is spent on it.

        Returns:
            The warnings, which the run would repeat.
        """
        feedback.setProgressText(tr("Looking whether the imagery fits the model"))
        plan = Plan(is_used=True)
        outcome = plan.run_geo_retina([*plan_only(arguments), "--no-cost"], Quiet(feedback))
        return set(outcome.result.get("notes", []))


def plan_only(arguments: list[str]) -> list[str]:
    """Leave out what only ``detect`` takes."""
    return [each for each in arguments if not each.startswith("--crs=")]


class Quiet:
    """Feedback that shows warnings, and not what a plan says to people."""

    def __init__(self, feedback: Any) -> None:
        self._feedback = feedback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feedback, name)

    def pushInfo(self, text: str) -> None:
        """Show nothing."""

    def pushCommandInfo(self, text: str) -> None:
        """Show nothing."""


class Plan(OnScenes):
    """``geo-retina plan``."""

    ID = "plan"
    COMMAND = "plan"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Plan a detection")

    def shortHelpString(self) -> str:
        """Explain it."""
        text = tr(
            "Says whether imagery fits a model, how it would be cut, and what detecting would "
            "cost on this machine, without detecting."
        )
        return f"<p>{text}</p>{model_table(known_models(ask=False))}"

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputHtml("HTML", tr("Plan")))
        self.addOutput(QgsProcessingOutputNumber("TILES", tr("Tiles to look at")))
        self.addOutput(QgsProcessingOutputNumber("SECONDS", tr("Seconds through the network")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Plan, and show it as a page."""
        arguments = self.scene_arguments(parameters, context, feedback)
        texts: list[str] = []
        outcome = self.run_geo_retina(arguments, Collecting(feedback, texts))
        page = show_text(self.temporary("plan.html"), "\n".join(texts))
        tiles = sum(scene["chosen_tiles"] for scene in outcome.result.get("scenes", []))
        cost = outcome.result.get("cost") or {}
        return {"HTML": page, "TILES": tiles, "SECONDS": cost.get("seconds", 0)}


class Collecting(Quiet):
    """Feedback that also keeps what is said to people."""

    def __init__(self, feedback: Any, texts: list[str]) -> None:
        super().__init__(feedback)
        self._texts = texts

    def pushInfo(self, text: str) -> None:
        """Show it and keep it."""
        self._feedback.pushInfo(text)
        self._texts.append(text)

    def pushCommandInfo(self, text: str) -> None:
        """Show it."""
        self._feedback.pushCommandInfo(text)
