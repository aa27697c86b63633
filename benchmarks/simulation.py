"""What the tiles of a plan would detect, had they a detector with known faults.

No image and no network: objects are boxes, a tile sees every object that its window meets, clipped
to the window, with jitter on each side, misses, and scores drawn anew in each tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes, oriented
from geo_retina.detections import Cut, Detections
from geo_retina.grid import TilePlan


@dataclass(frozen=True)
class Sight:
    """How well the stand-in detector sees."""

    jitter_px: float = 1.0
    misses: float = 0.05
    classes: int = 1
    least_px: float = 3.0
    """Fragments with a shorter side are not seen."""


def see(
    objects: Boxes, plan: TilePlan, sight: Sight, edge_px: float, seed: int
) -> tuple[Detections, NDArray[np.int64]]:
    """Simulate detections of every tile, by tile, and name the object that each of them is of."""
    rng = np.random.default_rng(seed)
    which, tile = _meetings(objects, plan)
    seen = rng.random(len(which)) >= sight.misses
    which, tile = which[seen], tile[seen]
    window = plan.windows_px(tile).astype(np.float64)
    boxes = objects[which] + sight.jitter_px * rng.standard_normal((len(which), 4))
    boxes[:, :2] = np.clip(boxes[:, :2], window[:, :2], window[:, 2:])
    boxes[:, 2:] = np.clip(boxes[:, 2:], window[:, :2], window[:, 2:])
    seen = (boxes[:, 2:] - boxes[:, :2] >= sight.least_px).all(axis=1)
    which, tile, boxes, window = which[seen], tile[seen], boxes[seen], window[seen]
    # An object has its own score, about which tiles differ a little.
    scores = np.clip(rng.uniform(0.3, 0.95, len(objects))[which] + _noise(rng, which), 0.05, 1)
    labels = rng.integers(0, sight.classes, len(objects))[which]
    found = Detections(
        boxes,
        scores,
        labels,
        tile,
        _cut(boxes, window, plan, edge_px),
        np.zeros(len(boxes), bool),
    )
    return found, which


def see_oriented(
    objects: oriented.Rotated, plan: TilePlan, sight: Sight, edge_px: float, seed: int
) -> tuple[Detections, NDArray[np.int64]]:
    """Simulate as ``see`` does, of (N, 5) oriented objects.

    A tile sees the rectangle, at the same angle, around what it shows of an object, with jitter of
    its centre, of each side, and across the ends of its length, which turns short ones by more.
    """
    rng = np.random.default_rng(seed)
    which, tile = _meetings(oriented.hull(objects), plan)
    seen = rng.random(len(which)) >= sight.misses
    which, tile = which[seen], tile[seen]
    part = _in_windows(objects[which], tile, plan)
    noise = sight.jitter_px * rng.standard_normal((len(part), 5))
    noise[:, 4] = np.degrees(np.arctan2(noise[:, 4], np.maximum(part[:, 2], 1) / 2))
    part[:, 2:4] = np.where(part[:, 2:4] > 0, np.maximum(part[:, 2:4] + noise[:, 2:4], 0), 0)
    part[:, [0, 1, 4]] += noise[:, [0, 1, 4]]
    part = _in_windows(oriented.normalise(part), tile, plan)
    seen = (part[:, 2:4] >= sight.least_px).all(axis=1)
    which, tile, part = which[seen], tile[seen], part[seen]
    window = plan.windows_px(tile).astype(np.float64)
    hulls = oriented.hull(part)
    hulls = np.clip(hulls, np.tile(window[:, :2], 2), np.tile(window[:, 2:], 2))
    scores = np.clip(rng.uniform(0.3, 0.95, len(objects))[which] + _noise(rng, which), 0.05, 1)
    labels = rng.integers(0, sight.classes, len(objects))[which]
    cut = _cut(hulls, window, plan, edge_px)
    found = Detections(hulls, scores, labels, tile, cut, np.zeros(len(part), bool), rotated_px=part)
    return found, which


def _in_windows(
    rotated: oriented.Rotated, tile: NDArray[np.int64], plan: TilePlan
) -> oriented.Rotated:
    """Cut boxes, by tile, to the windows of their tiles."""
    if not len(tile):
        return rotated
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    windows = plan.windows_px(tile[starts]).astype(np.float64).tolist()
    parts = np.split(rotated, starts[1:])
    return np.concatenate(
        [oriented.clip(part, tuple(window)) for part, window in zip(parts, windows, strict=True)]
    )


def _noise(rng: np.random.Generator, which: NDArray[np.int64]) -> NDArray[np.float64]:
    return 0.1 * rng.standard_normal(len(which))


def _meetings(objects: Boxes, plan: TilePlan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair every object with every tile whose window it touches, by tile."""
    low = np.floor((objects[:, :2] - plan.tile_px) / plan.step_px).astype(np.int64) + 1
    high = np.ceil(objects[:, 2:] / plan.step_px).astype(np.int64) - 1
    low = np.maximum(low, 0)
    high = np.minimum(high, [plan.cols - 1, plan.rows - 1])
    n_xy = np.maximum(high - low + 1, 0)
    n = n_xy.prod(axis=1)
    which = np.repeat(np.arange(len(objects)), n)
    place = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
    row, col = np.divmod(place, n_xy[which, 0])
    tile = (low[which, 1] + row) * plan.cols + low[which, 0] + col
    by_tile = np.argsort(tile, kind="stable")
    return which[by_tile], tile[by_tile]


def _cut(boxes: Boxes, window: Boxes, plan: TilePlan, edge_px: float) -> NDArray[np.uint8]:
    near = np.hstack([boxes[:, :2] - window[:, :2], window[:, 2:] - boxes[:, 2:]]) <= edge_px
    border = window == [0, 0, plan.width, plan.height]
    inner = np.array([Cut.LEFT, Cut.TOP, Cut.RIGHT, Cut.BOTTOM], np.uint8)
    return (near * np.where(border, inner << 4, inner)).sum(axis=1).astype(np.uint8)


def scattered(n: int, side_px: int, sizes_px: tuple[float, float], seed: int) -> Boxes:
    """Scatter N boxes anywhere in a square, which may overlap."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(*sizes_px, (n, 2))
    low = rng.random((n, 2)) * (side_px - size)
    return np.hstack([low, low + size])


def spread(n: int, side_px: int, sizes_px: tuple[float, float], seed: int) -> Boxes:
    """Spread about N boxes over a square, one in each cell of a grid, inside its cell.

    Boxes larger than the cells reach into their neighbours: as crowded as n and sizes make it.
    """
    rng = np.random.default_rng(seed)
    per_side = int(np.sqrt(n))
    cell = side_px / per_side
    corner = np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), -1).reshape(-1, 2)
    size = rng.uniform(*sizes_px, (per_side**2, 2))
    centre = (corner + 0.5) * cell + rng.uniform(-0.5, 0.5, size.shape) * np.maximum(cell - size, 0)
    low = np.clip(centre - size / 2, 0, side_px - size)
    return np.hstack([low, low + size])


def rows(
    n: int,
    side_px: int,
    sides_px: tuple[float, float],
    *,
    in_a_row: int,
    apart_px: float,
    seed: int,
) -> oriented.Rotated:
    """Park about N objects in rows, side by side, each row at an angle and in a cell of its own.

    Rows that are longer than the cells reach into their neighbours, so that objects overlap.

    Args:
        n: objects.
        side_px: of the square.
        sides_px: length and width of each.
        in_a_row: how many stand side by side; 1 for objects alone.
        apart_px: from one to the next.
        seed: of places and angles.
    """
    rng = np.random.default_rng(seed)
    per_side = max(1, round(np.sqrt(n / in_a_row)))
    cell = side_px / per_side
    corner = np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), -1).reshape(-1, 2)
    angle = rng.uniform(-90, 90, per_side**2)
    across = np.stack([-np.sin(np.radians(angle)), np.cos(np.radians(angle))], axis=1)
    pitch = sides_px[1] + apart_px
    row = np.array([in_a_row * pitch, sides_px[0]])
    free = np.maximum(cell - np.hypot(*row), 0)
    middle = (corner + 0.5) * cell + rng.uniform(-0.5, 0.5, corner.shape) * free
    step = (np.arange(in_a_row) - (in_a_row - 1) / 2) * pitch
    centre = (middle[:, None] + step[:, None] * across[:, None]).reshape(-1, 2)
    shape = np.column_stack([np.tile(sides_px, (len(centre), 1)), np.repeat(angle, in_a_row)])
    found = oriented.normalise(np.hstack([centre, shape]))
    hulls = oriented.hull(found)
    return found[((hulls > 0) & (hulls < side_px)).all(axis=1)]
