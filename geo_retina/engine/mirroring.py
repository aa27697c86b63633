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

REACH_PX = 128
"""Rows and columns beyond valid ground that are filled; what lies farther away changes little."""


class Mirrored(NamedTuple):
    """Pixels to fill and where from, as row-major positions in a window.

    Attributes:
        targets: (M,) int32 invalid pixels, ascending.
        sources: (M,) int32 valid pixels whose values they take.
    """

    targets: NDArray[np.int32]
    sources: NDArray[np.int32]


def mirror(valid: NDArray[np.bool_]) -> Mirrored:
    """Choose for each invalid pixel near valid ground the valid one that it takes its value from.

    That is the pixel as far behind the nearest valid one (by Euclid; of several the leftmost,
    then the topmost) as the invalid one lies before it: the edge of ground is a mirror. Where
    the window ends before it along an axis, that axis stops at the nearest valid pixel; where it
    is itself invalid, the nearest valid pixel is taken. Pixels more than ``REACH_PX`` rows or
    columns from their nearest valid one are not listed. Nothing but this mask decides.

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
    """Mirror as ``_mirror_any`` where ground fills the top left corner only: a scene's end."""
    rows, cols = (_along(ground, side) for ground, side in zip((height, width), shape, strict=True))
    row, col = np.arange(len(rows)), np.arange(len(cols))
    beyond = (row >= height)[:, None] | (col >= width)
    targets = (row[:, None] * shape[1] + col)[beyond]
    sources = (rows[:, None] * shape[1] + cols)[beyond]
    return Mirrored(targets.astype(np.int32), sources.astype(np.int32))


def _along(ground: int, side: int) -> NDArray[np.int64]:
    """Find the source of each position along an axis, as far as the mirror reaches."""
    position = np.arange(min(side, ground + REACH_PX))
    source = np.where(position < ground, position, 2 * (ground - 1) - position)
    return np.where(source < 0, ground - 1, source)


def _mirror_any(valid: NDArray[np.bool_]) -> Mirrored:
    """Mirror by the nearest valid pixel of each invalid one, whatever the shape of the ground."""
    rows, cols = _reached(valid), _reached(valid.T)
    part = valid[rows, cols]
    nearest = distance_transform_edt(~part, return_distances=False, return_indices=True)
    targets = np.flatnonzero(~part)
    here = np.stack(np.divmod(targets.astype(np.int32), np.int32(part.shape[1])))
    near = nearest.reshape(2, -1)[:, targets]
    within = (np.abs(near - here) <= REACH_PX).all(axis=0)
    here, near = here[:, within], near[:, within]
    first = np.array([[rows.start], [cols.start]], np.int32)
    here, near = here + first, near + first
    height, width = valid.shape
    there = 2 * near - here
    outside = (there < 0) | (there >= np.array([[height], [width]], np.int32))
    there = np.where(outside, near, there)
    flat_there, flat_near, flat_here = (row * width + col for row, col in (there, near, here))
    sources = np.where(valid.ravel()[flat_there], flat_there, flat_near)
    return Mirrored(flat_here.astype(np.int32), sources.astype(np.int32))


def _reached(valid: NDArray[np.bool_]) -> slice:
    """Find the rows that hold all pixels to fill, and the nearest valid one of each.

    That one touches an invalid pixel, so it lies in a row that lacks some, or beside one.
    """
    ground, holes = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(~valid.all(axis=1))
    start = max(holes[0] - 1, ground[0] - REACH_PX, 0)
    stop = min(holes[-1] + 1, ground[-1] + REACH_PX, len(valid) - 1) + 1
    return slice(int(start), int(stop))
