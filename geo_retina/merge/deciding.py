"""The rule of merging, from contested detections to what becomes of each."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from geo_retina.detections import Detections
from geo_retina.merge.joining import facing, withheld
from geo_retina.merge.order import rank
from geo_retina.merge.pairs import Pairs, Whole
from geo_retina.merge.selecting import Overlaps, select
from geo_retina.merge.sources import Mask, Sources
from geo_retina.options import MergeOptions


class Standing(NamedTuple):
    """What is known of N detections before they are decided."""

    contested: Mask
    """(N,) those that another source may decide about; the others stand."""
    exposed: Mask
    """(N,) those that something unknown may suppress."""
    gone: Mask
    """(N,) those that were suppressed before, and only tell since when their object is known."""


class Decision(NamedTuple):
    """What becomes of N detections; the others are suppressed."""

    stays: Mask
    """(N,) those that are final as they are."""
    parts: Whole
    """Positions of those that become parts of joined objects."""
    links: Pairs
    """(Q, 2) positions in ``parts`` of those that belong together."""
    undecided: Whole
    """Positions of those that are left open, in rank order."""
    may_show: Whole
    """Positions of those suppressed that show objects which are left open or not known."""
    shown: Pairs
    """(P, 2) positions of what is kept, and of what it suppresses, which shows the same object."""

    def seen(self, detections: Detections) -> Detections:
        """Date what is kept by all that shows it, where detections have days."""
        if detections.first_seen is None:
            return detections
        days = detections.first_seen.copy()
        kept, other = self.shown.T
        np.minimum.at(days, kept, detections.first_seen[other])
        return replace(detections, first_seen=days)


def decide(
    detections: Detections,
    standing: Standing,
    sources: Sources,
    options: MergeOptions,
    overlaps: Overlaps | None = None,
) -> Decision:
    """Decide what can be decided about detections without knowing any others.

    Args:
        detections: with cut sides as tiles have them.
        standing: what is known of each.
        sources: theirs.
        options: thresholds.
        overlaps: further ones than those of boxes.
    """
    at = np.flatnonzero(standing.contested)
    at = at[rank(detections.take(at), sources, options)]
    ranked = detections.take(at)
    known = None if overlaps is None else overlaps.among(at)
    exposed, gone = standing.exposed[at], standing.gone[at]
    fate = select(ranked, exposed, gone, sources, options, known)
    links = facing(ranked, fate.kept | fate.open, sources, options)
    undecided = withheld(fate, links)
    links = links[~undecided[links[:, 0]]]
    part = np.unique(links)
    whole = fate.kept & ~undecided
    whole[part] = False
    stays = ~standing.contested
    stays[at[whole]] = True
    may_show, shown = np.empty(0, np.int64), np.empty((0, 2), np.int64)
    if detections.first_seen is not None:
        may_show = at[fate.may_show]
        shown = at[fate.conflicts[fate.kept[fate.conflicts[:, 0]]]]
    return Decision(stays, at[part], _positions(links, part), at[undecided], may_show, shown)


def _positions(values: Whole, among: Whole) -> Whole:
    """Find positions of values in the sorted array that holds them all."""
    return np.searchsorted(among, values)
