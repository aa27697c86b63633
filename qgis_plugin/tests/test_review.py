"""Going through a review in QGIS's edit buffers, on layers as geo-retina review makes them."""

from __future__ import annotations

import sqlite3
import tempfile
import unittest
from pathlib import Path

from tests.support import start_qgis, write_layer

QGIS = start_qgis()

from qgis.core import QgsGeometry, QgsProject, QgsRectangle, QgsVectorLayer

from geo_retina.review_session import CELLS, REVIEW, ReviewError, open_session


def box(x: float, y: float = 0.0) -> tuple[float, float, float, float]:
    return (500000 + x, 5300000 + y, 500001 + x, 5300001 + y)


class TestSession(unittest.TestCase):
    """Two cases, and two cells of which the first holds two rows and the second none."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.addCleanup(QgsProject.instance().clear)
        self.path = str(Path(scratch.name) / "Prüfung.gpkg")
        rows = [
            # x, reason, priority, cell, case_id
            (0.0, "seam", 2, None, 1),
            (2.0, "uncertain", 1, 7, 2),
            (10.0, "cell", 3, 7, 3),
            (12.0, "cell", 4, 7, 4),
        ]
        count = len(rows)
        write_layer(
            Path(self.path),
            REVIEW,
            [box(row[0]) for row in rows],
            status=["new"] * count,
            **{"class": ["tree", "tree", "tree", "car"]},
            score=[0.5] * count,
            reason=[row[1] for row in rows],
            priority=[float(row[2]) for row in rows],
            note=[""] * count,
            weight=[1.0] * count,
            cell=[None if row[3] is None else str(row[3]) for row in rows],
            case_id=[str(row[4]) for row in rows],
        )
        write_layer(
            Path(self.path),
            CELLS,
            [box(20.0), box(10.0)],
            cell=["8", "7"],
            status=["new", "new"],
            use=["learn", "count"],
            stratum=["0", "0"],
            place=["0", "0"],
        )
        self.session = open_session(self.path)

    def saved(self, query: str):
        with sqlite3.connect(self.path) as database:
            rows = database.execute(query).fetchall()
        database.close()
        return rows

    def test_cases_come_by_priority_and_then_each_cell_after_its_rows(self) -> None:
        order = [(item.layer, item.cell) for item in self.session.items]
        self.assertEqual(
            order,
            [(REVIEW, None), (REVIEW, None), (REVIEW, 7), (REVIEW, 7), (CELLS, 7), (CELLS, 8)],
        )
        self.assertEqual(self.session.feature["reason"], "uncertain")
        self.assertEqual(self.session.open_count, 6)

    def test_a_decision_is_saved_and_the_next_open_case_is_shown(self) -> None:
        self.session.decide("accepted")
        self.assertEqual(self.session.feature["reason"], "seam")
        self.session.decide("rejected")
        self.assertEqual(self.session.open_count, 4)
        self.assertEqual(self.saved("SELECT count(*) FROM review WHERE status <> 'new'"), [(0,)])
        self.session.save()
        self.assertEqual(
            self.saved("SELECT case_id, status FROM review WHERE status <> 'new' ORDER BY 1"),
            [("1", "rejected"), ("2", "accepted")],
        )
        self.assertTrue(self.session.review.isEditable())
        again = open_session(self.path)
        self.assertEqual(again.feature["case_id"], "3")

    def test_undo_takes_back_one_entry_after_the_other_in_either_layer(self) -> None:
        self.session.decide("accepted")
        self.session.move(2)
        self.session.finish_cell()
        self.assertEqual(self.session.open_count, 4)
        self.session.undo()
        self.assertEqual(self.session.open_count, 5)
        self.session.undo()
        self.assertEqual(self.session.open_count, 6)
        self.session.undo()
        self.session.save()
        self.assertEqual(self.saved("SELECT DISTINCT status FROM review"), [("new",)])

    def test_another_shape_or_class_is_a_change_and_one_step(self) -> None:
        fid = self.session.current.fid
        self.session.redraw(QgsGeometry.fromRect(QgsRectangle(*box(3.0))))
        self.assertEqual(self.session.review.getFeature(fid)["status"], "changed")
        self.session.undo()
        feature = self.session.review.getFeature(fid)
        self.assertEqual(
            (feature["status"], feature.geometry().boundingBox().xMinimum()), ("new", 500002)
        )
        self.session.redraw(QgsGeometry.fromRect(QgsRectangle(*box(3.0))))
        self.session.rename("oak")
        self.session.save()
        rows = self.saved("SELECT class, status FROM review WHERE case_id = '2'")
        self.assertEqual(rows, [("oak", "changed")])
        layer = QgsVectorLayer(f"{self.path}|layername=review", "r", "ogr")
        self.assertEqual(layer.getFeature(fid).geometry().boundingBox().xMinimum(), 500003)

    def test_an_added_object_is_saved_with_its_class_and_is_no_case(self) -> None:
        self.session.add(QgsGeometry.fromRect(QgsRectangle(*box(11.0))), "tree")
        self.session.save()
        rows = self.saved(
            "SELECT class, status, weight, case_id FROM review WHERE status = 'added'"
        )
        self.assertEqual(rows, [("tree", "added", 1.0, None)])
        self.assertEqual(len(self.session.items), 6)

    def test_a_done_cell_is_left_with_what_it_holds(self) -> None:
        self.session.move(1)
        self.session.move(1)
        self.session.finish_cell()
        self.assertEqual(self.session.current.cell, 8)
        self.session.finish_cell()
        self.session.save()
        self.assertEqual(self.saved("SELECT DISTINCT status FROM cells"), [("done",)])
        self.assertEqual(self.saved("SELECT DISTINCT status FROM review"), [("new",)])

    def test_wrong_places_for_a_decision_are_said(self) -> None:
        with self.assertRaisesRegex(ReviewError, "in no cell"):
            self.session.finish_cell()
        self.session.move(-1)
        self.assertEqual(self.session.current.layer, CELLS)
        with self.assertRaisesRegex(ReviewError, "This is a cell"):
            self.session.decide("accepted")

    def test_a_file_without_a_review_and_layers_of_the_project(self) -> None:
        self.assertEqual(len(QgsProject.instance().mapLayers()), 2)
        self.assertIs(open_session(self.path).review, self.session.review)
        with self.assertRaisesRegex(ReviewError, "run the algorithm Review queue"):
            open_session(self.path.replace("Prüfung", "nichts"))

    def test_a_file_that_another_program_holds_keeps_the_entries_in_the_buffer(self) -> None:
        self.session.decide("accepted")
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        with self.assertRaisesRegex(ReviewError, "could not be saved"):
            self.session.save()
        other.rollback()
        self.assertTrue(self.session.review.isModified())
        self.session.save()
        self.assertEqual(
            self.saved("SELECT case_id FROM review WHERE status = 'accepted'"), [("2",)]
        )


if __name__ == "__main__":
    unittest.main()
