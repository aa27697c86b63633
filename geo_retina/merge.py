"""Cross-tile merging: overlapping tiles see an object twice or in parts; this makes it one.

Among the detections that reach into other tiles, ``rank`` orders them by how far they are to be
trusted, ``_candidate_pairs`` finds those of different tiles that meet, ``_decide`` runs once over
their conflicts in rank order, and ``_join`` puts the fragments of large objects together. No box
grows while it still competes, because boxes that grow swallow their neighbours.

The pass in rank order is the greedy maximal independent set, which is the same whether it is
found at once or piecewise (Blelloch, Fineman, Shun 2012, arXiv:1202.3205). ``merge`` does it at
once, ``merge_block`` for the tiles of one block, leaving open what other blocks may change::

    parts = [merge_block(found, plan, block, options) for block, found in ...]
    final, undecided = zip(*parts)
    rest = merge(Detections.concat(undecided), plan, options)
    everything = in_order(Detections.concat([*final, rest]))   # == merge of all at once

All overlaps are computed in grid pixels, in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import area, intersection, iou, overlapping_pairs
from geo_retina.detections import INNER_SIDES, Cut, Detections
from geo_retina.grid import Block, TilePlan
from geo_retina.options import MergeOptions

Pairs = NDArray[np.int64]
Mask = NDArray[np.bool_]
AnyArray = NDArray[Any]
Line = NDArray[np.float64]
Span = tuple[int, int] | tuple[NDArray[np.int64], NDArray[np.int64]]


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
    exposed = _meets_others(
        detections, (rows.start, rows.stop), (cols.start, cols.stop), plan, options
    )
    return _merge(detections, exposed, plan, options)


def in_order(detections: Detections) -> Detections:
    """Sort by tile, then position: y_min, x_min, y_max, x_max, label, and the rest for ties."""
    d = detections
    x_min, y_min, x_max, y_max = d.boxes_px.T
    ties = (y_max, x_max, d.labels, -d.scores, d.cut, d.joined)
    return d.take(_argsort((d.tile, y_min, x_min), ties))


def rank(detections: Detections) -> NDArray[np.int64]:
    """Order in which detections are decided, best first.

    Whole ones come before cut ones. Whole ones go by score, cut ones by area and then score,
    larger first: among fragments of an object the most complete one should win, however sure
    the network is of the others. Ties go by y_min, x_min, y_max, x_max, label and tile, which
    makes the order total, but for detections that are equal in everything.

    Returns:
        (N,) positions in ``detections``.
    """
    d = detections
    is_cut = _is_cut(d)
    x_min, y_min, x_max, y_max = d.boxes_px.T
    extent = np.where(is_cut, -area(d.boxes_px), 0.0)
    ties = (x_min, y_max, x_max, d.labels, d.tile, d.cut)
    return _argsort((is_cut, extent, -d.scores, y_min), ties)


def _argsort(keys: tuple[AnyArray, ...], ties: tuple[AnyArray, ...]) -> NDArray[np.int64]:
    """Sort by the first key, then the next; look at the ties only if there are any."""
    order = np.lexsort(keys[::-1])
    tied = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        tied &= key[order[1:]] == key[order[:-1]]
    return np.lexsort((*ties[::-1], *keys[::-1])) if tied.any() else order


def _merge(
    detections: Detections, exposed: Mask, plan: TilePlan, options: MergeOptions
) -> tuple[Detections, Detections]:
    """Final and open detections; none is open where none is exposed."""
    contested = _contested(detections, plan, options)
    settled = detections.take(~contested)
    order = np.flatnonzero(contested)
    order = order[rank(detections.take(order))]
    ranked = detections.take(order)
    pairs = _candidate_pairs(ranked, options)
    facing = _face(ranked, pairs, plan, options) if options.join else np.zeros(len(pairs), bool)
    fate = _decide(pairs[~facing & _conflict(ranked, pairs, options)], exposed[order])
    undecided, links = _linked(fate, pairs[facing])
    final = _join(ranked, fate.kept & ~undecided, links)
    return in_order(Detections.concat([settled, final])), in_order(ranked.take(undecided))


def _check(detections: Detections, plan: TilePlan) -> None:
    tile = detections.tile[~detections.joined]
    if not len(tile):
        return
    if tile.min() < 0 or tile.max() >= len(plan):
        raise ValueError(
            f"detections name tiles {tile.min()} to {tile.max()}, the plan has {len(plan)}; "
            "merge them with the plan they were found with"
        )
    beyond = detections.boxes_px[~detections.joined] - plan.windows_px(tile)
    if (beyond[:, :2] < 0).any() or (beyond[:, 2:] > 0).any():
        raise ValueError(
            "a detection reaches beyond the window of its tile; clip boxes to their windows "
            "before merging"
        )


def _is_cut(detections: Detections) -> Mask:
    return (detections.cut & INNER_SIDES) != 0


def _meets_others(
    detections: Detections, rows: Span, cols: Span, plan: TilePlan, options: MergeOptions
) -> Mask:
    """(N,) detections that meet the window of a tile outside rows x cols, or may join into it.

    Fragments that face each other may each end ``edge_px`` short of the other's window, so a cut
    one counts from there on, and rather too early than too late: who is looked at without need
    is decided later, not differently.

    Args:
        rows: first row and the one after the last, of the plan's tiles; numbers or (N,) arrays.
        cols: likewise the columns.
    """
    reach = _reach(detections, options)
    x_min, y_min, x_max, y_max = detections.boxes_px.T
    meets = np.zeros(len(detections), dtype=bool)
    for low, high, (first, stop), n in (
        (x_min, x_max, cols, plan.cols),
        (y_min, y_max, rows, plan.rows),
    ):
        before = low - reach <= (first - 1) * plan.step_px + plan.tile_px
        after = high + reach >= stop * plan.step_px
        meets |= (before & (first > 0)) | (after & (stop < n))
    return meets


def _contested(detections: Detections, plan: TilePlan, options: MergeOptions) -> Mask:
    """(N,) detections that another tile has a say in; the others stand as they are."""
    row, col = np.divmod(detections.tile, plan.cols)
    meets = _meets_others(detections, (row, row + 1), (col, col + 1), plan, options)
    return meets & ~detections.joined


def _reach(detections: Detections, options: MergeOptions) -> Line:
    """(N,) pixels around a box within which it may face another."""
    return np.where(_is_cut(detections) & options.join, 2 * options.edge_px, 0.0)


def _candidate_pairs(ranked: Detections, options: MergeOptions) -> Pairs:
    """(P, 2) positions i < j of detections that may conflict or join, sorted by i.

    They meet, or nearly so where they are cut, are of different tiles, and of one class unless
    the options say otherwise.
    """
    outwards = _reach(ranked, options)[:, None] * np.array([-1.0, -1.0, 1.0, 1.0])
    pairs = overlapping_pairs(ranked.boxes_px + outwards)
    i, j = pairs.T
    wanted = ranked.tile[i] != ranked.tile[j]
    if options.class_aware:
        wanted &= ranked.labels[i] == ranked.labels[j]
    return pairs[wanted]


def _conflict(ranked: Detections, pairs: Pairs, options: MergeOptions) -> Mask:
    """(P,) pairs of which the first suppresses the second, if it is kept."""
    i, j = pairs.T
    first, second = ranked.boxes_px[i], ranked.boxes_px[j]
    inside = intersection(first, second) > options.share * area(second)
    return (iou(first, second) > options.iou) | (_is_cut(ranked)[j] & inside)


def _face(ranked: Detections, pairs: Pairs, plan: TilePlan, options: MergeOptions) -> Mask:
    """(P,) pairs that look like two parts of one object, divided by the seam of their tiles.

    Along each axis they are divided by the seam or level with each other, and along one at
    least divided. For tiles of one row that means divided along x and level along y. Diagonal
    tiles come in because of a long object in the overlap of two rows one row may keep the left
    part and the other the right.
    """
    facing = np.zeros(len(pairs), dtype=bool)
    at = np.flatnonzero(_is_cut(ranked)[pairs].all(axis=1))
    divided, level = zip(
        *(_along(ranked, pairs[at], plan, options, axis) for axis in (0, 1)), strict=True
    )
    facing[at] = (divided[0] | level[0]) & (divided[1] | level[1]) & (divided[0] | divided[1])
    return facing


def _along(
    ranked: Detections, pairs: Pairs, plan: TilePlan, options: MergeOptions, axis: int
) -> tuple[Mask, Mask]:
    """(P,) pairs that the seam divides along x (axis 0) or y (1), and pairs that are level there.

    Divided: in windows that follow each other and meet, each cut on its side towards the other,
    both reaching over the whole overlap to within ``edge_px``. Level: the 1-D IoU of their
    extents is at least ``join_iou``.
    """
    place = np.divmod(ranked.tile, plan.cols)[1 - axis][pairs]
    step = place[:, 1] - place[:, 0]
    ordered = np.where(step[:, None] < 0, pairs[:, ::-1], pairs)
    windows = plan.windows_px(ranked.tile[ordered])
    seam_low, seam_high = windows[:, 1, axis], windows[:, 0, axis + 2]
    low, high = ranked.boxes_px[ordered][..., axis], ranked.boxes_px[ordered][..., axis + 2]
    towards = np.array([(Cut.RIGHT, Cut.LEFT), (Cut.BOTTOM, Cut.TOP)][axis], dtype=np.uint8)
    divided = ((ranked.cut[ordered] & towards) != 0).all(axis=1)
    divided &= (step != 0) & (seam_low <= seam_high)
    divided &= low.max(axis=1) <= seam_low + options.edge_px
    divided &= high.min(axis=1) >= seam_high - options.edge_px
    shared = high.min(axis=1) - low.max(axis=1)
    together = high.max(axis=1) - low.min(axis=1)
    return divided, (shared > 0) & (shared >= options.join_iou * together)


class _Fate(NamedTuple):
    """(N,) masks: neither kept nor open means suppressed."""

    kept: Mask
    open: Mask


def _decide(conflicts: Pairs, exposed: Mask) -> _Fate:
    """Keep, suppress or leave open every detection, in rank order.

    Args:
        conflicts: (P, 2) positions i < j in rank order, sorted by i.
        exposed: (N,) detections that something unknown may suppress.

    Returns:
        Suppressed is who conflicts with a kept one above it; open is who else is exposed or
        conflicts with an open one above it; the others are kept.
    """
    suppressed, is_open = bytearray(len(exposed)), bytearray(exposed.tobytes())
    # Sorted by i, so that i itself is decided when its first conflict comes up.
    for i, j in zip(conflicts[:, 0].tolist(), conflicts[:, 1].tolist(), strict=True):
        if not suppressed[i]:
            if is_open[i]:
                is_open[j] = 1
            else:
                suppressed[j] = 1
    alive = ~np.frombuffer(suppressed, dtype=bool)
    opened = np.frombuffer(is_open, dtype=bool)
    return _Fate(alive & ~opened, alive & opened)


def _linked(fate: _Fate, facing: Pairs) -> tuple[Mask, Pairs]:
    """Withhold what may still join something open.

    Returns:
        (N,) all that stays open, and (Q, 2) the facing pairs among the others. An object is
        joined when all its parts are known. A kept part that is withheld here is kept again
        later, since nothing open conflicts with it from above.
    """
    alive = fate.kept | fate.open
    links = facing[alive[facing].all(axis=1)]
    if not len(links) or not fate.open.any():
        return fate.open, links
    component = _components(links, len(alive))
    waits = np.zeros(len(alive), dtype=bool)
    waits[component[fate.open]] = True
    undecided = alive & waits[component]
    return undecided, links[~undecided[links[:, 0]]]


def _components(links: Pairs, n: int) -> NDArray[np.int64]:
    """(n,) number of the connected component that each of n detections belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _join(ranked: Detections, kept: Mask, links: Pairs) -> Detections:
    """Replace the kept fragments that links connect by the boxes around them.

    A joined object has the highest score of its parts and that one's label, the first of their
    tiles, and the cut sides that lie on its outline.
    """
    is_part = np.zeros(len(ranked), dtype=bool)
    is_part[links] = True
    whole = ranked.take(kept & ~is_part)
    if not len(links):
        return whole
    parts = ranked.take(is_part)
    component = _components(links, len(ranked))[is_part]
    by_object = np.lexsort((parts.labels, -parts.scores, component))
    parts, component = parts.take(by_object), component[by_object]
    is_first = np.diff(component, prepend=-1) != 0
    first, of_part = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    low = np.minimum.reduceat(parts.boxes_px[:, :2], first)
    high = np.maximum.reduceat(parts.boxes_px[:, 2:], first)
    outline = np.hstack([low, high])
    on_outline = (parts.boxes_px == outline[of_part]) @ _BITS_OF_SIDES
    objects = Detections(
        outline,
        parts.scores[first],
        parts.labels[first],
        np.minimum.reduceat(parts.tile, first),
        np.bitwise_or.reduceat(parts.cut & on_outline, first),
        np.ones(len(first), dtype=bool),
    )
    return Detections.concat([whole, objects])


_BITS_OF_SIDES = np.array(
    [
        Cut.LEFT | Cut.SCENE_LEFT,
        Cut.TOP | Cut.SCENE_TOP,
        Cut.RIGHT | Cut.SCENE_RIGHT,
        Cut.BOTTOM | Cut.SCENE_BOTTOM,
    ],
    dtype=np.uint8,
)
