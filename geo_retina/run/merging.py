"""From the blocks of a scene to its objects, a row of blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geo_retina.detections import Detections
from geo_retina.grid import Block
from geo_retina.merge import in_order, merge_tiles
from geo_retina.options import MergeOptions
from geo_retina.run.ledger import SceneRecord
from geo_retina.run.plan import ScenePlan


def merge_scene(
    record: SceneRecord, plan: ScenePlan, options: MergeOptions
) -> Iterator[Detections]:
    """Decide what the blocks left open, and hand out everything in order.

    Memory holds what is open in the whole scene, which grows with the seams between blocks, and
    what is settled in one row of blocks.

    Args:
        record: the scene's blocks, each merged in itself.
        plan: the plan that its blocks are of.
        options: those that the blocks were merged with.

    Yields:
        The scene's objects by rows of blocks; one after the other they are the merge of
        everything at once, ``in_order``, whatever the size of the blocks.
    """
    rest = merge_tiles(record.undecided(), plan.tiles, options)
    row_of_rest = rest.tile // plan.tiles.cols
    found = [plan.block(result.block) for result in record.results]
    for start, stop in _bands(found):
        blocks = {block.index for block in found if start <= block.tile_rows.start < stop}
        decided = rest.take((row_of_rest >= start) & (row_of_rest < stop))
        yield in_order(Detections.concat([record.settled(blocks), decided]))


def _bands(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """Find the first row of tiles and the one after the last of each band that no block leaves.

    Rows of blocks, where these are a lattice; blocks of an area may overlap in their rows.
    """
    bands: list[tuple[int, int]] = []
    for rows in sorted((block.tile_rows.start, block.tile_rows.stop) for block in blocks):
        if bands and rows[0] < bands[-1][1]:
            bands[-1] = bands[-1][0], max(bands[-1][1], rows[1])
        else:
            bands.append(rows)
    return bands
