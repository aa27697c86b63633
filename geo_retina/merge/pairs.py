"""Pairs of boxes that meet, without a tree: boxes in strips, each strip sorted along x.

A strip is as high as boxes are on average, so a box lies in two of them on average, whatever the
mix of sizes. In a strip sorted by x_min, the boxes that a box meets along x follow it directly, and
one binary search finds the last. O(n log n + pairs that share a strip and meet along x).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes

Whole = NDArray[np.int64]
Pairs = NDArray[np.int64]

_PAIRS_AT_ONCE = 1 << 19
"""Candidates looked at together: few enough for the processor's caches, and for any memory."""

_MOST_STRIPS = 1 << 20


class _Entries(NamedTuple):
    """(E,) boxes as they lie in strips, sorted by group, strip, then x_min."""

    box: Whole
    strip: Whole
    followers: Whole
    """How many of the next entries meet this one along x, or nearly so."""


def meeting(boxes: Boxes, group: Whole, tile: Whole) -> Iterator[Pairs]:
    """Find the pairs of boxes of one group, but of different tiles, that touch or overlap.

    Args:
        boxes: (N, 4).
        group: (N,) boxes of different groups are no pair.
        tile: (N,) nor are those of one tile.

    Yields:
        (P, 2) positions i < j, each pair once, in no order. Candidates are looked at some at
        a time, so that a crowd of boxes costs time but no memory.
    """
    if len(boxes) < 2:
        return
    first, entries = _entries(boxes, group)
    x_min, y_min, x_max, y_max = boxes[entries.box].T
    tile_of, first_of = tile[entries.box], first[entries.box]
    for start, stop in _portions(entries.followers):
        here = np.arange(start, stop)
        n = entries.followers[start:stop]
        before = np.repeat(here, n)
        skipped = np.cumsum(n) - n
        after = before + 1 + np.arange(len(before)) - np.repeat(skipped, n)
        keep = tile_of[before] != tile_of[after]
        before, after = before[keep], after[keep]
        # Boxes that share several strips are taken in the first of them.
        keep = np.maximum(first_of[before], first_of[after]) == entries.strip[before]
        keep &= np.minimum(y_max[before], y_max[after]) >= np.maximum(y_min[before], y_min[after])
        keep &= np.minimum(x_max[before], x_max[after]) >= np.maximum(x_min[before], x_min[after])
        i, j = entries.box[before[keep]], entries.box[after[keep]]
        yield np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)


def _entries(boxes: Boxes, group: Whole) -> tuple[Whole, _Entries]:
    """Compute (N,) first strip of each box, and sort the boxes by strip."""
    low, high = boxes.min(axis=0), boxes.max(axis=0)
    mean = float(np.maximum(boxes[:, 3] - boxes[:, 1], 0).mean())
    per_px = _inverse(max(mean, (high[3] - low[1]) / _MOST_STRIPS))
    first = ((boxes[:, 1] - low[1]) * per_px).astype(np.int64)
    last = np.maximum(((boxes[:, 3] - low[1]) * per_px).astype(np.int64), first)
    strips = int(last.max()) + 1
    n = last - first + 1
    box = np.repeat(np.arange(len(boxes)), n)
    strip = np.arange(len(box)) - np.repeat(np.cumsum(n) - n - first, n)
    row = (group - group.min()) * strips + first
    bits = min(32, 63 - int(row.max() + n.max()).bit_length())
    scale = ((1 << bits) - 1) * _inverse(high[2] - low[0])
    x_low = ((boxes[:, 0] - low[0]) * scale).astype(np.int64)
    x_high = ((boxes[:, 2] - low[0]) * scale).astype(np.int64)
    row = (row - first)[box] + strip << bits
    key = row | x_low[box]
    order = np.argsort(key)
    ends = np.searchsorted(key[order], (row | x_high[box])[order], side="right")
    followers = ends - np.arange(1, len(box) + 1)
    return first, _Entries(box[order], strip[order], followers)


def _inverse(length: float) -> float:
    """Divide one by a length; 0 for one too small to divide by, where all are in one place."""
    return 1.0 / length if length > 1e-200 else 0.0


def _portions(counts: Whole) -> Iterator[tuple[int, int]]:
    """Cut positions into ranges whose counts sum to about ``_PAIRS_AT_ONCE``."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right"))
        stop = max(stop, start + 1)
        yield start, stop
        start = stop
