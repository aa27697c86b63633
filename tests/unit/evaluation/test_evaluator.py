"""Scores against pycocotools and cases worked by hand."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from support.coco import averages, coco_precision
from support.layers import UTM, around, points, squares

from geo_retina.errors import LabelError
from geo_retina.evaluation import evaluate
from geo_retina.options import EvaluateOptions
from geo_retina.vector import write_vector

# --- polygons against pycocotools ---------------------------------------------------------


def random_case(seed, *, images, classes, objects):
    rng = np.random.default_rng(seed)

    def box(spread):
        low = rng.integers(0, spread, 2)
        return np.concatenate([low, low + rng.integers(4, 24, 2)]).astype(float)

    truth = [
        (box(120), int(rng.integers(images)), int(rng.integers(classes))) for _ in range(objects)
    ]
    found = []
    for b, i, k in truth:
        for _ in range(int(rng.integers(0, 3))):
            moved = b + rng.integers(-3, 4, 4)
            if (moved[2:] > moved[:2]).all():
                found.append((moved, i, k))
    found += [
        (box(120), int(rng.integers(images)), int(rng.integers(classes))) for _ in range(objects)
    ]
    # True ones score higher on the whole; all scores differ.
    true = len(found) - objects
    scores = rng.random(len(found)) + 0.5 * (np.arange(len(found)) < true)
    return [(b, i, k, float(s)) for (b, i, k), s in zip(found, scores, strict=True)], truth


@pytest.mark.parametrize(
    ("seed", "images", "classes", "objects"),
    [(0, 1, 1, 60), (1, 4, 3, 150), (2, 3, 12, 200), (3, 1, 2, 300), (4, 10, 40, 60)],
)
def test_average_precision_is_that_of_pycocotools(seed, images, classes, objects):
    found, truth = random_case(seed, images=images, classes=classes, objects=objects)
    names = [f"c{k:02d}" for k in range(classes)]
    detections = squares(
        [f[0] for f in found],
        scene=[f"s{f[1]}" for f in found],
        **{"class": [names[f[2]] for f in found]},
        score=[f[3] for f in found],
    )
    labels = squares(
        [t[0] for t in truth],
        tile=[f"s{t[1]}" for t in truth],
        kind=[names[t[2]] for t in truth],
    )
    options = EvaluateOptions(class_column="kind", scene_column="tile")
    got = evaluate(detections, labels, options)
    precision = coco_precision(found, truth, images=images, classes=classes)[..., 0]
    ap50, ap75, ap = averages(precision)
    by_class = precision[0].mean(axis=0)
    assert got.ap50 == pytest.approx(ap50, abs=1e-6)
    assert got.ap75 == pytest.approx(ap75, abs=1e-6)
    assert got.ap == pytest.approx(ap, abs=1e-6)
    assert 0.05 < ap < 0.95  # the case must be one in which something can go wrong
    for name, want in zip(names, by_class, strict=True):
        if want > -1:
            assert got.classes[name].ap50 == pytest.approx(want, abs=1e-6)
        else:
            assert name not in got.classes or got.classes[name].ap50 is None


def test_iou_survives_another_crs():
    found, truth = random_case(7, images=1, classes=1, objects=120)
    detections = squares([f[0] for f in found], score=[f[3] for f in found])
    labels = squares([t[0] for t in truth])
    want = evaluate(detections, labels)
    for crs in ("EPSG:4326", "EPSG:32632", "EPSG:3857"):
        assert evaluate(detections, labels.to_crs(crs)).ap == pytest.approx(want.ap, abs=2e-3)
        assert evaluate(detections.to_crs(crs), labels).ap == pytest.approx(want.ap, abs=2e-3)


def test_polygons_by_hand():
    labels = squares([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    detections = squares(
        [[0, 0, 10, 10], [20, 0, 30, 6], [100, 0, 110, 10], [1, 0, 11, 10]],
        score=[0.9, 0.8, 0.7, 0.6],
    )
    got = evaluate(detections, labels)
    # IoU 1 and 0.6 match; the far one does not, nor the second on the first label.
    assert (got.overall.labels, got.overall.detections, got.overall.matches) == (3, 4, 2)
    assert got.precision == pytest.approx(2 / 4)
    assert got.recall == pytest.approx(2 / 3)
    assert got.f1 == pytest.approx(4 / 7)
    # Best from 0.8 on: 2 matches, 2 detections, 3 labels.
    assert got.overall.best_f1 == pytest.approx(4 / 5)
    assert got.overall.best_score == 0.8
    # Precision 1 up to recall 2/3, that is at 67 of the 101 recalls, then 0.
    assert got.ap50 == pytest.approx(67 / 101)
    # From IoU 0.65 on only the first matches: 34 of 101.
    assert got.ap == pytest.approx((3 * 67 + 7 * 34) / 10 / 101)
    strict = evaluate(detections, labels, EvaluateOptions(iou=0.7))
    assert strict.overall.matches == 1
    assert strict.ap50 == got.ap50
    from_score = evaluate(detections, labels, EvaluateOptions(score=0.75))
    assert (from_score.overall.detections, from_score.overall.matches) == (2, 2)
    assert from_score.ap50 == got.ap50


def test_a_turned_polygon_is_not_its_bounds():
    diamond = shapely.Polygon([(5, 0), (10, 5), (5, 10), (0, 5)])
    frame = gpd.GeoDataFrame({"score": [1.0]}, geometry=[diamond], crs=UTM)
    box = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 10, 10)], crs=UTM)
    assert evaluate(frame, box, EvaluateOptions(iou=0.5)).overall.matches == 1
    assert evaluate(frame, box, EvaluateOptions(iou=0.51)).overall.matches == 0


def test_classes_are_told_apart_only_when_asked():
    labels = squares([[0, 0, 10, 10], [20, 0, 30, 10]], kind=["car", "boat"])
    detections = squares(
        [[0, 0, 10, 10], [20, 0, 30, 10]], score=[0.9, 0.8], **{"class": ["car", "car"]}
    )
    apart = evaluate(detections, labels, EvaluateOptions(class_column="kind"))
    assert list(apart.classes) == ["boat", "car"]
    assert apart.overall.matches == 1
    assert apart.classes["boat"].recall == 0
    assert apart.classes["boat"].precision is None
    assert apart.ap50 == pytest.approx((0 + 1) / 2)
    assert apart.best_scores == {"car": 0.9}
    together = evaluate(detections, labels)
    assert together.overall.matches == 2
    assert together.classes == {}
    assert together.best_scores == {"car": 0.8}


# --- points -------------------------------------------------------------------------------


def test_optimal_assignment_beats_greedy():
    # The detection at 0 is nearest to the label at 2, which the one at 5 needs: 0 must take -5.
    labels = points([[2, 0], [-5, 0]])
    detections = around([[0, 0], [7, 0]], [0.9, 0.8])
    got = evaluate(detections, labels, EvaluateOptions(radius_m=6))
    assert got.overall.matches == 2
    assert got.overall.position_error_m == pytest.approx(5.0, rel=1e-3)
    assert got.f1 == 1.0
    assert got.overall.best_f1 == 1.0
    assert got.overall.best_score == 0.8
    assert got.ap50 is None


def test_of_equally_many_matches_the_nearest_are_chosen():
    labels = points([[0, 0], [3, 0]])
    detections = around([[3.5, 0], [0.5, 0]], [0.9, 0.8])
    got = evaluate(detections, labels)
    assert got.overall.matches == 2
    assert got.overall.position_error_m == pytest.approx(0.5, rel=1e-3)


def test_default_radius_is_six_metres():
    inside, outside = around([[5.99, 0]], [1.0]), around([[6.01, 0]], [1.0])
    # Ground distances: UTM draws the central meridian at 0.9996, so 6.00 m there are 6.0024.
    assert evaluate(inside, points([[0, 0]])).overall.matches == 1
    assert evaluate(outside, points([[0, 0]])).overall.matches == 0


def test_in_box():
    labels = points([[1.9, 1.9], [2.1, 0]])
    detections = around([[0, 0]], [0.5])
    got = evaluate(detections, labels, EvaluateOptions(in_box=True))
    assert got.overall.matches == 1
    assert got.overall.position_error_m == pytest.approx(1.9 * 2**0.5, rel=1e-3)
    far = evaluate(around([[2.2, 2.2]], [0.5], half=0.2), labels, EvaluateOptions(in_box=True))
    assert far.overall.matches == 0


def test_polygons_by_centre_where_a_radius_is_given():
    labels = squares([[-1, -1, 1, 1]])
    detections = around([[4, 0]], [0.5], half=1)
    assert evaluate(detections, labels).overall.matches == 0
    assert evaluate(detections, labels, EvaluateOptions(radius_m=5)).overall.matches == 1


def test_distances_are_right_in_several_zones():
    """Objects over five UTM zones, each with detections 5.99 m and 6.01 m away on the ground."""
    geod = pyproj.Geod(ellps="WGS84")
    rng = np.random.default_rng(5)
    lon, lat = rng.uniform(-124.0, -96.0, 200), rng.uniform(25.0, 65.0, 200)
    azimuth = rng.uniform(0, 360, 200)
    labels = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, lat), crs="EPSG:4326")
    for distance, matches in ((5.996, 200), (6.004, 0)):
        x, y, _ = geod.fwd(lon, lat, azimuth, np.full(200, distance))
        found = gpd.GeoDataFrame(
            {"score": np.ones(200)}, geometry=gpd.points_from_xy(x, y), crs="EPSG:4326"
        )
        got = evaluate(found, labels)
        assert got.overall.matches == matches
        if matches:
            assert got.overall.position_error_m == pytest.approx(distance, abs=1e-5)


def test_detections_in_a_neighbouring_zone_match():
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:26910", always_xy=True).transform(
        -120.0, 38.0
    )
    centre = np.array([x + 3.0, y])
    box = shapely.box(*(centre - 2), *(centre + 2))
    found = gpd.GeoDataFrame({"score": [0.5]}, geometry=[box], crs="EPSG:26910")
    labels = gpd.GeoDataFrame(geometry=[shapely.Point(-120.0, 38.0)], crs="EPSG:4326")
    for crs in ("EPSG:26910", "EPSG:26911", "EPSG:4326"):
        got = evaluate(found.to_crs(crs), labels.to_crs("EPSG:26911"))
        assert got.overall.position_error_m == pytest.approx(3.0, rel=1e-3)


# --- scenes and ground --------------------------------------------------------------------


def test_labels_on_ground_that_was_not_scanned_are_reported_and_may_be_left_out(tmp_path):
    path = tmp_path / "found.gpkg"
    around([[0, 0], [20, 0]], [0.9, 0.8]).to_file(path, layer="detections")
    ground = squares([[-5, -5, 50, 50]])
    ground.to_file(path, layer="scanned")
    labels = points([[0, 0], [40, 0], [900, 0]])  # found; missed; not looked for
    got = evaluate(path, labels)
    assert got.duplicate_labels == 0
    twice = evaluate(path, labels.iloc[[0, 1, 1, 2]])
    assert (twice.overall.labels, twice.duplicate_labels) == (4, 1)
    assert "1 labels repeat another exactly" in twice.table()
    assert (got.overall.labels, got.overall.matches, got.labels_not_scanned) == (3, 1, 1)
    assert "1 labels lie on ground that was not scanned" in got.table()
    # The ground is what was scanned, not what was found.
    got = evaluate(path, labels, EvaluateOptions(ground=str(path)))
    assert (got.overall.labels, got.ignored_labels, got.labels_not_scanned) == (2, 1, 0)


def test_a_label_belongs_to_its_scene_only():
    labels = points([[0, 0], [0, 0], [50, 0]], tile=["a", "b", "c"])
    detections = around([[0, 0], [0, 0], [0, 0]], [0.9, 0.8, 0.7], scene=["a", "a", "d"])
    options = EvaluateOptions(scene_column="tile")
    got = evaluate(detections, labels, options)
    # a: one of two; b and c: nothing found, but their labels count; d: a false one.
    assert (got.overall.labels, got.overall.detections, got.overall.matches) == (3, 3, 1)
    assert got.scenes_without_labels == 1
    assert got.scenes_without_detections == ("b", "c")
    assert "2 scenes have labels and no detection" in got.table()
    counts = got.counts["scene"]
    assert counts.names.tolist() == ["a", "b", "c", "d"]
    # Differences: a +1, b -1, c -1, d +1; labels 1, 1, 1, 0 are 0.75 from their mean in square.
    assert (counts.bias, counts.mae, counts.rmse) == (0, 1, 1)
    assert counts.r2 == pytest.approx(1 - 4 / 0.75)
    assert evaluate(detections, labels).overall.matches == 2
    assert evaluate(detections, labels).counts == {}


@pytest.mark.parametrize("options", [EvaluateOptions(), EvaluateOptions(score=0.6)])
def test_the_count_error_needs_no_scenes(options):
    detections = around([[0, 0], [50, 0], [90, 0]], [0.9, 0.7, 0.5])
    got = evaluate(detections, points([[0, 0], [20, 0], [30, 0], [40, 0]]), options)
    total = -1 if options.score is None else -2
    assert got.count_error.total == total
    assert got.count_error.relative == total / 4
    error = got.to_dict()["count_error"]
    assert (error["total"], error["relative"]) == (total, total / 4)
    text = {-1: "count error: -1, -25.0% of the labels", -2: "count error: -2, -50.0% of the"}
    assert text[total] in got.table()
    assert "per scene" not in got.table()


def test_the_count_error_in_all_is_told_beside_that_of_scenes():
    labels = points([[0, 0], [0, 0], [50, 0]], tile=["a", "b", "c"])
    detections = around([[0, 0]] * 4, [0.9, 0.8, 0.7, 0.6], scene=["a", "a", "a", "d"])
    got = evaluate(detections, labels, EvaluateOptions(scene_column="tile"))
    assert (got.count_error.total, got.count_error.relative) == (1, 1 / 3)
    assert (len(got.counts["scene"]), got.counts["scene"].mae) == (4, 5 / 4)
    assert "count error: +1, +33.3% of the labels" in got.table()
    assert "per scene, over 4: bias +0.25" in got.table()


def test_scenes_that_share_no_name_are_a_slip():
    labels = points([[0, 0]], tile=["z.tif"])
    detections = around([[0, 0]], [0.9], scene=["a"])
    with pytest.raises(LabelError, match=r"such as a, .*z\.tif"):
        evaluate(detections, labels, EvaluateOptions(scene_column="tile"))


def test_classes_that_share_no_name_are_a_slip():
    labels = squares([[0, 0, 4, 4], [9, 0, 12, 4]], kind=["tree", "roof"])
    detections = squares([[0, 0, 4, 4]], score=[0.9], **{"class": ["Tree"]})
    apart = EvaluateOptions(class_column="kind")
    with pytest.raises(LabelError, match=r"no class is in common: .* has Tree, .* has roof, tree;"):
        evaluate(detections, labels, apart)
    assert evaluate(detections, labels).overall.matches == 1
    lower = squares([[0, 0, 4, 4]], score=[0.9], **{"class": ["tree"]})
    for kinds in (["Tree", "tree"], ["tree", "TREE"]):
        slip = labels.assign(kind=kinds)
        with pytest.raises(LabelError, match=r"class T\w+, which .* has as tree;"):
            evaluate(lower, slip, apart)
    padded = evaluate(lower, labels.assign(kind=[" tree", "roof "]), apart)
    assert list(padded.classes) == ["roof", "tree"]
    # Nothing found, or nothing there, is no slip; nor is a class that is declared but not met.
    assert evaluate(detections[:0], labels, apart).overall.labels == 2
    assert evaluate(detections, labels[:0], apart).overall.detections == 1
    labels["kind"] = labels["kind"].astype("category").cat.add_categories("shed")
    sheds = detections.assign(**{"class": "shed"})
    assert evaluate(sheds, labels, apart).f1 == 0


def test_many_classes_are_not_all_listed():
    labels = squares([[i, 0, i + 1, 1] for i in range(15)], kind=[f"c{i:02d}" for i in range(15)])
    detections = squares([[0, 0, 4, 4]], score=[0.9], **{"class": ["Tree"]})
    with pytest.raises(LabelError, match="c08, c09 and 5 more;"):
        evaluate(detections, labels, EvaluateOptions(class_column="kind"))


@pytest.mark.parametrize("written", ["a.tif", "imgs/a.tif", r"imgs\a.tif", "A", "a%2Etif"])
def test_scenes_of_labels_are_known_with_suffix_folder_and_in_any_case(written):
    labels = points([[0, 0], [50, 0]], tile=[written, "b"])
    detections = around([[0, 0], [50, 0]], [0.9, 0.8], scene=["a", "b"])
    got = evaluate(detections, labels, EvaluateOptions(scene_column="tile"))
    assert (got.overall.matches, got.scenes_without_labels) == (2, 0)
    assert list(got.scenes) == ["a", "b"]


def test_where_selects_labels(tmp_path):
    labels = points([[0, 0], [50, 0]], split=["val", "train"], tile=["a", "b"])
    detections = around([[0, 0], [50, 0]], [0.9, 0.8], scene=["a", "b"])
    path = tmp_path / "labels.gpkg"
    labels.to_file(path)
    options = EvaluateOptions(where="split = 'val'", scene_column="tile")
    for source in (labels, path):
        got = evaluate(detections, source, options)
        assert (got.overall.labels, got.overall.detections, got.overall.matches) == (1, 2, 1)
        assert got.scenes_without_labels == 1


def test_outside_the_ground_nothing_counts(tmp_path):
    ground = tmp_path / "ground.gpkg"
    squares([[-10, -10, 20, 10]]).to_crs("EPSG:4326").to_file(ground)
    labels = points([[0, 0], [18, 0], [50, 0]], tile=["a", "a", "b"])
    detections = around([[0, 0], [22, 0], [50, 0]], [0.9, 0.8, 0.7], scene=["a", "a", "b"])
    options = EvaluateOptions(ground=str(ground), scene_column="tile")
    got = evaluate(detections, labels, options)
    # The detection at 22 would match the label at 18, but its centre is outside.
    assert (got.overall.labels, got.overall.detections, got.overall.matches) == (2, 1, 1)
    assert got.counts["scene"].names.tolist() == ["a"]


# --- nothing there ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [EvaluateOptions(), EvaluateOptions(radius_m=3)])
def test_no_detections(options):
    got = evaluate(around([], []), squares([[0, 0, 1, 1]]), options)
    assert (got.overall.labels, got.overall.detections) == (1, 0)
    assert (got.precision, got.recall, got.f1) == (None, 0, 0)
    assert got.best_scores == {}
    assert "all" in got.table()
    if options.radius_m is None:
        assert got.ap50 == 0


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_a_file_without_detections(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    write_vector(path, [], crs=pyproj.CRS(UTM), overwrite=False)
    labels = points([[0, 0], [9, 0]], kind=["a", "b"], tile=["x", "y"])
    options = EvaluateOptions(class_column="kind", scene_column="tile")
    got = evaluate(path, labels, options)
    assert (got.overall.labels, got.overall.detections, got.recall) == (2, 0, 0)
    assert list(got.classes) == ["a", "b"]
    assert (got.count_error.total, len(got.counts["scene"])) == (-2, 2)


@pytest.mark.parametrize("options", [EvaluateOptions(), EvaluateOptions(in_box=True)])
def test_no_labels(options):
    got = evaluate(around([[0, 0]], [0.5]), points([]), options)
    assert (got.precision, got.recall, got.f1) == (0, None, 0)
    assert got.ap50 is None
    assert got.overall.best_score is None
    assert (got.count_error.total, got.count_error.relative) == (1, None)
    assert got.table().endswith("count error: +1")


def test_neither():
    got = evaluate(around([], []), points([]))
    assert got.f1 is None
    assert json.loads(json.dumps(got.to_dict()))["overall"]["f1"] is None
    assert got.table().splitlines()[2].split() == ["all", "0", "0", "0"]


# --- input that cannot be used ------------------------------------------------------------


def test_bad_tables():
    good, labels = around([[0, 0]], [0.5]), points([[0, 0]], kind=["x"])
    with pytest.raises(LabelError, match="no column score"):
        evaluate(good.drop(columns="score"), labels)
    with pytest.raises(LabelError, match="have no score"):
        evaluate(around([[0, 0]], [np.nan]), labels)
    with pytest.raises(LabelError, match="no CRS"):
        evaluate(good.set_crs(None, allow_override=True), labels)
    with pytest.raises(LabelError, match="no column class"):
        evaluate(good, labels, EvaluateOptions(class_column="kind"))
    with pytest.raises(LabelError, match=r"no class column nothing.*kind"):
        evaluate(good, labels, EvaluateOptions(class_column="nothing"))
    with pytest.raises(LabelError, match="no column scene"):
        evaluate(good, labels, EvaluateOptions(scene_column="kind"))
    with pytest.raises(LabelError, match="SQL"):
        evaluate(good, labels, EvaluateOptions(where="kind ="))
    with pytest.raises(LabelError, match="does not exist"):
        evaluate("nothing.gpkg", labels)


def test_of_several_layers_each_side_is_told_its_own_remedy(tmp_path):
    path, good = tmp_path / "two.gpkg", around([[0, 0]], [0.5])
    good.to_file(path, layer="a")
    good.to_file(path, layer="b", mode="a")
    with pytest.raises(LabelError, match=r"a, b; say which one with EvaluateOptions\.layer"):
        evaluate(good, path)
    assert evaluate(good, path, EvaluateOptions(layer="b")).f1 == 1
    with pytest.raises(LabelError, match=r"a, b; give a file with one layer, or .*detections"):
        evaluate(path, good)
    with pytest.raises(LabelError, match=r"a, b; give a file with one layer$"):
        evaluate(good, good, EvaluateOptions(ground=str(path)))


def test_the_table_reads():
    labels = squares([[0, 0, 10, 10], [20, 0, 30, 10]], kind=["car", "boat"])
    detections = squares(
        [[0, 0, 10, 10], [20, 0, 30, 10]], score=[0.9, 0.8], **{"class": ["car", "car"]}
    )
    options = EvaluateOptions(class_column="kind", score=0.3, resamples=0)
    text = evaluate(detections, labels, options).table()
    lines = text.splitlines()
    assert lines[0] == "matched by IoU 0.5, scores from 0.3"
    assert lines[1].split()[:4] == ["class", "labels", "found", "matched"]
    scores, sizes, confused, notes = text.split("\n\n")
    scores = scores.splitlines()[1:]
    assert [line.split()[0] for line in scores] == ["class", "boat", "car", "all"]
    assert sizes.splitlines()[1].startswith("10 m and more       2      2")
    rows = [line.split() for line in confused.splitlines()]
    assert rows[0] == ["true", "\\", "found", "boat", "car", "nothing"]
    # The boat was taken for a car.
    assert rows[1:] == [["boat", "0", "1", "0"], ["car", "0", "1", "0"], ["nothing", "0", "0", "0"]]
    assert notes == "count error: +0, +0.0% of the labels"
    for block in (scores, sizes.splitlines(), confused.splitlines()):
        assert len({len(line) for line in block}) == 1
