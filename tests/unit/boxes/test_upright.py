"""Boxes by example; properties/test_boxes.py has the rest."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine

from geo_retina.boxes import area, clip, intersection, iou, overlapping_pairs, to_polygons
from geo_retina.errors import GridError
from geo_retina.grid import Grid

NONE = np.empty((0, 4))


def test_area_intersection_iou():
    a = np.array([[0.0, 0, 10, 10], [0, 0, 4, 2], [5, 5, 5, 9], [3, 3, 1, 1]])
    b = np.array([[4.0, 0, 14, 10], [4, 0, 8, 2], [0, 0, 9, 9], [0, 0, 9, 9]])
    assert area(a).tolist() == [100, 8, 0, 0]
    assert intersection(a, b).tolist() == [60, 0, 0, 0]
    np.testing.assert_allclose(iou(a, b), [60 / 140, 0, 0, 0])


def test_no_boxes():
    assert area(NONE).shape == iou(NONE, NONE).shape == (0,)
    assert clip(NONE, (0, 0, 1, 1)).shape == (0, 4)
    assert overlapping_pairs(NONE).shape == (0, 2)
    assert overlapping_pairs(NONE, np.ones((1, 4))).shape == (0, 2)
    assert overlapping_pairs(np.ones((1, 4)), NONE).shape == (0, 2)
    assert to_polygons(NONE, Grid(None, Affine.identity(), 1, 1)).shape == (0,)


def test_clip_keeps_the_parts_inside():
    boxes = np.array([[-5.0, -5, 5, 5], [20, 2, 30, 4]])
    assert clip(boxes, (0, 1, 10, 8)).tolist() == [[0, 1, 5, 5], [10, 2, 10, 4]]


def test_pairs_that_touch_count():
    boxes = np.array([[0.0, 0, 1, 1], [1, 1, 2, 2], [5, 5, 6, 6]])
    assert overlapping_pairs(boxes).tolist() == [[0, 1]]
    assert overlapping_pairs(boxes, boxes[::-1]).tolist() == [
        [0, 1],
        [0, 2],
        [1, 1],
        [1, 2],
        [2, 0],
    ]


def test_a_rotated_grid_gives_a_rotated_rectangle():
    """Turned by 30 degrees, pixels 0.4 m wide and 0.7 m high, corners worked out by hand."""
    origin = np.array([400_000.25, 4_500_000.5])
    turn = np.deg2rad(30)
    right = 0.4 * np.array([np.cos(turn), np.sin(turn)])
    down = 0.7 * np.array([np.sin(turn), -np.cos(turn)])
    affine = Affine(right[0], down[0], origin[0], right[1], down[1], origin[1])
    polygon = to_polygons(np.array([[10.5, 20.25, 30.0, 50.0]]), Grid(None, affine, 99, 99))[0]
    expected = [origin + x * right + y * down for x, y in [(10.5, 20.25), (30, 50), (30, 20.25)]]
    ring = np.array(polygon.exterior.coords)
    for corner in expected:
        # Within a millionth of a pixel.
        assert np.abs(ring - corner).max(axis=1).min() < 0.4e-6
    assert len(ring) == 5
    assert polygon.exterior.is_ccw
    assert polygon.area == pytest.approx(19.5 * 29.75 * 0.4 * 0.7)


@pytest.mark.parametrize("height_m", [0.5, -0.5])
def test_rings_are_counter_clockwise_however_the_rows_run(height_m):
    grid = Grid(None, Affine(0.5, 0, 0, 0, height_m, 0), 99, 99)
    assert shapely.is_ccw(shapely.get_exterior_ring(to_polygons(np.array([[1.0, 2, 3, 4]]), grid)))


def test_a_box_that_is_not_finite_has_no_polygon():
    with pytest.raises(GridError, match="not finite"):
        to_polygons(np.array([[0, 0, np.nan, 1]]), Grid(None, Affine.identity(), 1, 1))
