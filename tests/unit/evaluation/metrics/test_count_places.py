"""What counts, sizes, counts by part of the ground, confusion and kinds, worked by hand."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from support.layers import ORIGIN_XY, UTM, around, points, squares

from geo_retina.errors import LabelError, OptionError
from geo_retina.evaluation import FALSE, IGNORED, KINDS, TRUE, evaluate
from geo_retina.evaluation.inputs.ground_lengths import cell_corners, cell_keys, cells_between
from geo_retina.geodesy import square_metres
from geo_retina.options import EvaluateOptions


def numbers(scores):
    return scores.labels, scores.detections, scores.matches, scores.ignored


def kinds(side):
    return [KINDS[k] for k in side.kind]


# --- the border of the labelled ground ----------------------------------------------------

BORDER = [[-50, -50, 10, 50]]
"""Ground that ends at x = 10."""


@pytest.fixture
def ground(tmp_path):
    path = tmp_path / "ground.gpkg"
    squares(BORDER).to_file(path)
    return str(path)


@pytest.mark.parametrize("by", [{}, {"radius_m": 3.0}])
def test_a_label_within_may_be_found_from_without(ground, by):
    # The label's centre is at 9.5; the detection's at 10.5, and some of it is on the ground.
    labels, found = squares([[7.5, 0, 11.5, 4]]), squares([[8.5, 0, 12.5, 4]], score=[0.9])
    got = evaluate(found, labels, EvaluateOptions(ground=ground, **by))
    assert numbers(got.overall) == (1, 1, 1, 0)
    assert got.count_error.total == 0


@pytest.mark.parametrize("by", [{}, {"radius_m": 3.0}])
def test_a_label_beyond_the_border_need_not_be_found(ground, by):
    labels, found = squares([[8.5, 0, 12.5, 4]]), squares([[7.5, 0, 11.5, 4]], score=[0.9])
    options = EvaluateOptions(ground=ground, **by)
    got = evaluate(found, labels, options)
    # Its detection, though on the ground, is neither true nor false.
    assert numbers(got.overall) == (0, 0, 0, 1)
    assert got.ignored_labels == 1
    assert "do not count: 1 detections, 1 labels" in got.table()
    # Without a detection it is not missed.
    assert numbers(evaluate(found[:0], labels, options).overall) == (0, 0, 0, 0)


@pytest.mark.parametrize("by", [{}, {"radius_m": 3.0}])
def test_a_detection_beyond_the_border_is_not_false(ground, by):
    labels = squares([[0, 0, 4, 4]])
    found = squares([[0, 0, 4, 4], [8.5, 0, 12.5, 4], [30, 0, 34, 4]], score=[0.9, 0.8, 0.7])
    got = evaluate(found, labels, EvaluateOptions(ground=ground, **by))
    # The second reaches over the border; the third lies beyond and is no part of anything.
    assert numbers(got.overall) == (1, 1, 1, 1)
    assert got.matches.detections.outcome.tolist() == [TRUE, IGNORED]


# --- ground and labels to ignore ----------------------------------------------------------


@pytest.fixture
def ignore(tmp_path):
    path = tmp_path / "ignore.gpkg"
    squares([[100, 0, 110, 10]]).to_crs("EPSG:4326").to_file(path)
    return str(path)


def test_ignored_ground_by_overlap(ignore):
    labels = squares([[0, 0, 4, 4], [101, 1, 105, 5], [109, 0, 113, 4]])
    found = squares(
        [
            [0, 0, 4, 4],  # true
            [101, 1, 105, 5],  # on a label that does not count
            [104, 6, 108, 10],  # on ignored ground
            [98.2, 6, 102.2, 10],  # 0.55 of it there
            [97.8, 0, 101.8, 4],  # 0.45 of it there
            [109, 0, 113, 4],  # a quarter of it there, but on a label that counts
        ],
        score=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
    )
    got = evaluate(found, labels, EvaluateOptions(ignore=ignore))
    assert got.matches.labels.outcome.tolist() == [TRUE, IGNORED, TRUE]
    assert got.matches.detections.outcome.tolist() == [TRUE, IGNORED, IGNORED, IGNORED, FALSE, TRUE]
    assert numbers(got.overall) == (2, 3, 2, 3)
    # 1, 1/2, 2/3 by rank: precision 1 up to recall 0.5, then 2/3.
    assert got.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_ignored_ground_by_centre(ignore):
    labels = points([[0, 0], [101, 1], [112, 5]])
    found = around([[0, 0], [108, 8], [109, 5], [99, 1], [90, 1]], [0.9, 0.8, 0.7, 0.6, 0.5])
    got = evaluate(found, labels, EvaluateOptions(ignore=ignore, radius_m=4))
    # On the ground but near a label beyond: true. Beyond but near a label on it: no matter.
    assert got.matches.detections.outcome.tolist() == [TRUE, IGNORED, TRUE, IGNORED, FALSE]
    assert numbers(got.overall) == (2, 3, 2, 2)
    assert got.overall.curve.precision.tolist() == pytest.approx([1, 1, 2 / 3])


@pytest.mark.parametrize("by", [{}, {"radius_m": 3.0}])
def test_doubtful_labels_may_be_found(tmp_path, by):
    labels = squares([[0, 0, 4, 4], [20, 0, 24, 4], [40, 0, 44, 4]], sure=[1, 0, 0], kind=["a"] * 3)
    found = squares([[0, 0, 4, 4], [20, 0, 24, 4]], score=[0.9, 0.8], **{"class": ["a", "a"]})
    options = EvaluateOptions(ignore_where="sure = 0", class_column="kind", **by)
    path = tmp_path / "labels.gpkg"
    labels.to_file(path)
    for source in (labels, path):
        got = evaluate(found, source, options)
        assert numbers(got.overall) == (1, 1, 1, 1)
        assert got.ignored_labels == 2
    only = EvaluateOptions(ignore_where="sure = 0", where="sure = 0", **by)
    assert numbers(evaluate(found, labels, only).overall) == (0, 1, 0, 1)


# --- sizes --------------------------------------------------------------------------------


def test_sizes_in_metres_and_pixels():
    labels = squares([[0, 0, 10, 10], [50, 0, 54, 4], [100, 0, 104, 4], [150, 0, 180, 30]])
    found = squares(
        [[0, 0, 10, 10], [50, 0, 54, 4], [200, 0, 204, 4], [150, 0, 180, 29]],
        score=[0.9, 0.8, 0.7, 0.6],
        x_min_px=[0.0] * 4,
        y_min_px=[0.0] * 4,
        x_max_px=[20.0, 8, 8, 60],
        y_max_px=[20.0, 8, 8, 58],
    )
    got = evaluate(found, labels, EvaluateOptions(sizes_m=(5, 20), sizes_px=(9,)))
    assert got.gsd_m == pytest.approx(0.5, rel=1e-3)
    ranges = {(s.unit, s.low): numbers(s.overall) for s in got.sizes}
    assert ranges == {
        ("px", 0): (2, 2, 1, 2),
        ("px", 9): (2, 2, 2, 2),
        ("m", 0): (2, 2, 1, 2),
        ("m", 5): (1, 1, 1, 3),
        ("m", 20): (1, 1, 1, 3),
    }
    assert "under 9 px" in got.table()
    assert json.loads(json.dumps(got.to_dict()))["sizes"][-1]["high"] is None
    # A given resolution beats the columns: every label has less than 90 px now.
    coarse = evaluate(found, labels, EvaluateOptions(gsd_m=0.5, sizes_px=(90,), sizes_m=()))
    assert [s.overall.labels for s in coarse.sizes] == [4, 0]


def test_a_pixel_is_that_of_the_scene():
    labels = squares([[0, 0, 10, 10], [0, 0, 10, 10]], tile=["a", "b"])
    found = squares(
        [[0, 0, 10, 10], [0, 0, 10, 10]],
        scene=["a", "b"],
        score=[0.9, 0.8],
        x_min_px=[0.0, 0],
        y_min_px=[0.0, 0],
        x_max_px=[10.0, 100],
        y_max_px=[10.0, 100],
    )
    got = evaluate(found, labels, EvaluateOptions(scene_column="tile", sizes_px=(32,), sizes_m=()))
    assert [numbers(s.overall)[:3] for s in got.sizes] == [(1, 1, 1), (1, 1, 1)]


def test_thirds_of_the_labels_part_sizes_unless_given():
    sides = np.arange(1, 10)
    labels = squares([[20 * s, 0, 20 * s + s, s] for s in sides])
    got = evaluate(squares([], score=[]), labels)
    assert [s.unit for s in got.sizes] == ["m"] * 3  # no pixels are known
    assert [s.overall.labels for s in got.sizes] == [3, 3, 3]


def test_points_have_no_size():
    assert evaluate(around([[0, 0]], [0.5]), points([[0, 0]])).sizes == ()


def test_sizes_must_rise():
    with pytest.raises(OptionError, match="rising"):
        EvaluateOptions(sizes_m=(5, 5))


# --- confusion and kinds ------------------------------------------------------------------


def test_confusion_and_kinds():
    labels = squares(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]],
        kind=["car", "car", "boat", "boat", "car"],
    )
    found = squares(
        [
            [0, 0, 10, 10],  # true
            [1, 0, 11, 10],  # once more
            [20, 0, 30, 10],  # a car taken for a boat
            [45, 0, 55, 10],  # IoU 1/3 with a boat
            [200, 0, 210, 10],  # nothing there
            [60, 0, 70, 10],  # true
        ],
        score=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        **{"class": ["car", "car", "boat", "boat", "car", "boat"]},
    )
    got = evaluate(found, labels, EvaluateOptions(class_column="kind"))
    assert got.confusion.names == ("boat", "car")
    # boats: one found, one missed; cars: one found, one as a boat, one missed.
    assert got.confusion.matrix.tolist() == [[1, 0, 1], [1, 1, 1], [1, 2, 0]]
    table = got.matches
    assert kinds(table.detections) == ["", "duplicate", "class", "location", "background", ""]
    assert table.detections.other.tolist() == [0, 0, 1, 2, -1, 3]
    assert table.detections.value[:4] == pytest.approx([1, 9 / 11, 1, 1 / 3], rel=1e-6)
    assert kinds(table.labels) == ["", "class", "location", "", "background"]
    assert table.labels.other.tolist() == [0, 2, 3, 5, -1]
    assert table.labels.score[[0, 3]].tolist() == [0.9, 0.4]
    assert np.isnan(table.labels.score[[1, 2, 4]]).all()


def test_one_detection_over_two_labels_by_centre():
    labels, found = points([[0, 0], [3, 0]]), around([[1, 0], [30, 0]], [0.9, 0.8])
    got = evaluate(found, labels)
    assert kinds(got.matches.detections) == ["", "background"]
    assert kinds(got.matches.labels) == ["", "duplicate"]
    assert got.matches.value_name == "distance_m"
    assert got.matches.labels.value == pytest.approx([1, 2], rel=1e-3)
    assert got.confusion is None


def test_the_match_table_leaves_out_what_is_below_the_threshold():
    labels = squares([[0, 0, 4, 4], [20, 0, 24, 4]])
    found = squares([[20, 0, 24, 4], [9, 9, 10, 10], [0, 0, 4, 4]], score=[0.9, 0.1, 0.5])
    got = evaluate(found, labels, EvaluateOptions(score=0.3))
    frame = got.matches.detections_frame()
    assert frame["row"].tolist() == [0, 2]
    assert frame["other"].tolist() == [1, 0]
    assert got.matches.labels.other.tolist() == [1, 0]
    assert frame.crs == UTM
    assert frame["outcome"].tolist() == ["true_positive"] * 2
    assert len(got.matches.detections_frame(FALSE)) == 0
    assert got.matches.labels_frame(TRUE)["outcome"].tolist() == ["found"] * 2
    assert frame["iou"].tolist() == pytest.approx([1, 1])


def test_scores_by_scene():
    labels = squares([[0, 0, 4, 4], [0, 0, 4, 4], [9, 0, 12, 4]], tile=["a", "b", "b"])
    found = squares([[0, 0, 4, 4], [0, 0, 4, 4]], score=[0.9, 0.8], scene=["b", "c"])
    got = evaluate(found, labels, EvaluateOptions(scene_column="tile"))
    assert {name: numbers(s)[:3] for name, s in got.scenes.items()} == {
        "a": (1, 0, 0),
        "b": (2, 1, 1),
        "c": (0, 1, 0),
    }
    assert got.scenes["b"].ap50 == pytest.approx(51 / 101)
    assert got.scenes["c"].ap50 is None


# --- curves -------------------------------------------------------------------------------


def test_the_curve_by_hand():
    labels = squares([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    found = squares(
        [[0, 0, 10, 10], [90, 0, 99, 9], [20, 0, 30, 10], [80, 0, 89, 9]],
        score=[0.9, 0.8, 0.8, 0.1],
    )
    got = evaluate(found, labels, EvaluateOptions(score=0.85)).overall.curve
    assert got.scores.tolist() == [0.9, 0.8, 0.1]
    assert got.precision.tolist() == pytest.approx([1, 2 / 3, 2 / 4])
    assert got.recall.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert got.f1.tolist() == pytest.approx([2 / 4, 4 / 6, 4 / 7])


def test_a_long_curve_is_thinned_and_keeps_the_best():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 3000, (2000, 2))
    found = around(xy, rng.permutation(2000) / 2000)
    got = evaluate(found, points(xy[:700] + 0.5), EvaluateOptions(radius_m=2))
    curve = got.overall.curve
    assert 150 < len(curve) <= 201
    assert (np.diff(curve.scores) < 0).all()
    assert curve.f1.max() == got.overall.best_f1
    assert curve.scores[curve.f1.argmax()] == got.overall.best_score
    assert curve.scores[[0, -1]].tolist() == [1999 / 2000, 0]


# --- counts -------------------------------------------------------------------------------


def middles(side_m, columns):
    """Positions in the middle of some cells that lie in a row, in metres from the origin."""
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    key = cell_keys(np.array([to_degrees.transform(*ORIGIN_XY)]), side_m)
    box = cell_corners(key + np.array(columns), side_m)
    lon, lat = ((box[:, :2] + box[:, 2:]) / 2).T
    return np.column_stack(to_degrees.transform(lon, lat, direction="INVERSE")) - ORIGIN_XY


def test_counts_by_cell():
    places = middles(100, [1, 1, 2, 3, 3])
    near = middles(100, [1, 3, 3, 3, 5])
    labels, found = points(places), around(near + [[1, 0]] * 5, [0.9, 0.8, 0.7, 0.6, 0.5])
    got = evaluate(found, labels, EvaluateOptions(cell_m=100)).counts["cell"]
    assert (got.there.tolist(), got.found.tolist()) == ([2, 1, 2, 0], [1, 0, 3, 1])
    assert (got.bias, got.mae, got.rmse) == (0, 1, 1)
    # Deviations of 2, 1, 2, 0 from 1.25 in square: 2.75.
    assert got.r2 == pytest.approx(1 - 4 / 2.75)
    west, south = map(float, got.names[0].split())
    assert cell_keys(np.array([[west + 1e-5, south + 1e-5]]), 100) == cell_keys(
        np.array([to_lon_lat(places[0])]), 100
    )


def to_lon_lat(place):
    move = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    return move.transform(*(place + ORIGIN_XY))


def test_empty_cells_count_where_the_ground_is_known(tmp_path):
    path = tmp_path / "ground.gpkg"
    squares([[0, 0, 1000, 1000]]).to_file(path)
    labels, found = points([[500, 500]]), around([[500, 500]], [0.9])
    options = EvaluateOptions(cell_m=100, ground=str(path))
    assert 95 <= len(evaluate(found, labels, options).counts["cell"]) <= 105
    assert len(evaluate(found, labels, EvaluateOptions(cell_m=100)).counts["cell"]) == 1
    with pytest.raises(LabelError, match="give a longer side with EvaluateOptions"):
        evaluate(found, labels, EvaluateOptions(cell_m=0.1, ground=str(path)))


def test_counts_by_zone(tmp_path):
    path = tmp_path / "zones.gpkg"
    east = ORIGIN_XY[0] + 200
    zones = squares([[0, 0, 100, 100], [50, 0, 150, 100]])
    # The third is in two parts, and one zone nevertheless.
    parts = [shapely.box(x, ORIGIN_XY[1], x + 10, ORIGIN_XY[1] + 10) for x in (east, east + 20)]
    two = shapely.MultiPolygon(parts)
    frame = gpd.GeoDataFrame(
        {"name": ["west", "middle", "two"]}, geometry=[*zones.geometry, two], crs=UTM
    )
    frame.to_crs("EPSG:4326").to_file(path)
    labels = points([[10, 10], [70, 50], [205, 5], [225, 5], [215, 5], [900, 900]])
    found = around([[10, 10], [60, 10], [120, 10], [225, 5]], [0.9, 0.8, 0.7, 0.6])
    got = evaluate(found, labels, EvaluateOptions(zones=str(path))).counts["zone"]
    assert got.names.tolist() == ["west", "middle", "two"]
    assert (got.there.tolist(), got.found.tolist()) == ([2, 1, 2], [2, 2, 1])
    assert (got.bias, got.mae) == (0, 2 / 3)
    points([[0, 0]]).to_file(tmp_path / "points.gpkg")
    with pytest.raises(LabelError, match="something else than polygons"):
        evaluate(found, labels, EvaluateOptions(zones=str(tmp_path / "points.gpkg")))


# --- measures -----------------------------------------------------------------------------


@pytest.mark.parametrize("lat", [-89.0, -60.0, 0.0, 38.0, 71.5])
@pytest.mark.parametrize("side_m", [5.0, 1000.0])
def test_cells_are_square_on_the_ground(lat, side_m):
    rng = np.random.default_rng(0)
    lon_lat = np.column_stack([rng.uniform(-180, 180, 50), lat + rng.uniform(-0.2, 0.2, 50)])
    keys = cell_keys(lon_lat, side_m)
    box = cell_corners(keys, side_m)
    assert (box[:, :2] <= lon_lat + 1e-12).all()
    assert (lon_lat <= box[:, 2:] + 1e-12).all()
    middle = (box[:, :2] + box[:, 2:]) / 2
    assert (cell_keys(middle, side_m) == keys).all()
    geod = pyproj.Geod(ellps="WGS84")
    _, _, wide = geod.inv(box[:, 0], middle[:, 1], box[:, 2], middle[:, 1])
    _, _, high = geod.inv(middle[:, 0], box[:, 1], middle[:, 0], box[:, 3])
    assert wide == pytest.approx(side_m, rel=0.02 if abs(lat) < 80 else 0.1)
    assert high == pytest.approx(side_m, rel=0.02)


def test_all_cells_of_a_range_are_listed():
    rng = np.random.default_rng(1)
    lon_lat = rng.uniform([12.0, 47.0], [12.02, 47.02], (5000, 2))
    assert set(cell_keys(lon_lat, 300)) <= set(
        cells_between(np.array([12.0, 47.0, 12.02, 47.02]), 300)
    )
    assert cell_keys(np.array([[np.nan, 0.0]]), 300) == -1


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:2263"])
def test_areas_are_those_on_the_ellipsoid(crs):
    lon, lat = (-74.0, 40.7) if crs == "EPSG:2263" else (15.0, 60.0)
    to_crs = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    degrees = shapely.box(lon, lat, lon + 2e-4, lat + 1e-4)
    ring = np.array(to_crs.transform(*shapely.get_coordinates(degrees).T)).T
    polygon = shapely.Polygon(ring)
    want, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(degrees)
    centre = shapely.get_coordinates(polygon.centroid)
    got = polygon.area * square_metres(centre, pyproj.CRS(crs))
    assert got == pytest.approx(want, rel=1e-4)
