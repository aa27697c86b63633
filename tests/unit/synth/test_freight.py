"""Scenes of freight: rows at any angle, whose truth is rotated boxes."""

from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geo_retina.errors import OptionError
from geo_retina.grid import Window
from geo_retina.options import SynthOptions
from geo_retina.synth import FREIGHT_CLASSES, draw_scene, truth_boxes, truth_rotated
from geo_retina.synth.painter import Painter

FREIGHT = SynthOptions(height=500, width=640, seed=3, content="freight")


def _rectangles(rotated):
    """Turn a rectangle by shapely, as the oracle of the corners."""
    return [
        shapely.affinity.rotate(
            shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2), angle
        )
        for x, y, length, width, angle in rotated
    ]


def test_pixels_do_not_depend_on_the_windows():
    painter = Painter(replace(FREIGHT, difficulty=0.8))
    whole, _ = painter.draw(Window(0, 0, 500, 640))
    part, _ = painter.draw(Window(113, 71, 200, 310))
    np.testing.assert_array_equal(part, whole[:, 113:313, 71:381])


def test_objects_of_each_class_lie_at_any_angle_and_none_overlap():
    rotated, labels = truth_rotated(replace(FREIGHT, height=3000, width=3000))
    assert (np.bincount(labels, minlength=len(FREIGHT_CLASSES)) > 200).all()
    assert (rotated[:, 2] >= rotated[:, 3]).all()
    for label in range(len(FREIGHT_CLASSES)):
        share = np.histogram(rotated[labels == label, 4], 6, (-90, 90))[0]
        assert (share > 0).all()
        assert share.sum() == (labels == label).sum()
    shapes = np.array(_rectangles(rotated))
    i, j = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    common = shapely.area(shapely.intersection(shapes[i], shapes[j]))[i < j]
    assert len(common) == 0 or common.max() < 1e-6


def test_rotated_truth_frames_the_pixels_that_an_object_changes():
    options = replace(
        FREIGHT, height=1200, width=1200, difficulty=0, dtype="float32", nodata_corner=False
    )
    window = Window(0, 0, 1200, 1200)
    change = np.abs(
        Painter(options).draw(window)[0] - Painter(options, bare=True).draw(window)[0]
    ).max(axis=0)
    rotated, labels = truth_rotated(options)
    shapes = np.array(_rectangles(rotated))
    tree = shapely.STRtree(shapes)
    y, x = np.mgrid[:1200, :1200] + 0.5
    checked = np.zeros(len(FREIGHT_CLASSES), int)
    for shape, label in zip(shapes, labels, strict=True):
        inner, outer = shape.buffer(-2), shape.buffer(3)
        alone = len(tree.query(outer, predicate="intersects")) == 1
        if label == 1 or not alone or not shapely.contains(shapely.box(0, 0, 1200, 1200), outer):
            continue  # wagons stand on rails
        left, top, right, bottom = (int(v) for v in outer.bounds)
        part = np.s_[top:bottom, left:right]
        inside = shapely.contains_xy(inner, x[part], y[part])
        beyond = ~shapely.contains_xy(shape.buffer(1.6), x[part], y[part])
        beyond &= shapely.contains_xy(outer, x[part], y[part])
        if np.median(change[part][inside]) < 0.1:
            continue  # as grey as its ground
        # Beyond may pass a car; most of the ring around an object is bare ground.
        assert np.mean(change[part][beyond] > 0.03) < 0.2
        assert np.mean(change[part][inside] > 0.05) > 0.75
        checked[label] += 1
    assert checked[0] > 30, checked
    assert checked[2] > 30, checked


def test_truth_lies_along_the_sides_of_objects_on_a_rotated_grid(tmp_path):
    options = replace(FREIGHT, rotation_deg=25.0, gsd_m=0.25)
    report = draw_scene(tmp_path / "a.tif", options, truth=tmp_path / "truth.gpkg")
    truth = geopandas.read_file(tmp_path / "truth.gpkg").sort_values("id")
    rotated, labels = truth_rotated(options)
    assert list(truth["class"]) == [FREIGHT_CLASSES[label] for label in labels]
    assert {k: n for k, n in report.counts.items() if n} == truth["class"].value_counts().to_dict()
    with rasterio.open(tmp_path / "a.tif") as file:
        to_pixel, valid = ~file.transform, file.dataset_mask() > 0
    for geometry, expected in zip(truth.geometry, _rectangles(rotated), strict=True):
        matrix = [to_pixel.a, to_pixel.b, to_pixel.d, to_pixel.e, to_pixel.c, to_pixel.f]
        found = shapely.affinity.affine_transform(geometry, matrix)
        assert shapely.hausdorff_distance(found, expected) < 1e-6
    row, col = (rotated[:, 1].astype(int), rotated[:, 0].astype(int))
    whole = rotated[:, 2] * 0.25 > 5.9
    assert valid[row[whole], col[whole]].mean() > 0.97


def test_truth_is_cut_at_the_scene_along_the_objects_own_sides():
    large = replace(FREIGHT, height=900, width=900, nodata_corner=False)
    small = replace(large, height=300, width=300)
    full, cut = truth_rotated(large)[0], truth_rotated(small)[0]
    edge = shapely.box(0, 0, 300, 300)
    checked = 0
    for shape, box in zip(_rectangles(cut), cut, strict=True):
        source = [s for s in _rectangles(full) if s.buffer(1e-6).contains(shape)]
        if len(source) != 1 or edge.contains(source[0]):
            continue
        visible = shapely.intersection(source[0], edge)
        # The rectangle of the object's own direction around what is inside: it holds the part,
        # and each of its sides touches it.
        assert shape.buffer(1e-6).contains(visible)
        turned = shapely.affinity.rotate(visible, -box[4], origin=tuple(box[:2]))
        sides = np.array(turned.bounds[2:]) - turned.bounds[:2]
        np.testing.assert_allclose(sides, box[2:4], atol=1e-6)
        checked += 1
    assert checked >= 3


def test_upright_truth_bounds_what_is_visible():
    options = replace(FREIGHT, nodata_corner=False)
    rotated, labels = truth_rotated(options)
    upright, same = truth_boxes(options)
    np.testing.assert_array_equal(labels, same)
    scene = shapely.box(0, 0, options.width, options.height)
    shapes = _rectangles(rotated)
    inside = [scene.contains(shape) for shape in shapes]
    assert 0 < np.sum(inside) < len(shapes)
    bounds = shapely.bounds(shapely.intersection(shapes, scene))
    np.testing.assert_allclose(upright[inside], bounds[inside], atol=1e-6)
    assert (upright >= bounds - 1e-6)[:, :2].all()
    assert (upright <= bounds + 1e-6)[:, 2:].all()


def test_a_content_that_there_is_not_and_rotated_truth_of_mixed_scenes_are_refused():
    with pytest.raises(OptionError, match="content is 'ships', expected mixed or freight"):
        SynthOptions(content="ships")
    with pytest.raises(OptionError, match="content is mixed, whose truth is upright"):
        truth_rotated(SynthOptions())
