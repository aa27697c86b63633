"""Oriented detections against labels: polygon IoU by shapely, and errors worked by hand."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.boxes import oriented
from geo_retina.evaluation import compare, evaluate
from geo_retina.evaluation.metrics import rectangle_errors
from geo_retina.nn import rotated_coding
from geo_retina.options import EvaluateOptions

UTM = "EPSG:32632"
PLAIN = EvaluateOptions(resamples=0)


def _frame(rotated, crs=UTM, **columns):
    """Lay rectangles out in metres, y up, around a place in the zone's middle."""
    corners = oriented.corners(np.asarray(rotated, np.float64)) * [1, -1]
    shapes = shapely.polygons(corners + np.array([500_000, 5_300_000]))
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=UTM).to_crs(crs)


def _detections(rotated, scores=None, crs=UTM, **columns):
    rotated = np.asarray(rotated, np.float64)
    scores = np.linspace(0.9, 0.1, len(rotated)) if scores is None else scores
    return _frame(rotated, crs, score=scores, azimuth_deg=(90 + rotated[:, 4]) % 180, **columns)


def _case(seed, count=40):
    rng = np.random.default_rng(seed)
    truth = np.column_stack(
        [
            rng.uniform(0, 300, (count, 2)),
            rng.uniform(12, 30, count),
            rng.uniform(4, 8, count),
            rng.uniform(-90, 90, count),
        ]
    )
    noise = rng.normal(0, 1, (count, 5)) * [0.6, 0.6, 1.5, 0.5, 4]
    found = oriented.normalise(truth + noise)
    extra = found[:10] + np.array([200, 0, 0, 0, 0])
    return truth, np.concatenate([found, extra]), rng.permutation(count + 10) / (count + 10)


def _oracle_ap(found, scores, truth, least):
    """Average precision at one IoU, by shapely and loops alone."""
    shapes = [shapely.Polygon(c) for c in oriented.corners(truth)]
    free, hits = set(range(len(truth))), []
    for i in np.argsort(-scores, kind="stable"):
        one = shapely.Polygon(oriented.corners(found[i : i + 1])[0])
        ious = {
            j: one.intersection(shapes[j]).area / one.union(shapes[j]).area for j in sorted(free)
        }
        best = max(ious, key=lambda j: (ious[j], j), default=None)
        if best is not None and ious[best] >= least:
            free.remove(best)
        hits.append(best is not None and ious[best] >= least)
    hits = np.array(hits)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    recall = np.cumsum(hits) / len(truth)
    return np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_average_precision_is_by_the_overlap_of_polygons(seed, crs):
    truth, found, scores = _case(seed)
    got = evaluate(_detections(found, scores, crs), _frame(truth, kind=["a"] * len(truth)), PLAIN)
    for value, least in ((got.ap50, 0.5), (got.ap75, 0.75)):
        assert value == pytest.approx(_oracle_ap(found, scores, truth, least), abs=1e-6)
    assert 0.05 < got.ap75 < got.ap50 < 1
    every = [_oracle_ap(found, scores, truth, i) for i in np.linspace(0.5, 0.95, 10)]
    assert got.ap == pytest.approx(np.mean(every), abs=1e-6)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857", "EPSG:2154"])
def test_errors_of_matched_rectangles_are_those_that_were_made(crs):
    truth = np.array([[50.0 * i, 0, 20, 6, -80 + 37 * i] for i in range(5)])
    # 89 and -89 degrees are two degrees apart.
    off = np.array([1.0, -2.0, 3.0, -4.0, 9.0])
    found = oriented.normalise(
        truth + np.column_stack([np.zeros((5, 2)), np.full(5, 1.5), np.full(5, -0.5), off])
    )
    got = evaluate(_detections(found, crs=crs), _frame(truth), PLAIN).overall
    assert got.matches == 5
    assert got.angle_error_deg == pytest.approx(3.0, abs=0.02)
    assert got.angle_error_95_deg == pytest.approx(np.percentile([1, 2, 3, 4, 9], 95), abs=0.03)
    # A metre of the map is 0.9996 m to 1.0004 m on the ground.
    assert got.length_error_m == pytest.approx(1.5, abs=0.02)
    assert got.width_error_m == pytest.approx(0.5, abs=0.01)
    assert got.to_dict()["angle_error_deg"] == got.angle_error_deg


def test_the_direction_of_a_square_means_nothing():
    assert rectangle_errors.NEAR_SQUARE == rotated_coding.NEAR_SQUARE
    squares = np.array([[50.0 * i, 0, 10, 9.5, 20.0] for i in range(3)])
    turned = oriented.normalise(squares + np.array([0, 0, 0, 0, 40]))
    got = evaluate(_detections(turned), _frame(squares), PLAIN).overall
    assert got.matches == 3
    assert got.angle_error_deg is None
    assert got.length_error_m == pytest.approx(0, abs=1e-2)
    assert "angle_error_deg" not in got.to_dict()


def test_labels_of_any_shape_count_as_they_are_or_as_their_rectangle():
    rectangle = np.array([[0.0, 0, 20, 8, 30]])
    ell = shapely.union(shapely.box(-10, -4, 10, -1), shapely.box(-10, -4, -5, 4))
    ell = shapely.affinity.rotate(ell, -30, origin=(0, 0))  # y is up on the map
    ell = shapely.affinity.translate(ell, 500_000, 5_300_000)
    labels = gpd.GeoDataFrame(geometry=[ell], crs=UTM)
    found = _detections(rectangle)
    plain = evaluate(found, labels, EvaluateOptions(resamples=0, iou=0.3))
    assert plain.matches.detections.value[0] == pytest.approx(ell.area / 160, rel=1e-6)
    around = evaluate(found, labels, EvaluateOptions(resamples=0, rectangles=True))
    assert around.matches.detections.value[0] == pytest.approx(1, abs=1e-3)
    geodetic = evaluate(found.to_crs(4326), labels, EvaluateOptions(resamples=0, rectangles=True))
    assert geodetic.matches.detections.value[0] == pytest.approx(1, abs=1e-3)


def test_upright_detections_have_no_errors_of_angle_and_the_numbers_that_they_had():
    truth, found, scores = _case(3)
    flat = found * [1, 1, 1, 1, 0]
    labels = _frame(truth * [1, 1, 1, 1, 0])
    upright = evaluate(_detections(flat, scores).drop(columns="azimuth_deg"), labels, PLAIN)
    marked = evaluate(_detections(flat, scores), labels, PLAIN)
    assert upright.overall.angle_error_deg is None
    assert not [name for name in upright.to_dict()["overall"] if "angle" in name]
    assert marked.overall.angle_error_deg == pytest.approx(0, abs=1e-6)
    for name, value in upright.overall.numbers().items():
        assert marked.overall.numbers()[name] == value
    assert "angle" not in upright.table()
    assert "angle err" in marked.table()


def test_comparisons_and_empty_detections_know_errors_of_rectangles():
    truth, found, scores = _case(5)
    labels = _frame(truth)
    better = _detections(truth, scores[: len(truth)])
    result = compare(_detections(found, scores), better, labels, PLAIN)
    assert result.overall["angle_error_deg"].difference < -1
    assert "angle error" in result.table()
    nothing = evaluate(_detections(found, scores).iloc[:0], labels, PLAIN)
    assert nothing.overall.angle_error_deg is None
    assert nothing.ap50 == 0


@pytest.mark.parametrize("ignore_where", [None, "doubtful = 1"])
def test_points_with_sides_and_azimuth_are_labels_too(tmp_path, ignore_where):
    truth, found, scores = _case(2)
    polygons = _frame(truth)
    points = gpd.GeoDataFrame(
        {
            "l": truth[:, 2] / 0.9996,  # the zone's scale in its middle
            "w": truth[:, 3] / 0.9996,
            "az": (90 + truth[:, 4]) % 180,
            "doubtful": 0,
        },
        geometry=polygons.geometry.centroid,
        crs=UTM,
    )
    points.loc[0, "doubtful"] = 1
    points.to_file(tmp_path / "p.gpkg")
    columns = {"length_column": "l", "width_column": "w", "azimuth_column": "az"}
    options = EvaluateOptions(resamples=0, ignore_where=ignore_where, **columns)
    got = evaluate(_detections(found, scores), tmp_path / "p.gpkg", options)
    same = evaluate(_detections(found, scores), points, options)
    assert got.ap75 == same.ap75
    if ignore_where is None:
        want = evaluate(_detections(found, scores), polygons, PLAIN)
        assert got.ap50 == pytest.approx(want.ap50, abs=1e-6)
        assert got.overall.angle_error_deg == pytest.approx(want.overall.angle_error_deg, abs=1e-3)
    else:
        assert got.ignored_labels == 1
