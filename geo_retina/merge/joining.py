"""Fragments of one object, found in several tiles or scenes, become one box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import oriented
from geo_retina.detections import Cut, Detections
from geo_retina.merge.pairs import Pairs, meeting
from geo_retina.merge.seams import face, is_cut, reach
from geo_retina.merge.selecting import Fate, rivals
from geo_retina.merge.sources import Mask, Sources
from geo_retina.options import MergeOptions


def facing(detections: Detections, alive: Mask, sources: Sources, options: MergeOptions) -> Pairs:
    """Find (Q, 2) pairs of fragments, of those alive, that face each other over a seam."""
    at = np.flatnonzero(alive & is_cut(detections)) if options.join else np.empty(0, np.int64)
    parts = detections.take(at)
    outwards = reach(parts, options)[:, None] * np.array([-1.0, -1.0, 1.0, 1.0])
    found = [np.empty((0, 2), np.int64)]
    for pairs in meeting(parts.boxes_px + outwards, *rivals(parts, sources, options)):
        found.append(at[pairs[face(parts, pairs, sources, options)]])
    return np.concatenate(found)


def withheld(fate: Fate, links: Pairs) -> Mask:
    """Find (N,) what stays open: all that is, and the fragments that may still join it.

    An object is joined when all its parts are known. A kept part that is withheld is kept
    again later, since nothing open conflicts with it from above.
    """
    if not len(links) or not fate.open.any():
        return fate.open
    component = _components(links, len(fate.open))
    waits = np.zeros(len(fate.open), dtype=bool)
    waits[component[fate.open]] = True
    return (fate.kept | fate.open) & waits[component]


def join(parts: Detections, links: Pairs, sources: Sources) -> Detections:
    """Make one detection of each set of parts that links connect.

    Args:
        parts: detections, each in at least one link.
        links: (Q, 2) positions of parts that belong together.
        sources: theirs.

    Returns:
        The boxes around the parts, with the highest score among them and that one's label, the
        first of their tiles and days, and the cut sides that lie on the outline. Oriented ones
        have the direction of the longest part, and ``boxes_px`` are their hulls within the windows
        of all parts. In no order; empty for none.
    """
    if not len(links):
        return Detections.empty()
    component = _components(links, len(parts))
    by_object = np.lexsort((parts.labels, -parts.scores, component))
    parts, component = parts.take(by_object), component[by_object]
    is_first = np.diff(component, prepend=-1) != 0
    first, of_part = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    low = np.minimum.reduceat(parts.boxes_px[:, :2], first)
    high = np.maximum.reduceat(parts.boxes_px[:, 2:], first)
    outline = np.hstack([low, high])
    on_outline = (parts.boxes_px == outline[of_part]) @ _BITS_OF_SIDES
    rotated = None
    if parts.rotated_px is not None:
        rotated = _rectangles_around(parts.rotated_px, component)
        hulls, windows = oriented.hull(rotated), sources.windows_px(parts.tile)
        low = np.maximum(hulls[:, :2], np.minimum.reduceat(windows[:, :2], first))
        high = np.minimum(hulls[:, 2:], np.maximum.reduceat(windows[:, 2:], first))
        # Rounding must not leave a part outside.
        outline = np.hstack([np.minimum(low, outline[:, :2]), np.maximum(high, outline[:, 2:])])
    return Detections(
        outline,
        parts.scores[first],
        parts.labels[first],
        np.minimum.reduceat(parts.tile, first),
        np.bitwise_or.reduceat(parts.cut & on_outline, first),
        np.ones(len(first), dtype=bool),
        rotated_px=rotated,
        first_seen=None
        if parts.first_seen is None
        else np.minimum.reduceat(parts.first_seen, first),
    )


def _rectangles_around(rotated: oriented.Rotated, component: NDArray[np.int64]) -> oriented.Rotated:
    """Find (G, 5) rectangles around the boxes of each component, along the longest of them."""
    x, y, length, width, angle = rotated.T
    longest_first = np.lexsort((y, x, angle, -width, -length, component))
    starts = np.flatnonzero(np.diff(component[longest_first], prepend=-1))
    return oriented.around(rotated[longest_first], starts)


def _components(links: Pairs, n: int) -> NDArray[np.int64]:
    """Find (n,) the number of the connected component that each detection belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


_BITS_OF_SIDES = np.array(
    [
        Cut.LEFT | Cut.SCENE_LEFT,
        Cut.TOP | Cut.SCENE_TOP,
        Cut.RIGHT | Cut.SCENE_RIGHT,
        Cut.BOTTOM | Cut.SCENE_BOTTOM,
    ],
    dtype=np.uint8,
)
