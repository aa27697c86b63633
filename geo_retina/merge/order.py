"""Total orders of detections: the one in which they are decided, and that of the result.

Both sort by one packed 64-bit key, which numpy does several times as fast as a lexsort, and look
at the further keys only where packed ones are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import INNER_SIDES, Detections
from geo_retina.grid import TilePlan
from geo_retina.merge.sources import Scenes, Sources
from geo_retina.options import MergeOptions

Packed = NDArray[np.uint64]
AnyArray = NDArray[Any]

_MANTISSA = 52
"""Bits to which a float64 can be distinguished after scaling."""


def in_order(detections: Detections) -> Detections:
    """Sort by tile, then position: y_min, x_min, y_max, x_max, label, and the rest for ties."""
    d = detections
    if not len(d):
        return d
    x_min, y_min, x_max, y_max = d.boxes_px.T
    keys = (d.tile, y_min, x_min, y_max, x_max, d.labels, -d.scores, d.cut, d.joined, *_angles(d))
    tile = (d.tile - d.tile.min()).astype(np.uint64)
    bits = min(_MANTISSA, 64 - int(tile.max()).bit_length())
    return d.take(_argsort((tile << np.uint64(bits)) | _quantised(y_min, bits), keys))


def rank(
    detections: Detections, sources: Sources, options: MergeOptions = MergeOptions()
) -> NDArray[np.int64]:
    """Rank detections in the order in which they are decided, best first.

    Whole ones come before cut ones. Whole ones go by score, cut ones by area and then score,
    larger first: among fragments of an object the most complete one should win, however sure
    the network is of the others. Ties go by y_min, x_min, y_max, x_max, label and tile, and by
    what else oriented boxes are than their hulls, which makes the order total, but for
    detections that are equal in everything.

    With ``options.rank`` "owner", whole ones whose centre their tile owns come first of all;
    with "score", the score alone comes before the ties.

    Returns:
        (N,) positions in ``detections``.
    """
    d = detections
    x_min, y_min, x_max, y_max = d.boxes_px.T
    group, extent = _groups(d, sources, options)
    ties = (y_min, x_min, y_max, x_max, d.labels, d.tile, d.cut, *_angles(d))
    keys = (group, extent, -d.scores, *ties)
    # Two bits of group, then all of the score and what fits of y, or what fits of the area.
    by_score = (~_sortable32(d.scores) << np.uint64(30)) & _LOW_62 | _quantised(y_min, 30)
    packed = np.where(extent < 0, _quantised(extent, _MANTISSA), by_score)
    return _argsort((group.astype(np.uint64) << np.uint64(62)) | packed, keys)


_LOW_62 = np.uint64((1 << 62) - 1)


def _groups(
    d: Detections, sources: Sources, options: MergeOptions
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Compute (N,) groups, which rank first, and minus the areas of cut boxes, which rank next."""
    if options.rank == "score":
        return np.zeros(len(d), np.int64), np.zeros(len(d))
    is_cut = (d.cut & INNER_SIDES) != 0
    group = np.where(is_cut, 2, 0)
    extent = d.areas_px
    if isinstance(sources, Scenes):  # owners and cores are of tiles alone
        return group, np.where(is_cut, -extent * sources.pixel_area[d.tile], 0.0)
    if options.rank == "owner":
        centre_xy = (d.boxes_px[:, :2] + d.boxes_px[:, 2:]) / 2
        core = _cores_px(sources, d.tile)
        owned = ((centre_xy >= core[:, :2]) & (centre_xy < core[:, 2:])).all(axis=1)
        group[~is_cut & ~owned] = 1
    return group, np.where(is_cut, -extent, 0.0)


def _angles(d: Detections) -> tuple[AnyArray, ...]:
    """Return the columns that tell oriented boxes of one hull apart; none of upright ones."""
    return () if d.rotated_px is None else tuple(d.rotated_px.T)


def _cores_px(plan: TilePlan, tile: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute (N, 4) parts that tiles own; those at the grid's border own all beyond it."""
    low, high = np.hsplit(plan.cores_px(tile).astype(np.float64), 2)
    low[low == 0] = -np.inf
    high[high == [plan.width, plan.height]] = np.inf
    return np.hstack([low, high])


def _argsort(packed: Packed, keys: tuple[AnyArray, ...]) -> NDArray[np.int64]:
    """Sort by keys, the first before the next.

    Args:
        packed: (N,) a coarser form of the same order: where a comes before b, its packed key
            is smaller or equal.
        keys: (N,) columns that decide where packed keys are equal.
    """
    order = np.argsort(packed)
    ordered = packed[order]
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return order
    tied = np.append(same, False)
    tied[1:] |= same
    at = np.flatnonzero(tied)
    rows = order[at]
    order[at] = rows[np.lexsort([key[rows] for key in reversed(keys)])]
    return order


def _quantised(values: NDArray[np.float64], bits: int) -> Packed:
    """Round values to whole numbers of ``bits`` bits that rise with them; close ones are equal."""
    if not len(values):
        return np.empty(0, np.uint64)
    low, high = values.min(), values.max()
    scale = ((1 << bits) - 1) / (high - low) if high > low else 0.0
    scaled = (values - low) * scale
    # A hair's breadth between low and high makes the scale infinite.
    top = np.float64((1 << bits) - 1)
    return np.minimum(np.nan_to_num(scaled, nan=0.0, posinf=top), top).astype(np.uint64)


def _sortable32(values: NDArray[np.float32]) -> Packed:
    """Map values to whole numbers of 32 bits in their order, different where those are."""
    bits = (values + np.float32(0)).view(np.uint32)  # adding makes -0 the 0 it equals
    negative = bits >> np.uint32(31) != 0
    return np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
