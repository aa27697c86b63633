"""Objects once across scenes: what scenes found, merged place by place, however much it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import Detections
from geo_retina.merge import Contested, SceneRule, contest, in_order, merge_piecewise
from geo_retina.options import MergeOptions
from geo_retina.postprocess.charts import Charts
from geo_retina.postprocess.lattices import JoinedScenes, Lattices
from geo_retina.postprocess.polygons import Neighbourhoods
from geo_retina.postprocess.spill import Spill

LEAF_ROWS = 1 << 18
"""Contested detections that are decided together: some 100 MB."""

_LOOKED_AT_ONCE = 1 << 18


class Found(NamedTuple):
    """What some scenes found, read as often as needed."""

    read: Callable[[], Iterator[Detections]]
    """Hands out all of it in parts, in pixels of lattices, with scenes' numbers for ``tile``."""
    is_merged: bool = False
    """Whether these scenes were merged with each other before."""


@dataclass(frozen=True, eq=False)
class AcrossScenes:
    """What became of the detections of all scenes.

    Attributes:
        read: how many there were.
        joined: objects made of several, with the number of a scene for ``tile``, ``in_order``.
        suppressed: how many gave way to others.
    """

    read: int
    joined: Detections
    suppressed: int
    _gone: NDArray[np.uint8]
    _seen_before: NDArray[np.int64]
    _first_seen: NDArray[np.int32]

    def stays(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which detections stay as they are, from one position to another in their order."""
        first = start // 8
        bits = np.unpackbits(self._gone[first : -(-stop // 8)])
        return bits[start - 8 * first :][: stop - start] == 0

    def first_seen(self, days: NDArray[np.int32], start: int) -> NDArray[np.int32]:
        """Tell (N,) days on which those that stay were first seen by any scene.

        Args:
            days: those of detections one after the other, as they were read.
            start: position of the first in the order of all.
        """
        first, last = np.searchsorted(self._seen_before, [start, start + len(days)])
        days = days.copy()
        days[self._seen_before[first:last] - start] = self._first_seen[first:last]
        return days


def merge_across(
    found: Sequence[Found],
    lattices: Lattices,
    options: MergeOptions,
    scratch: Path,
    *,
    leaf_rows: int = LEAF_ROWS,
) -> AcrossScenes:
    """Decide which detections of several scenes are one object, as ``merge_scenes`` has it.

    Only what lies where other scenes look is kept, on disk; it is decided square by square of
    ground, so that memory follows the lines between squares, and what of the objects that stay an
    earlier scene shows. The result is that of everything at once, whatever the squares.

    Args:
        found: what the scenes found, each merged in itself; all with ``first_seen``, or none.
        lattices: where they lie.
        options: thresholds.
        scratch: an empty folder; about 110 bytes for each contested detection.
        leaf_rows: detections in a square at the most.

    Returns:
        What became of them.
    """
    earlier = (part for each in found if each.is_merged for part in each.read())
    joined_scenes = JoinedScenes.of(lattices.scenes, earlier)
    scenes = joined_scenes.scenes
    hoods = Neighbourhoods.of(scenes, lattices.grids)
    charts = Charts.of(hoods)
    read = 0
    with Spill(scratch / "contested.arrow", leaf_rows) as spill:
        for part in gathered(part for each in found for part in each.read()):
            placed = joined_scenes.place(part)
            seen, is_contested = contest(placed, scenes, options, hoods.abroad(placed))
            at = np.flatnonzero(is_contested)
            own = placed.take(at)
            around = charts.around(own, options)
            places = charts.places(charts.number(own), around)
            spill.add(Contested(read + at, own, seen.cut[at], around), places)
            read += len(part)
        rule = SceneRule(scenes, options, hoods.overlaps if hoods.found else None)
        gone = np.zeros(-(-read // 8), np.uint8)
        joined, parts, count = [], 0, 0
        rows_seen, first_seen = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for tree, leaves in spill.leaves():
            for settled in merge_piecewise(tree, leaves, rule):
                rows = settled.gone
                np.bitwise_or.at(gone, rows // 8, (128 >> rows % 8).astype(np.uint8))
                joined.append(settled.joined)
                rows_seen.append(settled.seen_before)
                first_seen.append(settled.first_seen)
                parts, count = parts + settled.parts, count + len(rows)
    objects = Detections.concat(joined)
    objects = in_order(replace(objects, tile=joined_scenes.origin[objects.tile]))
    earliest = _earliest(np.concatenate(rows_seen), np.concatenate(first_seen))
    return AcrossScenes(read, objects, count - parts, gone, *earliest)


def _earliest(
    rows: NDArray[np.int64], days: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Sort rows, each once with its earliest day."""
    order = np.lexsort((days, rows))
    rows, days = rows[order], days[order]
    is_first = np.diff(rows, prepend=-1) != 0
    return rows[is_first], days[is_first]


def gathered(parts: Iterable[Detections], rows: int = _LOOKED_AT_ONCE) -> Iterator[Detections]:
    """Put small parts together, as looking at some costs as much as looking at many."""
    waiting: list[Detections] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= rows:
            yield Detections.concat(waiting)
            waiting, count = [], 0
    if count:
        yield Detections.concat(waiting)
