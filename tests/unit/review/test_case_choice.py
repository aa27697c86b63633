"""Reasons for a person to look, of which the one with labels needs a file of them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.options import ReviewOptions
from geo_retina.review import review_detections
from geo_retina.review.case_choice import severities_by_reason
from geo_retina.review.detections import read_places
from tests.support.reviews import UTM, write_found

XY = np.array([(20.0 * i + 10, 20.0 * j + 10) for i in range(10) for j in range(10)])


@pytest.mark.parametrize("with_class", [False, True])
def test_labels_that_say_otherwise(tmp_path, with_class):
    """One is not found, one detection has none, and one has another class where labels tell any."""
    path = write_found(tmp_path / "found.gpkg", XY)
    points = [*shapely.points(np.delete(XY, 50, axis=0)), shapely.Point(100, 100)]
    names = ["a"] * len(points)
    names[7] = "b"
    columns = {"class": names} if with_class else {}
    labels = gpd.GeoDataFrame(columns, geometry=points, crs=UTM).to_crs("EPSG:4326")
    labels.to_file(tmp_path / "labels.gpkg", layer="trees")
    labels.to_file(tmp_path / "labels.gpkg", layer="others")
    asked = ReviewOptions(
        cells=0, labels=str(tmp_path / "labels.gpkg"), labels_layer="trees", budget=200
    )
    review_detections(path, asked)
    rows = gpd.read_file(path, layer="review").query("reason == 'disagrees'")
    wanted = {tuple(XY[50]), (100.0, 100.0), *([tuple(XY[7])] if with_class else [])}
    assert {tuple(np.round(p, 3)) for p in shapely.get_coordinates(rows.centroid)} == wanted
    missed = rows[rows.centroid.distance(shapely.Point(100, 100)) < 1]
    # A point becomes a polygon that can be reshaped.
    assert [*missed["class"], *missed["status"], *missed.geom_type] == ["a", "new", "Polygon"]


def test_a_size_is_odd_for_its_own_class(tmp_path):
    """Every second object is of a large class; one of each is as large as the other class is."""
    names = np.array(["a", "b"] * 50)
    half = np.where(names == "a", 1.0, 4.0) * np.random.default_rng(0).uniform(0.95, 1.05, 100)
    half[20], half[31] = 4.0, 1.0
    path = write_found(tmp_path / "found.gpkg", XY, name=names, half=half)
    odd = severities_by_reason(read_places(path, UTM)[0], None)["size"]
    assert np.flatnonzero(odd).tolist() == [20, 31]
