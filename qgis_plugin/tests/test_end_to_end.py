"""The plugin with a real geo-retina, on a scene that it drew; skipped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from tests.support import Feedback, start_qgis

QGIS = start_qgis()

import processing
from qgis.core import QgsProcessingException, QgsProject, QgsRasterLayer, QgsVectorLayer

from geo_retina.command import Choice, clean_environment
from geo_retina.review_session import open_session
from geo_retina.settings import keep_choice

COMMAND = os.environ.get("GEO_RETINA_COMMAND", "")


@unittest.skipUnless(COMMAND, "no geo-retina on the PATH, and GEO_RETINA_COMMAND names none")
class TestEndToEnd(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = Path(scratch.name) / "Größe und Maß"
        cls.folder.mkdir()
        line = [COMMAND, "demo", "--out", str(cls.folder / "demo"), "--size", "512", "--json", "-"]
        subprocess.run(line, check=True, capture_output=True, env=clean_environment(os.environ))
        cls.scene = str(cls.folder / "demo" / "scene.tif")
        cls.truth = str(cls.folder / "demo" / "truth.gpkg")
        keep_choice(Choice(command=COMMAND))

    def setUp(self) -> None:
        self.feedback = Feedback()

    def run_algorithm(self, name: str, **parameters):
        return processing.run(f"georetina:{name}", parameters, feedback=self.feedback)

    def test_detect_stop_go_on_filter_and_evaluate(self) -> None:
        out = self.folder / "Fund.gpkg"
        inputs = {"INPUT": QgsRasterLayer(self.scene, "s"), "MODEL": "demo", "OUTPUT": str(out)}
        # Many small blocks, so that there is a middle to stop in.
        inputs["EXTRA"] = "--tile-px 128 --block-px 128 --batch 1 --threads 1"
        self.feedback.progressChanged.connect(lambda done: done > 5 and self.feedback.cancel())
        with self.assertRaisesRegex(QgsProcessingException, "goes on"):
            self.run_algorithm("detect", **inputs)
        self.assertFalse(out.exists())
        self.assertTrue(list(Path(f"{out}.run").glob("unit-*")))
        self.feedback = Feedback()
        given = self.run_algorithm("detect", **inputs)
        self.assertGreater(given["COUNT"], 50)
        self.assertEqual(given["NOT_COVERED"], 0)
        self.assertGreater(self.feedback.fractions[0], 0)
        self.assertEqual(QgsVectorLayer(given["OUTPUT"], "d", "ogr").featureCount(), given["COUNT"])
        chosen = self.run_algorithm(
            "filter", DETECTIONS=given["OUTPUT"], SCORE=0.9, OUTPUT=str(self.folder / "c.gpkg")
        )
        self.assertLess(chosen["COUNT"], given["COUNT"])
        scores = self.run_algorithm(
            *("evaluate",),
            DETECTIONS=given["OUTPUT"],
            LABELS=self.truth,
            CLASS_FIELD="class",
            OUTPUT=str(self.folder / "report"),
        )
        self.assertGreater(scores["F1"], 0.9)
        self.assertTrue(Path(scores["HTML"]).is_file())

    def test_plan_refuses_imagery_that_does_not_fit(self) -> None:
        with self.assertRaisesRegex(QgsProcessingException, "trees-naip needs"):
            self.run_algorithm(
                "detect", INPUT=self.scene, MODEL="trees-naip", OUTPUT=str(self.folder / "t.gpkg")
            )
        given = self.run_algorithm("plan", INPUT=self.scene, MODEL="demo")
        self.assertGreater(given["TILES"], 0)
        self.assertGreater(given["SECONDS"], 0)

    def test_a_folder_with_a_damaged_scene_is_not_covered(self) -> None:
        scenes = self.folder / "Szenen"
        scenes.mkdir()
        (scenes / "a.tif").write_bytes(Path(self.scene).read_bytes())
        (scenes / "b.tif").write_bytes(b"II*\0 no picture")
        given = self.run_algorithm(
            "detect", FOLDER=str(scenes), MODEL="demo", OUTPUT=str(self.folder / "f.gpkg")
        )
        self.assertEqual(given["NOT_COVERED"], 1)
        self.assertTrue(any("b.tif" in text for text in self.feedback.warnings))

    def test_a_review_that_geo_retina_made_is_filled_in_and_read_back(self) -> None:
        found = self.folder / "review.gpkg"
        found.write_bytes((self.folder / "demo" / "detections.gpkg").read_bytes())
        uri = f"{found}|layername=detections"
        given = self.run_algorithm("reviewqueue", DETECTIONS=uri, BUDGET=6, CELLS=8)
        self.assertEqual((given["CASES"], given["CELLS_OPEN"]), (6, 8))
        session = open_session(str(found))
        self.addCleanup(QgsProject.instance().clear)
        columns = [field.name() for field in session.review.fields()]
        session.decide("accepted")
        session.decide("rejected")
        session.redraw(session.feature.geometry().buffer(1, 1))
        session.move(1, to_open=True)
        for item in session.items:
            if item.layer == "cells":
                session.place = session.items.index(item)
                session.finish_cell()
        session.save()
        self.assertEqual([field.name() for field in session.review.fields()], columns)
        again = self.run_algorithm("reviewqueue", DETECTIONS=uri, BUDGET=6, CELLS=8)
        self.assertEqual(again["CELLS_OPEN"], 0)
        statuses = {feature["status"] for feature in open_session(str(found)).review.getFeatures()}
        self.assertLessEqual({"accepted", "rejected", "changed"}, statuses)
        counts = self.run_algorithm("estimatecounts", DETECTIONS=uri)
        self.assertIn("95", Path(counts["HTML"]).read_text(encoding="utf-8"))

    @unittest.skipIf(sys.platform == "win32" or os.geteuid() == 0, "root may write anywhere")
    def test_a_folder_that_cannot_be_written(self) -> None:
        closed = self.folder / "zu"
        closed.mkdir(mode=0o555)
        with self.assertRaisesRegex(QgsProcessingException, "cannot be written"):
            self.run_algorithm(
                "detect", INPUT=self.scene, MODEL="demo", OUTPUT=str(closed / "o.gpkg")
            )

    def test_threads_are_gone_afterwards(self) -> None:
        self.run_algorithm("status")
        self.assertFalse([t for t in threading.enumerate() if "_read_lines" in t.name])


if __name__ == "__main__":
    unittest.main()
