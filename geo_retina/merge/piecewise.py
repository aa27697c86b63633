"""Scenes merged piecewise, so that all detections that compete need not be held at once.

Contested detections lie in leaves, such as squares of ground; any division will do. A leaf is
decided by itself, as a block of tiles is: whatever a detection of another leaf may change is left
open. What several leaves left open is decided together, and so on up a tree, at whose root nothing
lies outside. The result is that of ``merge_scenes`` for everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.merge.deciding import Standing, decide
from geo_retina.merge.joining import join
from geo_retina.merge.pairs import Whole
from geo_retina.merge.selecting import Overlaps
from geo_retina.merge.sources import Mask, Scenes
from geo_retina.options import MergeOptions

Tree = int | tuple["Tree", ...]
"""The number of a leaf, or what lies together."""


@dataclass(frozen=True, eq=False)
class Contested:
    """Detections that other scenes may decide about.

    Attributes:
        rows: (N,) numbers by which they are known outside.
        found: they themselves.
        cut: (N,) their cut sides as ``as_in_tiles`` has them.
        around: (N, 4) bounds on the ground. Two that have to do with each other, as they conflict
            or face each other, have bounds that touch.
    """

    rows: Whole
    found: Detections
    cut: NDArray[np.uint8]
    around: Boxes

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Whole | Mask) -> Contested:
        """Select the rows at integer positions, in that order, or where a mask is true."""
        found = self.found.take(index)
        return Contested(self.rows[index], found, self.cut[index], self.around[index])

    @classmethod
    def concat(cls, parts: Iterable[Contested]) -> Contested:
        """Join all parts, at least one, in the order given."""
        parts = list(parts)
        return cls(
            np.concatenate([part.rows for part in parts]),
            Detections.concat(part.found for part in parts),
            np.concatenate([part.cut for part in parts]),
            np.concatenate([part.around for part in parts]),
        )


class Leaves(NamedTuple):
    """Contested detections, by leaf."""

    extents: Boxes
    """(L, 4) bounds of all bounds in each leaf."""
    load: Callable[[int], Contested]
    """Reads those of one leaf."""


class Settled(NamedTuple):
    """What was decided at one place of the tree."""

    gone: Whole
    """Numbers of those that do not stay as they are."""
    joined: Detections
    """Objects made of some of these, in no order."""
    parts: int
    """How many became parts of objects."""
    seen_before: Whole
    """Numbers of those that show objects which others showed earlier; some may come again."""
    first_seen: NDArray[np.int32]
    """On which day, of each of these."""


class _Rest(NamedTuple):
    """What is left for the next place of the tree."""

    open: Contested
    gone: Contested
    """Suppressed ones that tell since when open objects are known, where that is asked for."""


@dataclass(frozen=True, eq=False)
class SceneRule:
    """How scenes merge.

    Attributes:
        scenes: those that ``Detections.tile`` counts.
        options: thresholds.
        measure: finds the overlaps of detections of different lattices; None for no such.
    """

    scenes: Scenes
    options: MergeOptions
    measure: Callable[[Detections], Overlaps | None] | None = None


def merge_piecewise(tree: Tree, leaves: Leaves, rule: SceneRule) -> Iterator[Settled]:
    """Decide contested detections leaf by leaf, then what these leave open.

    Memory holds one leaf, or what is open between leaves: it follows the lines between them.

    Args:
        tree: of all leaves, each once.
        leaves: what lies in them.
        rule: how they are decided.

    Yields:
        What is final; all others stay as they are.
    """
    rest = yield from _settle(tree, leaves, rule)
    assert not len(rest.open)  # nothing lies outside the root


def _settle(tree: Tree, leaves: Leaves, rule: SceneRule) -> Generator[Settled, None, _Rest]:
    """Decide what lies in a tree; returns what is left open."""
    if isinstance(tree, int):
        here = leaves.load(tree)
        were_open = len(here)
    else:
        parts = []
        for each in tree:
            parts.append((yield from _settle(each, leaves, rule)))
        here = Contested.concat([*(rest.open for rest in parts), *(rest.gone for rest in parts)])
        were_open = sum(len(rest.open) for rest in parts)
    outside = np.delete(leaves.extents, list(_numbers(tree)), axis=0)
    overlaps = None if rule.measure is None else rule.measure(here.found)
    everyone = np.ones(len(here), dtype=bool)
    were_gone = np.arange(len(here)) >= were_open
    standing = Standing(everyone, meets_any(here.around, outside), were_gone)
    as_tiles = replace(here.found, cut=here.cut)
    fate = decide(as_tiles, standing, rule.scenes, rule.options, overlaps)
    gone = ~(fate.stays | were_gone)
    gone[fate.undecided] = False
    found = fate.seen(here.found)
    joined = join(found.take(fate.parts), fate.links, rule.scenes)
    earlier, days = _earlier(here.found.first_seen, found.first_seen)
    yield Settled(here.rows[gone], joined, len(fate.parts), here.rows[earlier], days)
    here = replace(here, found=found)
    return _Rest(here.take(fate.undecided), here.take(fate.may_show))


def _earlier(
    before: NDArray[np.int32] | None, now: NDArray[np.int32] | None
) -> tuple[Whole, NDArray[np.int32]]:
    """Find positions whose day became an earlier one, and that day."""
    if before is None or now is None:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    at = np.flatnonzero(now < before)
    return at, now[at]


def _numbers(tree: Tree) -> Iterator[int]:
    """List the leaves of a tree."""
    if isinstance(tree, int):
        yield tree
    else:
        for each in tree:
            yield from _numbers(each)


def meets_any(around: Boxes, extents: Boxes) -> Mask:
    """Find (N,) bounds that touch any of (L, 4) others."""
    meets = np.zeros(len(around), dtype=bool)
    if not len(around):
        return meets
    low, high = around[:, :2].min(axis=0), around[:, 2:].max(axis=0)
    near = (extents[:, :2] <= high).all(axis=1) & (extents[:, 2:] >= low).all(axis=1)
    rest = np.arange(len(around))
    for extent in extents[near]:
        here = around[rest]
        hit = (here[:, :2] <= extent[2:]).all(axis=1) & (here[:, 2:] >= extent[:2]).all(axis=1)
        meets[rest[hit]] = True
        rest = rest[~hit]
    return meets
