"""Who is kept: conflicts between detections of different tiles, decided once in rank order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geo_retina.boxes import area, intersection
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge.pairs import Pairs, Whole, meeting
from geo_retina.merge.seams import Mask, face, is_cut
from geo_retina.options import MergeOptions

_CONFLICTS_AT_ONCE = 1 << 18


class Fate(NamedTuple):
    """(N,) masks: neither kept nor open means suppressed."""

    kept: Mask
    open: Mask


def select(ranked: Detections, exposed: Mask, plan: TilePlan, options: MergeOptions) -> Fate:
    """Keep, suppress or leave open every detection.

    Args:
        ranked: in rank order.
        exposed: (N,) detections that something unknown may suppress.
        plan: the tiles.
        options: thresholds.

    Returns:
        Suppressed is who conflicts with a kept one above it; open is who else is exposed or
        conflicts with an open one above it; the others are kept.
    """
    found = [np.empty((0, 2), np.int64)]
    for pairs in meeting(ranked.boxes_px, groups(ranked, options), ranked.tile):
        pairs = pairs[conflict(ranked, pairs, options)]
        found.append(pairs[~face(ranked, pairs, plan, options)])
    return _decide(np.concatenate(found), exposed)


def groups(detections: Detections, options: MergeOptions) -> Whole:
    """(N,) numbers that are equal for detections that may have to do with each other."""
    same = np.zeros_like(detections.labels)
    return (detections.labels if options.class_aware else same).astype(np.int64)


def conflict(ranked: Detections, pairs: Pairs, options: MergeOptions) -> Mask:
    """(P,) pairs of which the first suppresses the second, if it is kept."""
    i, j = pairs.T
    first, second = ranked.boxes_px[i], ranked.boxes_px[j]
    shared, own = intersection(first, second), area(second)
    union = area(first) + own - shared
    overlaps = shared > 0
    overlaps[overlaps] = shared[overlaps] / union[overlaps] > options.iou
    return overlaps | (is_cut(ranked)[j] & (shared > options.share * own))


def _decide(conflicts: Pairs, exposed: Mask) -> Fate:
    """One pass over conflicts i < j in rank order."""
    suppressed, is_open = bytearray(len(exposed)), bytearray(exposed.tobytes())
    # Sorted by i, so that i itself is decided when its first conflict comes up.
    n = max(len(exposed), 1)
    codes = np.sort(conflicts[:, 0] * n + conflicts[:, 1])
    for start in range(0, len(codes), _CONFLICTS_AT_ONCE):
        first, second = np.divmod(codes[start : start + _CONFLICTS_AT_ONCE], n)
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            if not suppressed[i]:
                if is_open[i]:
                    is_open[j] = 1
                else:
                    suppressed[j] = 1
    alive = ~np.frombuffer(suppressed, dtype=bool)
    opened = np.frombuffer(is_open, dtype=bool)
    return Fate(alive & ~opened, alive & opened)
