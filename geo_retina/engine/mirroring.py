"""What a network is shown where there is no ground: the ground beside it, mirrored.

The one rule of detection, validation and training. A step from ground to a constant is nothing
that imagery has, and networks take it for objects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

_CELL_PX = 2
"""Side of the squares among which the nearest ground is sought; among pixels it takes longer."""

_WHOLE = 0b1111

REACH_CELLS = 32
"""Rows and columns of cells beyond ground that are filled; what lies farther changes little."""


class Mirrored(NamedTuple):
    """Pixels to fill and where from, as row-major positions in a window.

    Attributes:
        targets: (M,) int32 invalid pixels, cell by cell.
        sources: (M,) int32 valid pixels whose values they take.
    """

    targets: NDArray[np.int32]
    sources: NDArray[np.int32]


def mirror(valid: NDArray[np.bool_]) -> Mirrored:
    """Choose for each invalid pixel near valid ground the valid one that it takes its value from.

    That is the pixel as far behind the nearest valid one as the invalid one lies before it: the
    edge of ground is a mirror. The nearest is the pixel that faces the invalid one in the nearest
    cell of 2 x 2 pixels that holds a valid one (by Euclid, among cells; of several the leftmost,
    then the topmost), or, where that pixel is invalid, its neighbour in the cell. Where the window
    ends before the mirrored pixel along an axis, that axis stops at the nearest valid pixel; where
    it is itself invalid, the nearest valid pixel is taken. Cells more than ``REACH_CELLS`` rows or
    columns from the nearest with ground are not listed. Nothing but this mask decides.

    Args:
        valid: (height, width) pixels of a window, padding included.

    Returns:
        What to fill; nothing where all is valid or nothing is.
    """
    count = int(np.count_nonzero(valid))
    if count in (0, valid.size):
        return Mirrored(np.empty(0, np.int32), np.empty(0, np.int32))
    height, width = int(valid[:, 0].sum()), int(valid[0].sum())
    if count == height * width and valid[:height, :width].all():
        return _mirror_right_and_bottom(valid.shape, height, width)
    return _mirror_any(valid)


def fill(mirrored: Mirrored, *planes: Tensor) -> None:
    """Let the pixels of contiguous (C, H, W) planes take their values, in place."""
    if not len(mirrored.targets):
        return
    device = planes[0].device
    targets, sources = (torch.from_numpy(each).to(device).long() for each in mirrored)
    for plane in planes:
        flat = plane.view(len(plane), -1)
        flat[:, targets] = flat[:, sources]


def _mirror_right_and_bottom(shape: tuple[int, ...], height: int, width: int) -> Mirrored:
    """Mirror as ``_mirror_any`` does at a scene's end, where ground fills the top left corner."""
    rows, cols = (_along(ground, side) for ground, side in zip((height, width), shape, strict=True))
    row, col = np.arange(len(rows)), np.arange(len(cols))
    beyond = (row >= height)[:, None] | (col >= width)
    targets = (row[:, None] * shape[1] + col)[beyond]
    sources = (rows[:, None] * shape[1] + cols)[beyond]
    return Mirrored(targets.astype(np.int32), sources.astype(np.int32))


def _along(ground: int, side: int) -> NDArray[np.int64]:
    """Find the source of each position along an axis, as far as the mirror reaches."""
    position = np.arange(min(side, _CELL_PX * ((ground - 1) // _CELL_PX + 1 + REACH_CELLS)))
    source = np.where(position < ground, position, 2 * (ground - 1) - position)
    return np.where(source < 0, ground - 1, source)


def _mirror_any(valid: NDArray[np.bool_]) -> Mirrored:
    """Mirror by the nearest cell with ground of each that lacks some, whatever its shape."""
    held = _cells(valid)
    rows, cols = _reached(held), _reached(held.T)
    first = np.array([[rows.start], [cols.start]], np.int32)
    own = np.stack(np.nonzero(held[rows, cols] != _WHOLE)).astype(np.int32)
    nearest = distance_transform_edt(
        held[rows, cols] == 0, return_distances=False, return_indices=True
    )
    near = nearest[:, own[0], own[1]]
    within = (np.abs(near - own) <= REACH_CELLS).all(axis=0)
    own, near = own[:, within] + first, near[:, within] + first

    height, width = valid.shape
    row, col = (_CELL_PX * axis[:, None] + np.arange(_CELL_PX, dtype=np.int32) for axis in own)
    row, col = np.broadcast_arrays(row[:, :, None], col[:, None, :])
    near_row, near_col = (_CELL_PX * axis[:, None, None] for axis in near)
    facing = 2 * (row > near_row) + (col > near_col)
    chosen = _FACING[held[near[0], near[1]][:, None, None], facing]
    near_row, near_col = near_row + (chosen >> 1), near_col + (chosen & 1)
    there_row = _inside(2 * near_row - row, height, near_row)
    there_col = _inside(2 * near_col - col, width, near_col)
    there = there_row * width + there_col
    sources = np.where(valid.ravel()[there], there, near_row * width + near_col)
    missing = (held[own[0], own[1]][:, None] >> np.arange(4, dtype=np.uint8) & 1 == 0).reshape(
        row.shape
    )
    missing &= (row < height) & (col < width)
    return Mirrored((row * width + col)[missing], sources[missing])


def _inside(
    position: NDArray[np.int32], side: int, otherwise: NDArray[np.int32]
) -> NDArray[np.int32]:
    return np.where((position < 0) | (position >= side), otherwise, position)


def _cells(valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Tell which pixels of each cell are ground: bit 0 is the top left one, then row by row."""
    whole = np.pad(valid, [(0, -side % _CELL_PX) for side in valid.shape])
    parts = [whole[row::2, col::2].astype(np.uint8) for row in (0, 1) for col in (0, 1)]
    return np.bitwise_or.reduce([part << bit for bit, part in enumerate(parts)])


def _facing() -> NDArray[np.uint8]:
    """Choose which pixel stands for a cell, by those that are ground and the one that faces.

    Returns:
        (16, 4): rows as ``_cells`` counts, columns the pixel that faces. That pixel, or, where it
        is no ground, its neighbour along the column, along the row, or across.
    """
    table = np.zeros((16, 4), np.uint8)
    for held in range(1, 16):
        for facing in range(4):
            others = (facing, facing ^ 2, facing ^ 1, facing ^ 3)
            table[held, facing] = next(pixel for pixel in others if held >> pixel & 1)
    return table


_FACING = _facing()


def _reached(held: NDArray[np.uint8]) -> slice:
    """Find the rows of cells to fill, and of the nearest cell with ground of each.

    That one touches a cell without any, so it lies in such a cell's row, or beside one.
    """
    ground = np.flatnonzero(held.any(axis=1))
    holes = np.flatnonzero((held != _WHOLE).any(axis=1))
    start = max(holes[0] - 1, ground[0] - REACH_CELLS, 0)
    return slice(int(start), int(min(holes[-1] + 1, ground[-1] + REACH_CELLS) + 1))
