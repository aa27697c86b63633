"""The page of an evaluation and the layers beside it."""

import json
import re

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.pages import assert_shown_as, at, read_page
from support.stubs import NORTH_UP, UTM, write_scene

from geo_retina.errors import OutputError, SceneError
from geo_retina.evaluation import FALSE, TRUE, evaluate
from geo_retina.html_report import check_report, write_report
from geo_retina.html_report.crops import PICTURES, Place, picture, worst_places
from geo_retina.html_report.svg import Plot, ticks
from geo_retina.options import EvaluateOptions
from geo_retina.scene import open_scene
from geo_retina.vector.writers.styles import read_styles

EVIL = 'a/b~c </script><img src="http://example.org/x.png" onerror="alert(1)"> & "q"'
NAMES = ("car", EVIL)
SIZE = 400
OPTIONS = EvaluateOptions(
    class_column="class", scene_column="scene", cell_m=40, gsd_m=0.5, resamples=50
)


def crowd(seed, count, scenes=("one", "two")):
    """Objects on a lattice of scenes of 400 px at 0.5 m, that lie 300 m apart."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, len(scenes), count)
    low_px = rng.uniform(0, SIZE - 40, (count, 2))
    side_px = rng.uniform(10, 40, (count, 2))
    x, y = NORTH_UP @ (low_px[:, 0], low_px[:, 1])
    x = x + scene * 300.0
    boxes = shapely.box(x, y - side_px[:, 1] / 2, x + side_px[:, 0] / 2, y)
    names = np.array(NAMES, object)[rng.integers(0, 2, count)]
    columns = {"class": names, "scene": np.array(scenes, object)[scene]}
    return gpd.GeoDataFrame(columns, geometry=boxes, crs=UTM)


@pytest.fixture(scope="module")
def sides():
    """Labels, and detections that find most of them, some as another class, and more."""
    rng = np.random.default_rng(2)
    labels = crowd(1, 160)
    found = labels[rng.random(160) < 0.75].copy()
    found["geometry"] = found.translate(*rng.uniform(-1.5, 1.5, 2))
    swapped = rng.random(len(found)) < 0.1
    found.loc[swapped, "class"] = [NAMES[name == NAMES[0]] for name in found.loc[swapped, "class"]]
    found = gpd.pd.concat([found, crowd(3, 40)], ignore_index=True)
    found["score"] = rng.uniform(0.2, 0.99, len(found))
    return found, labels


@pytest.fixture(scope="module")
def evaluation(sides):
    return evaluate(*sides, OPTIONS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    made = []
    for i, name in enumerate(("one", "two")):
        pixels = rng.integers(0, 255, (3, SIZE, SIZE)).astype(np.uint8)
        affine = NORTH_UP.translation(i * 300.0, 0) @ NORTH_UP
        made.append(open_scene(write_scene(folder / f"{name}.tif", pixels, affine=affine)))
    return made


@pytest.fixture(scope="module")
def report(evaluation, scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "report"
    about = {"detections": "found.gpkg", "labels": "there.gpkg"}
    page = write_report(evaluation, folder, about=about, scenes=scenes)
    assert page == folder / "report.html"
    return folder, read_page(page.read_text(encoding="utf-8"))


def test_the_folder_holds_a_page_and_layers(report):
    folder, _ = report
    assert sorted(p.name for p in folder.iterdir()) == ["errors.gpkg", "report.html"]


def test_the_json_is_the_evaluation(report, evaluation):
    _, page = report
    wanted = json.loads(json.dumps(evaluation.to_dict()))
    assert {key: page.values[key] for key in wanted} == wanted
    assert page.values["detections"] == "found.gpkg"


def test_every_number_is_that_of_the_json(report, evaluation):
    _, page = report
    for place, text in page.numbers:
        assert_shown_as(text, at(page.values, place))
    shown = {place for place, _ in page.numbers}
    evil = EVIL.replace("~", "~0").replace("/", "~1")
    for field in (
        "labels",
        "detections",
        "matches",
        "precision",
        "recall",
        "f1",
        "ap50",
        "ap75",
        "ap",
    ):
        assert {f"/overall/{field}", f"/classes/car/{field}", f"/classes/{evil}/{field}"} <= shown
        assert f"/scenes/two/{field}" in shown
    assert {
        "/overall/intervals/f1/0",
        "/overall/intervals/ap50/1",
        "/count_error/relative",
    } <= shown
    assert {f"/confusion/matrix/{i}/{j}" for i in range(3) for j in range(3) if i + j < 4} <= shown
    assert {"/counts/scene/r2", "/counts/cell/mae", "/sizes/0/overall/recall"} <= shown


def test_reasons_add_up_to_all_errors(report, evaluation):
    _, page = report
    errors = page.values["errors"]
    overall = evaluation.overall
    assert sum(errors["false_positive"].values()) == overall.detections - overall.matches
    assert sum(errors["missed"].values()) == overall.labels - overall.matches
    assert (
        errors["false_positive"]["class"]
        == (
            (evaluation.matches.detections.kind == 1)
            & (evaluation.matches.detections.outcome == FALSE)
        ).sum()
    )


def test_scores_stand_beside_the_share_of_true_ones(report, evaluation):
    folder, page = report
    reliability = evaluation.reliability
    html = (folder / "report.html").read_text(encoding="utf-8")
    for mean, share, n in zip(
        reliability.predicted, reliability.share, reliability.detections, strict=True
    ):
        assert f"{n:,} detections of mean score {mean:.3f}: {share:.1%} are true" in html
    assert len(reliability.share) == 10
    assert "/reliability/error" in {place for place, _ in page.numbers}


def test_the_page_needs_nothing_but_itself(report):
    folder, page = report
    assert set(page.tags) & {"link", "iframe", "object", "img"} <= {"link"}
    assert page.tags.count("script") == 1
    own = [link for link in page.links if not link.startswith("data:")]
    assert own == ["errors.gpkg"]
    style = (
        (folder / "report.html")
        .read_text(encoding="utf-8")
        .split("<style>")[1]
        .split("</style>")[0]
    )
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_text_and_never_elements(report):
    _, page = report
    assert EVIL in page.text
    assert "img" not in page.tags


def test_layers_hold_every_object_once(report, evaluation):
    folder, _ = report
    layers = {
        name: gpd.read_file(folder / "errors.gpkg", layer=name)
        for name in ("true_positive", "false_positive", "missed")
    }
    overall = evaluation.overall
    counts = [len(layer) for layer in layers.values()]
    assert counts == [
        overall.matches,
        overall.detections - overall.matches,
        overall.labels - overall.matches,
    ]
    assert all(layer.crs == UTM for layer in layers.values())
    assert set(layers["true_positive"]["outcome"]) == {"true_positive"}
    assert (layers["true_positive"]["iou"] >= 0.5).all()
    assert set(layers["false_positive"]["kind"]) <= {"class", "duplicate", "location", "background"}
    styles = read_styles(folder / "errors.gpkg")
    assert set(styles) == set(layers)
    assert len(set(styles.values())) == 3


def test_point_labels_get_points_and_no_parts_that_need_overlap(sides, tmp_path):
    found, labels = sides
    points = labels.set_geometry(labels.centroid)
    evaluation = evaluate(found, points, EvaluateOptions(radius_m=3, resamples=0))
    page = read_page(write_report(evaluation, tmp_path).read_text(encoding="utf-8"))
    for place, text in page.numbers:
        assert_shown_as(text, at(page.values, place))
    shown = {place for place, _ in page.numbers}
    assert "/overall/position_error_m" in shown
    assert not any("ap50" in place or "intervals" in place for place in shown)
    missed = gpd.read_file(tmp_path / "errors.gpkg", layer="missed")
    assert set(missed.geom_type) == {"Point"}
    assert "SimpleMarker" in read_styles(tmp_path / "errors.gpkg")["missed"]


@pytest.mark.parametrize("empty", ["found", "labels", "both"])
def test_without_objects_the_page_still_stands(sides, tmp_path, empty):
    found, labels = sides
    found = found if empty == "labels" else found[:0]
    labels = labels if empty == "found" else labels[:0]
    page = read_page(
        write_report(evaluate(found, labels, OPTIONS), tmp_path).read_text(encoding="utf-8")
    )
    for place, text in page.numbers:
        assert_shown_as(text, at(page.values, place))
    assert len(gpd.read_file(tmp_path / "errors.gpkg", layer="true_positive")) == 0


def test_pictures_show_where_most_went_wrong(evaluation, scenes):
    places = worst_places(evaluation.matches, scenes, ["one", "two"])
    assert 2 <= len(places) <= PICTURES
    assert [place.wrong for place in places] == sorted((p.wrong for p in places), reverse=True)
    wrong_of = {}
    for side in (evaluation.matches.detections, evaluation.matches.labels):
        for shape, scene in zip(
            side.geometries[side.outcome == FALSE], side.scene[side.outcome == FALSE], strict=True
        ):
            wrong_of.setdefault(scene, []).append(shape)
    for place in places:
        x_min, y_min, x_max, y_max = place.window.box_px
        assert 0 <= x_min < x_max <= SIZE
        assert 0 <= y_min < y_max <= SIZE
        bounds = shapely.bounds(np.array(wrong_of[place.scene.name], object))
        middles = place.scene.grid.crs_to_pixels((bounds[:, :2] + bounds[:, 2:]) / 2)
        inside = ((middles >= (x_min, y_min)) & (middles < (x_max, y_max))).all(axis=1)
        assert inside.sum() == place.wrong
        kinds = [mark.kind for mark in place.marks]
        assert kinds.count("false") >= place.false
        assert kinds.count("missed") >= place.missed
    for i, one in enumerate(places):
        for other in places[i + 1 :]:
            if one.scene == other.scene:
                a, b = shapely.box(*one.window.box_px), shapely.box(*other.window.box_px)
                assert a.intersection(b).area == 0


def test_an_object_of_another_scene_of_the_same_ground_is_not_drawn(scenes, sides):
    found, labels = sides
    other = labels.assign(scene=labels["scene"].replace({"one": "one again"}))
    matches = evaluate(found, other, OPTIONS).matches
    places = worst_places(matches, scenes, ["one", "two"])
    drawn = [
        m for p in places if p.scene.name == "one" for m in p.marks if m.tip.startswith("label")
    ]
    assert not drawn
    assert any(p.scene.name == "one" for p in places)  # what was found there is all false


def test_a_class_called_all_is_not_lost(sides, tmp_path):
    found, labels = (side.assign(**{"class": "all"}) for side in sides)
    page = read_page(
        write_report(evaluate(found, labels, OPTIONS), tmp_path).read_text(encoding="utf-8")
    )
    assert {"/classes/all/f1", "/overall/f1"} <= {place for place, _ in page.numbers}


def test_scores_beyond_1_stay_on_the_plot(sides, tmp_path):
    found, labels = sides
    evaluation = evaluate(found.assign(score=found["score"] * 100), labels, OPTIONS)
    html = write_report(evaluation, tmp_path).read_text(encoding="utf-8")
    points = re.findall(r'points="([^"]+)"', html)
    assert len(points) >= 5
    across = [float(point.split(",")[0]) for line in points for point in line.split()]
    assert 0 <= min(across) < max(across) <= 460


def test_a_bar_has_the_length_that_it_says(evaluation, tmp_path):
    """Along the rows, also where pixels are no squares and the grid is turned."""
    turned = NORTH_UP @ NORTH_UP.rotation(30) @ NORTH_UP.scale(1, 3)
    scene = open_scene(
        write_scene(tmp_path / "one.tif", np.zeros((3, 200, 300), np.uint8), affine=turned)
    )
    place = Place(scene, "one", scene.grid.window, 0, 0)
    bar = re.search(r'x1="([\d.]+)" x2="([\d.]+)".*>([\d.]+) m<', picture(place))
    left, right, metres = (float(group) for group in bar.groups())
    assert (right - left) * 0.5 == pytest.approx(metres, abs=0.01)
    assert 300 / 10 < right - left <= 300 / 4


def test_a_scene_without_a_place_is_refused(evaluation, tmp_path):
    path = write_scene(tmp_path / "one.tif", np.zeros((3, 20, 30), np.uint8), crs=None)
    with pytest.raises(SceneError, match="has no CRS"):
        write_report(evaluation, tmp_path / "r", scenes=[open_scene(path)])


def test_all_is_well_needs_no_pictures(sides, scenes, tmp_path):
    _, labels = sides
    perfect = evaluate(labels.assign(score=0.9), labels, OPTIONS)
    assert worst_places(perfect.matches, scenes, ["one", "two"]) == []
    page = read_page(write_report(perfect, tmp_path, scenes=scenes).read_text(encoding="utf-8"))
    assert page.values["overall"]["f1"] == 1
    assert "image" not in page.tags
    assert (perfect.matches.detections.outcome == TRUE).all()


def test_a_report_is_not_replaced_unless_told(evaluation, report, tmp_path):
    folder, _ = report
    with pytest.raises(OutputError, match="give overwrite=True"):
        write_report(evaluation, folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be made"):
        check_report(tmp_path / "file", overwrite=True)
    write_report(evaluation, tmp_path / "new" / "deep")
    first = (tmp_path / "new" / "deep" / "report.html").read_bytes()
    write_report(evaluation, tmp_path / "new" / "deep", overwrite=True)
    assert (tmp_path / "new" / "deep" / "report.html").read_bytes() == first


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1.02, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 115.5, [0, 20, 40, 60, 80, 100]),
        (0, 1.05, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3, 4, [-2, 0, 2, 4]),
        (0, 6e6, [0, 1e6, 2e6, 3e6, 4e6, 5e6, 6e6]),
    ],
)
def test_ticks_are_round_and_within(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_points_of_a_plot_lie_where_their_numbers_say():
    plot = Plot((0, 10), (0, 1), "x & y", "<z>")
    (left, foot), (right, top) = plot.to_page(0, 0), plot.to_page(10, 1)
    assert plot.to_page(5, 0.5) == pytest.approx(((left + right) / 2, (foot + top) / 2))
    assert left < right
    assert top < foot
    svg = plot.svg("a title", [plot.line([(0, 0), (10, 1)], "s0"), plot.dot(5, 0.5, "s1", "5 < 6")])
    assert f'points="{left:.1f},{foot:.1f} {right:.1f},{top:.1f}"' in svg
    assert "x &amp; y" in svg
    assert "5 &lt; 6" in svg
    assert plot.line([], "s0") == ""
