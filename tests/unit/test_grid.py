"""Grids, windows and plans by example; properties/test_tiles.py has the rest."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
from affine import Affine

from geo_retina.errors import GridError, OptionError
from geo_retina.grid import Grid, TilePlan, Window, plan_tiles

ROTATED = (
    Affine.translation(400_000.25, 5_000_000.5) @ Affine.rotation(30) @ Affine.scale(0.4, -0.7)
)


def grid(crs: str | None, affine: Affine, shape: tuple[int, int] = (100, 200)) -> Grid:
    return Grid(crs and pyproj.CRS(crs), affine, *shape)


def test_a_window_is_a_box():
    assert Window(row=3, col=5, height=10, width=20).box_px == (5, 3, 25, 13)
    assert grid(None, Affine.identity()).window == (0, 0, 100, 200)


def test_pixel_origin_is_the_outer_corner():
    north_up = grid("EPSG:32632", Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000))
    assert north_up.pixels_to_crs(np.array([0.0, 0.0])).tolist() == [500_000, 5_300_000]
    assert north_up.pixels_to_crs(np.array([200.0, 100.0])).tolist() == [500_100, 5_299_950]


@pytest.mark.parametrize("shape", [(2,), (0, 2), (5, 2), (3, 4, 2)])
def test_points_keep_their_shape_and_come_back(shape):
    points_px = np.random.default_rng(0).uniform(-10, 10_000, shape)
    rotated = grid("EPSG:32633", ROTATED)
    points_crs = rotated.pixels_to_crs(points_px)
    assert points_crs.shape == shape
    np.testing.assert_allclose(rotated.crs_to_pixels(points_crs), points_px, atol=1e-6)


def test_metres_are_metres():
    assert grid("EPSG:32633", ROTATED).gsd_m == pytest.approx(math.sqrt(0.4 * 0.7), rel=1e-12)


def test_us_survey_feet_become_metres():
    """One foot a pixel, in New York Long Island."""
    feet = grid("EPSG:2263", Affine(1, 0, 990_000, 0, -1, 210_000))
    assert feet.gsd_m == pytest.approx(1200 / 3937, rel=1e-12)


def test_degrees_are_measured_on_the_ellipsoid():
    """A degree at 60 N is 111.41 km north-south and 55.80 km east-west on WGS84."""
    degrees = grid("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 60 + 50e-5))
    assert degrees.gsd_m == pytest.approx(1e-5 * math.sqrt(111_412 * 55_800), rel=1e-4)


def test_grads_are_no_degrees():
    grads = grid("EPSG:4807", Affine(1e-5, 0, 1, 0, -1e-5, 50))
    degrees = grid("EPSG:4275", Affine(0.9e-5, 0, 2.3372 + 0.9, 0, -0.9e-5, 45))
    assert grads.gsd_m == pytest.approx(degrees.gsd_m, rel=1e-4)


def test_web_mercator_is_measured_where_it_stretches():
    """Its metre is cos(latitude) on the ground, to within the ellipsoid's flattening."""
    north = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    mercator = grid("EPSG:3857", Affine(0.6, 0, north[0], 0, -0.6, north[1]))
    assert mercator.gsd_m == pytest.approx(0.3, rel=4e-3)


def test_without_a_crs_there_are_no_metres():
    assert grid(None, Affine.identity()).gsd_m is None


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, 5)])
def test_a_grid_without_pixels_is_refused(shape):
    with pytest.raises(GridError, match="has no ground"):
        grid(None, Affine.identity(), shape)


@pytest.mark.parametrize("affine", [Affine(1, 2, 0, 2, 4, 0), Affine(math.nan, 0, 0, 0, 1, 0)])
def test_an_affine_without_inverse_is_refused(affine):
    with pytest.raises(GridError, match="cannot be inverted"):
        grid(None, affine)


def test_a_small_plan_in_full():
    plan = TilePlan(height=90, width=200, tile_px=96, step_px=64)
    assert (plan.rows, plan.cols, len(plan), plan.overlap_px) == (1, 3, 3, 32)
    assert [tuple(t.window) for t in plan] == [
        (0, 0, 90, 96),
        (0, 64, 90, 96),
        (0, 128, 90, 72),
    ]
    assert [tuple(t.core) for t in plan] == [(0, 0, 90, 80), (0, 80, 90, 64), (0, 144, 90, 56)]
    assert plan.pixel_factor == 3 * 96 * 96 / (90 * 200)


@pytest.mark.parametrize(("size", "tiles"), [(96, 1), (97, 2), (160, 2), (161, 3)])
def test_a_tile_more_only_where_it_sees_more(size, tiles):
    assert TilePlan(size, 50, 96, 64).rows == tiles


def test_chips_get_tiles_of_their_size():
    plan = plan_tiles((256, 256), tile_px=1024, overlap_px=64, stride_px=32)
    assert (plan.tile_px, len(plan), plan.pixel_factor) == (256, 1, 1)


def test_exact_takes_the_side_that_was_given():
    plan = plan_tiles((256, 256), tile_px=1000, overlap_px=64, stride_px=32, exact=True)
    assert plan.tile_px == 1024


@pytest.mark.parametrize("overlap_px", [1, 31, 32, 33, 63])
def test_an_overlap_that_is_no_multiple_of_the_stride_leaves_a_step(overlap_px):
    plan = plan_tiles((500, 500), tile_px=96, overlap_px=overlap_px, stride_px=32)
    assert plan.overlap_px >= overlap_px
    assert plan.step_px >= 32


@pytest.mark.parametrize("overlap_px", [-1, 65, 96, 1000])
def test_an_overlap_without_room_to_step_is_refused(overlap_px):
    with pytest.raises(OptionError, match=r"choose an overlap from 0 to 64 px"):
        plan_tiles((500, 500), tile_px=96, overlap_px=overlap_px, stride_px=32)


@pytest.mark.parametrize("step_px", [0, 97])
def test_gaps_between_tiles_are_refused(step_px):
    with pytest.raises(OptionError, match="leave gaps"):
        TilePlan(100, 100, 96, step_px)


@pytest.mark.parametrize("stride_px", [32, 64, 128])
@pytest.mark.parametrize("height", [20_000, 19_997])
def test_large_scenes_cost_little_overlap(height, stride_px):
    """Objects of up to 40 px: with their context and padding, not a fifth more pixels."""
    from geo_retina.model import OVERLAP_MARGIN_PX, choose_tile_px

    tile_px, overlap_px = choose_tile_px(40, stride_px), 40 + OVERLAP_MARGIN_PX
    plan = plan_tiles((height, 20_000), tile_px=tile_px, overlap_px=overlap_px, stride_px=stride_px)
    assert plan.overlap_px >= overlap_px
    assert plan.pixel_factor <= 1.2


def test_blocks_may_be_wider_than_high():
    plan = TilePlan(height=1000, width=3000, tile_px=128, step_px=96)
    blocks = plan.blocks(300, width_px=4000)
    assert {block.window.width for block in blocks} == {3000}
    assert max(block.window.height for block in blocks) <= 300
    tiles = [tile.index for block in blocks for tile in plan.tiles_of(block)]
    assert sorted(tiles) == list(range(len(plan)))
