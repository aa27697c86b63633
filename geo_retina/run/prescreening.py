"""A first look at blocks through coarser pixels: which of their tiles need no other one.

What is screened out is decided tile by tile, from the pixels of that tile alone, so it depends on
neither the blocks nor the workers. A tile that is screened out is one without detections; merging
and its neighbours know no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geo_retina.detections import Detections
from geo_retina.engine import BlockDetections, BlockPixels, Engine, inside
from geo_retina.grid import Block, Tile, TilePlan, Window
from geo_retina.model import Card
from geo_retina.run.plan import BlockJob
from geo_retina.scene import Scene


@dataclass(frozen=True)
class Left:
    """What of a block is to be detected on.

    Attributes:
        parts: rectangles of tiles.
        screened: indices of tiles at which a first look found nothing.
        blank: number of tiles that are known to show no ground.
        turn_s: seconds of waiting for the device meanwhile.
    """

    parts: tuple[Block, ...]
    screened: tuple[int, ...] = ()
    blank: int = 0
    turn_s: float = 0.0

    @property
    def blank_tiles(self) -> list[BlockDetections]:
        """Tell of the tiles that show no ground what the engine would."""
        if self.parts and not self.blank:
            return []
        return [BlockDetections(Detections.empty(), tiles=0, skipped=self.blank, truncated=0)]


def all_of(job: BlockJob) -> Left:
    """Take all of a block, or nothing where its file holds none of it."""
    block = job.block
    if isinstance(job.scene, Scene) and job.scene.is_blank(block.window):
        return Left((), blank=len(block.tile_rows) * len(block.tile_cols))
    return Left((block,))


def look_first(
    looks: Mapping[int, BlockPixels],
    jobs: Sequence[BlockJob],
    engine: Engine,
    stopped: Callable[[], bool],
) -> dict[int, Left]:
    """Find which tiles of some blocks show signs of an object.

    Args:
        looks: blocks as ``read_coarse`` gives them, by the positions of their jobs.
        jobs: of a task batch.
        engine: of the run, which has a first look.
        stopped: asked before every batch whether the result is still needed.

    Returns:
        What is left of each of these blocks.
    """
    if not looks:
        return {}
    assert engine.first_look is not None
    found = engine.first_look.detect(list(looks.values()), stopped=stopped)
    return {
        i: _left_of(jobs[i], look, each)
        for (i, look), each in zip(looks.items(), found, strict=True)
    }


def join(parts: Sequence[BlockDetections]) -> BlockDetections:
    """Put together what was found in the parts of a block, by tile, as if it had been one."""
    if len(parts) == 1:
        return parts[0]
    detections = Detections.concat([each.detections for each in parts])
    reduced = [each.reduced_batch for each in parts if each.reduced_batch is not None]
    return BlockDetections(
        detections.take(np.argsort(detections.tile, kind="stable")),
        tiles=sum(each.tiles for each in parts),
        skipped=sum(each.skipped for each in parts),
        truncated=sum(each.truncated for each in parts),
        out_of_range=sum(each.out_of_range for each in parts),
        reduced_batch=min(reduced, default=None),
        turn_s=max(each.turn_s for each in parts),
    )


def read_coarse(job: BlockJob, card: Card) -> BlockPixels:
    """Read the coarser pixels of a block, and place its tiles in them.

    Args:
        job: of the block.
        card: says how much coarser they are. The sides of the tiles are multiples of the network's
            stride, so tiles may show some ground beyond their own.

    Raises:
        SceneError: they cannot be read.
    """
    assert job.coarse is not None
    plan, tiles = _coarse_tiles(job, card)
    row, col = tiles[0].window.row, tiles[0].window.col
    bottom = max(tile.window.row + tile.window.height for tile in tiles)
    right = max(tile.window.col + tile.window.width for tile in tiles)
    window = Window(row, col, bottom - row, right - col)
    pixels, valid = job.coarse.read(window)
    return BlockPixels(pixels, valid, window, plan, tiles, job.coarse.values)


def _coarse_tiles(job: BlockJob, card: Card) -> tuple[TilePlan, list[Tile]]:
    """Scale the tiles of a block, under their own indices."""
    assert job.coarse is not None
    assert card.prescreen is not None
    fine, coarse, factor = job.tiles, job.coarse.grid, card.prescreen.factor
    step = fine.step_px // factor  # whole, as strides are
    side = -(-fine.tile_px // (factor * card.stride_px)) * card.stride_px
    tiles = []
    for tile in fine.tiles_of(job.block):
        row, col = tile.row * step, tile.col * step
        window = Window(row, col, min(side, coarse.height - row), min(side, coarse.width - col))
        tiles.append(Tile(tile.index, tile.row, tile.col, window, window))
    return TilePlan(*coarse.shape, side, min(step, side)), tiles


def _left_of(job: BlockJob, look: BlockPixels, found: BlockDetections) -> Left:
    """Choose what of a block is to be detected on, by what the first look found."""
    rows, cols = job.block.tile_rows, job.block.tile_cols
    blank = [not look.valid[inside(tile, look)].any() for tile in look.tiles]
    indices = np.array([tile.index for tile in look.tiles])
    shown = np.isin(indices, found.detections.tile)
    parts = job.tiles.parts_of(job.block, shown.reshape(len(rows), len(cols)))
    left = indices[~shown & ~np.array(blank)]
    return Left(tuple(parts), tuple(left.tolist()), sum(blank), found.turn_s)
