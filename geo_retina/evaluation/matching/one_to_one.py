"""One-to-one matching: by score, by the most matches at every threshold, and optimally."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.matching.candidates import Pairs
from geo_retina.evaluation.matching.reduction import usable_pairs

_BATCH = 2000
"""Pairs of small components that are solved at a time."""


def match_by_score(
    found: NDArray[np.int64], truth: NDArray[np.int64], count: int, shared: int
) -> NDArray[np.int64]:
    """Let each detection, in order, take the first label of its pairs that is still free.

    All labels prefer the detection that comes first, so what the detections get in turn is
    the one stable matching, and rounds of proposals find it (Gale and Shapley 1962): each
    detection without a label asks the next of its list, which leaves a later one for it.

    Args:
        found: (P,) positions of detections, ascending, so in order of score.
        truth: (P,) positions of labels, the best pair of each detection first.
        count: N detections.
        shared: position of a label that any number of detections may take; greater than all
            others.

    Returns:
        (N,) position of each one's pair, or -1. What the first n of them got does not depend
        on the others, so one matching serves every score threshold.
    """
    chosen = np.full(count, -1, dtype=np.int64)
    start = np.flatnonzero(np.diff(found, prepend=-1))
    end = np.append(start[1:], len(found))
    at = start.copy()  # the pair that each detection with pairs is at
    nobody = len(start)
    holder = np.full(shared + 1, nobody, dtype=np.int64)
    asking = np.arange(nobody)
    while len(asking):
        label = truth[at[asking]]
        before = holder[label]
        np.minimum.at(holder, label, asking)
        got = (holder[label] == asking) | (label == shared)
        lost = before[got & (before < nobody) & (label != shared)]
        asking = np.concatenate([asking[~got], lost])
        at[asking] += 1
        asking = asking[at[asking] < end[asking]]
    has = at < end
    chosen[found[start[has]]] = at[has]
    return chosen


def gains(pairs: Pairs, count: int) -> NDArray[np.bool_]:
    """Find which detections, added in order, raise the greatest number of matches.

    The sum of the first n is the size of a maximum matching of the first n detections, so
    this too serves every score threshold. Each detection looks for an augmenting path
    (Berge 1957). Labels that a vain search has seen form a set that no later path can leave,
    so they are never searched again and the whole is linear in what it visits in vain.

    Args:
        pairs: by detection, in order of score.
        count: N detections.

    Returns:
        (N,) bool.
    """
    ends = np.searchsorted(pairs.found, np.arange(count + 1)).tolist()
    truth = pairs.truth.tolist()
    owner: dict[int, int] = {}
    owned: dict[int, int] = {}
    dead: set[int] = set()
    gain = np.zeros(count, np.bool_)
    for start in np.unique(pairs.found).tolist():
        candidates = truth[ends[start] : ends[start + 1]]
        free = next((k for k in candidates if k not in owner), None)
        if free is not None:  # by far the most need no search
            owner[free], owned[start] = start, free
            gain[start] = True
            continue
        came_from: dict[int, int] = {}
        queue = [start]
        for detection in queue:  # breadth first; grows while it is read
            new = [k for k in truth[ends[detection] : ends[detection + 1]] if k not in dead]
            new = [k for k in new if k not in came_from]
            came_from.update(dict.fromkeys(new, detection))
            free = next((k for k in new if k not in owner), None)
            if free is not None:
                break
            queue.extend(owner[k] for k in new)
        if free is None:
            dead.update(came_from)
            continue
        gain[start] = True
        _augment(free, start, came_from, owner, owned)
    return gain


def _augment(
    free: int, start: int, came_from: dict[int, int], owner: dict[int, int], owned: dict[int, int]
) -> None:
    """Hand each label on the way back from a free one to the detection that asked for it."""
    label, detection = free, came_from[free]
    while True:
        before = owned.get(detection)
        owner[label], owned[detection] = detection, label
        if detection == start:
            return
        assert before is not None  # only the start of the way owned nothing
        label, detection = before, came_from[before]


def match_optimally(pairs: Pairs) -> Pairs:
    """Choose the most pairs that share no object, and of such choices the least distance.

    Exact. Pairs that no such choice can use are left out first; what they connected falls
    apart, and the groups that remain are solved by themselves, small ones many at a time. Time
    is about quadratic in the largest group, which stays small even where a radius beyond the
    spacing of objects connects all of them.

    Args:
        pairs: with distances.

    Returns:
        The chosen pairs, by detection.
    """
    if not len(pairs):
        return pairs
    found, i = np.unique(pairs.found, return_inverse=True)
    truth, j = np.unique(pairs.truth, return_inverse=True)
    usable = usable_pairs(i, j, len(found), len(truth))
    pairs, i, j = pairs.take(usable), i[usable], j[usable]
    component = _components(i, j, len(found), len(truth))
    size = np.bincount(component)[component]
    chosen = [np.flatnonzero(size == 1)]
    rows = np.flatnonzero(size > 1)
    rows = rows[np.argsort(component[rows], kind="stable")]
    for batch in _batches(component[rows]):
        part = rows[batch]
        chosen.append(part[_assign(i[part], j[part], pairs.value[part])])
    return pairs.take(np.sort(np.concatenate(chosen)))


def _batches(component: NDArray[np.int64]) -> list[slice]:
    """Group whole components into stretches of few pairs together, or of one component."""
    starts = np.append(np.flatnonzero(np.diff(component, prepend=-1)), len(component)).tolist()
    batches, first = [], 0
    for start, end in itertools.pairwise(starts):
        if start > first and end - first > _BATCH:
            batches.append(slice(first, start))
            first = start
    return [*batches, slice(first, len(component))] if len(component) else []


def _components(i: NDArray[np.int64], j: NDArray[np.int64], n: int, m: int) -> NDArray[np.int64]:
    """Find (P,) the number of the connected component of each pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m))
    _, number = connected_components(graph, directed=False)
    return np.asarray(number[i], dtype=np.int64)


def _assign(
    found: NDArray[np.int64], truth: NDArray[np.int64], distance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose positions of the pairs to match among those of whole components."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    _, i = np.unique(found, return_inverse=True)
    _, j = np.unique(truth, return_inverse=True)
    n, m = int(i.max()) + 1, int(j.max()) + 1
    # A match is worth more than all distances together can be. Zeros would vanish from a
    # sparse matrix; the same shift for all detections changes no choice.
    worth = (distance.max() + 1.0) * (min(n, m) + 1)
    # Each detection may also stay without a label: it takes a stand-in of its own.
    own = np.arange(n)
    weight = np.concatenate([distance + 1.0, np.full(n, worth + 1.0)])
    cells = (np.concatenate([i, own]), np.concatenate([j, m + own]))
    rows, cols = min_weight_full_bipartite_matching(csr_array((weight, cells), shape=(n, m + n)))
    label = np.full(n, -1)
    label[rows] = cols
    return np.flatnonzero(label[i] == j)
