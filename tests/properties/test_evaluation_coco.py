"""AP by class, size and with ignored ground equals that of pycocotools."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from support.coco import WHOLE, averages, coco_precision, random_objects

from geo_retina.evaluation import evaluate
from geo_retina.options import EvaluateOptions

GSD_M = 0.5
SPACING_PX = 1000.0
"""From image to image, so that what lies in one is far from all others on the ground too."""
ORIGIN_XY = (500_000.0, 5_300_000.0)


def place(box, image):
    """A box of pixels on the ground: each image stands at a place of its own."""
    x0, y0, x1, y1 = box
    shift = SPACING_PX * image
    west, east = (ORIGIN_XY[0] + (x + shift) * GSD_M for x in (x0, x1))
    south, north = (ORIGIN_XY[1] + y * GSD_M for y in (y0, y1))
    return shapely.box(west, south, east, north)


def layer(rows, **columns):
    return gpd.GeoDataFrame(
        columns, geometry=[place(row[0], row[1]) for row in rows], crs="EPSG:32633"
    )


def tables(found, truth):
    pixels = np.array([f[0] for f in found]).reshape(-1, 4)
    names = ("x_min_px", "y_min_px", "x_max_px", "y_max_px")
    detections = layer(
        found,
        scene=[f"s{f[1]}" for f in found],
        score=[f[3] for f in found],
        **{"class": [f"c{f[2]:02d}" for f in found]},
        **{name: pixels[:, k] for k, name in enumerate(names)},
    )
    labels = layer(truth, tile=[f"s{t[1]}" for t in truth], kind=[f"c{t[2]:02d}" for t in truth])
    return detections, labels


def assert_equal(scores, precision):
    """Scores against precision (IoU, recall, class)."""
    want = averages(precision)
    for name, value in zip(("ap50", "ap75", "ap"), want, strict=True):
        got = getattr(scores, name)
        assert got is None if value is None else got == pytest.approx(value, abs=1e-6)


def distant_regions(rng, images, count):
    """(box, image) each, so far apart that no detection reaches two.

    Where one does, the shares of both count together, which pycocotools has no word for.
    """
    return [
        (np.array([75.0 * k, low, 75.0 * k + 40, low + rng.uniform(10, 100)]), image)
        for image in range(images)
        for k in range(count)
        for low in [rng.uniform(0, 120)]
    ]


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=12)
@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 50), st.integers(0, 2))
def test_ap_with_ignored_ground(tmp_path_factory, seed, images, classes, objects, regions):
    rng = np.random.default_rng(seed)
    found, truth = random_objects(rng, images=images, classes=classes, objects=objects)
    crowds = distant_regions(rng, images, regions)
    detections, labels = tables(found, truth)
    ignore = None
    if crowds:
        # pycocotools does not ask where labels lie: those on ignored ground count there.
        keep = [not on_a_crowd(t, crowds) for t in truth]
        truth = [t for t, kept in zip(truth, keep, strict=True) if kept]
        labels = labels[keep]
        ignore = tmp_path_factory.mktemp("ignore") / "ignore.gpkg"
        layer(crowds).to_file(ignore)
    if share_nothing(found, truth):
        return
    options = EvaluateOptions(
        class_column="kind",
        scene_column="tile",
        ignore=None if ignore is None else str(ignore),
        resamples=0,
    )
    got = evaluate(detections, labels, options)
    precision = coco_precision(found, truth, images=images, classes=classes, crowds=crowds)
    assert_equal(got.overall, precision[..., 0])
    for k in range(classes):
        if f"c{k:02d}" in got.classes:
            assert_equal(got.classes[f"c{k:02d}"], precision[:, :, k : k + 1, 0])


def share_nothing(found, truth):
    """Whether no class, or no scene, is in common, which is refused as a slip of names."""
    return any(not {f[k] for f in found} & {t[k] for t in truth} for k in (1, 2))


def on_a_crowd(label, crowds):
    x, y = (label[0][:2] + label[0][2:]) / 2
    boxes = (box for box, image in crowds if image == label[1])
    return any(b[0] < x < b[2] and b[1] < y < b[3] for b in boxes)


@settings(max_examples=12)
@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 50))
def test_ap_by_size(seed, images, classes, objects):
    rng = np.random.default_rng(seed)
    found, truth = random_objects(
        rng, images=images, classes=classes, objects=objects, spread=400.0, sides=(8.0, 160.0)
    )
    if share_nothing(found, truth):
        return
    options = EvaluateOptions(class_column="kind", scene_column="tile", sizes_m=(), resamples=0)
    got = evaluate(*tables(found, truth), options)
    assert got.gsd_m == pytest.approx(GSD_M, rel=1e-3)
    ranges = (WHOLE, (0, 32**2), (32**2, 96**2), (96**2, 1e10))
    precision = coco_precision(found, truth, images=images, classes=classes, ranges=ranges)
    assert_equal(got.overall, precision[..., 0])
    assert [(s.unit, s.low, s.high) for s in got.sizes] == [
        ("px", 0, 32),
        ("px", 32, 96),
        ("px", 96, np.inf),
    ]
    for k, size in enumerate(got.sizes):
        assert_equal(size.overall, precision[..., k + 1])
        for name, scores in size.classes.items():
            c = int(name[1:])
            assert_equal(scores, precision[:, :, c : c + 1, k + 1])


def test_many_objects_in_one_image():
    rng = np.random.default_rng(1)
    found, truth = random_objects(rng, images=1, classes=2, objects=400, spread=320.0)
    options = EvaluateOptions(class_column="kind", resamples=0)
    got = evaluate(*tables(found, truth), options)
    precision = coco_precision(found, truth, images=1, classes=2)
    assert_equal(got.overall, precision[..., 0])
    assert 0.05 < got.ap < 0.95  # the case must be one in which something can go wrong
