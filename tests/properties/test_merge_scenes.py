"""Merging scenes is merging tiles: the same rule, with borders in the place of inner sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from geo_retina.detections import INNER_SIDES, Detections
from geo_retina.grid import Block, Tile, TilePlan, Window
from geo_retina.merge import (
    Contested,
    Leaves,
    SceneRule,
    Scenes,
    Tree,
    bounds_of_say,
    contest,
    in_order,
    merge_piecewise,
    merge_scenes,
    merge_tiles,
)
from geo_retina.options import MergeOptions
from properties.strategies import (
    KINDS,
    Sight,
    cut_of,
    merge_options,
    partitions,
    plans,
    scenes,
    see,
    seeds,
)
from properties.test_merge import Naive, scattered


def as_scenes(found: Detections) -> Detections:
    """What the tiles would say were each a scene of its own: all their sides are borders."""
    sides = (found.cut | found.cut >> 4) & INNER_SIDES
    return replace(found, cut=(sides << 4).astype(np.uint8))


def merged(found: Detections, where: Scenes, options: MergeOptions) -> Detections:
    result = merge_scenes(found, where, options)
    return in_order(Detections.concat([found.take(result.stays), result.joined]))


def of_scenes(options: MergeOptions) -> MergeOptions:
    """The same, but for the orders that only tiles have."""
    return replace(options, rank="whole")


@settings(max_examples=200)
@given(st.data(), merge_options())
def test_scenes_of_one_tile_each_merge_as_tiles(data, options):
    options = of_scenes(options)
    found, plan = data.draw(scenes(options))
    windows = plan.windows_px(np.arange(len(plan)))
    by_scenes = merged(as_scenes(found), Scenes.of_one_lattice(windows), options)
    by_tiles = merge_tiles(found, plan, options)
    event(f"joined: {bool(by_tiles.joined.any())}")
    assert by_scenes == as_scenes(by_tiles)


@dataclass(frozen=True)
class Layout:
    """Tiles in rows and columns that overlap, abut or leave gaps, each as it likes."""

    cols: tuple[tuple[int, int], ...]
    rows: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        return self.cols[-1][1]

    @property
    def height(self) -> int:
        return self.rows[-1][1]

    def tile(self, index: int) -> Tile:
        row, col = divmod(index, len(self.cols))
        (x0, x1), (y0, y1) = self.cols[col], self.rows[row]
        window = Window(y0, x0, y1 - y0, x1 - x0)
        return Tile(index, row, col, window, window)

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(k) for k in range(len(self.cols) * len(self.rows)))

    def scenes(self) -> Scenes:
        return Scenes.of_one_lattice(np.array([tile.window.box_px for tile in self]))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    def spans() -> tuple[tuple[int, int], ...]:
        found = [(0, draw(st.integers(20, 60)))]
        for _ in range(draw(st.integers(0, 3))):
            low, high = found[-1]
            start = draw(
                st.sampled_from([high, high, high + 1, high + 9]) | st.integers(low + 1, high)
            )
            found.append((start, max(high, start) + draw(st.integers(10, 50))))
        return tuple(found)

    return Layout(spans(), spans())


@settings(max_examples=200)
@given(layouts(), merge_options(), seeds, st.sampled_from(KINDS), st.sampled_from([0.0, 0.0, 2.0]))
def test_scenes_that_overlap_abut_or_leave_gaps_merge_by_the_definition(
    layout, options, seed, kind, jitter_px
):
    options = of_scenes(options)
    objects = kind(np.random.default_rng(seed), layout, 25)
    found = see(objects, layout, Sight(jitter_px, levels=3, classes=2), options.edge_px, seed)
    by_definition = Naive(found, layout, options).merged()
    event(f"joined: {bool(by_definition.joined.any())}")
    assert merged(as_scenes(found), layout.scenes(), options) == as_scenes(by_definition)


def in_pieces(
    found: Detections, where: Scenes, options: MergeOptions, leaf: np.ndarray, tree: Tree
) -> tuple[Detections, int]:
    """Merge leaf by leaf; tells too how many were contested."""
    seen, is_contested = contest(found, where, options)
    at = np.flatnonzero(is_contested)
    every = Contested(at, found.take(at), seen.cut[at], bounds_of_say(found.take(at), options))
    inside = [every.take(leaf[at] == k) for k in range(leaf.max(initial=-1) + 1)]
    extents = np.array(
        [
            np.concatenate([part.around[:, :2].min(axis=0), part.around[:, 2:].max(axis=0)])
            if len(part)
            else [np.inf, np.inf, -np.inf, -np.inf]
            for part in inside
        ]
    ).reshape(-1, 4)
    leaves = Leaves(extents, lambda k: inside[k])
    settled = list(merge_piecewise(tree, leaves, SceneRule(where, options)))
    gone = np.concatenate([s.gone for s in settled])
    assert len(np.unique(gone)) == len(gone)
    stays = np.ones(len(found), dtype=bool)
    stays[gone] = False
    return in_order(Detections.concat([found.take(stays), *(s.joined for s in settled)])), len(at)


@st.composite
def trees(draw: st.DrawFn, leaves: int) -> Tree:
    """Any tree of all leaves, in any order."""
    parts: list[Tree] = draw(st.permutations(range(leaves)))
    while len(parts) > 1:
        together = draw(st.integers(2, len(parts)))
        parts = [*parts[together:], tuple(parts[:together])]
    return parts[0]


@settings(max_examples=200)
@given(st.data(), layouts(), merge_options(), seeds, st.sampled_from(KINDS))
def test_any_division_into_leaves_gives_the_merge_of_everything_at_once(
    data, layout, options, seed, kind
):
    options = of_scenes(options)
    rng = np.random.default_rng(seed)
    objects = kind(rng, layout, 25)
    jitter_px = data.draw(st.sampled_from([0.0, 2.0]))
    sight = Sight(jitter_px, levels=3, classes=2)
    found = as_scenes(see(objects, layout, sight, options.edge_px, seed))
    leaves = data.draw(st.integers(2, 6))
    by_place = (found.boxes_px[:, 0] // 37 + found.boxes_px[:, 1] // 23).astype(int) % leaves
    leaf = data.draw(st.sampled_from([by_place, rng.integers(0, leaves, len(found))]))
    tree = data.draw(trees(int(leaf.max(initial=0)) + 1))
    whole = merged(found, layout.scenes(), options)
    if not len(found):
        return
    pieces, contested = in_pieces(found, layout.scenes(), options, leaf, tree)
    event(f"joined: {bool(whole.joined.any())}")
    event(f"contested: {contested > 0}, leaves: {leaves > 1}")
    assert pieces == whole


@st.composite
def lattice_of_blocks(draw: st.DrawFn, plan: TilePlan) -> list[Block]:
    """Rectangles of tiles in rows and columns."""
    cuts = []
    for n in (plan.rows, plan.cols):
        inner = draw(st.sets(st.integers(1, n - 1))) if n > 1 else set()
        cuts.append([range(a, b) for a, b in pairwise([0, *sorted(inner), n])])
    spans = [(rows, cols) for rows in cuts[0] for cols in cuts[1]]
    return [Block(k, rows, cols, plan.tile(0).window) for k, (rows, cols) in enumerate(spans)]


def several_tiles_each(
    objects: np.ndarray, plan: TilePlan, blocks: list[Block], seed: int
) -> tuple[Detections, Scenes]:
    """Blocks of a plan as scenes, each merged in itself first."""
    found = see(objects, plan, Sight(), 4.0, seed)
    row, col = np.divmod(found.tile, plan.cols)
    parts, windows = [], []
    for number, block in enumerate(blocks):
        first, last = (
            plan.tile(block.tile_rows[0] * plan.cols + block.tile_cols[0]),
            plan.tile(block.tile_rows[-1] * plan.cols + block.tile_cols[-1]),
        )
        x0, y0, _, _ = first.window.box_px
        _, _, x1, y1 = last.window.box_px
        own = TilePlan(y1 - y0, x1 - x0, plan.tile_px, plan.step_px)
        assert (own.rows, own.cols) == (len(block.tile_rows), len(block.tile_cols))
        mine = np.isin(row, block.tile_rows) & np.isin(col, block.tile_cols)
        seen = found.take(mine)
        tile = (row[mine] - block.tile_rows[0]) * own.cols + col[mine] - block.tile_cols[0]
        corner = np.array([x0, y0, x0, y0])
        boxes = seen.boxes_px - corner
        cut = np.zeros(len(seen), np.int64)
        for k in np.unique(tile):
            cut[tile == k] = cut_of(boxes[tile == k], own, int(k), 4.0)
        seen = replace(seen, boxes_px=boxes, tile=tile, cut=cut)
        whole = merge_tiles(seen, own)
        parts.append(
            replace(whole, boxes_px=whole.boxes_px + corner, tile=np.full(len(whole), number))
        )
        windows.append((x0, y0, x1, y1))
    return Detections.concat(parts), Scenes.of_one_lattice(np.array(windows))


SIDES_PX = st.sampled_from([(2, 20), (20, 60), (60, 200), (3, 200)])


@settings(max_examples=100)
@given(st.data(), plans(), seeds, SIDES_PX)
def test_objects_of_scenes_in_rows_and_columns_come_out_exactly(data, plan, seed, sides_px):
    objects = scattered(np.random.default_rng(seed), plan, sides_px, 9)
    blocks = data.draw(lattice_of_blocks(plan))
    assume(len(blocks) > 1)
    result = merged(*several_tiles_each(objects, plan, blocks, seed), MergeOptions())
    event(f"joined: {bool(result.joined.any())}")
    assert sorted(map(tuple, result.boxes_px)) == sorted(map(tuple, objects))


@settings(max_examples=100)
@given(st.data(), plans(), seeds, SIDES_PX)
def test_scenes_in_any_arrangement_fuse_nothing_and_lose_nothing(data, plan, seed, sides_px):
    objects = scattered(np.random.default_rng(seed), plan, sides_px, 9)
    blocks = data.draw(partitions(plan))
    assume(len(blocks) > 1)
    result = merged(*several_tiles_each(objects, plan, blocks, seed), MergeOptions())
    low = np.maximum(result.boxes_px[:, None, :2], objects[None, :, :2])
    high = np.minimum(result.boxes_px[:, None, 2:], objects[None, :, 2:])
    meets = (high > low).all(axis=2)
    assert (meets.sum(axis=1) == 1).all()
    parts = meets.sum(axis=0)
    event(f"in parts: {bool((parts > 1).any())}")
    for k in range(len(objects)):
        own = result.boxes_px[meets[:, k]]
        around = np.concatenate([own[:, :2].min(axis=0), own[:, 2:].max(axis=0)])
        assert around.tolist() == objects[k].tolist()
