"""The rule of merging, from contested detections to what becomes of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geo_retina.detections import Detections
from geo_retina.merge.joining import facing, withheld
from geo_retina.merge.order import rank
from geo_retina.merge.pairs import Pairs, Whole
from geo_retina.merge.selecting import Overlaps, select
from geo_retina.merge.sources import Mask, Sources
from geo_retina.options import MergeOptions


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


def decide(
    detections: Detections,
    contested: Mask,
    exposed: Mask,
    sources: Sources,
    options: MergeOptions,
    overlaps: Overlaps | None = None,
) -> Decision:
    """Decide what can be decided about detections without knowing any others.

    Args:
        detections: with cut sides as tiles have them.
        contested: (N,) those that another source may decide about; the others stand.
        exposed: (N,) those that something unknown may suppress.
        sources: theirs.
        options: thresholds.
        overlaps: further ones than those of boxes.
    """
    at = np.flatnonzero(contested)
    at = at[rank(detections.take(at), sources, options)]
    ranked = detections.take(at)
    known = None if overlaps is None else overlaps.among(at)
    fate = select(ranked, exposed[at], sources, options, known)
    links = facing(ranked, fate.kept | fate.open, sources, options)
    undecided = withheld(fate, links)
    links = links[~undecided[links[:, 0]]]
    part = np.unique(links)
    whole = fate.kept & ~undecided
    whole[part] = False
    stays = ~contested
    stays[at[whole]] = True
    return Decision(stays, at[part], _positions(links, part), at[undecided])


def _positions(values: Whole, among: Whole) -> Whole:
    """Find positions of values in the sorted array that holds them all."""
    return np.searchsorted(among, values)
