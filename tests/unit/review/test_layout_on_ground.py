"""Cells, zones and distances on the ground: laid out until drawn, and even in degrees."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely

from geo_retina.errors import LabelError
from geo_retina.estimation import estimate
from geo_retina.options import EstimateOptions, ReviewOptions
from geo_retina.review import read_review, review_detections
from tests.support.reviews import UTM, edit, rows_of, scattered, write_found, write_found_in_degrees


@pytest.fixture
def found(tmp_path):
    scores = np.random.default_rng(1).uniform(0.2, 1.0, 600)
    return write_found(tmp_path / "found.gpkg", scattered(600), score=scores)


def test_zones_that_hold_no_cell_are_told(found, tmp_path):
    path = tmp_path / "zones.gpkg"
    here, far = shapely.box(0, 0, 80, 200), shapely.box(5000, 0, 6000, 200)

    def look(names, shapes):
        gpd.GeoDataFrame({"name": names}, geometry=shapes, crs=UTM).to_file(path)
        options = ReviewOptions(cells=48, zones=str(path), zone_column="name", cell_size_m=10.0)
        return review_detections(found, options)

    with pytest.raises(LabelError, match="no zone that holds the middle of a cell"):
        look(["a", "b"], [far, shapely.affinity.translate(far, 2000)])
    with pytest.raises(LabelError, match="1 zones without a name in the column name"):
        look(["a", None], [here, far])
    (note,) = look(["a", "b"], [here, far]).notes
    assert "1 of 2 zones hold the middle of no cell, such as b" in note


def test_cells_are_laid_out_anew_until_some_are_drawn(found, tmp_path):
    """A queue alone binds no later choice of strata and zones."""
    alone = review_detections(found, ReviewOptions(budget=20, cells=0))
    assert (alone.cases_added, alone.cells_added) == (20, 0)
    edit(found, "UPDATE review SET status = 'rejected' WHERE fid < 6")
    rows = rows_of(found)
    zones = tmp_path / "zones.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 80, 200)], crs=UTM).to_file(zones)
    options = ReviewOptions(budget=20, cells=40, cell_size_m=10.0, zones=str(zones))
    report = review_detections(found, options)
    assert (report.notes, report.cells_added, report.entries) == ((), 40, 5)
    assert rows_of(found)[:20] == rows
    frame = read_review(found).frame
    assert (len(frame), set(frame.zone)) == (400, {"1", None})
    assert len(np.unique(frame.stratum)) > 2
    (note, *_) = review_detections(found, ReviewOptions(cells=40, strata=2)).notes
    assert "strata 5, which holds" in note


def test_cases_in_degrees_keep_as_far_apart_east_and_west(tmp_path):
    path = write_found_in_degrees(tmp_path / "f.gpkg")
    review_detections(path, ReviewOptions(cell_size_m=50.0, cells=20))
    rows = gpd.read_file(path, layer="review").query("reason != 'cell'")
    tree = shapely.STRtree(rows.geometry.to_crs("EPSG:32632").centroid.to_numpy())
    _, apart = tree.query_nearest(tree.geometries, exclusive=True, return_distance=True)
    side_m = 2e-5 * np.sqrt(111_400 * 55_800)
    assert apart.min() >= 2 * side_m * 0.98


@pytest.mark.parametrize("off", [(1.0, 0.0), (0.0, 1.0)], ids=["east", "north"])
def test_distances_in_degrees_are_the_same_on_every_side(tmp_path, off):
    """At 62 degrees south a degree of longitude is less than half of one of latitude."""
    crs = pyproj.CRS(4326)
    metre = np.array([1 / 52_400, 1 / 111_400])
    xy = np.array([-58.0, -62.0]) + scattered(60, high=390.0) * metre
    ground = shapely.box(-58.0, -62.0, *(np.array([-58.0, -62.0]) + 400 * metre))
    path = write_found(tmp_path / "f.gpkg", xy, half=1e-5, ground=ground, crs=crs)
    review_detections(path, ReviewOptions(cells=400, cell_size_m=20.0, learn_share=0.0))
    recalls = []
    for i, metres in enumerate((1.6, 2.4)):
        labels = tmp_path / f"labels{i}.gpkg"
        points = shapely.points(xy + metres * np.array(off) * metre)
        gpd.GeoDataFrame(geometry=points, crs=crs).to_file(labels)
        options = EstimateOptions(labels=str(labels), radius_m=2.0)
        recalls.append(estimate(path, options).overall.recall.value)
    assert recalls[0] == 1.0
    assert recalls[1] < 0.1
