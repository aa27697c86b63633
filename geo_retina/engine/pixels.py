"""What goes into an engine, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import Detections
from geo_retina.grid import Tile, TilePlan, Window
from geo_retina.resampling import Rescaling
from geo_retina.scene import ValueMap


@dataclass(frozen=True, eq=False)
class BlockPixels:
    """Pixels of a block, and the tiles to be cut from them.

    Attributes:
        pixels: (bands, height, width) in the scene's dtype; with ``resampling`` those from
            which the block's are computed.
        valid: (height, width) bool.
        window: where they lie in the grid.
        plan: the scene's plan.
        tiles: the tiles to detect, all inside ``window``.
        values: from the pixels' numbers to the values that the model's card speaks of; None
            where they are the same.
        resampling: how the block's pixels are computed; None where they are given.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    window: Window
    plan: TilePlan
    tiles: Sequence[Tile]
    values: ValueMap | None = None
    resampling: Rescaling | None = None


@dataclass(frozen=True, eq=False)
class BlockDetections:
    """What was found in a block.

    Attributes:
        detections: in grid pixels, by tile, then by score; not merged across tiles.
        tiles: tiles that went through the network.
        skipped: tiles without a valid pixel.
        truncated: tiles that reached the limit of candidates or detections.
        out_of_range: tiles with values far outside those that integers were measured on.
        reduced_batch: tiles through the network at once, where the device's memory made that
            fewer than planned; else None.
        turn_s: seconds of waiting for the device, while others computed on it.
    """

    detections: Detections
    tiles: int
    skipped: int
    truncated: int
    out_of_range: int = 0
    reduced_batch: int | None = None
    turn_s: float = 0.0


class TileBoxes(NamedTuple):
    """What was found in one tile.

    Attributes:
        boxes_tile: (M, 4) float64.
        scores: (M,) float32.
        labels: (M,) int64.
        truncated: whether there may be more.
        rotated_tile: (M, 5) float64 of oriented boxes, as ``boxes.oriented`` has them; None where
            boxes are upright.
        out_of_range: whether values lie far outside those that integers were measured on.
    """

    boxes_tile: NDArray[np.float64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    truncated: bool
    rotated_tile: NDArray[np.float64] | None = None
    out_of_range: bool = False


class Stopped(Exception):
    """The run that asked for these detections does not want them any longer."""


def inside(tile: Tile, block: BlockPixels) -> tuple[slice, slice]:
    """Slice the rows and columns of a tile out of its block's pixels."""
    row, col = tile.window.row - block.window.row, tile.window.col - block.window.col
    return np.s_[row : row + tile.window.height, col : col + tile.window.width]
