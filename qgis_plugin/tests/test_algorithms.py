"""What the algorithms ask of geo-retina, and what they make of its answers."""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
import time
import unittest
from pathlib import Path

from tests.support import Feedback, calls_of, fake_program, start_qgis, write_layer

QGIS = start_qgis()

import processing
from qgis.core import (
    QgsApplication,
    QgsExpression,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsSettings,
    QgsVectorLayer,
)

from geo_retina.command import Choice
from geo_retina.settings import keep_choice, known_models

TREES = {
    "name": "trees-naip",
    "description": "Trees",
    "bands": ["red", "green", "blue", "nir"],
    "gsd_m": 0.3,
    "gsd_range_m": [0.24, 0.375],
    "licence": "CC-BY-4.0",
}
ASC = """ncols 4
nrows 3
xllcorner 500000
yllcorner 5300000
cellsize 0.3
1 2 3 4
5 6 7 8
9 10 11 12
"""


class InQgis(unittest.TestCase):
    """A folder with a scene, detections, labels, and a geo-retina that does as it is told."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "Müller & Söhne"
        self.folder.mkdir()
        self.scene = self.folder / "Luftbild Süd.asc"
        self.scene.write_text(ASC)
        self.feedback = Feedback()
        self.context = QgsProcessingContext()
        self.context.setProject(QgsProject.instance())
        self.addCleanup(QgsProject.instance().clear)
        self.addCleanup(keep_choice, Choice())

    def package(self, name: str, *, missing: int = 0) -> Path:
        """Write what detect would."""
        path = self.folder / name
        boxes = [(500000 + i, 5300000, 500001 + i, 5300001) for i in range(4)]
        write_layer(
            path, "detections", boxes, **{"class": ["tree"] * 4, "score": [0.2, 0.4, 0.6, 0.8]}
        )
        write_layer(path, "scanned", boxes[:1], scene=["a"])
        write_layer(path, "not_covered", boxes[:missing], error=["damaged"] * missing or [""])
        return path

    def program(self, **behaviour) -> Path:
        program = fake_program(self.folder, models=[TREES], **behaviour)
        keep_choice(Choice(command=str(program)))
        return program

    def run_algorithm(self, name: str, **parameters):
        return processing.run(
            f"georetina:{name}", parameters, feedback=self.feedback, context=self.context
        )


class TestProvider(InQgis):
    def test_all_algorithms_are_there_with_help(self) -> None:
        provider = QgsApplication.processingRegistry().providerById("georetina")
        names = {algorithm.name() for algorithm in provider.algorithms()}
        self.assertEqual(
            names,
            {
                *("detect", "plan", "filter", "merge", "checklabels", "train", "evaluate"),
                *("compare", "reviewqueue", "estimatecounts", "status", "install"),
            },
        )
        for algorithm in provider.algorithms():
            self.assertGreater(len(algorithm.shortHelpString()), 50)
            self.assertTrue(algorithm.displayName())
            self.assertIn("/help/index.html", algorithm.helpUrl())

    def test_listing_them_starts_no_program(self) -> None:
        program = self.program()
        QgsApplication.processingRegistry().providerById("georetina").refreshAlgorithms()
        self.assertFalse((program.parent / "calls.jsonl").exists())

    def test_models_come_from_the_program_with_their_facts(self) -> None:
        self.program()
        algorithm = QgsApplication.processingRegistry().createAlgorithmById("georetina:detect")
        parameter = algorithm.parameterDefinition("MODEL")
        self.assertEqual(parameter.options(), ["trees-naip"])
        for said in ("0.3 m a pixel", "red, green, blue, nir", "CC-BY-4.0"):
            self.assertIn(said, algorithm.shortHelpString())
        keep_choice(Choice(command="/gone"))
        self.assertEqual(known_models(ask=True), [TREES])  # as it was last


class TestDetect(InQgis):
    def test_layers_become_arguments(self) -> None:
        out = self.folder / "Fund.gpkg"
        program = self.program(writes=str(self.package("given.gpkg")))
        layer = QgsRasterLayer(str(self.scene), "scene")
        given = self.run_algorithm(
            "detect",
            INPUT=layer,
            MODEL="trees-naip",
            SCORE=0.25,
            EXTENT="500000,500001,5300000,5300001 [EPSG:32632]",
            EXTRA="--nms-iou 0.4 --asset 'a b'",
            OUTPUT=str(out),
        )
        plan, detect = calls_of(program)
        self.assertEqual(plan[:3], ["plan", str(self.scene), "--model=trees-naip"])
        self.assertIn("--no-cost", plan)
        self.assertEqual(detect[:3], ["detect", str(self.scene), "--model=trees-naip"])
        self.assertEqual(
            detect[-5:], [f"--out={out}", "--overwrite", "--progress", "json", "--stop-with-stdin"]
        )
        position = detect.index("--score")
        self.assertEqual(detect[position + 1], "0.25")
        self.assertEqual(
            detect[detect.index("--nms-iou") :][:4], ["--nms-iou", "0.4", "--asset", "a b"]
        )
        (area,) = (a.partition("=")[2] for a in detect if a.startswith("--aoi="))
        area = QgsVectorLayer(area, "area", "ogr")
        self.assertEqual(area.crs().authid(), "EPSG:32632")
        self.assertEqual(area.extent().toString(0), "500000,5300000 : 500001,5300001")
        self.assertEqual(given["OUTPUT"], f"{out}|layername=detections")

    def test_selected_polygons_are_the_area(self) -> None:
        program = self.program(writes=str(self.package("given.gpkg")))
        boxes = [(500000, 5300000, 500001, 5300001), (1, 2, 3, 4)]
        uri = write_layer(self.folder / "areas.gpkg", "areas", boxes, name=["a", "b"])
        areas = QgsVectorLayer(uri, "areas", "ogr")
        QgsProject.instance().addMapLayer(areas)
        areas.selectByExpression("name = 'a'")
        source = QgsProcessingFeatureSourceDefinition(areas.id(), selectedFeaturesOnly=True)
        self.run_algorithm("detect", FOLDER=str(self.folder), AOI=source, OUTPUT="TEMPORARY_OUTPUT")
        detect = calls_of(program)[-1]
        self.assertEqual(detect[1], str(self.folder))
        (area,) = (a.partition("=")[2] for a in detect if a.startswith("--aoi="))
        rows = list(QgsVectorLayer(area, "area", "ogr").getFeatures())
        self.assertEqual([row["name"] for row in rows], ["a"])

    def test_progress_and_messages_reach_processing_once(self) -> None:
        warning = {"event": "message", "level": "warning", "text": "resampled by 2"}
        self.program(
            writes=str(self.package("given.gpkg")),
            events={
                "plan": [warning],
                "detect": [
                    {"event": "progress", "fraction": 0.25, "text": "a quarter"},
                    {"event": "message", "level": "info", "text": "51 objects"},
                    {"event": "novelty", "text": "of a later version"},
                    warning,
                ],
            },
            results={"plan": {"notes": ["resampled by 2"]}, "detect": {"detections": 51}},
        )
        given = self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT="TEMPORARY_OUTPUT")
        self.assertEqual(given["COUNT"], 51)
        self.assertEqual(self.feedback.warnings, ["resampled by 2"])
        self.assertIn("51 objects", self.feedback.infos)
        self.assertIn("a quarter", self.feedback.texts)
        self.assertIn(25, self.feedback.fractions)

    def test_ground_not_covered_is_a_warning_and_a_layer(self) -> None:
        missing = [{"scene": "a.tif", "error": "damaged", "window_px": None}]
        self.program(
            writes=str(self.package("given.gpkg", missing=2)),
            ends={"detect": (3, None)},
            results={"detect": {"detections": 4, "not_covered": missing}},
        )
        given = self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT="TEMPORARY_OUTPUT")
        self.assertEqual(given["NOT_COVERED"], 1)
        self.assertIn("layer not_covered", self.feedback.warnings[-1])

    def test_imagery_that_does_not_fit_ends_before_work_is_spent(self) -> None:
        sentence = "a.asc has 1 band, model trees-naip needs 4"
        program = self.program(ends={"plan": (1, sentence)})
        with self.assertRaisesRegex(QgsProcessingException, sentence):
            self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT="TEMPORARY_OUTPUT")
        self.assertEqual([call[0] for call in calls_of(program)], ["plan"])

    def test_a_stop_ends_the_program_and_says_how_to_go_on(self) -> None:
        program = self.program(waits="detect")
        waits = Path(f"{program.parent / 'calls.jsonl'}.waits")

        def stop() -> None:
            while not waits.exists():
                time.sleep(0.05)
            self.feedback.cancel()

        threading.Thread(target=stop, daemon=True).start()
        before = time.monotonic()
        with self.assertRaisesRegex(QgsProcessingException, "same output file goes on"):
            self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT=str(self.folder / "o.gpkg"))
        self.assertLess(time.monotonic() - before, 30)
        self.assertEqual(self.feedback.errors[0], "interrupted")

    def test_a_program_that_dies_is_quoted(self) -> None:
        self.program(dies="detect")
        with self.assertRaisesRegex(QgsProcessingException, "exit code 139.*Segmentation fault"):
            self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT="TEMPORARY_OUTPUT")

    def test_both_or_no_imagery(self) -> None:
        self.program()
        for given in ({}, {"INPUT": str(self.scene), "FOLDER": str(self.folder)}):
            with self.assertRaisesRegex(
                QgsProcessingException, "either a raster layer or a folder"
            ):
                self.run_algorithm("detect", OUTPUT="TEMPORARY_OUTPUT", **given)

    def test_no_geo_retina_and_one_without_the_command(self) -> None:
        keep_choice(Choice(command="/gone/geo-retina"))
        with self.assertRaisesRegex(QgsProcessingException, "set to /gone/geo-retina"):
            self.run_algorithm("detect", INPUT=str(self.scene), OUTPUT="TEMPORARY_OUTPUT")
        self.program(without=["estimate"])
        found = f"{self.package('found.gpkg')}|layername=detections"
        with self.assertRaisesRegex(QgsProcessingException, "has no command estimate; update it"):
            self.run_algorithm("estimatecounts", DETECTIONS=found)


class TestResults(InQgis):
    def load(self, out: Path, title: str = "Detections") -> list[str]:
        """Load what an algorithm leaves to Processing, as its dialog does."""
        from processing.gui.Postprocessing import handleAlgorithmResults

        algorithm = QgsApplication.processingRegistry().createAlgorithmById("georetina:detect")
        parameters = {"INPUT": str(self.scene), "MODEL": "trees-naip", "OUTPUT": str(out)}
        project = QgsProject.instance()
        details = QgsProcessingContext.LayerDetails(title, project, "OUTPUT")
        self.context.addLayerToLoadOnCompletion(str(out), details)
        _, is_done = algorithm.run(parameters, self.context, self.feedback)
        self.assertTrue(is_done)
        handleAlgorithmResults(algorithm, self.context, self.feedback, False, parameters)
        group = project.layerTreeRoot().findGroup(out.stem)
        return [node.name() for node in group.findLayers()]

    def test_layers_come_grouped_and_an_empty_one_stays_away(self) -> None:
        self.program(writes=str(self.package("given.gpkg")))
        self.assertEqual(self.load(self.folder / "Fund.gpkg"), ["detections", "scanned"])

    def test_missing_ground_comes_on_top(self) -> None:
        self.program(writes=str(self.package("given.gpkg", missing=1)))
        names = self.load(self.folder / "Fund.gpkg")
        self.assertEqual(names, ["not_covered", "detections", "scanned"])
        self.assertEqual(len(QgsProject.instance().mapLayers()), 3)


class TestOthers(InQgis):
    def test_filter_takes_a_whole_file_as_it_is_and_a_filtered_one_as_rows(self) -> None:
        found = self.package("found.gpkg")
        program = self.program(writes=str(found), results={"filter": {"kept": 2}})
        layer = QgsVectorLayer(f"{found}|layername=detections", "found", "ogr")
        given = self.run_algorithm("filter", DETECTIONS=layer, SCORE=0.5, OUTPUT="TEMPORARY_OUTPUT")
        self.assertEqual(given["COUNT"], 2)
        layer.setSubsetString("score > 0.5")
        self.run_algorithm(
            "filter", DETECTIONS=layer, CLASSES="tree, oak", OUTPUT="TEMPORARY_OUTPUT"
        )
        whole, rows = calls_of(program)
        self.assertEqual(whole[:2], ["filter", str(found)])
        self.assertIn("--classes=tree, oak", rows)
        self.assertEqual(QgsVectorLayer(rows[1], "rows", "ogr").featureCount(), 2)

    def test_merge_names_each_file_once(self) -> None:
        a, b = self.package("a.gpkg"), self.package("b.gpkg")
        program = self.program(writes=str(a), results={"merge": {"written": 7}})
        layers = [f"{path}|layername=detections" for path in (a, b, a)]
        given = self.run_algorithm("merge", RUNS=layers, OUTPUT="TEMPORARY_OUTPUT")
        self.assertEqual(calls_of(program)[0][:3], ["merge", str(a), str(b)])
        self.assertEqual(given["COUNT"], 7)
        with self.assertRaisesRegex(QgsProcessingException, "is the layer scanned of its file"):
            self.run_algorithm("merge", RUNS=[f"{a}|layername=scanned"], OUTPUT="TEMPORARY_OUTPUT")

    def test_training_writes_a_config_from_layers_and_resumes_with_it(self) -> None:
        import json

        program = self.program(
            results={"train": {"card": {"metrics": {"val": {"overall": {"f1": 0.5}}}}}}
        )
        boxes = [(500000, 5300000, 500001, 5300001)]
        labels = write_layer(self.folder / "labels.gpkg", "objects", boxes, kind=["oak"])
        out = self.folder / "model.safetensors"
        inputs = {"SCENES": [str(self.scene)], "LABELS": labels, "CLASS_FIELD": "kind"}
        changes = "epochs=3\nsplit.block_m=50"
        given = self.run_algorithm("train", OUTPUT=str(out), SET=changes, **inputs)
        self.assertEqual(given["F1"], 0.5)
        (first,) = calls_of(program)
        config = self.folder / "model.safetensors.inputs" / "config.yaml"
        self.assertEqual(first[1], str(config))
        self.assertEqual(first[2:4], ["--set=epochs=3", "--set=split.block_m=50"])
        data = json.loads(config.read_text())["data"]
        self.assertEqual((data["scenes"], data["class_column"]), ([str(self.scene)], "kind"))
        self.assertEqual(QgsVectorLayer(data["labels"], "l", "ogr").featureCount(), 1)
        before = config.read_bytes(), Path(data["labels"]).stat().st_mtime_ns
        self.run_algorithm("train", OUTPUT=str(out), RESUME=True, SET=changes, **inputs)
        self.assertIn("--resume", calls_of(program)[1])
        self.assertEqual((config.read_bytes(), Path(data["labels"]).stat().st_mtime_ns), before)

    def test_boxes_at_any_angle_are_asked_for_in_the_config(self) -> None:
        import json

        self.program(results={"train": {}})
        sides = {"l": [4.0], "w": [2.0], "az": [30.0]}
        box = (500000, 5300000, 500001, 5300001)
        labels = write_layer(self.folder / "labels.gpkg", "objects", [box], **sides)
        out = self.folder / "model.safetensors"
        fields = {"LENGTH_FIELD": "l", "WIDTH_FIELD": "w", "AZIMUTH_FIELD": "az"}
        inputs = {"SCENES": [str(self.scene)], "LABELS": labels, "TURNED": True, **fields}
        self.run_algorithm("train", OUTPUT=str(out), **inputs)
        config = self.folder / "model.safetensors.inputs" / "config.yaml"
        values = json.loads(config.read_text())
        self.assertEqual(values["network"], {"boxes": "oriented"})
        self.assertEqual(values["samples"], {"rotate": "any"})
        columns = [values["data"][f"{name}_column"] for name in ("length", "width", "azimuth")]
        self.assertEqual(columns, ["l", "w", "az"])

    def test_map_tips_show_sides_and_azimuth_where_a_file_has_them(self) -> None:
        from geo_retina.results import map_tip

        turned = {"class": ["car"], "score": [0.5], "length_m": [4.0], "width_m": [2.0]}
        turned["azimuth_deg"] = [30.0]
        path = self.folder / "turned.gpkg"
        uri = write_layer(path, "detections", [(0, 0, 1, 1)], **turned)
        layer = QgsVectorLayer(uri, "detections", "ogr")
        tip = map_tip([field.name() for field in layer.fields()])
        feature = next(layer.getFeatures())
        context = QgsExpressionContext()
        context.appendScope(QgsExpressionContextUtils.layerScope(layer))
        context.setFeature(feature)
        shown = QgsExpression.replaceExpressionText(tip, context)
        self.assertIn("4 m x 2 m, 30 degrees from north", shown)
        self.assertNotIn("azimuth", map_tip(["class", "score"]))
        self.assertEqual(map_tip(["fid"]), "")

    def test_evaluate_and_compare_hand_over_labels_and_ground(self) -> None:
        found = f"{self.package('found.gpkg')}|layername=detections"
        program = self.program(
            writes=str(self.folder / "found.gpkg"),
            results={"evaluate": {"overall": {"f1": 0.75, "precision": 0.5}}},
        )
        boxes = [(500000, 5300000, 500001, 5300001)]
        labels = write_layer(self.folder / "labels.gpkg", "objects", boxes, kind=["oak"])
        ground = write_layer(self.folder / "labels.gpkg", "ground", boxes, name=["g"])
        common = {"LABELS": labels, "GROUND": ground, "RADIUS": 6, "CLASS_FIELD": "kind"}
        given = self.run_algorithm(
            "evaluate", DETECTIONS=found, OUTPUT=str(self.folder / "r"), **common
        )
        self.assertEqual((given["F1"], given["PRECISION"]), (0.75, 0.5))
        self.run_algorithm("compare", A=found, B=found, OUTPUT="TEMPORARY_OUTPUT", **common)
        evaluate, compare = calls_of(program)
        for call in (evaluate, compare):
            self.assertIn("--class-column=kind", call)
            self.assertEqual(call[call.index("--radius") + 1], "6")
            (path,) = (a.partition("=")[2] for a in call if a.startswith("--ground="))
            self.assertEqual(QgsVectorLayer(path, "g", "ogr").featureCount(), 1)

    def test_review_needs_a_geopackage(self) -> None:
        found = self.package("found.gpkg")
        program = self.program(results={"review": {"cases_open": 30, "cells_open": 8}})
        given = self.run_algorithm(
            "reviewqueue", DETECTIONS=f"{found}|layername=detections", BUDGET=30, CELLS=8
        )
        self.assertEqual((given["CASES"], given["CELLS_OPEN"]), (30, 8))
        self.assertEqual(
            calls_of(program)[0][:4], ["review", str(found), "--budget=30", "--cells=8"]
        )

    def test_counts_are_estimated_by_class_and_zone(self) -> None:
        found, zones = self.package("found.gpkg"), self.package("zones.gpkg")
        program = self.program()
        districts = QgsVectorLayer(f"{zones}|layername=detections", "districts", "ogr")
        given = self.run_algorithm(
            "estimatecounts",
            DETECTIONS=f"{found}|layername=detections",
            BY_CLASS=True,
            ZONES=districts,
            ZONE_FIELD="class",
        )
        command, package, by, given_zones, column = calls_of(program)[0][:5]
        self.assertEqual((command, package, by), ("estimate", str(found), "--by=class"))
        written = QgsVectorLayer(given_zones.removeprefix("--zones="), "zones", "ogr")
        self.assertEqual(written.featureCount(), districts.featureCount())
        self.assertEqual(column, "--zone-column=class")
        self.assertTrue(Path(given["HTML"]).exists())

    def test_edits_that_are_not_saved_are_told(self) -> None:
        found = self.package("found.gpkg")
        self.program(writes=str(found))
        layer = QgsVectorLayer(f"{found}|layername=detections", "found", "ogr")
        QgsProject.instance().addMapLayer(layer)
        layer.startEditing()
        layer.deleteFeature(next(layer.getFeatures()).id())
        self.run_algorithm("filter", DETECTIONS=layer, OUTPUT="TEMPORARY_OUTPUT")
        self.assertIn("edits that are not saved", self.feedback.warnings[0])
        with self.assertRaisesRegex(QgsProcessingException, "save them first"):
            self.run_algorithm("reviewqueue", DETECTIONS=layer)
        layer.rollBack()


class TestStatus(InQgis):
    def test_a_program_is_tried_and_remembered(self) -> None:
        program = fake_program(self.folder, models=[TREES])
        given = self.run_algorithm("status", COMMAND=str(program), REMEMBER=True)
        self.assertTrue(given["USABLE"])
        for said in ("geo-retina: 9.9, protocol 1", "models: trees-naip", "QGIS: 3", "plugin: 0."):
            self.assertIn(said, given["TEXT"])
        self.assertEqual(QgsSettings().value("geo_retina/command"), str(program))

    def test_nothing_found_is_told_with_what_to_type(self) -> None:
        path = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        os.environ["PATH"] = str(self.folder)
        given = self.run_algorithm("status")
        self.assertFalse(given["USABLE"])
        self.assertIn("to install: pip install geo-retina", given["TEXT"])
        self.assertIn("no geo-retina was found", self.feedback.errors[0])


FAKE_UV = """#!/bin/sh
echo "uv $*"
case "$1" in
  venv) for folder; do :; done; mkdir -p "$folder/bin"; touch "$folder/pyvenv.cfg";;
  pip) cp {program} "$(dirname "$4")/geo-retina"; exit {code};;
esac
"""


class TestInstall(InQgis):
    def use(self, code: int = 0) -> None:
        """Put a program that stands in for uv on the PATH, alone but for the shell's own."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        program = fake_program(tools, models=[TREES])
        uv = tools / "uv"
        uv.write_text(FAKE_UV.format(program=shlex.quote(str(program)), code=code))
        uv.chmod(0o755)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        os.environ["PATH"] = f"{tools}:/usr/bin:/bin"

    def test_an_environment_is_made_tried_and_remembered(self) -> None:
        self.use()
        place = self.folder / "Umgebung 1"
        given = self.run_algorithm("install", FOLDER=str(place))
        self.assertEqual(given["COMMAND"], str(place / "bin" / "geo-retina"))
        self.assertEqual(QgsSettings().value("geo_retina/command"), given["COMMAND"])
        self.assertIn(
            f"uv pip install --python {place}/bin/python geo-retina", self.feedback.console
        )
        self.run_algorithm("install", FOLDER=str(place))  # an environment may be made anew

    def test_a_failure_is_told_and_nothing_remembered(self) -> None:
        self.use(code=1)
        with self.assertRaisesRegex(QgsProcessingException, "uv failed with exit code 1"):
            self.run_algorithm("install", FOLDER=str(self.folder / "env"))
        self.assertFalse(QgsSettings().value("geo_retina/command"))

    def test_folders_of_qgis_and_folders_with_something_in_them_are_refused(self) -> None:
        self.use()
        plugin = Path(__file__).parents[1] / "geo_retina"
        for place in (plugin / "env", Path(QgsApplication.prefixPath()) / "env"):
            with self.assertRaisesRegex(QgsProcessingException, "which is QGIS's own"):
                self.run_algorithm("install", FOLDER=str(place))
            self.assertFalse(place.exists())
        with self.assertRaisesRegex(QgsProcessingException, "holds something else"):
            self.run_algorithm("install", FOLDER=str(self.folder))


if __name__ == "__main__":
    unittest.main()
