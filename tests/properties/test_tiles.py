"""Plans of tiles and blocks: what must hold of any."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geo_retina.grid import TilePlan, Window, plan_tiles
from properties.strategies import plans


def counted(shape: tuple[int, int], windows: list[Window]) -> np.ndarray:
    """How often each pixel is covered."""
    count = np.zeros(shape, dtype=int)
    for row, col, height, width in windows:
        count[row : row + height, col : col + width] += 1
    return count


def inside(inner: Window, outer: Window) -> bool:
    a, b = inner.box_px, outer.box_px
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


@given(plans())
def test_every_pixel_has_one_owner_that_sees_it(plan):
    shape = (plan.height, plan.width)
    tiles = list(plan)
    assert (counted(shape, [t.core for t in tiles]) == 1).all()
    assert all(inside(t.core, t.window) for t in tiles)
    assert all(inside(t.window, Window(0, 0, *shape)) for t in tiles)
    assert all(t.window.height > 0 and t.window.width > 0 for t in tiles)


@given(plans())
def test_tiles_are_numbered_by_row_and_column(plan):
    places = [(t.index, t.row, t.col) for t in plan]
    assert places == [(r * plan.cols + c, r, c) for r in range(plan.rows) for c in range(plan.cols)]


@given(plans())
def test_no_tile_is_there_for_nothing(plan):
    """The last row and column reach pixels that the one before does not."""
    last = plan.tile(len(plan) - 1).window
    if plan.rows > 1:
        assert (plan.rows - 2) * plan.step_px + plan.tile_px < plan.height
        assert last.row + last.height == plan.height
    if plan.cols > 1:
        assert (plan.cols - 2) * plan.step_px + plan.tile_px < plan.width
        assert last.col + last.width == plan.width


@given(plans())
def test_windows_as_an_array_are_those_of_the_tiles(plan):
    windows = plan.windows_px(np.arange(len(plan)))
    assert windows.tolist() == [list(t.window.box_px) for t in plan]
    assert plan.windows_px(np.empty(0, dtype=np.int64)).shape == (0, 4)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.integers(1, 1000),
    st.integers(0, 300),
    st.sampled_from([1, 4, 32, 64, 128]),
    st.booleans(),
)
def test_a_plan_keeps_its_promises(shape, tile_px, overlap_px, stride_px, exact):
    largest = math.ceil(tile_px / stride_px) * stride_px
    overlap_px = min(overlap_px, largest - stride_px)
    plan = plan_tiles(
        shape, tile_px=tile_px, overlap_px=overlap_px, stride_px=stride_px, exact=exact
    )
    assert len(plan) == 1 or plan.overlap_px >= overlap_px
    assert plan.tile_px % stride_px == 0
    assert plan.step_px % stride_px == 0
    assert plan.tile_px == largest if exact else plan.tile_px <= largest
    assert plan.pixel_factor == len(plan) * plan.tile_px**2 / (shape[0] * shape[1])
    assert plan.pixel_factor >= 1
    if not exact:
        fixed = plan_tiles(
            shape, tile_px=tile_px, overlap_px=overlap_px, stride_px=stride_px, exact=True
        )
        assert plan.pixel_factor <= fixed.pixel_factor


@given(plans(), st.integers(1, 400))
def test_each_tile_is_in_one_block_whose_window_holds_just_its_tiles(plan, block_px):
    blocks = plan.blocks(block_px)
    assert [b.index for b in blocks] == list(range(len(blocks)))
    found = [t.index for b in blocks for t in plan.tiles_of(b)]
    assert sorted(found) == list(range(len(plan)))
    for block in blocks:
        boxes = plan.windows_px(np.array([t.index for t in plan.tiles_of(block)]))
        around = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
        assert block.window.box_px == around
        several = len(block.tile_rows) > 1, len(block.tile_cols) > 1
        assert block.window.height <= block_px or not several[0]
        assert block.window.width <= block_px or not several[1]


@given(plans(), st.integers(1, 400))
def test_blocks_are_of_even_size(plan, block_px):
    for axis in ("tile_rows", "tile_cols"):
        sizes = {len(getattr(block, axis)) for block in plan.blocks(block_px)}
        assert max(sizes) - min(sizes) <= 1


def test_a_huge_plan_costs_nothing():
    plan = TilePlan(10**7, 10**7, 1024, 960)
    last = plan.tile(len(plan) - 1)
    assert len(plan) > 10**8
    assert last.window.row + last.window.height == 10**7
