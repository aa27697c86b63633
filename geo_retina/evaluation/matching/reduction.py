"""Pairs that a greatest one-to-one matching can use at all (Dulmage and Mendelsohn 1958)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def usable_pairs(i: Codes, j: Codes, n: int, m: int) -> NDArray[np.bool_]:
    """Find which pairs are in some matching of the greatest size.

    Take any one of that size. A pair can be used where its detection is reached by a path that
    starts at a detection without a label and takes in turn pairs of others and of the matching;
    likewise from a label without a detection; and, off all such paths, where it closes a ring
    of such turns. What no path reaches falls apart, so that the groups of objects that must be
    decided together are far smaller than those that candidate pairs connect.

    Args:
        i: (P,) positions of detections.
        j: (P,) positions of labels.
        n: number of detections.
        m: number of labels.

    Returns:
        (P,) bool.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

    cells = csr_array((np.ones(len(i), np.int8), (i, j)), shape=(n, m))
    label_of = maximum_bipartite_matching(cells, perm_type="column").astype(np.int64)
    has = np.flatnonzero(label_of >= 0)
    found_of = np.full(m, -1, dtype=np.int64)
    found_of[label_of[has]] = has
    from_found = _reached(i, found_of[j], label_of < 0)[i]
    from_truth = _reached(j, label_of[i], found_of < 0)[j]
    usable = from_found | from_truth
    # Objects on paths pair with one another only.
    spent_truth, spent_found = np.zeros(m, np.bool_), np.zeros(n, np.bool_)
    spent_truth[j[from_found]] = True
    spent_found[i[from_truth]] = True
    rest = np.flatnonzero(~usable & ~spent_truth[j] & ~spent_found[i])
    turns = (np.ones(len(rest), np.int8), (i[rest], found_of[j[rest]]))
    _, ring = connected_components(csr_array(turns, shape=(n, n)), connection="strong")
    usable[rest] = ring[i[rest]] == ring[found_of[j[rest]]]
    return usable


def _reached(start: Codes, end: Codes, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the nodes that free ones reach by steps from ``start`` to ``end``; -1 ends a path."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    n = len(free)
    sources, goes_on = np.flatnonzero(free), end >= 0
    rows = np.concatenate([start[goes_on], np.full(len(sources), n)])
    cols = np.concatenate([end[goes_on], sources])
    steps = csr_array((np.ones(len(rows), np.int8), (rows, cols)), shape=(n + 1, n + 1))
    reached = np.zeros(n + 1, np.bool_)
    reached[breadth_first_order(steps, n, return_predecessors=False)] = True
    return reached[:n]
