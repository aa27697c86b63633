"""Choose the cases on which a person's time is spent well."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from geo_retina.review.detections import Places, pair_places
from geo_retina.review.values import Flags, Floats, Ints

_ODD = 3.0
"""Robust standard deviations of the logarithm of size beyond which an object is odd."""

_CROWDED = 0.2
"""Share of the smaller of two boxes that the other covers, from which they are crowded."""

_APART = 2.0
"""Cases lie at least as many usual sides of an object apart."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One case.

    Attributes:
        place: position among the detections, or, less their number, among the other places.
        reason: one of ``REASONS``.
    """

    place: int
    reason: str


def choose_cases(
    found: Places,
    other: Places | None,
    turn: Ints,
    occupied: Floats,
    count: int,
    random_state: int,
) -> list[Choice]:
    """Choose cases, spread over reasons and ground, no two of one place.

    Reasons take turns. Within a reason the worst case of every block of ground comes first, then
    the second of each, and so on.

    Args:
        found: detections, also below the threshold; a unit is as long along x as along y.
        other: those of another run, or labels; None where there is nothing to compare with.
        turn: (N,) 0 for what comes first, 1 for what comes after all of these, -1 for what is no
            candidate; (N + M,) with other places.
        occupied: (K, 2) places of cases that wait already.
        count: the most cases to choose.
        random_state: of the order among equals.

    Returns:
        The cases, the most useful first.
    """
    if count <= 0:
        return []
    severities = severities_by_reason(found, other)
    centre = found.centre if other is None else np.concatenate([found.centre, other.centre])
    random = np.random.default_rng(random_state).random(len(centre))
    block = _blocks(centre, count)
    queues = {
        reason: _order(np.where(turn < 0, 0.0, severity), block, turn, random)
        for reason, severity in severities.items()
    }
    apart = _APART * float(np.median(found.side)) if len(found) else 1.0
    taken = _Taken(apart, occupied)
    return _take_turns(queues, centre, taken, count)


def severities_by_reason(found: Places, other: Places | None) -> dict[str, Floats]:
    """Tell how strongly each reason speaks for each place; 0 for not at all.

    Returns:
        (N,) by reason, or (N + M,) with M other places.
    """
    reported = found.margin >= 0
    spare = 0 if other is None else len(other)
    by_reason = {
        "uncertain": 1.0 / (1.0 + np.abs(found.margin)),
        "seam": np.where(reported & found.is_at_seam, 1.0, 0.0),
        "size": np.where(reported, _oddness(found), 0.0),
        "crowded": np.where(reported, _crowding(found, reported), 0.0),
    }
    by_reason = {name: np.append(values, np.zeros(spare)) for name, values in by_reason.items()}
    if other is not None:
        by_reason["disagrees"] = _disagreement(found, other)
    return by_reason


def _disagreement(found: Places, other: Places) -> Floats:
    """Scores of what only one of the two has."""
    ours = np.flatnonzero(found.margin >= 0)
    theirs = np.flatnonzero(other.margin >= 0)
    # Half a side: the centre of the one lies in the other.
    i, j = pair_places(found.centre[ours], other.centre[theirs], found.side[ours] / 2)
    severity = np.zeros(len(found) + len(other))
    severity[ours] = found.score[ours]
    severity[len(found) + theirs] = other.score[theirs]
    severity[ours[i]] = 0.0
    severity[len(found) + theirs[j]] = 0.0
    both = [(a, b) for a, b in zip(ours[i], theirs[j], strict=True) if other.name[b] is not None]
    unlike = [a for a, b in both if found.name[a] != other.name[b]]
    severity[unlike] = found.score[unlike]
    return severity


def _oddness(found: Places) -> Floats:
    """Robust deviations of the size from the usual one of the class; 0 where it is usual."""
    odd = np.zeros(len(found))
    size = np.log(found.side)
    for name in set(found.name):
        own = np.array([each == name for each in found.name], bool)
        middle = np.median(size[own])
        spread = 1.4826 * np.median(np.abs(size[own] - middle))
        if spread > 0:
            odd[own] = np.abs(size[own] - middle) / spread
    return np.where(odd >= _ODD, odd, 0.0)


def _crowding(found: Places, reported: Flags) -> Floats:
    """Greatest share of a box, or of one that it meets, that both cover; 0 where little."""
    own = np.flatnonzero(reported)
    low, high = np.split(shapely.bounds(found.geometry[own]), 2, axis=1)
    tree = shapely.STRtree(shapely.box(*low.T, *high.T))
    i, j = tree.query(tree.geometries, predicate="intersects")
    i, j = i[i != j], j[i != j]
    shared = np.prod(np.clip(np.minimum(high[i], high[j]) - np.maximum(low[i], low[j]), 0, None), 1)
    area = np.prod(high - low, axis=1)
    least = np.minimum(area[i], area[j])
    share = np.divide(shared, least, out=np.zeros(len(i)), where=least > 0)
    crowded = np.zeros(len(found))
    np.maximum.at(crowded, own[i], share)
    return np.where(crowded > _CROWDED, crowded, 0.0)


def _blocks(centre: Floats, count: int) -> Ints:
    """(N,) numbers of square blocks of ground, about a quarter as many as cases."""
    if not len(centre):
        return np.empty(0, np.int64)
    low, span = centre.min(axis=0), max(float(np.ptp(centre, axis=0).max()), 1e-9)
    number = math.ceil(math.sqrt(max(count, 4) / 4))
    col, row = np.minimum((centre - low) / span * number, number - 1).astype(np.int64).T
    return np.asarray(row * number + col)


def _order(severity: Floats, block: Ints, turn: Ints, random: Floats) -> list[int]:
    """List candidates: the first of every block, then the second, and so on, turn by turn."""
    own = np.flatnonzero(severity > 0)
    group = 2 * block + turn
    own = own[np.lexsort((random[own], -severity[own], group[own]))]
    start = np.flatnonzero(np.diff(group[own], prepend=-1))
    rank = np.arange(len(own)) - np.repeat(start, np.diff(np.append(start, len(own))))
    return [int(k) for k in own[np.lexsort((random[own], -severity[own], rank, turn[own]))]]


def _take_turns(
    queues: dict[str, list[int]], centre: Floats, taken: _Taken, count: int
) -> list[Choice]:
    chosen: list[Choice] = []
    waiting = {reason: iter(queue) for reason, queue in queues.items()}
    while waiting and len(chosen) < count:
        for reason in list(waiting):
            place = next((k for k in waiting[reason] if taken.is_free(centre[k])), None)
            if place is None:
                del waiting[reason]
                continue
            taken.add(centre[place])
            chosen.append(Choice(place=place, reason=reason))
            if len(chosen) == count:
                break
    return chosen


class _Taken:
    """Places that have a case, on a grid, so that the nearest are found at once."""

    def __init__(self, apart: float, occupied: Floats) -> None:
        self._apart = apart
        self._by_square: dict[tuple[int, int], list[Floats]] = {}
        for place in occupied[np.isfinite(occupied).all(axis=1)]:
            self.add(place)

    def _square(self, place: Floats) -> tuple[int, int]:
        return math.floor(place[0] / self._apart), math.floor(place[1] / self._apart)

    def add(self, place: Floats) -> None:
        self._by_square.setdefault(self._square(place), []).append(place)

    def is_free(self, place: Floats) -> bool:
        col, row = self._square(place)
        return all(
            np.hypot(*(place - each)) >= self._apart
            for x in (col - 1, col, col + 1)
            for y in (row - 1, row, row + 1)
            for each in self._by_square.get((x, y), ())
        )
