"""Who is kept: conflicts between detections of different sources, decided once in rank order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geo_retina.detections import Detections
from geo_retina.merge.pairs import Pairs, Whole, meeting
from geo_retina.merge.seams import face, is_cut
from geo_retina.merge.shapes import Shapes
from geo_retina.merge.sources import Line, Mask, Sources, lattices, settled
from geo_retina.options import MergeOptions

_CONFLICTS_AT_ONCE = 1 << 18


class Fate(NamedTuple):
    """What becomes of N detections: neither kept nor open means suppressed."""

    kept: Mask
    """(N,)."""
    open: Mask
    """(N,)."""
    may_show: Mask
    """(N,) those suppressed that something open or unknown would suppress too, if it is kept."""
    conflicts: Pairs
    """(P, 2) positions of which the first suppresses the second, if it is kept."""


class Overlaps(NamedTuple):
    """Detections whose overlap was measured elsewhere, as their boxes cannot be compared.

    Attributes:
        pairs: (P, 2) positions of detections.
        shared: (P,) area that both cover.
        area: (N,) areas of all detections, by the same measure; of those in no pair, anything.
    """

    pairs: Pairs
    shared: Line
    area: Line

    def among(self, at: Whole) -> Overlaps:
        """Select the detections at positions, counted as there, and the pairs among them."""
        place = np.full(len(self.area), -1)
        place[at] = np.arange(len(at))
        pairs = np.sort(place[self.pairs], axis=1)
        known = pairs[:, 0] >= 0
        return Overlaps(pairs[known], self.shared[known], self.area[at])


def select(
    ranked: Detections,
    exposed: Mask,
    gone: Mask,
    sources: Sources,
    options: MergeOptions,
    overlaps: Overlaps | None = None,
) -> Fate:
    """Keep, suppress or leave open every detection.

    Args:
        ranked: in rank order.
        exposed: (N,) detections that something unknown may suppress.
        gone: (N,) detections that something else has suppressed before.
        sources: theirs.
        options: thresholds.
        overlaps: further ones than those of boxes, pairs i < j.

    Returns:
        Suppressed is who conflicts with a kept one above it; open is who else is exposed or
        conflicts with an open one above it; the others are kept.
    """
    found = [np.empty((0, 2), np.int64)]
    shapes, cut = Shapes.of(ranked), is_cut(ranked)
    for pairs in meeting(ranked.boxes_px, *rivals(ranked, sources, options)):
        pairs = pairs[_conflict(shapes, cut, pairs, options)]
        found.append(pairs[~face(ranked, pairs, sources, options)])
    if overlaps is not None:
        found.append(_conflicts_of(overlaps, ranked, sources, options))
    return _decide(np.concatenate(found), exposed, gone)


def rivals(detections: Detections, sources: Sources, options: MergeOptions) -> tuple[Whole, Whole]:
    """Assign (N,) two numbers: detections that may be rivals are equal in the first alone."""
    group = lattices(detections, sources)
    if options.class_aware:
        labels = detections.labels.astype(np.int64)
        span = labels.max(initial=0) - labels.min(initial=0) + 1
        group = group * span + labels
    return group, settled(detections, sources)


def _conflict(shapes: Shapes, cut: Mask, pairs: Pairs, options: MergeOptions) -> Mask:
    """Find (P,) pairs of which the first suppresses the second, if it is kept."""
    first, second = shapes.area[pairs].T
    second_is_cut = cut[pairs[:, 1]]
    found = _suppresses(shapes.most_shared(pairs), first, second, second_is_cut, options)
    if shapes.rotated is not None:  # hulls say no more than which pairs are worth a closer look
        at = np.flatnonzero(found)
        shared = shapes.shared(pairs[at])
        found[at] = _suppresses(shared, first[at], second[at], second_is_cut[at], options)
    return found


def _suppresses(
    shared: Line, first: Line, second: Line, second_is_cut: Mask, options: MergeOptions
) -> Mask:
    """Find (P,) pairs with that area in common, and areas of their own, in conflict."""
    union = first + second - shared
    overlaps = shared > 0
    overlaps[overlaps] = shared[overlaps] / union[overlaps] > options.iou
    return overlaps | (second_is_cut & (shared > options.share * second))


def _conflicts_of(
    overlaps: Overlaps, ranked: Detections, sources: Sources, options: MergeOptions
) -> Pairs:
    i, j = overlaps.pairs.T
    first, second = overlaps.area[i], overlaps.area[j]
    keep = _suppresses(overlaps.shared, first, second, is_cut(ranked)[j], options)
    decided = settled(ranked, sources)
    keep &= decided[i] != decided[j]
    if options.class_aware:
        keep &= ranked.labels[i] == ranked.labels[j]
    return overlaps.pairs[keep]


def _decide(conflicts: Pairs, exposed: Mask, gone: Mask) -> Fate:
    """Decide conflicts i < j in one pass, in rank order."""
    suppressed, is_open = bytearray(gone.tobytes()), bytearray(exposed.tobytes())
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
    return Fate(alive & ~opened, alive & opened, ~alive & opened, conflicts)
