"""How a set of boxes, upright (N, 4) or oriented (N, 5), differs from the one it should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import Boxes, oriented, overlapping_pairs
from geo_retina.nn.rotated_overlap import pair_intersection

Mask = NDArray[np.bool_]


def hulls(shapes: Boxes) -> Boxes:
    """Bound boxes of either kind."""
    return shapes if shapes.shape[1] == 4 else oriented.hull(shapes)


def area(shapes: Boxes) -> NDArray[np.float64]:
    """Compute areas of boxes of either kind."""
    return boxes.area(shapes) if shapes.shape[1] == 4 else oriented.area(shapes)


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Compute areas that pairs of boxes of one kind have in common."""
    if a.shape[1] == 4:
        return boxes.intersection(a, b)
    return pair_intersection(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Compute IoUs of pairs of boxes of one kind."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


@dataclass(frozen=True)
class Difference:
    """Objects of the truth without a box, and boxes that are nothing of the truth.

    Attributes:
        objects: of the truth.
        lost: objects that no box covers.
        doubled: boxes that cover an object which another one covers better.
        fragments: boxes that cover none, and lie by more than half in one that counts.
        others: boxes that are none of these.
    """

    objects: int
    lost: int
    doubled: int
    fragments: int
    others: int


def match(a: Boxes, b: Boxes, *, least_iou: float = 0.5) -> tuple[NDArray[np.int64], Boxes]:
    """Match boxes one to one, the greatest IoU first: (P, 2) pairs and (P,) IoUs."""
    pairs = overlapping_pairs(hulls(a), hulls(b))
    overlap = iou(a[pairs[:, 0]], b[pairs[:, 1]])
    good = overlap >= least_iou
    pairs, overlap = pairs[good], overlap[good]
    order = np.lexsort((*pairs.T, -overlap))
    free_a, free_b = np.ones(len(a), bool), np.ones(len(b), bool)
    kept = []
    for at, (i, j) in zip(order.tolist(), pairs[order].tolist(), strict=True):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            kept.append(at)
    return pairs[kept], overlap[kept]


def compare(
    truth: Boxes, wanted: Mask, found: Boxes, sure: Mask, *, least_iou: float = 0.5
) -> Difference:
    """Count what differs.

    Args:
        truth: (N, 4) all that may be found.
        wanted: (N,) objects that must be found.
        found: (M, 4) boxes, those of low score too.
        sure: (M,) boxes that count when they are no object.
        least_iou: from which a box covers an object.
    """
    # Sure boxes and wanted objects first, then the rest among each other's leftovers.
    taken_truth, taken_found = np.zeros(len(truth), bool), np.zeros(len(found), bool)
    for these, those in ((wanted, sure), (wanted, ~sure), (~wanted, sure)):
        at_truth = np.flatnonzero(these & ~taken_truth)
        at_found = np.flatnonzero(those & ~taken_found)
        pairs, _ = match(truth[at_truth], found[at_found], least_iou=least_iou)
        taken_truth[at_truth[pairs[:, 0]]] = True
        taken_found[at_found[pairs[:, 1]]] = True
    left = found[sure & ~taken_found]
    doubled, inside = np.zeros(len(left), bool), np.zeros(len(left), bool)
    pairs = overlapping_pairs(hulls(left), hulls(truth))
    a, b = left[pairs[:, 0]], truth[pairs[:, 1]]
    doubled[pairs[iou(a, b) >= least_iou, 0]] = True
    inside[pairs[(intersection(a, b) > 0.5 * area(a)) & wanted[pairs[:, 1]], 0]] = True
    return Difference(
        objects=int(wanted.sum()),
        lost=int((wanted & ~taken_truth).sum()),
        doubled=int(doubled.sum()),
        fragments=int((inside & ~doubled).sum()),
        others=int((~inside & ~doubled).sum()),
    )
