"""Hypothesis strategies for grids, plans and what the tiles of a plan would detect."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyproj
from affine import Affine
from hypothesis import strategies as st
from numpy.typing import NDArray

from geo_retina.boxes import oriented
from geo_retina.detections import Cut, Detections
from geo_retina.grid import Block, Grid, TilePlan, plan_tiles
from geo_retina.options import MergeOptions

Boxes = NDArray[np.float64]

UTM = pyproj.CRS.from_epsg(32632)

seeds = st.integers(0, 2**32 - 1)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids at national-grid distances, turned, sheared, mirrored, with pixels not square."""
    width_m = draw(st.floats(0.05, 30))
    height_m = draw(st.floats(0.05, 30)) * draw(st.sampled_from([-1, 1]))
    affine = (
        Affine.translation(draw(st.floats(-1e6, 1e6)), draw(st.floats(-1e7, 1e7)))
        @ Affine.rotation(draw(st.floats(-180, 180)))
        @ Affine.shear(draw(st.floats(-30, 30)), 0)
        @ Affine.scale(width_m, height_m)
    )
    return Grid(UTM, affine, draw(st.integers(1, 100_000)), draw(st.integers(1, 100_000)))


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    """Plans of a few tiles, so that a scene is quickly compared pair by pair."""
    stride = draw(st.sampled_from([4, 8, 16]))
    tile = stride * draw(st.integers(3, 6))
    overlap = draw(st.integers(0, tile * 2 // 3))
    side = st.one_of(st.integers(2 * tile, 4 * tile), st.integers(1, 2 * tile))
    shape = (draw(side), draw(side))
    return plan_tiles(shape, tile_px=tile, overlap_px=overlap, stride_px=stride, exact=True)


@st.composite
def merge_options(draw: st.DrawFn) -> MergeOptions:
    """Mostly the defaults, and each option varied."""
    return MergeOptions(
        iou=draw(st.sampled_from([0.4, 0.4, 0.0, 0.7])),
        share=draw(st.sampled_from([0.5, 0.5, 0.0, 0.9])),
        edge_px=draw(st.sampled_from([4.0, 4.0, 0.0, 1.5])),
        join=draw(st.sampled_from([True, True, False])),
        join_iou=draw(st.sampled_from([0.5, 0.5, 0.0, 1.0])),
        class_aware=draw(st.booleans()),
        rank=draw(st.sampled_from(["whole", "whole", "owner", "score"])),
    )


@dataclass(frozen=True)
class Sight:
    """How well a stand-in detector sees: noise, what it misses, how its scores are spread."""

    jitter_px: float = 0.0
    misses: float = 0.0
    levels: int | None = None
    classes: int = 1


def see(objects: Boxes, plan: TilePlan, sight: Sight, edge_px: float, seed: int) -> Detections:
    """Detect every object in every tile whose window it meets, clipped to that window.

    Objects are (N, 4) upright boxes, or (N, 5) oriented ones.
    ``cut`` is set as the tiles' windows say, with inner sides and scene borders told apart.
    ``sight.levels`` is the number of different scores; None draws them from a continuum.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, sight.classes, len(objects))
    hulls = objects if objects.shape[1] == 4 else oriented.hull(objects)
    parts = []
    for tile in plan:
        x0, y0, x1, y1 = tile.window.box_px
        meets = (hulls[:, 0] < x1) & (hulls[:, 2] > x0)
        meets &= (hulls[:, 1] < y1) & (hulls[:, 3] > y0)
        meets &= rng.random(len(objects)) >= sight.misses
        noise = sight.jitter_px * rng.standard_normal((int(meets.sum()), objects.shape[1]))
        boxes, rotated = objects[meets] + noise, None
        if objects.shape[1] == 5:
            rotated = _within(boxes, (x0, y0, x1, y1))
            seen = (rotated[:, 2:4] > 0).all(axis=1) | (objects[meets, 2:4] == 0).any(axis=1)
            meets[meets], rotated = seen, rotated[seen]
            boxes = oriented.hull(rotated)
        boxes = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        parts.append(
            Detections(
                boxes,
                _scores(rng, len(boxes), sight.levels),
                labels[meets],
                np.full(len(boxes), tile.index),
                cut_of(boxes, plan, tile.index, edge_px),
                np.zeros(len(boxes), bool),
                rotated_px=rotated,
            )
        )
    return Detections.concat(parts)


def _within(rotated: Boxes, window: tuple[float, ...]) -> Boxes:
    rotated[:, 2:4] = np.maximum(rotated[:, 2:4], 0.0)
    return oriented.clip(oriented.normalise(rotated), window)


def turned(boxes: Boxes, rng: np.random.Generator) -> Boxes:
    """Turn boxes about their centres: all by one angle, each by its own, or by quarter turns."""
    angles = np.array(
        [
            np.full(len(boxes), rng.uniform(-90, 90)),
            rng.uniform(-90, 90, len(boxes)),
            rng.choice([-90.0, -45.0, 0.0, 45.0], len(boxes)),
        ]
    )[rng.integers(3)]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return oriented.normalise(np.column_stack([centre, sides, angles]))


def _scores(rng: np.random.Generator, n: int, levels: int | None) -> NDArray[np.float64]:
    return rng.random(n) if levels is None else (1 + rng.integers(0, levels, n)) / levels


def cut_of(boxes: Boxes, plan: TilePlan, index: int, edge_px: float) -> NDArray[np.int64]:
    """Bits of Cut for boxes of one tile."""
    tile = plan.tile(index)
    x0, y0, x1, y1 = tile.window.box_px
    cut = np.zeros(len(boxes), dtype=np.int64)
    for near, is_border, side, border in (
        (boxes[:, 0] <= x0 + edge_px, x0 == 0, Cut.LEFT, Cut.SCENE_LEFT),
        (boxes[:, 1] <= y0 + edge_px, y0 == 0, Cut.TOP, Cut.SCENE_TOP),
        (boxes[:, 2] >= x1 - edge_px, x1 == plan.width, Cut.RIGHT, Cut.SCENE_RIGHT),
        (boxes[:, 3] >= y1 - edge_px, y1 == plan.height, Cut.BOTTOM, Cut.SCENE_BOTTOM),
    ):
        cut[near] |= int(border if is_border else side)
    return cut


def random_objects(rng: np.random.Generator, plan: TilePlan, n: int) -> Boxes:
    """Boxes of all shapes, some larger than the tiles, on whole and broken pixels."""
    size = rng.choice([3, 10, 30, 90], (n, 1)) * rng.uniform(0.5, 1.5, (n, 2))
    centre = rng.random((n, 2)) * [plan.width, plan.height]
    boxes = np.hstack([centre - size / 2, centre + size / 2])
    return np.where(rng.random((n, 1)) < 0.5, np.round(boxes), boxes)


def lattice(rng: np.random.Generator, plan: TilePlan, n: int) -> Boxes:
    """Boxes of 10 px every 4 to 12 px, as in an orchard whose crowns overlap."""
    step = rng.integers(4, 13)
    side = int(np.sqrt(n)) + 1
    corner = rng.integers(0, [max(1, plan.width - 20), max(1, plan.height - 20)])
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:n]
    low = corner + at * step
    return np.hstack([low, low + 10]).astype(np.float64)


def chain(rng: np.random.Generator, plan: TilePlan, n: int) -> Boxes:
    """Boxes each overlapping the next, through the whole scene."""
    step = np.array([[4.0, 3.0], [4.0, 0.0], [0.0, 5.0]])[rng.integers(3)]
    start = rng.uniform(0, 30, 2)
    low = start + np.arange(n)[:, None] * step
    return np.hstack([low, low + rng.choice([9.0, 12.0])])


def nested(rng: np.random.Generator, plan: TilePlan, n: int) -> Boxes:
    """Boxes within boxes around a few centres."""
    centres = rng.random((3, 2)) * [plan.width, plan.height]
    half = np.linspace(1, 40, n)[:, None]
    centre = centres[rng.integers(0, 3, n)]
    return np.hstack([centre - half, centre + half])


def degenerate(rng: np.random.Generator, plan: TilePlan, n: int) -> Boxes:
    """Boxes without width, height or either, twins, and ordinary ones among them."""
    boxes = random_objects(rng, plan, n)
    boxes[::3, 2] = boxes[::3, 0]
    boxes[::4, 3] = boxes[::4, 1]
    boxes[1::5] = boxes[:1]
    return boxes


KINDS = (random_objects, lattice, chain, nested, degenerate)


@st.composite
def scenes(
    draw: st.DrawFn, options: MergeOptions, *, most: int = 40, kind: str | None = None
) -> tuple[Detections, TilePlan]:
    """What the tiles of a plan detect, from sharp to noisy, and the plan.

    Boxes are of one kind, ``upright`` or ``oriented``; left out, of either.
    """
    plan, seed = draw(plans()), draw(seeds)
    rng = np.random.default_rng(seed)
    objects = draw(st.sampled_from(KINDS))(
        rng, plan, draw(st.sampled_from([most, most // 3, 2, 0]))
    )
    if (kind or draw(st.sampled_from(["upright", "oriented"]))) == "oriented":
        objects = turned(objects, rng)
    sight = Sight(
        jitter_px=draw(st.sampled_from([0.0, 0.0, 1.0, 4.0])),
        misses=draw(st.sampled_from([0.0, 0.0, 0.3])),
        levels=draw(st.sampled_from([1, 3, None])),
        classes=draw(st.sampled_from([1, 2, 12])),
    )
    return see(objects, plan, sight, options.edge_px, seed), plan


@st.composite
def partitions(draw: st.DrawFn, plan: TilePlan) -> list[Block]:
    """Rectangles of tiles: bands of rows, each cut into columns of its own."""
    blocks = []
    for rows in _ranges(draw, plan.rows):
        for cols in _ranges(draw, plan.cols):
            corner = plan.tile(rows.start * plan.cols + cols.start).window
            blocks.append(Block(len(blocks), rows, cols, corner))
    return blocks


def _ranges(draw: st.DrawFn, n: int) -> list[range]:
    inner = draw(st.sets(st.integers(1, n - 1))) if n > 1 else set()
    edges = [0, *sorted(inner), n]
    return [range(a, b) for a, b in pairwise(edges)]
