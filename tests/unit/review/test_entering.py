"""Labels play the person: rows are decided, what is missed is added, cells are done."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.errors import LabelError
from geo_retina.estimation import estimate
from geo_retina.options import EstimateOptions, ReviewOptions
from geo_retina.review import enter_labels, read_review, review_detections, samples_of
from tests.support.reviews import edit, rows_of, scattered, write_found

TRUTH = scattered(400, seed=1)


@pytest.fixture
def known(tmp_path):
    """A file of labels, in another CRS than the review's."""

    def write(xy, **columns):
        table = gpd.GeoDataFrame(columns, geometry=shapely.points(xy), crs="EPSG:32633")
        table.to_crs("EPSG:4326").to_file(tmp_path / "labels.gpkg")
        return tmp_path / "labels.gpkg"

    return write


@pytest.fixture
def found(tmp_path):
    """Three objects of four are found, below the threshold some of them; a tenth is false."""
    xy = np.concatenate([TRUTH[:300] + 0.2, scattered(40, seed=9)])
    score = np.where(np.arange(len(xy)) % 10 == 3, 0.45, 0.9)
    path = write_found(tmp_path / "found.gpkg", xy, score=score, name=["a"] * len(xy))
    review_detections(path, ReviewOptions(budget=60, cells=60, cell_size_m=10.0))
    return path


def test_every_cell_holds_what_is_there(found, known):
    report = enter_labels(found, known(TRUTH), radius_m=1.0, cases=25)
    review = read_review(found)
    assert report.cells == review.is_done.sum() == 60
    # Objects of cells are right detections in them, and labels in them that were not found.
    reported = gpd.read_file(found, layer="detections").query("score >= 0.5")
    at = shapely.get_coordinates(reported.geometry.centroid)
    near = np.linalg.norm(at[:, None] - TRUTH[None], axis=-1)
    right, seen = (near.min(axis=1) < 0.5), (near.min(axis=0) < 0.5)
    there = np.concatenate([at[right], TRUTH[~seen]])
    assert len(there) == pytest.approx(400, abs=2)
    wanted = np.bincount(review.frame.cell_at(there), minlength=len(review.frame))
    for use in ("count", "learn"):
        for sample in samples_of(review, use):
            assert sample.true.sum(axis=1).tolist() == wanted[sample.cells].tolist()
    status = review.cases.status
    assert report.accepted == (status == "accepted").sum()
    assert report.rejected == (status == "rejected").sum() > 0
    assert report.added == (status == "added").sum() > 0
    # 25 of the queue's 60 cases were decided, the first ones.
    others = "(SELECT priority, status FROM review WHERE reason <> 'cell')"
    decided = [state for _, state in rows_of(found, others)]
    assert len(decided) == 60
    assert "new" not in decided[:25]
    assert set(decided[25:]) == {"new"}
    total = estimate(found, EstimateOptions()).overall.total
    assert total.interval[0] < 400 < total.interval[1]


def test_entries_of_a_person_stay(found, known):
    edit(found, "UPDATE review SET note = 'look again' WHERE case_id = 3")
    edit(found, "UPDATE review SET status = 'rejected' WHERE case_id = 4")
    enter_labels(found, known(TRUTH), radius_m=1.0)
    kept = dict(rows_of(found, "review", "case_id, status"))
    assert (kept[3], kept[4]) == ("new", "rejected")
    once = rows_of(found)
    report = enter_labels(found, known(TRUTH), radius_m=1.0)
    assert (report.accepted, report.added, report.cells) == (0, 0, 0)
    assert rows_of(found) == once


def test_a_class_that_the_labels_know_better_is_changed(tmp_path, known):
    xy = scattered(100)
    path = write_found(tmp_path / "found.gpkg", xy, name=["a"] * 100)
    review_detections(path, ReviewOptions(budget=0, cells=500, cell_size_m=10.0))
    kinds = np.where(np.arange(100) < 30, "b", "a")
    report = enter_labels(path, known(xy, kind=kinds), class_column="kind")
    assert (report.accepted, report.changed, report.rejected, report.added) == (70, 30, 0, 0)
    assert sorted(read_review(path).cases.name) == sorted(kinds)
    with pytest.raises(LabelError, match="sort"):
        enter_labels(path, known(xy), class_column="sort")
