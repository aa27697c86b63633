"""Merging: overlapping tiles, or scenes, see an object twice or in parts; this makes it one.

Among the detections that reach into other tiles or scenes (``sources``, ``seams``), ``rank``
orders them by how far they are to be trusted (``order``), ``meeting`` finds those of different
tiles that meet (``pairs``), ``select`` runs once over their conflicts in rank order
(``selecting``), and ``join`` puts the fragments of large objects together (``joining``). No box
grows while it still competes, because boxes that grow swallow their neighbours.

The pass in rank order is the greedy maximal independent set, which is the same whether it is
found at once or piecewise (Blelloch, Fineman, Shun 2012, arXiv:1202.3205). ``merge_tiles`` does it
at once, ``merge_block`` for the tiles of one block, leaving open what other blocks may change::

    parts = [merge_block(found, plan, block, options) for block, found in ...]
    final, undecided = zip(*parts)
    rest = merge(Detections.concat(undecided), plan, options)
    everything = in_order(Detections.concat([*final, rest]))   # == merge of all at once

``merge_scenes`` is the same rule between scenes, each of which was merged in itself, and
``merge_piecewise`` that place by place.

All overlaps are computed in grid pixels, in float64. ``docs/merging.md`` says what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.errors import OptionError
from geo_retina.grid import Block, TilePlan
from geo_retina.merge.deciding import Standing, decide
from geo_retina.merge.joining import join
from geo_retina.merge.order import in_order, rank
from geo_retina.merge.piecewise import (
    Contested,
    Leaves,
    SceneRule,
    Settled,
    Tree,
    merge_piecewise,
)
from geo_retina.merge.seams import Span, contested, meets_others, reach
from geo_retina.merge.selecting import Overlaps
from geo_retina.merge.sources import PIXEL, Mask, Scenes, as_in_tiles
from geo_retina.options import MergeOptions

__all__ = [
    "Contested",
    "Leaves",
    "Merged",
    "Overlaps",
    "SceneRule",
    "Scenes",
    "Settled",
    "Tree",
    "bounds_of_say",
    "check_scene_options",
    "contest",
    "in_order",
    "merge_block",
    "merge_piecewise",
    "merge_scenes",
    "merge_tiles",
    "rank",
    "tiles_met",
    "undecided_with",
]

_AT_ONCE = 1 << 17
"""Detections that are decided together, where a row of tiles has not more."""


def merge_tiles(
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
        ValueError: a tile is not one of the plan's, or a box reaches beyond its tile.
    """
    _check_tiles(detections, plan)
    decided = [
        (rows, *_decide(part, (rows.start, rows.stop), (0, plan.cols), plan, options))
        for rows, part in _bands(detections, plan)
    ]
    undecided = Detections.concat(left for *_, left in decided)
    rest, _ = _decide(undecided, (0, plan.rows), (0, plan.cols), plan, options)
    row = rest.tile // plan.cols
    return Detections.concat(
        in_order(Detections.concat([final, rest.take((row >= rows.start) & (row < rows.stop))]))
        for rows, final, _ in decided
    )


def _bands(detections: Detections, plan: TilePlan) -> Iterator[tuple[range, Detections]]:
    """Group whole rows of tiles with some detections each: what the processor's caches hold."""
    row = detections.tile // plan.cols
    if (row[1:] < row[:-1]).any():
        by_row = np.argsort(row, kind="stable")
        detections, row = detections.take(by_row), row[by_row]
    ends = np.cumsum(np.bincount(row, minlength=plan.rows))
    first = done = 0
    for stop in range(1, plan.rows + 1):
        if stop == plan.rows or ends[stop] - done > _AT_ONCE:
            yield range(first, stop), detections.part(done, int(ends[stop - 1]))
            first, done = stop, int(ends[stop - 1])


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
        Two sets, each ``in_order``: the final ones, as ``merge_tiles`` of the whole scene has them,
        and the open ones, whose fate other blocks decide. The open ones of all blocks merged
        together, and all final ones, are the merge of everything at once.

    Raises:
        ValueError: a tile is not one of the plan's, or a box reaches beyond its tile.
    """
    _check_tiles(detections, plan)
    rows, cols = block.tile_rows, block.tile_cols
    final, undecided = _decide(
        detections, (rows.start, rows.stop), (cols.start, cols.stop), plan, options
    )
    return in_order(final), in_order(undecided)


def undecided_with(
    detections: Detections, plan: TilePlan, known: Mask, options: MergeOptions = MergeOptions()
) -> Detections:
    """Select undecided detections whose fate depends on tiles that were not detected in.

    The others end as they would if all tiles were known: ``merge_tiles`` of these detections is
    right about them.

    Args:
        detections: those of the known tiles, in any order; what ``merge_block`` has settled may
            be left out.
        plan: the tiles that ``detections.tile`` counts.
        known: (rows, cols) of the plan, true where a tile was looked at.
        options: thresholds.

    Raises:
        ValueError: a tile is not one of the plan's, or a box reaches beyond its tile.
    """
    _check_tiles(detections, plan)
    first_row, last_row, first_col, last_col = tiles_met(detections, plan, options).T
    # Unknown tiles above and left of each corner, so that any rectangle's count is four of them.
    counts = np.zeros((plan.rows + 1, plan.cols + 1), np.int64)
    counts[1:, 1:] = (~known).cumsum(axis=0).cumsum(axis=1)
    unknown = (
        counts[last_row + 1, last_col + 1]
        - counts[first_row, last_col + 1]
        - counts[last_row + 1, first_col]
        + counts[first_row, first_col]
    )
    return in_order(_decide_exposed(detections, unknown > 0, plan, options)[1])


def tiles_met(
    detections: Detections, plan: TilePlan, options: MergeOptions = MergeOptions()
) -> NDArray[np.int64]:
    """Find (N, 4) first and last row and column of the tiles that may decide about each.

    Those whose window a box meets, or may join into.
    """
    around = reach(detections, options)
    x_min, y_min, x_max, y_max = detections.boxes_px.T
    spans = []
    for low, high, n in ((y_min, y_max, plan.rows), (x_min, x_max, plan.cols)):
        first = np.ceil((low - around - plan.tile_px) / plan.step_px)
        last = np.floor((high + around) / plan.step_px)
        spans += [np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)]
    return np.stack(spans, axis=1).astype(np.int64)


def _decide(
    detections: Detections, rows: Span, cols: Span, plan: TilePlan, options: MergeOptions
) -> tuple[Detections, Detections]:
    """Split detections of the tiles in rows x cols into final and open ones, in no order."""
    exposed = meets_others(detections, rows, cols, plan, options)
    return _decide_exposed(detections, exposed, plan, options)


def _decide_exposed(
    detections: Detections, exposed: Mask, plan: TilePlan, options: MergeOptions
) -> tuple[Detections, Detections]:
    """Split detections into final and open ones, as something unknown may suppress the exposed."""
    _check_windows(detections, plan)
    nothing = np.zeros(len(detections), dtype=bool)
    standing = Standing(contested(detections, plan, options), exposed, nothing)
    found = decide(detections, standing, plan, options)
    joined = join(detections.take(found.parts), found.links, plan)
    final = Detections.concat([detections.take(found.stays), joined])
    return final, detections.take(found.undecided)


class Merged(NamedTuple):
    """What becomes of the detections of several scenes."""

    stays: Mask
    """(N,) true for those that stay as they are."""
    joined: Detections
    """Objects made of parts, with the first of their scenes, ``in_order``."""
    parts: int
    """Detections that became parts; those that neither stay nor did are suppressed."""
    first_seen: NDArray[np.int32] | None
    """(N,) days on which the objects that stay were first seen, by all detections that they
    suppress; None where detections have no days."""


def merge_scenes(
    detections: Detections,
    scenes: Scenes,
    options: MergeOptions = MergeOptions(),
    overlaps: Overlaps | None = None,
    abroad: Mask | None = None,
) -> Merged:
    """Make one set of objects of what all scenes found, each merged in itself.

    The rule is that of ``merge_tiles``, with scenes in the place of tiles and their borders in that
    of inner tile sides, where another scene looks at the ground beyond; a box that an inner side of
    its own scene's tiles cuts is cut here too. Objects that were joined within a scene take part,
    as other scenes see them as well; between scenes that were merged before, all is settled.

    ``contest`` and ``merge_piecewise`` do the same where not all detections fit into memory.

    Args:
        detections: those of all scenes, in any order; ``tile`` is the number of the scene, and
            ``boxes_px`` are in pixels of its lattice.
        scenes: where they lie.
        options: thresholds.
        overlaps: of detections of different lattices, which nothing joins.
        abroad: (N,) those on ground at which scenes of other lattices look.

    Returns:
        What becomes of each. The result depends on the order of neither detections nor scenes,
        but for which of equal ones stays.

    Raises:
        OptionError: the rank is for tiles only.
        ValueError: a detection is of none of the scenes.
    """
    seen, is_contested = contest(detections, scenes, options, abroad)
    nothing = np.zeros(len(seen), dtype=bool)
    found = decide(seen, Standing(is_contested, nothing, nothing), scenes, options, overlaps)
    detections = found.seen(detections)
    joined = in_order(join(detections.take(found.parts), found.links, scenes))
    return Merged(found.stays, joined, len(found.parts), detections.first_seen)


def contest(
    detections: Detections, scenes: Scenes, options: MergeOptions, abroad: Mask | None = None
) -> tuple[Detections, Mask]:
    """Find detections about which other scenes may decide; each by itself, so any are enough.

    Args:
        detections: as in ``merge_scenes``.
        scenes: where they lie, all of them.
        options: thresholds.
        abroad: (N,) those on ground at which scenes of other lattices look.

    Returns:
        The same with cut sides ``as_in_tiles``, and (N,) which are contested.

    Raises:
        OptionError: the rank is for tiles only.
        ValueError: a detection is of none of the scenes.
    """
    check_scene_options(options)
    tile = detections.tile
    if len(tile) and (tile.min() < 0 or tile.max() >= len(scenes)):
        raise ValueError(
            f"detections name scenes {tile.min()} to {tile.max()}, of {len(scenes)} given"
        )
    seen = as_in_tiles(detections, scenes, options.edge_px, abroad)
    is_contested = contested(seen, scenes, options)
    return seen, is_contested if abroad is None else is_contested | abroad


def bounds_of_say(detections: Detections, options: MergeOptions) -> Boxes:
    """Bound (N, 4) pixels around detections beyond which no other has to do with them.

    As far as one may face another, and a pixel, by which windows of scenes may lie apart.
    """
    around = np.maximum(2 * options.edge_px, 0) + PIXEL
    return detections.boxes_px + around * np.array([-1.0, -1.0, 1.0, 1.0])


def check_scene_options(options: MergeOptions) -> None:
    """Refuse a rank that scenes are not merged by.

    Raises:
        OptionError: it is for tiles only.
    """
    if options.rank != "whole":
        raise OptionError(
            f"runs are merged whole boxes first; MergeOptions.rank={options.rank} is for tiles "
            "only, leave it out"
        )


def _check_tiles(detections: Detections, plan: TilePlan) -> None:
    tile = detections.tile
    if len(tile) and (tile.min() < 0 or tile.max() >= len(plan)):
        raise ValueError(
            f"detections name tiles {tile.min()} to {tile.max()}, the plan has {len(plan)}; "
            "merge them with the plan they were found with"
        )


def _check_windows(detections: Detections, plan: TilePlan) -> None:
    beyond = detections.boxes_px - plan.windows_px(detections.tile)
    outside = (beyond[:, :2] < 0) | (beyond[:, 2:] > 0)
    if outside.any() and (outside.any(axis=1) & ~detections.joined).any():
        raise ValueError(
            "a detection reaches beyond the window of its tile; clip boxes to their windows "
            "before merging"
        )
