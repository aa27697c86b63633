"""From boxes in a tile to detections in the grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import Boxes, oriented
from geo_retina.boxes.oriented import Rotated
from geo_retina.detections import Cut, Detections
from geo_retina.engine.pixels import BlockPixels, TileBoxes, inside
from geo_retina.grid import Tile, Window


def move_to_grid(found: TileBoxes, tile: Tile, block: BlockPixels, edge_px: float) -> Detections:
    """Move boxes from a tile to the grid, cut to the tile's window, and mark what is cut.

    An oriented box that leaves the window becomes the rectangle, at the same angle, around its part
    inside. Boxes that have no area in the window are dropped, and those whose centre, before or
    after the cut, lies on invalid pixels or padding: an object is mirrored there, if any, and its
    part on valid ground is no other object.
    """
    own = ~_on_padding(_centres(found.boxes_tile, found.rotated_tile), tile, block.plan.tile_px)
    boxes_tile, scores, labels = found.boxes_tile[own], found.scores[own], found.labels[own]
    rotated_tile = None if found.rotated_tile is None else found.rotated_tile[own]
    boxes_px, rotated_px = _within_window(boxes_tile, rotated_tile, tile.window)
    col, row = np.floor(_centres(boxes_px, rotated_px)).astype(np.int64).T
    row = np.clip(row - block.window.row, 0, block.valid.shape[0] - 1)
    col = np.clip(col - block.window.col, 0, block.valid.shape[1] - 1)
    keep = (boxes.area(boxes_px) > 0) & block.valid[row, col]
    if rotated_px is not None:
        keep &= oriented.area(rotated_px) > 0
        rotated_px = rotated_px[keep]
    boxes_px = boxes_px[keep]
    return Detections(
        boxes_px,
        scores[keep],
        labels[keep],
        np.full(len(boxes_px), tile.index),
        _cut_by_tile_or_ground(boxes_px, tile, block, edge_px),
        np.zeros(len(boxes_px), np.bool_),
        rotated_px=rotated_px,
    )


def _within_window(
    boxes_tile: Boxes, rotated_tile: Rotated | None, window: Window
) -> tuple[Boxes, Rotated | None]:
    """Move boxes to the grid and cut them to a window; oriented ones have their hulls cut."""
    if rotated_tile is None:
        moved = boxes.shift(boxes_tile, window.col, window.row)
        return boxes.clip(moved, window.box_px), None
    rotated = oriented.shift(rotated_tile, window.col, window.row)
    rotated = oriented.clip(rotated, window.box_px)
    return boxes.clip(oriented.hull(rotated), window.box_px), rotated


def _centres(boxes_xy: Boxes, rotated: Rotated | None) -> NDArray[np.float64]:
    return (boxes_xy[:, :2] + boxes_xy[:, 2:]) / 2 if rotated is None else rotated[:, :2]


def _on_padding(centre: NDArray[np.float64], tile: Tile, side_px: int) -> NDArray[np.bool_]:
    """Find which centres lie where the tile was padded, because the grid ends before it."""
    ends = np.array([tile.window.width, tile.window.height])
    return np.asarray(((centre >= ends) & (ends < side_px)).any(axis=1))


def _cut_by_tile_or_ground(
    boxes_px: NDArray[np.float64], tile: Tile, block: BlockPixels, edge_px: float
) -> NDArray[np.uint8]:
    """Find cut sides as ``cut_sides`` does; a box at the end of valid ground is not cut.

    Only the tile's own pixels are looked at, so the answer does not depend on the block.
    """
    window = tile.window
    cut = cut_sides(boxes_px, window, (block.plan.height, block.plan.width), edge_px)
    valid = block.valid[inside(tile, block)]
    if not len(boxes_px) or valid.all():
        return cut
    at_edge = boxes.at_invalid(boxes.shift(boxes_px, -window.col, -window.row), valid, edge_px)
    inner = np.array([Cut.LEFT, Cut.TOP, Cut.RIGHT, Cut.BOTTOM], np.uint8)
    ends = (at_edge * inner).sum(axis=1).astype(np.uint8)
    return np.asarray(cut & ~ends | ends << 4, dtype=np.uint8)


def cut_sides(
    boxes_px: NDArray[np.float64], window: Window, shape: tuple[int, int], edge_px: float
) -> NDArray[np.uint8]:
    """Find which sides of its tile each box touches.

    Args:
        boxes_px: (N, 4) grid pixels inside ``window``.
        window: the tile's window.
        shape: (height, width) of the grid.
        edge_px: a box this near to a side touches it.

    Returns:
        (N,) bits of ``Cut``: an inner bit where the tile ends inside the grid, the scene's bit
        where it ends with the grid.
    """
    x_min, y_min, x_max, y_max = window.box_px
    height, width = shape
    ends_with_scene = (x_min == 0, y_min == 0, x_max == width, y_max == height)
    near = np.stack(
        [
            boxes_px[:, 0] - x_min <= edge_px,
            boxes_px[:, 1] - y_min <= edge_px,
            x_max - boxes_px[:, 2] <= edge_px,
            y_max - boxes_px[:, 3] <= edge_px,
        ],
        axis=1,
    )
    inner = (Cut.LEFT, Cut.TOP, Cut.RIGHT, Cut.BOTTOM)
    bits = np.array(
        [bit << 4 if at_end else bit for bit, at_end in zip(inner, ends_with_scene, strict=True)],
        np.uint8,
    )
    return np.asarray((near * bits).sum(axis=1), dtype=np.uint8)
