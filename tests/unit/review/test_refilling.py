"""The queue and the cells: chosen well, filled up again, and never at the cost of an entry."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.errors import LabelError, OptionError, OutputError
from geo_retina.options import ReviewOptions
from geo_retina.review import NO_CELL, read_review, refuse_trained_cells, review_detections
from geo_retina.review.styles import review_styles
from geo_retina.vector.review_layers import to_blobs
from geo_retina.vector.writers.editing import edit_package
from geo_retina.vector.writers.styles import read_styles
from tests.support.reviews import (
    UTM,
    edit,
    rows_of,
    scattered,
    square,
    write_found,
    write_found_in_degrees,
)

SMALL = ReviewOptions(budget=20, cells=20, cell_size_m=10.0)
OGRINFO = shutil.which("ogrinfo")


@pytest.fixture
def found(tmp_path):
    scores = np.random.default_rng(1).uniform(0.2, 1.0, 600)
    return write_found(tmp_path / "found.gpkg", scattered(600), score=scores)


def read(path, layer):
    return gpd.read_file(path, layer=layer, engine="pyogrio")


def test_cells_partition_the_ground_and_hold_all_detections(found):
    review_detections(found, SMALL)
    frame = read_review(found).frame
    assert len(frame) == 400
    # Scale of UTM near its western edge: 1 unit is a little less or more than a metre.
    assert frame.area_m2.sum() == pytest.approx(200 * 200, rel=0.01)
    reported = read(found, "detections").query("score >= 0.5")
    cell = frame.cell_at(shapely.get_coordinates(reported.geometry.centroid))
    assert (cell != NO_CELL).all()
    assert frame.predicted.tolist() == np.bincount(cell, minlength=400).tolist()
    for stratum in np.unique(frame.stratum):
        for use in ("count", "learn"):
            own = (frame.stratum == stratum) & (frame.use == use)
            assert sorted(frame.place[own]) == list(range(own.sum()))
    learn = (frame.use == "learn").mean()
    assert learn == pytest.approx(0.5, abs=0.02)


def test_drawn_cells_are_the_start_of_each_order_and_more_continue_it(found):
    review_detections(found, SMALL)
    first = set(read(found, "cells")["cell"])
    assert len(first) == 20
    review_detections(found, ReviewOptions(budget=20, cells=50, cell_size_m=10.0))
    review = read_review(found)
    second = set(np.flatnonzero(review.is_drawn))
    assert first < second
    assert len(second) == 50
    frame = review.frame
    for stratum in np.unique(frame.stratum):
        for use in ("count", "learn"):
            own = (frame.stratum == stratum) & (frame.use == use) & review.is_drawn
            assert own.sum() >= 2
            assert sorted(frame.place[own]) == list(range(own.sum()))


def test_the_same_file_gives_the_same_review(tmp_path):
    files = [write_found(tmp_path / f"{k}.gpkg", scattered(300)) for k in range(3)]
    for path, state in zip(files, (0, 0, 1), strict=True):
        review_detections(path, ReviewOptions(budget=9, cells=20, random_state=state))
    rows = [[(c["cell"]) for c in read(path, "cells").to_dict("records")] for path in files]
    assert rows[0] == rows[1] != rows[2]
    assert rows_of(files[0]) == rows_of(files[1])


def test_every_reported_detection_in_a_drawn_cell_has_one_row(found):
    review_detections(found, SMALL)
    cells = read(found, "cells").union_all()
    reported = read(found, "detections").query("score >= 0.5")
    inside = reported[reported.geometry.centroid.within(cells)]
    rows = read(found, "review").query("reason == 'cell'")
    assert len(rows) == len(inside) > 20
    assert {g.wkb for g in rows.geometry} == {g.wkb for g in inside.geometry}
    assert (rows["status"] == "new").all()


def test_the_queue_lies_outside_the_cells_and_apart(found):
    review_detections(found, SMALL)
    rows = read(found, "review").query("reason != 'cell'")
    assert len(rows) == 20
    assert not rows.geometry.centroid.within(read(found, "cells").union_all()).any()
    xy = shapely.get_coordinates(rows.geometry.centroid)
    gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(len(xy), 1)]
    assert gaps.min() >= 4.0
    # Over the ground: each quarter of it has cases.
    assert len({(x > 100, y > 100) for x, y in xy}) == 4
    assert sorted(rows["priority"]) == list(range(1, 21))


def test_reasons(tmp_path):
    """Each doubt that was planted becomes a case for its reason."""
    xy = [(20 * i + 10, 20 * j + 10) for i in range(10) for j in range(10)]
    n = len(xy)
    half = np.random.default_rng(0).uniform(0.95, 1.05, n)
    score, cut = np.full(n, 0.95), np.zeros(n, int)
    half[7] = 6.0
    cut[23], cut[24] = 1, 16  # a tile's side, and the scene's own
    score[41] = 0.49
    xy[77] = (xy[76][0] + 0.9, xy[76][1])
    path = write_found(tmp_path / "found.gpkg", xy, score=score, half=half, cut=cut)
    other = [p for k, p in enumerate(xy) if k != 50] + [(100.0, 101.5)]
    against = write_found(tmp_path / "other.gpkg", other, half=1.0)
    options = ReviewOptions(budget=10, cells=0, against=str(against))
    review_detections(path, options)
    rows = read(path, "review")
    reasons = dict(zip(rows["reason"], shapely.get_coordinates(rows.centroid), strict=True))
    places = {r: [tuple(c) for c, each in zip(shapely.get_coordinates(rows.centroid),
              rows["reason"], strict=True) if each == r] for r in reasons}  # fmt: skip
    assert places["size"] == [pytest.approx(xy[7])]
    assert places["seam"] == [pytest.approx(xy[23])]
    assert places["crowded"][0] in [pytest.approx(xy[76]), pytest.approx(xy[77])]
    assert places["uncertain"][0] == pytest.approx(xy[41])
    assert {tuple(np.round(p, 6)) for p in places["disagrees"]} == {xy[50], (100.0, 101.5)}
    review = read_review(path)
    strange = review.cases.found_name == np.array(None)
    # What only the other run has, and what lies below the threshold, the model does not report.
    assert strange.sum() == 2


def test_running_again_keeps_entries_and_fills_up(found):
    review_detections(found, SMALL)
    handed = {row[0]: row for row in rows_of(found)}
    queue = [row[0] for row in rows_of(found, columns="fid, reason") if row[1] != "cell"]
    edit(
        found,
        f"UPDATE review SET status = 'accepted', note = 'sure' WHERE fid = {queue[0]}",
        f"UPDATE review SET status = 'rejected', weight = 3 WHERE fid = {queue[1]}",
        f"DELETE FROM review WHERE fid = {queue[2]}",
        "INSERT INTO review (geom, class, note) SELECT geom, 'b', 'by hand' FROM review LIMIT 1",
    )
    before = {row[0]: row for row in rows_of(found)}
    detections = rows_of(found, "detections")
    report = review_detections(found, SMALL)
    after = {row[0]: row for row in rows_of(found)}
    assert {fid: after[fid] for fid in before} == before
    assert queue[2] not in after
    assert report.cases_added == 3
    assert report.cases_open == 20
    assert report.entries == 4  # the deleted one too
    shapes = [row[1] for fid, row in after.items() if fid not in before]
    assert not {handed[queue[2]][1]} & set(shapes)
    assert len(shapes) == len(set(shapes)) == 3
    assert rows_of(found, "detections") == detections
    again = review_detections(found, SMALL)
    assert (again.cases_added, again.cells_added, again.cell_rows) == (0, 0, 0)


def test_cells_that_are_done_stay_as_they_are(found):
    """A lower threshold later adds rows to open cells, not to what a person completed."""
    review_detections(found, SMALL)
    done = rows_of(found, "cells", "cell")[0][0]
    edit(found, f"UPDATE cells SET status = 'done' WHERE cell = {done}")
    before = read_review(found)
    lower = "UPDATE metadata SET value = '{\"a\": 0.2}' WHERE name = 'thresholds'"
    edit(found, lower)
    report = review_detections(found, SMALL)
    assert report.cell_rows > 5
    after = read_review(found)
    assert (after.cases.cell == done).sum() == (before.cases.cell == done).sum()
    drawn = read(found, "cells").query("status == 'new'").union_all()
    rows, all_found = read(found, "review"), read(found, "detections").query("score >= 0.2")
    assert rows.centroid.within(drawn).sum() == all_found.centroid.within(drawn).sum()


def test_a_moved_polygon_is_not_asked_for_again(tmp_path):
    """Where a person moved an object to, a later run finds the same object."""
    path = write_found(tmp_path / "found.gpkg", [(20, 20), (60, 60)])
    review_detections(path, ReviewOptions(cells=0))
    assert len(rows_of(path)) == 2
    (blob,) = to_blobs(np.array([square(100, 100)], dtype=object), 32633)
    with edit_package(path) as database:
        database.execute("UPDATE review SET geom = ?, status = 'changed' WHERE fid = 1", (blob,))
        first = "(SELECT geom FROM review_found WHERE case_id = 0)"
        database.execute(f"UPDATE detections SET geom = ? WHERE geom = {first}", (blob,))
    report = review_detections(path, ReviewOptions(cells=0))
    assert (report.entries, report.cases_added) == (1, 0)


def test_a_locked_file_is_one_sentence(found):
    with closing(sqlite3.connect(found, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(OutputError, match="in use by another program"),
            edit_package(found, timeout_s=0.05),
        ):
            pass
        other.execute("ROLLBACK")


def test_it_waits_for_a_gis_that_is_saving(found):
    code = (
        "import sqlite3, sys, time; d = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "d.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(0.5); "
        "d.execute('COMMIT')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, found], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        assert review_detections(found, SMALL).cases_added == 20
        assert other.wait() == 0


def test_a_failure_leaves_the_file_as_it_was(found, monkeypatch):
    before = found.read_bytes()
    monkeypatch.setattr("geo_retina.review.refilling.write_cases", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        review_detections(found, SMALL)
    with closing(sqlite3.connect(found)) as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert not names & {"review", "cells", "review_frame"}
    assert found.read_bytes() == before


@pytest.mark.skipif(OGRINFO is None, reason="ogrinfo (package gdal-bin) is not installed")
def test_a_spatial_index_that_a_gis_made_is_kept_true(found):
    review_detections(found, SMALL)
    index = "SELECT CreateSpatialIndex('review', 'geom')"
    subprocess.run([OGRINFO, found, "-sql", index], check=True, capture_output=True)
    review_detections(found, ReviewOptions(budget=40, cells=30, cell_size_m=10.0))
    (count,) = rows_of(found, "rtree_review_geom", "count(*)")[0]
    assert count == len(rows_of(found)) > 60


def test_styles_and_forms(found):
    review_detections(found, SMALL)
    styles = read_styles(found)
    assert {"detections", "review", "cells"} <= set(styles)
    root = ET.fromstring(styles["review"])
    shown = [c.get("value") for c in root.iter("category")]
    assert shown == ["new", "accepted", "rejected", "changed", "added", ""]
    widget = root.find(".//field[@name='status']/editWidget")
    assert widget.get("type") == "ValueMap"
    defaults = {d.get("field"): d.get("expression") for d in root.iter("default")}
    # Of two classes none is right more often than the other: the form asks.
    assert (defaults["status"], defaults["class"]) == ("'added'", "")
    asked = {c.get("field"): c.get("notnull_strength") for c in root.iter("constraint")}
    assert asked["class"] == "2"
    assert "'tree'" in review_styles("Polygon", ["tree"])["review"]
    edit(found, "UPDATE layer_styles SET styleQML = 'mine' WHERE f_table_name = 'review'")
    review_detections(found, SMALL)
    assert read_styles(found)["review"] == "mine"


def test_zones(found, tmp_path):
    zones = gpd.GeoDataFrame(
        {"name": ["west", "east"]},
        geometry=[shapely.box(0, 0, 80, 200), shapely.box(80, 0, 160, 200)],
        crs=UTM,
    ).to_crs("EPSG:4326")
    zones.to_file(tmp_path / "zones.geojson")
    options = {"zones": str(tmp_path / "zones.geojson"), "zone_column": "name"}
    with pytest.raises(OptionError, match="expected at least 12"):
        review_detections(found, ReviewOptions(cells=8, **options))
    review_detections(found, ReviewOptions(cells=48, cell_size_m=10.0, **options))
    review = read_review(found)
    assert review.zones == ("east", "west")
    frame = review.frame
    sizes = {zone: (frame.zone == zone).sum() for zone in (*review.zones, None)}
    assert sizes == {"west": 160, "east": 160, None: 80}
    for stratum in np.unique(frame.stratum):
        assert len(set(frame.zone[frame.stratum == stratum])) == 1
    assert all((review.is_drawn & (frame.zone == zone)).sum() >= 12 for zone in sizes)


@pytest.mark.parametrize(("share", "learn"), [(0.0, 0), (0.25, 10), (1.0, 40)])
def test_the_share_of_cells_to_learn_from(found, share, learn):
    review_detections(found, ReviewOptions(cells=40, cell_size_m=10.0, learn_share=share))
    assert (read(found, "cells")["use"] == "learn").sum() == learn


def test_options_of_the_first_drawing_hold(found):
    review_detections(found, SMALL)
    report = review_detections(found, ReviewOptions(cells=20, learn_share=0.2, cell_size_m=10.0))
    assert len(report.notes) == 1
    assert "learn_share 0.5, which holds" in report.notes[0]


def test_cells_beyond_a_gap_are_told(found):
    review_detections(found, SMALL)
    edit(found, "UPDATE cells SET status = 'done' WHERE place > 0")
    (note,) = review_detections(found, SMALL).notes
    assert "done cells lie beyond a gap" in note


def test_degrees(tmp_path):
    """Cells are square on the ground, wherever degrees are not."""
    path = write_found_in_degrees(tmp_path / "f.gpkg")
    review_detections(path, ReviewOptions(cell_size_m=50.0, cells=20))
    frame = read_review(path).frame
    inner = frame.area_m2[(frame.row > 0) & (frame.row < 20) & (frame.col < 20)]
    assert inner == pytest.approx(2500, rel=0.01)
    assert frame.design.width / frame.design.height == pytest.approx(2.0, rel=0.01)


def test_nothing_found_is_ground_to_look_at(tmp_path):
    path = write_found(tmp_path / "found.gpkg", [])
    report = review_detections(path, ReviewOptions(cells=20))
    assert (report.cases_added, report.cells_added) == (0, 20)
    assert len(read_review(path).frame) >= 400


def test_files_that_cannot_be_reviewed(tmp_path):
    squares = gpd.GeoDataFrame(
        {"class": ["a"], "score": [0.5]}, geometry=[square(1, 1)], crs="EPSG:32633"
    )
    squares.to_file(tmp_path / "found.geojson")
    with pytest.raises(LabelError, match="expected a GeoPackage"):
        review_detections(tmp_path / "found.geojson")
    squares.to_file(tmp_path / "plain.gpkg", layer="detections")
    with pytest.raises(LabelError, match="which ground was scanned"):
        review_detections(tmp_path / "plain.gpkg")
    with pytest.raises(OptionError, match="are both given"):
        ReviewOptions(against="a.gpkg", labels="b.gpkg")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM scanned", "names no ground that was scanned"),
        ("UPDATE detections SET score = NULL WHERE fid = 1", "1 objects without a score"),
        ("UPDATE detections SET class = NULL WHERE fid = 1", "1 objects without a class"),
    ],
)
def test_detections_that_a_hand_has_damaged_are_refused_under_review_too(found, statement, words):
    review_detections(found, SMALL)
    edit(found, statement)
    with pytest.raises(LabelError, match=words):
        review_detections(found, SMALL)


def test_cases_keep_off_cells_to_count_by_where_there_are_others(found):
    """What is trained on must not be counted by when more cells are drawn later."""
    review_detections(found, SMALL)
    review = read_review(found)
    rows = read(found, "review").query("reason == 'uncertain'")  # of which there are many
    cell = review.frame.cell_at(shapely.get_coordinates(rows.geometry.centroid))
    assert len(cell) > 5
    assert (review.frame.use[cell] == "learn").all()


def test_cells_that_were_trained_on_are_no_sample(found):
    review_detections(found, SMALL)
    edit(found, "UPDATE cells SET status = 'done'")
    review = read_review(found)
    counted = np.flatnonzero(review.is_done & (review.frame.use == "count"))
    refuse_trained_cells(found, review.frame, counted)
    for frame, cells, overlaps in (
        (review.frame.fingerprint, counted[:2].tolist(), True),
        ("another", counted.tolist(), False),
        (review.frame.fingerprint, [], False),
    ):
        card = {"name": "m", "training": {"review": {"frame": frame, "cells": cells}}}
        with closing(sqlite3.connect(found)) as database, database:
            database.execute("DELETE FROM metadata WHERE name = 'model_card'")
            row = ("model_card", json.dumps(card))
            database.execute("INSERT INTO metadata (name, value) VALUES (?, ?)", row)
        if overlaps:
            with pytest.raises(LabelError, match="2 completed cells to count by, such as cell"):
                refuse_trained_cells(found, review.frame, counted)
        else:
            refuse_trained_cells(found, review.frame, counted)
