"""Estimates of files under review, against numbers worked out by hand."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.reviews import SIDE, edit, square, write_review

from geo_retina.cli import main
from geo_retina.errors import LabelError, OptionError
from geo_retina.estimation import estimate
from geo_retina.options import EstimateOptions
from geo_retina.review import read_review
from geo_retina.vector.review_layers import to_blobs

CRS = "EPSG:32633"
PER_CELL = (2, 2, 2, 2, 5, 5, 5, 5)
"""Detections of each of eight cells: two strata of four."""


def middle(cell, place=0):
    return SIDE * cell + 1.0 + place


def lay(path, cells, cases, detections, **columns):
    """Write a review and the detections beside it, the latter as (cell, place, class, score)."""
    write_review(path, cells, cases)
    table = {
        "class": [name for _, _, name, _ in detections],
        "score": [score for *_, score in detections],
        **columns,
    }
    shapes = [square(middle(cell, place), 5, 0.4) for cell, place, *_ in detections]
    gpd.GeoDataFrame(table, geometry=shapes, crs=CRS).to_file(path, layer="detections")
    return path


@pytest.fixture
def reviewed(tmp_path):
    """Two strata of four cells, half of each completed: one detection wrong, two objects added."""
    cells = [(cell // 4, "count", cell % 4, "done" if cell % 4 < 2 else "new") for cell in range(8)]
    detections = [(c, p, "a", 0.9) for c, n in enumerate(PER_CELL) for p in range(n)]
    cases = [
        {"status": "new", "x": middle(c, p)}
        for c, p, *_ in detections
        if c % 4 < 2 and (c, p) not in {(0, 0), (4, 0)}
    ]
    cases += [
        {"status": "rejected", "x": middle(0)},
        {"status": "changed", "x": middle(4)},
        {"status": "added", "x": middle(1, 6), "found": None},
        {"status": "added", "x": middle(5, 6), "found": None},
    ]
    return lay(tmp_path / "found.gpkg", cells, cases, detections)


def test_the_difference_is_what_a_hand_works_out(reviewed):
    found = estimate(reviewed, EstimateOptions(estimator="difference"))
    # stratum 0: objects less detections -1 and +1; stratum 1: 0 and +1; 28 detections
    assert found.overall.total.value == pytest.approx(28 + 4 * 0 + 4 * 0.5)
    variance = 4**2 * (1 - 2 / 4) / 2 * (2.0 + 0.5)
    assert found.overall.total.standard_error == pytest.approx(variance**0.5)
    low, high = found.overall.total.interval
    assert low < 30 < high
    assert (found.cells, found.population, found.objects_seen) == (4, 8, 15)
    assert found.overall.detected == 28
    assert found.overall.per_hectare.value == pytest.approx(30 / 0.08)


def test_precision_and_recall_are_those_of_the_entries(reviewed):
    overall = estimate(reviewed).overall
    assert overall.precision.value == pytest.approx((4 * 1.5 + 4 * 5) / 28)
    assert overall.recall.value == pytest.approx((4 * 1.5 + 4 * 5) / (4 * 2 + 4 * 5.5))
    assert overall.precision.interval[0] < overall.precision.value


def test_cells_for_learning_change_nothing(reviewed, tmp_path):
    cells = [(c // 4, "count", c % 4, "done" if c % 4 < 2 else "new") for c in range(8)]
    cells += [(0, "learn", 0, "done"), (1, "learn", 0, "done")]
    cases = [
        {"status": "added", "x": middle(cell, p), "found": None} for cell in (8, 9) for p in (1, 2)
    ]
    cases += [{"status": "new", "x": middle(c, p)} for c in (0, 1, 4, 5) for p in range(2)]
    detections = [(c, p, "a", 0.9) for c in range(10) for p in range(2)]
    path = lay(tmp_path / "learn.gpkg", cells, cases, detections)
    found = estimate(path, EstimateOptions(estimator="difference"))
    assert found.cells == 4
    assert found.overall.total.value == pytest.approx(20)


def tell_fitted(path, cells, frame=None, *, earlier=()):
    """Say in the metadata that the model behind the detections was trained on cells."""
    frame = frame or read_review(path).frame.fingerprint
    about = {"review": {"frame": frame, "cells": list(cells)}}
    about["earlier_reviews"] = [{"frame": frame, "cells": list(each)} for each in earlier]
    card = json.dumps({"name": "m", "training": about})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS metadata (fid INTEGER PRIMARY KEY, name TEXT, value TEXT)"
        )
        database.execute("DELETE FROM metadata")
        database.execute("INSERT INTO metadata (name, value) VALUES ('model_card', ?)", (card,))


@pytest.fixture
def adapted(tmp_path):
    """One stratum of eight: two cells counted, two learnt from, where nothing is missed now."""
    cells = [(0, "count", place, "done" if place < 2 else "new") for place in range(4)]
    cells += [(0, "learn", place, "done" if place < 2 else "new") for place in range(4)]
    detections = [(c, p, "a", 0.9) for c in range(8) for p in range(3 if c in (4, 5) else 1)]
    cases = [{"status": "new", "x": middle(c)} for c in (0, 1)]
    cases += [{"status": "added", "x": middle(c, 5), "found": None} for c in (0, 0, 1, 1)]
    cases += [{"status": "new", "x": middle(c, p)} for c in (4, 5) for p in range(3)]
    return lay(tmp_path / "adapted.gpkg", cells, cases, detections)


@pytest.mark.parametrize("estimator", ["difference", "ratio", "prediction-powered", "plain"])
def test_cells_that_the_model_learnt_from_stand_for_themselves_alone(adapted, estimator):
    """Every cell has three objects, of which it finds one elsewhere and three where it learnt."""
    options = EstimateOptions(estimator=estimator)
    naive = estimate(adapted, options)
    assert (naive.cells, naive.objects_seen, naive.notes) == (2, 6, ())
    tell_fitted(adapted, (4, 5))
    found = estimate(adapted, options)
    assert found.overall.total.value == pytest.approx(8 * 3)
    if estimator != "plain":
        assert naive.overall.total.value > 25
    assert (found.cells, found.objects_seen) == (2, 6)
    assert found.overall.recall.value == pytest.approx(1 / 3)
    assert "2 completed cells to learn from count as what is there" in found.notes[0]
    # Of other ground's cells nothing is known here.
    tell_fitted(adapted, (4, 5), frame="another")
    assert estimate(adapted, options).overall == naive.overall


def test_cells_of_which_single_cases_were_learnt_from_are_told(adapted):
    tell_fitted(adapted, (4, 5, 7))
    assert any("objects in 1 more of the 8 cells" in note for note in estimate(adapted).notes)
    for last, earlier in (((1, 4), ()), ((4,), [(5,), (1,)])):
        tell_fitted(adapted, last, earlier=earlier)
        with pytest.raises(
            LabelError, match=r"1 completed cells to count by, such as cell 1, to whose"
        ):
            estimate(adapted)


def test_probabilities_count_in_place_of_scores(tmp_path):
    """Every detection of the completed cells is an object; cell 5 has those that are surest."""
    cells = [(0, "count", place, "done" if place < 3 else "new") for place in range(6)]
    detections = [(c, p, "a", 0.8) for c in range(6) for p in range(1 + c % 2)]
    cases = [{"status": "new", "x": middle(c, p)} for c, p, *_ in detections if c < 3]
    scored = lay(tmp_path / "scored.gpkg", cells, cases, detections)
    assert estimate(scored).overall.total.value == pytest.approx(9)
    sure = [1.0 if c == 5 else 0.5 for c, *_ in detections]
    told = lay(tmp_path / "told.gpkg", cells, cases, detections, probability=sure)
    assert estimate(told).overall.total.value == pytest.approx(9 + 2)


def test_a_detection_beyond_the_side_of_a_cell_finds_an_object_in_it(tmp_path):
    cells = [(0, "count", place, "done" if place < 2 else "new") for place in range(3)]
    path = lay(tmp_path / "found.gpkg", cells, [], [(0, 0, "a", 0.9), (2, -0.9, "a", 0.9)])
    # Objects beside the detection in cell 0, and at the end of cell 1, 0.2 from one in cell 2.
    points = [shapely.Point(middle(0), 5), shapely.Point(19.9, 5)]
    labels = tmp_path / "labels.gpkg"
    gpd.GeoDataFrame(geometry=points, crs=CRS).to_file(labels)
    edit(path, "UPDATE cells SET status = 'new'", "DELETE FROM cells WHERE cell = 2")
    overall = estimate(path, EstimateOptions(labels=str(labels))).overall
    assert overall.recall.value == 1.0


def test_too_few_completed_cells_are_refused_with_the_reason(tmp_path):
    cells = [(0, "count", 0, "done"), (0, "count", 1, "new"), (0, "count", 2, "done")]
    path = lay(tmp_path / "few.gpkg", cells, [], [(0, 0, "a", 0.9)])
    with pytest.raises(LabelError, match=r"stratum 0 1 of 3; 1 more are done out of turn.*2 or"):
        estimate(path)


def test_a_file_without_a_review_is_refused(tmp_path):
    path = tmp_path / "bare.gpkg"
    gpd.GeoDataFrame({"class": ["a"], "score": [0.9]}, geometry=[square(5, 5)], crs=CRS).to_file(
        path, layer="detections"
    )
    with pytest.raises(LabelError, match="run geo-retina review"):
        estimate(path)


def test_cells_beyond_a_gap_are_left_out_and_told(tmp_path):
    status = ["done", "done", "new", "done"]
    cells = [(0, "count", place, each) for place, each in enumerate(status)]
    cases = [{"status": "new", "x": middle(c)} for c in (0, 1)]
    cases += [{"status": "added", "x": middle(3, p), "found": None} for p in range(6)]
    path = lay(tmp_path / "gap.gpkg", cells, cases, [(c, 0, "a", 0.9) for c in range(4)])
    found = estimate(path)
    assert found.cells == 2
    assert found.overall.total.value == pytest.approx(4)
    assert any("1 completed cells lie beyond a gap" in note for note in found.notes)


def test_classes_add_up_where_each_detection_counts_one(reviewed, tmp_path):
    cells = [(0, "count", place, "done" if place < 3 else "new") for place in range(5)]
    detections = [(c, p, "ab"[p % 2], 0.9) for c in range(5) for p in range(3)]
    cases = [
        {"status": "new", "x": middle(c, p), "name": n, "found": n}
        for c, p, n, _ in detections
        if c < 3
    ]
    cases[0] |= {"status": "changed", "name": "b"}
    path = lay(tmp_path / "classes.gpkg", cells, cases, detections)
    found = estimate(path, EstimateOptions(by="class", estimator="difference"))
    totals = {row.name: row.total.value for row in found.classes}
    assert totals == pytest.approx({"a": 10 - 5 / 3, "b": 5 + 5 / 3})
    assert sum(totals.values()) == pytest.approx(found.overall.total.value)
    precision = {row.name: row.precision.value for row in found.classes}
    assert precision == pytest.approx({"a": 5 / 6, "b": 1.0})
    assert "recall of b: 0.750" in found.table()


def test_a_later_threshold_changes_detections_and_not_objects(tmp_path):
    cells = [(0, "count", place, "done" if place < 3 else "new") for place in range(6)]
    detections = [(c, p, "a", (0.9, 0.4)[p]) for c in range(6) for p in range(2)]
    cases = [{"status": "new", "x": middle(c, p)} for c in range(3) for p in range(2)]
    path = lay(tmp_path / "found.gpkg", cells, cases, detections)
    strict = estimate(path, EstimateOptions(score=0.5, estimator="difference"))
    assert strict.overall.detected == 6
    assert strict.overall.total.value == pytest.approx(12)
    assert strict.overall.recall.value == pytest.approx(0.5)
    assert strict.overall.precision.value == pytest.approx(1.0)
    assert any("matched with objects" in note for note in strict.notes)


@pytest.mark.parametrize("column", ["score", "class", "geom"])
def test_a_row_drawn_into_the_detections_is_refused(reviewed, column):
    """A total of "not a number" looked like a result."""
    edit(reviewed, f"UPDATE detections SET {column} = NULL WHERE fid = 1")
    lacking = "geometry" if column == "geom" else column
    with pytest.raises(LabelError, match=f"1 objects without a {lacking}.* in the layer review"):
        estimate(reviewed)


def test_objects_off_all_cells_are_told_of(reviewed):
    edit(reviewed, "INSERT INTO review (geom, class) SELECT geom, 'a' FROM review WHERE fid = 1")
    assert not any("in no cell" in note for note in estimate(reviewed).notes)
    far = to_blobs(np.array([square(9.0, 450.0)], dtype=object), 32633)[0].hex()
    edit(reviewed, f"UPDATE review SET geom = x'{far}' WHERE case_id IS NULL AND fid > 1")
    assert any("added lie in no cell" in note for note in estimate(reviewed).notes)


def test_labels_may_play_the_person(tmp_path):
    cells = [(0, "count", place, "new") for place in range(4)] + [(0, "count", 4, None)]
    detections = [(c, 0, "a", 0.9) for c in range(5)]
    path = lay(tmp_path / "found.gpkg", cells, [], detections)
    points = [shapely.Point(middle(c) + 0.1, 5.0) for c in (0, 1, 2)]
    labels = tmp_path / "labels.gpkg"
    gpd.GeoDataFrame(geometry=points, crs=CRS).to_crs("EPSG:4326").to_file(labels)
    found = estimate(path, EstimateOptions(labels=str(labels), estimator="difference"))
    assert found.cells == 4
    assert found.overall.total.value == pytest.approx(5 - 5 / 4)
    assert found.overall.precision.value == pytest.approx(0.75)
    with pytest.raises(LabelError, match="no class column kind"):
        estimate(path, EstimateOptions(labels=str(labels), class_column="kind"))
    table = gpd.GeoDataFrame({"kind": ["a", None, "a"]}, geometry=points, crs=CRS)
    table.to_file(labels)
    with pytest.raises(LabelError, match=r"1 of 3 labels in .* have no value in the class column"):
        estimate(path, EstimateOptions(labels=str(labels), class_column="kind"))
    for name in ("A", "b"):
        table.assign(kind=name).to_file(labels)
        with pytest.raises(LabelError, match=f"no class is in common: .* has {name}"):
            estimate(path, EstimateOptions(labels=str(labels), class_column="kind"))
    # Labels of other ground would make this one bare.
    table.translate(5000).to_file(labels)
    with pytest.raises(LabelError, match=r"none of the 3 labels of .* lies on the ground"):
        estimate(path, EstimateOptions(labels=str(labels)))


def test_labels_are_read_by_the_rules_of_other_commands(tmp_path):
    """Parts of a geometry are objects, blanks around a class are none, and gaps are told of."""
    cells = [(0, "count", place, "new") for place in range(4)] + [(0, "count", 4, None)]
    path = lay(tmp_path / "found.gpkg", cells, [], [(c, c % 2, "ab"[c % 2], 0.9) for c in range(5)])
    points = [shapely.Point(middle(c) + 0.1, 5.0) for c in (0, 1, 2)]
    plain = gpd.GeoDataFrame({"kind": ["a", "b", "a"]}, geometry=points, crs=CRS)
    labels = str(tmp_path / "labels.gpkg")

    def numbers(table, **options):
        table.to_file(labels)
        found = estimate(path, EstimateOptions(labels=labels, **options))
        shares = found.overall.precision, found.overall.recall
        return found.overall.total.value, *(share.value for share in shares)

    expected = numbers(plain, class_column="kind")
    assert numbers(plain.dissolve("kind").reset_index(), class_column="kind") == expected
    assert numbers(plain.assign(kind=["a ", "b", " a"]), class_column="kind") == expected
    assert numbers(plain) == expected  # any with any
    plain.loc[3] = ["a", None]
    assert numbers(plain, class_column="kind") == expected
    notes = estimate(path, EstimateOptions(labels=labels, class_column="kind")).notes
    assert any("1 of 4 labels of" in note and "no usable geometry" in note for note in notes)


def zones_file(tmp_path, *limits):
    shapes = [shapely.box(a, 0, b, SIDE) for a, b in limits]
    path = tmp_path / "zones.gpkg"
    names = [f"zone {at}" for at in range(len(shapes))]
    gpd.GeoDataFrame({"name": names}, geometry=shapes, crs=CRS).to_file(path)
    return str(path)


def test_zones_that_cells_were_not_drawn_with_have_no_interval(reviewed, tmp_path):
    zones = zones_file(tmp_path, (0, 40), (40, 70))
    found = estimate(reviewed, EstimateOptions(zones=zones, zone_column="name", estimator="ratio"))
    assert [row.name for row in found.zones] == ["zone 0", "zone 1", "in no zone"]
    assert all(row.total.interval is None for row in found.zones)
    assert [row.detected for row in found.zones] == [8, 15, 5]
    total = sum(row.total.value for row in found.zones)
    assert total == pytest.approx(found.overall.total.value)
    assert any("review drew with these zones" in note for note in found.notes)


def test_zones_that_cells_were_drawn_with_have_their_own_interval(tmp_path):
    import sqlite3

    random = np.random.default_rng(0)
    cells = [(c // 30, "count", c % 30, "done" if c % 30 < 12 else "new") for c in range(60)]
    detections = [(c, p, "a", 0.9) for c in range(60) for p in range(random.integers(1, 4))]
    kept = [d for d in detections if d[0] % 30 < 12]
    cases = [
        {"status": "rejected" if i % 4 == 0 else "new", "x": middle(c, p)}
        for i, (c, p, *_) in enumerate(kept)
    ]
    path = lay(tmp_path / "found.gpkg", cells, cases, detections)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE review_frame SET zone = 'zone ' || stratum")
    zones = zones_file(tmp_path, (0, 300), (300, 600))
    options = EstimateOptions(zones=zones, zone_column="name", estimator="difference")
    found = estimate(path, options)
    # Zones of the same names that lie otherwise are none that cells were drawn with.
    (tmp_path / "other").mkdir()
    other = zones_file(tmp_path / "other", (0, 200), (200, 600))
    others = estimate(path, EstimateOptions(zones=other, zone_column="name")).zones
    assert [(row.cells, row.total.interval) for row in others] == [(0, None), (0, None)]
    # With nine of the twelve completed there is a total, and no interval.
    edit(path, "UPDATE cells SET status = 'new' WHERE place >= 9")
    for row in estimate(path, options).zones:
        assert (row.cells, row.total.interval) == (9, None)
        assert row.total.value > 20
    for at, row in enumerate(found.zones):
        rows = [cells_at for cells_at in range(60) if cells_at // 30 == at]
        x = np.array([sum(d[0] == c for d in detections) for c in rows])
        wrong = np.array(
            [sum(i % 4 == 0 and d[0] == c for i, d in enumerate(kept)) for c in rows[:12]]
        )
        assert row.cells == 12
        assert row.total.value == pytest.approx(x.sum() - 30 * wrong.mean())
        error = 30 * np.sqrt((1 - 12 / 30) * wrong.var(ddof=1) / 12)
        assert row.total.standard_error == pytest.approx(error)
        assert row.total.interval[0] < row.total.value < row.total.interval[1]


def test_a_plan_needs_no_completed_cell(tmp_path):
    random = np.random.default_rng(0)
    cells = [(c // 500, "count", c % 500, None) for c in range(1000)]
    numbers = [random.poisson(1 if c < 500 else 6) for c in range(1000)]
    detections = [(c, p, "a", 0.9) for c, n in enumerate(numbers) for p in range(n)]
    path = lay(tmp_path / "found.gpkg", cells, [], detections)
    plans = [estimate(path, EstimateOptions(target=share)).plan for share in (0.05, 0.1, 0.2)]
    assert not plans[0].is_measured
    assert plans[0].cells > plans[1].cells > plans[2].cells > 2
    assert all(plan.cells < plan.cells_alone for plan in plans)
    # four times as few, but for the share of the ground that is looked at
    assert 2 < plans[0].cells / plans[1].cells < 4.2
    assert estimate(path, EstimateOptions(target=0.05)).overall is None


def test_the_command_writes_numbers_and_takes_percent(reviewed, tmp_path, capsys):
    out = tmp_path / "numbers.json"
    command = ["estimate", str(reviewed), "--target", "50%", "--by", "class", "--json", str(out)]
    assert main(command) == 0
    assert "objects in 4 completed cells of 8" in capsys.readouterr().out
    numbers = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert numbers["plan"]["share"] == 0.5
    assert numbers["overall"]["total"]["interval"][0] < numbers["overall"]["total"]["value"]
    assert [row["name"] for row in numbers["classes"]] == ["a"]


def test_options_that_cannot_be_are_refused(capsys):
    with pytest.raises(OptionError, match="difference, ratio"):
        EstimateOptions(estimator="best")
    with pytest.raises(OptionError, match=r"name it with EstimateOptions\.zones"):
        EstimateOptions(zone_column="name")
    assert main(["estimate", "x.gpkg", "--target", "0%"]) == 2
    assert "--target is 0.0, expected 0.001 to 1" in capsys.readouterr().err
