"""Box arithmetic and placing boxes on the ground, against shapely and slow formulas."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from geo_retina.boxes import (
    area,
    clip,
    corners,
    intersection,
    iou,
    overlapping_pairs,
    shift,
    to_polygons,
)
from properties.strategies import KINDS, grids, plans, seeds


@st.composite
def boxes(draw: st.DrawFn, most: int = 30) -> np.ndarray:
    """(N, 4) boxes, some without area, on whole and on broken pixels."""
    value = st.one_of(st.integers(-50, 50).map(float), st.floats(-50, 50))
    ends = draw(npst.arrays(np.float64, (draw(st.integers(0, most)), 2, 2), elements=value))
    return np.sort(ends, axis=1).reshape(-1, 4)


@given(boxes(), st.randoms(use_true_random=False))
def test_overlap_is_shapelys(a, random):
    b = a[random.sample(range(len(a)), len(a))]
    polygons_a, polygons_b = shapely.box(*a.T), shapely.box(*b.T)
    np.testing.assert_allclose(area(a), shapely.area(polygons_a), atol=1e-9)
    shared = shapely.area(shapely.intersection(polygons_a, polygons_b))
    np.testing.assert_allclose(intersection(a, b), shared, rtol=1e-9, atol=1e-9)


@given(boxes())
def test_iou_is_symmetric_and_between_0_and_1(a):
    b = a[::-1]
    values = iou(a, b)
    assert (values == iou(b, a)).all()
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_array_equal(iou(a, a), (area(a) > 0).astype(float))


@given(boxes(), boxes(most=12))
def test_pairs_are_those_that_touch(a, b):
    def touch(p, q):
        low, high = np.maximum(p[:2], q[:2]), np.minimum(p[2:], q[2:])
        return bool((low <= high).all())

    expected = [[i, j] for i in range(len(a)) for j in range(len(b)) if touch(a[i], b[j])]
    assert overlapping_pairs(a, b).tolist() == expected
    expected = [[i, j] for i in range(len(a)) for j in range(i + 1, len(a)) if touch(a[i], a[j])]
    assert overlapping_pairs(a).tolist() == expected


@given(plans(), seeds, st.sampled_from(KINDS), st.integers(0, 20))
def test_clipping_keeps_what_lies_within(plan, seed, kind, n):
    objects = kind(np.random.default_rng(seed), plan, n)
    for tile in list(plan)[:4]:
        bounds = tile.window.box_px
        cut = clip(objects, bounds)
        assert ((cut >= np.tile(bounds[:2], 2)) & (cut <= np.tile(bounds[2:], 2))).all()
        assert (clip(cut, bounds) == cut).all()
        np.testing.assert_array_equal(
            area(cut), intersection(objects, np.broadcast_to(np.float64(bounds), objects.shape))
        )


@given(boxes(), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_shifting_back_is_the_identity(a, x, y):
    whole = np.round(a)
    assert (shift(shift(whole, x, y), -x, -y) == whole).all()


@given(grids(), npst.arrays(np.float64, (7, 2), elements=st.floats(-10, 100_000)))
def test_pixel_to_ground_to_pixel_is_the_identity(grid, points_px):
    back = grid.crs_to_pixels(grid.pixels_to_crs(points_px))
    # A northing of 1e7 m has a float64 spacing of 2e-9 m; the smallest pixel here is 5 cm.
    np.testing.assert_allclose(back, points_px, atol=1e-6)


@given(grids(), boxes())
def test_polygons_are_the_boxes_on_any_grid(grid, a):
    a = a[area(a) > 1e-3]
    polygons = to_polygons(a, grid)
    assert len(polygons) == len(a)
    for polygon, box_px in zip(polygons, a, strict=True):
        ring_px = grid.crs_to_pixels(np.array(polygon.exterior.coords))
        x_min, y_min, x_max, y_max = box_px
        expected = {(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)}
        distance = [min(np.hypot(*(np.array(c) - p)) for p in ring_px) for c in expected]
        assert max(distance) < 1e-6
        assert len(ring_px) == 5
        assert polygon.is_valid or area(box_px[None])[0] < 1e-2
        assert polygon.exterior.is_ccw


@given(boxes())
def test_corners_go_round(a):
    ring = corners(a)
    assert ring.shape == (len(a), 4, 2)
    assert (np.concatenate([ring.min(axis=1), ring.max(axis=1)], axis=1) == a).all()
    steps = np.diff(ring, axis=1, append=ring[:, :1])
    assert ((steps == 0).any(axis=2)).all()
