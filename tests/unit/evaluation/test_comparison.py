"""Two sets of detections against the same labels."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geo_retina.evaluation import AGREEMENT, FALSE, IGNORED, TRUE, compare, evaluate
from geo_retina.html_report import write_agreement
from geo_retina.options import EvaluateOptions
from geo_retina.vector.writers.styles import read_styles

UTM = "EPSG:32633"
ORIGIN_XY = np.array([500_000.0, 5_300_000.0])


def squares(centres, half=2.0, **columns):
    xy = np.asarray(centres, float).reshape(-1, 2) + ORIGIN_XY
    boxes = shapely.box(*(xy - half).T, *(xy + half).T)
    return gpd.GeoDataFrame(columns, geometry=boxes, crs=UTM)


@pytest.fixture(scope="module")
def crowd():
    """Labels over 2 km, and two detectors that find most of them with false ones between."""
    rng = np.random.default_rng(8)
    there = rng.uniform(0, 2000, (400, 2))
    classes = rng.choice(["car", "oak"], 400)
    labels = squares(there, kind=classes)
    sides = []
    for share, false in ((0.7, 60), (0.8, 30)):
        kept = rng.random(400) < share
        xy = np.concatenate([there[kept] + rng.normal(0, 0.5, (kept.sum(), 2)),
                             rng.uniform(0, 2000, (false, 2))])  # fmt: skip
        names = np.concatenate([classes[kept], rng.choice(["car", "oak"], false)])
        sides.append(squares(xy, **{"class": names, "score": rng.uniform(0, 1, len(xy))}))
    return *sides, labels


OPTIONS = EvaluateOptions(class_column="kind", iou=0.4, resamples=200, seed=3)


@pytest.fixture(scope="module")
def compared(crowd):
    return compare(*crowd, OPTIONS)


def test_both_sides_are_their_own_evaluations(crowd, compared):
    a, b, labels = crowd
    for side, found in ((compared.a, a), (compared.b, b)):
        assert side.to_dict() == evaluate(found, labels, OPTIONS).to_dict()
    for field in ("precision", "recall", "f1", "ap50", "ap75", "ap"):
        each = compared.overall[field]
        assert (each.a, each.b) == (getattr(compared.a, field), getattr(compared.b, field))
        assert each.difference == each.b - each.a
        assert compared.classes["oak"][field].b == getattr(compared.b.classes["oak"], field)
    assert compared.overall["count_error"].a == compared.a.count_error.relative


def test_labels_are_counted_by_who_found_them():
    labels = squares([[0, 0], [100, 0], [200, 0], [300, 0], [400, 0]])
    a = squares([[0, 0], [100, 0], [950, 0]], score=[0.9, 0.8, 0.7])
    b = squares([[100, 0], [200, 0], [300, 0]], score=[0.6, 0.5, 0.4])
    compared = compare(a, b, labels, EvaluateOptions(resamples=0))
    assert compared.labels == {"both": 1, "only_a": 1, "only_b": 2, "neither": 1}
    assert [AGREEMENT[i] for i in compared.agreement] == [
        *("only_a", "both", "only_b", "only_b", "neither")
    ]
    both = compared.labels_frame("both")
    assert (both["row"].tolist(), both["score_a"].tolist()) == ([1], [0.8])
    assert both["score_b"].tolist() == [0.6]
    assert np.isnan(compared.labels_frame("only_a")["score_b"]).all()
    assert compared.block_m is None
    assert all(each.interval is None for each in compared.overall.values())
    assert compared.overall["recall"].difference == pytest.approx(3 / 5 - 2 / 5)


def test_labels_that_do_not_count_are_in_no_group(tmp_path):
    labels = squares([[0, 0], [100, 0]], sure=[1, 0])
    found = squares([[0, 0], [100, 0]], score=[0.9, 0.8])
    options = EvaluateOptions(ignore_where="sure = 0", resamples=0)
    compared = compare(found, found[:0], labels, options)
    assert compared.labels == {"both": 0, "only_a": 1, "only_b": 0, "neither": 0}


def _rates_by_hand(matches, keys, times):
    """Precision, recall and F1 of one draw, object by object."""
    weight = dict(zip(keys.tolist(), times.tolist(), strict=True))
    found, there = matches.detections, matches.labels
    hits = sum(
        weight.get(block, 0)
        for block, outcome in zip(found.block.tolist(), found.outcome.tolist(), strict=True)
        if outcome == TRUE
    )
    given = sum(
        weight.get(block, 0)
        for block, outcome in zip(found.block.tolist(), found.outcome.tolist(), strict=True)
        if outcome != IGNORED
    )
    labels = sum(weight.get(block, 0) for block in there.block.tolist())
    return hits / given, hits / labels, 2 * hits / (given + labels)


def test_intervals_are_those_of_draws_that_both_share(compared):
    sides = compared.a.matches, compared.b.matches
    blocks = [x.block for m in sides for x in (m.detections, m.labels)]
    keys = np.unique(np.concatenate(blocks))
    share = np.full(len(keys), 1 / len(keys))
    times = np.random.default_rng(OPTIONS.seed).multinomial(len(keys), share, OPTIONS.resamples)
    drawn = np.array(
        [
            np.subtract(_rates_by_hand(sides[1], keys, n), _rates_by_hand(sides[0], keys, n))
            for n in times
        ]
    )
    for i, field in enumerate(("precision", "recall", "f1")):
        wanted = np.percentile(drawn[:, i], (2.5, 97.5))
        assert compared.overall[field].interval == pytest.approx(wanted)
    assert compared.block_m == compared.a.block_m == compared.b.block_m


def test_all_numbers_have_intervals_around_their_difference(compared):
    for known in (compared.overall, *compared.classes.values()):
        for each in known.values():
            low, high = each.interval
            assert low < each.difference < high


def test_a_side_differs_from_itself_by_nothing(crowd):
    a, _, labels = crowd
    same = compare(a, a, labels, OPTIONS)
    for known in (same.overall, *same.classes.values()):
        assert all((e.difference, e.interval) == (0, (0, 0)) for e in known.values())
    assert same.labels["only_a"] == same.labels["only_b"] == 0


def test_shared_draws_tell_more_than_separate_ones(crowd):
    """Of two sides that fail together, the difference is surer than either side."""
    a, _, labels = crowd
    slightly_less = a[a.index % 40 != 0]
    each = compare(a, slightly_less, labels, OPTIONS).overall["recall"]
    own = evaluate(a, labels, OPTIONS).overall.intervals["recall"]
    assert np.ptp(each.interval) < 0.5 * np.ptp(own)


def test_points_are_compared_by_position_error(crowd):
    a, b, labels = crowd
    points = labels.set_geometry(labels.centroid)
    compared = compare(a, b, points, EvaluateOptions(radius_m=2, resamples=50))
    error = compared.overall["position_error_m"]
    assert error.a == compared.a.overall.position_error_m
    assert error.interval[0] < error.interval[1]
    assert "ap50" not in compared.overall
    assert compared.classes == {}


def test_nothing_found_by_one_side_has_no_precision(crowd):
    a, _, labels = crowd
    compared = compare(a, a[:0], labels, OPTIONS)
    assert compared.overall["precision"].b is None
    assert compared.overall["precision"].difference is None
    assert compared.overall["precision"].interval is None
    assert compared.overall["recall"].b == 0
    assert compared.labels["only_a"] == compared.a.overall.matches
    assert "-" in compared.table()


def test_json_and_table_hold_the_same(compared):
    values = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    f1 = compared.overall["f1"]
    assert values["overall"]["f1"]["difference"] == f1.difference
    assert values["labels"] == compared.labels
    assert values["a"]["overall"]["f1"] == f1.a
    line = next(line for line in compared.table().splitlines() if line.startswith("F1"))
    wanted = [f"{f1.a:.3f}", f"{f1.b:.3f}", f"{f1.difference:+.3f}"]
    assert line.split()[1:] == [*wanted, *(f"{x:+.3f}" for x in f1.interval)]


def test_layers_hold_every_label_once_and_all_false_detections(compared, tmp_path):
    path = tmp_path / "c.gpkg"
    write_agreement(compared, path, overwrite=False)
    rows = []
    for which in AGREEMENT:
        layer = gpd.read_file(path, layer=which)
        assert len(layer) == compared.labels[which]
        rows += layer["row"].tolist()
    assert sorted(rows) == list(range(400))
    for which, side in (("false_a", compared.a), ("false_b", compared.b)):
        assert len(gpd.read_file(path, layer=which)) == (
            (side.matches.detections.outcome == FALSE).sum()
        )
    assert set(read_styles(path)) == {*AGREEMENT, "false_a", "false_b"}
