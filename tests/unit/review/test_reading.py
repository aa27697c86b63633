"""What a person entered comes back as values, and cells that were completed as samples."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
import shapely

from geo_retina.errors import LabelError
from geo_retina.review import NO_CELL, read_review, samples_of
from geo_retina.vector.review_layers import to_blobs
from tests.support.reviews import edit, square, write_review


@pytest.fixture
def path(tmp_path):
    return tmp_path / "found.gpkg"


def test_a_sample_is_the_run_of_done_cells_from_the_start(path):
    cells = [
        *((0, "count", 1, "done"), (0, "count", 0, "done"), (0, "count", 2, "new")),
        *((0, "count", 3, "done"), (0, "learn", 0, "done"), (0, "learn", 1, None)),
        *((1, "count", 0, "new"), (1, "learn", 0, None)),
    ]
    write_review(path, cells, [])
    review = read_review(path)
    first, second = samples_of(review)
    assert (first.stratum, first.cells.tolist(), first.population) == (0, [1, 0], 6)
    assert first.not_counted == 1
    assert (second.stratum, len(second), second.population) == (1, 0, 2)
    assert samples_of(review, "learn")[0].cells.tolist() == [4]
    assert review.is_drawn.tolist() == [True] * 5 + [False, True, False]
    assert review.crs.to_epsg() == 32633


def test_counts_of_a_cell(path):
    cases = [
        {"status": "new", "x": 2},
        {"status": "accepted", "x": 3},
        {"status": "changed", "x": 4, "name": "b"},
        {"status": "rejected", "x": 5},
        {"status": "added", "x": 6, "found": None},
        {"status": "accepted", "x": 12},
        {"status": "accepted", "x": 99},
    ]
    write_review(path, [(0, "count", 0, "done"), (0, "count", 1, "done")], cases, [("b", 7)])
    review = read_review(path)
    (sample,) = samples_of(review)
    assert sample.classes == ("a", "b")
    assert sample.found.tolist() == [[4, 1], [1, 0]]
    assert sample.true.tolist() == [[3, 1], [1, 0]]
    assert sample.hits.tolist() == [[2, 0], [1, 0]]
    assert sample.missed.tolist() == [[1, 1], [0, 0]]
    assert review.cases.cell.tolist() == [0, 0, 0, 0, 0, 1, NO_CELL, 0]
    assert review.cases.status[-1] == "rejected"
    assert review.cases.found_name[4] is None


def test_what_counts_as_an_entry(path):
    cases = [
        {"status": "new", "x": 1},
        {"status": "new", "x": 2, "note": "shade"},
        {"status": "new", "x": 3, "weight": 2.0},
        {"status": "new", "x": 4, "name": "b"},
        {"status": "accepted", "x": 5},
        {"status": "new", "x": 6},
    ]
    write_review(path, [(0, "count", 0, "new")], cases)
    moved = "(SELECT geom FROM review WHERE fid = 1)"
    edit(path, f"UPDATE review SET geom = {moved} WHERE fid = 6")
    assert read_review(path).cases.is_touched.tolist() == [False, *[True] * 5]


def test_an_object_belongs_to_the_cell_that_holds_its_centre(path):
    write_review(path, [(0, "count", 0, "new"), (0, "count", 1, "new")], [])
    points = np.array([[0, 0], [10, 5], [9.999, 9.999], [20, 5], [5, 10], [-0.1, 5], [np.nan, 1]])
    found = read_review(path).frame.cell_at(points)
    assert found.tolist() == [0, 1, 0, NO_CELL, NO_CELL, NO_CELL, NO_CELL]


def test_rows_that_a_gis_made(path):
    """A split leaves two rows of one number; a pasted row has no status; a polygon may be gone."""
    cases = [{"status": "accepted", "x": 2}, {"status": "accepted", "x": 3}]
    write_review(path, [(0, "count", 0, "done")], cases)
    edit(
        path,
        "INSERT INTO review (geom, status, class, case_id) "
        "SELECT geom, status, class, case_id FROM review WHERE fid = 1",
        "INSERT INTO review (geom, status, class) SELECT geom, NULL, class FROM review "
        "WHERE fid = 1",
        "UPDATE review SET geom = NULL WHERE fid = 2",
    )
    review = read_review(path)
    assert review.cases.status.tolist() == ["accepted", "accepted", "accepted", "added"]
    assert review.cases.case_id.tolist() == [0, 1, -1, -1]
    assert review.cases.cell.tolist() == [0, 0, 0, 0]
    (sample,) = samples_of(review)
    assert (sample.true.item(), sample.found.item(), sample.missed.item()) == (4, 2, 2)


def _blob(geometry):
    (blob,) = to_blobs(np.array([geometry], dtype=object), 32633)
    return f"x'{blob.hex()}'"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE review SET status = 'maybe'", "row 1 of status 'maybe' .* expected new, accepted"),
        ("UPDATE review SET class = NULL", "row 1 without a class"),
        ("UPDATE review SET class = ' '", "row 1 without a class"),
        ("UPDATE review SET class = 'A '", "1 object of class 'A ' .* expected 'a'"),
        ("UPDATE review SET weight = 'high'", "row 1 of weight 'high' .* expected a number"),
        ("UPDATE review SET weight = -1", "row 1 of weight -1"),
        ("ALTER TABLE review DROP COLUMN note", "no column note in its layer review"),
        ("INSERT INTO review (status, class) VALUES ('added', 'a')", "row 2 without a geometry"),
        (f"INSERT INTO review (geom, class) VALUES ({_blob(shapely.Polygon())}, 'a')", "row 2 w"),
        ("UPDATE cells SET status = 'half'", "cell 0 of status 'half' .* expected new or done"),
        ("UPDATE cells SET cell = 9", "was not drawn"),
        (
            "DROP TABLE review_frame; DELETE FROM gpkg_contents WHERE table_name = 'review_frame'",
            "without review_frame, which only geo-retina",
        ),
        ("UPDATE review_design SET value = '99' WHERE name = 'format'", "format 99"),
        ("DELETE FROM review_design WHERE name = 'width'", "cannot be read"),
        ("UPDATE review SET geom = x'00'", "cannot be read"),
    ],
)
def test_entries_without_a_meaning_are_refused(path, statement, words):
    write_review(path, [(0, "count", 0, "new")], [{"status": "new", "x": 1}])
    edit(path, *statement.split(";"))
    with pytest.raises(LabelError, match=words):
        read_review(path)


def test_a_file_that_was_written_in_another_crs_is_refused(path):
    """Its cells keep their numbers, and lie elsewhere; so do cells that a hand has moved."""
    write_review(path, [(0, "count", 0, "done"), (0, "count", 1, "done")], [])
    edit(path, f"UPDATE cells SET geom = {_blob(square(5, 5, 5))} WHERE cell = 0")
    assert read_review(path).is_done.all()
    edit(path, f"UPDATE cells SET geom = {_blob(square(9.0, 45.0, 1e-5))} WHERE cell = 1")
    with pytest.raises(LabelError, match=r"has cell 1 elsewhere than where .* in another CRS"):
        read_review(path)
    edit(path, f"UPDATE cells SET geom = {_blob(square(5, 5, 5))} WHERE cell = 1")
    with pytest.raises(LabelError, match="has cell 1 elsewhere"):
        read_review(path)


def test_a_row_whose_polygon_was_deleted_keeps_the_shape_that_was_found(path):
    write_review(path, [(0, "count", 0, "new")], [{"status": "accepted", "x": 2}])
    for geometry in ("NULL", _blob(shapely.Polygon())):
        edit(path, f"UPDATE review SET geom = {geometry}")
        assert read_review(path).cases.geometry[0].equals(square(2, 5))


def test_objects_that_lie_in_no_cell_are_told_of(path):
    cases = [{"status": "added", "x": 4, "found": None}, {"status": "accepted", "x": 99}]
    write_review(path, [(0, "count", 0, "new")], cases)
    assert read_review(path).notes == ()
    edit(path, f"UPDATE review SET geom = {_blob(square(9.0, 450.0))} WHERE fid = 1")
    assert "1 of the objects that were added lie in no cell" in read_review(path).notes[0]


def test_a_layer_that_is_no_geopackage_is_not_called_damaged(tmp_path):
    (tmp_path / "review.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(LabelError, match="cannot hold a review, expected a GeoPackage"):
        read_review(tmp_path / "review.geojson")


def test_a_cell_without_a_status_is_new(path):
    write_review(path, [(0, "count", 0, "new")], [{"status": "new", "x": 1}])
    edit(path, "UPDATE cells SET status = NULL")
    assert read_review(path).is_done.tolist() == [False]


def test_a_locked_file_is_not_called_damaged(path):
    write_review(path, [(0, "count", 0, "new")], [{"status": "new", "x": 1}])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LabelError, match="in use by another program") as caught:
            read_review(path)
        other.execute("ROLLBACK")
    assert "damaged" not in str(caught.value)


def test_lengths_hold_where_no_cell_is_full(path):
    """Cells wider than the ground are smaller in area than their squares."""
    write_review(path, [(0, "count", 0, "new")], [{"status": "new", "x": 1}])
    edit(path, "UPDATE review_frame SET area_m2 = area_m2 / 4")
    assert read_review(path).units_a_metre == pytest.approx(1.0, rel=5e-3)
