"""Cross-tile merging: overlapping tiles see an object twice or in parts; this makes it one.

Among the detections that reach into other tiles (``seams``), ``rank`` orders them by how far they
are to be trusted (``order``), ``meeting`` finds those of different tiles that meet (``pairs``),
``select`` runs once over their conflicts in rank order (``selecting``), and ``join`` puts the
fragments of large objects together (``joining``). No box grows while it still competes, because
boxes that grow swallow their neighbours.

The pass in rank order is the greedy maximal independent set, which is the same whether it is
found at once or piecewise (Blelloch, Fineman, Shun 2012, arXiv:1202.3205). ``merge`` does it at
once, ``merge_block`` for the tiles of one block, leaving open what other blocks may change::

    parts = [merge_block(found, plan, block, options) for block, found in ...]
    final, undecided = zip(*parts)
    rest = merge(Detections.concat(undecided), plan, options)
    everything = in_order(Detections.concat([*final, rest]))   # == merge of all at once

All overlaps are computed in grid pixels, in float64. ``docs/merging.md`` says what to expect.
"""

from __future__ import annotations

import numpy as np

from geo_retina.detections import Detections
from geo_retina.grid import Block, TilePlan
from geo_retina.merge.joining import facing, join, withheld
from geo_retina.merge.order import in_order, rank
from geo_retina.merge.pairs import Whole
from geo_retina.merge.seams import Mask, contested, meets_others
from geo_retina.merge.selecting import select
from geo_retina.options import MergeOptions

__all__ = ["in_order", "merge", "merge_block", "rank"]


def merge(
    detections: Detections, plan: TilePlan, options: MergeOptions = MergeOptions()
) -> Detections:
    """Make one set of objects of what all tiles found.

    A detection suppresses lower-ranked ones of other tiles whose IoU with it is above
    ``options.iou``, or that are cut and lie inside it by more than ``options.share`` of their
    area. Fragments that face each other over the whole overlap of their windows are joined
    instead: they become the box around them. Detections of one tile never conflict, and
    ``joined`` ones pass through untouched, so merging twice changes nothing. Without
    ``options.join`` no pair faces each other: fragments compete like all others.

    Args:
        detections: those of any tiles of the plan, in any order, after suppression within
            each tile.
        plan: the tiles that ``detections.tile`` counts.
        options: thresholds.

    Returns:
        The surviving detections, boxes unchanged, and the joined ones, ``in_order``. The result
        depends on neither the order of the input nor on detections beyond the chain of
        overlaps. Empty for an empty input.

    Raises:
        ValueError: a tile is not one of the plan's.
    """
    _check(detections, plan)
    nothing_exposed = np.zeros(len(detections), dtype=bool)
    return _merge(detections, nothing_exposed, plan, options)[0]


def merge_block(
    detections: Detections, plan: TilePlan, block: Block, options: MergeOptions = MergeOptions()
) -> tuple[Detections, Detections]:
    """Decide what can be decided about one block without knowing the others.

    Args:
        detections: all those of the block's tiles, in any order, clipped to their tiles'
            windows.
        plan: the tiles that ``detections.tile`` counts.
        block: the tiles that the detections come from, one of ``plan.blocks(...)``.
        options: thresholds.

    Returns:
        Two sets, each ``in_order``: the final ones, as ``merge`` of the whole scene has them,
        and the open ones, whose fate other blocks decide. The open ones of all blocks merged
        together, and all final ones, are the merge of everything at once.

    Raises:
        ValueError: a tile is not one of the plan's.
    """
    rows, cols = block.tile_rows, block.tile_cols
    _check(detections, plan)
    exposed = meets_others(
        detections, (rows.start, rows.stop), (cols.start, cols.stop), plan, options
    )
    return _merge(detections, exposed, plan, options)


def _merge(
    detections: Detections, exposed: Mask, plan: TilePlan, options: MergeOptions
) -> tuple[Detections, Detections]:
    """Final and open detections; none is open where none is exposed."""
    is_contested = contested(detections, plan, options)
    at = np.flatnonzero(is_contested)
    at = at[rank(detections.take(at), plan, options)]
    ranked = detections.take(at)
    fate = select(ranked, exposed[at], plan, options)
    links = facing(ranked, fate.kept | fate.open, plan, options)
    undecided = withheld(fate, links)
    links = links[~undecided[links[:, 0]]]
    part = np.unique(links)
    whole = fate.kept & ~undecided
    whole[part] = False
    stays = ~is_contested
    stays[at[whole]] = True
    joined = join(ranked.take(part), _positions(links, part))
    final = Detections.concat([detections.take(stays), joined])
    return in_order(final), in_order(ranked.take(undecided))


def _positions(values: Whole, among: Whole) -> Whole:
    """Positions of values in the sorted array that holds them all."""
    return np.searchsorted(among, values)


def _check(detections: Detections, plan: TilePlan) -> None:
    tile, boxes = detections.tile, detections.boxes_px
    if detections.joined.any():
        tile, boxes = tile[~detections.joined], boxes[~detections.joined]
    if not len(tile):
        return
    if tile.min() < 0 or tile.max() >= len(plan):
        raise ValueError(
            f"detections name tiles {tile.min()} to {tile.max()}, the plan has {len(plan)}; "
            "merge them with the plan they were found with"
        )
    beyond = boxes - plan.windows_px(tile)
    if (beyond[:, :2] < 0).any() or (beyond[:, 2:] > 0).any():
        raise ValueError(
            "a detection reaches beyond the window of its tile; clip boxes to their windows "
            "before merging"
        )
