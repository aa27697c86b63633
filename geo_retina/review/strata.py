"""Form strata of cells, and spread a number of cells over them."""

from __future__ import annotations

import numpy as np

from geo_retina.review.values import Flags, Floats, Frame, Ints
from geo_retina.vector.review_layers import USES

FEWEST = 2
"""Cells of a stratum without which no spread can be estimated."""


def strata_by_count(predicted: Floats, number: int) -> Ints:
    """Cut cells into strata of similar count, by the cumulative root of frequencies.

    Dalenius and Hodges 1959, "Minimum variance stratification", J. Am. Stat. Assoc. 54.

    Args:
        predicted: (N,) detections of each cell.
        number: strata to make.

    Returns:
        (N,) numbers from 0, by count; fewer strata where counts are alike.
    """
    _, at, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    upto = np.cumsum(np.sqrt(counts))
    cut = np.ceil(upto / upto[-1] * number - 1e-9).astype(np.int64)
    return np.asarray(np.unique(cut, return_inverse=True)[1][at.ravel()], dtype=np.int64)


def cells_to_draw(frame: Frame, is_drawn: Flags, total: int) -> Ints:
    """Continue the random order of each stratum until a number of cells is drawn.

    Strata share by size and expected spread, which grows as the root of the count (Neyman 1934),
    after the fewest that each needs. A greater total gives the same cells and more.

    Args:
        frame: all cells.
        is_drawn: (N,) those drawn before.
        total: cells to draw in all, of both uses.

    Returns:
        Numbers of the cells to add, by use, stratum and place. Of every stratum and use the drawn
        cells are a run from the start of the order.
    """
    learn = round(total * frame.design.learn_share)
    added = [
        _of_use(frame, is_drawn, use, cells_to_draw)
        for use, cells_to_draw in zip(USES, (total - learn, learn), strict=True)
    ]
    return np.concatenate(added)


def fewest_cells(frame: Frame) -> int:
    """Tell how many cells must be drawn in all, so that each stratum has its fewest."""
    strata = len(np.unique(frame.stratum))
    shares = [s for s in (frame.design.learn_share, 1 - frame.design.learn_share) if s > 0]
    return int(np.ceil(FEWEST * strata / min(shares) - 1e-9))


def _of_use(frame: Frame, is_drawn: Flags, use: str, cells_to_draw: int) -> Ints:
    strata = np.unique(frame.stratum)
    orders, weights = [], []
    for stratum in strata:
        inside = frame.stratum == stratum
        own = np.flatnonzero(inside & (frame.use == use))
        orders.append(own[np.argsort(frame.place[own])])
        spread = np.sqrt(frame.predicted[inside].mean() + 0.5)
        weights.append(inside.sum() * spread)
    taken = np.zeros(len(strata), np.int64)
    for _ in range(cells_to_draw):
        # Webster's divisors: no total takes a cell from a stratum that a smaller one gave it.
        claim = np.array(weights) / (taken + 0.5)
        claim[taken < FEWEST] += np.inf
        claim[taken >= [len(order) for order in orders]] = -1.0
        best = int(np.argmax(claim))
        if claim[best] < 0:
            break
        taken[best] += 1
    added = [order[: taken[k]][~is_drawn[order[: taken[k]]]] for k, order in enumerate(orders)]
    return np.concatenate([np.empty(0, np.int64), *added])
