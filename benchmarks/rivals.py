"""Other rules of merging, to compare with, written from their descriptions.

Each takes and gives ``Detections``; a tile's own suppression has been done before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import area, intersection, iou, overlapping_pairs
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan


def score_nms(detections: Detections, plan: TilePlan, threshold: float = 0.5) -> Detections:
    """Suppress plainly over everything: by score, whatever the tile, above an IoU."""
    ranked = detections.take(_by_score(detections))
    pairs = same_class(ranked)
    overlap = iou(ranked.boxes_px[pairs[:, 0]], ranked.boxes_px[pairs[:, 1]])
    suppressed = np.zeros(len(ranked), bool)
    for i, j in pairs[overlap > threshold].tolist():
        if not suppressed[i]:
            suppressed[j] = True
    return ranked.take(~suppressed)


def greedy_union(detections: Detections, plan: TilePlan, threshold: float = 0.5) -> Detections:
    """Merge by SAHI's default, GREEDYNMM with IOS.

    By score, each box that is not taken yet takes all lower ones of its class whose intersection
    with it, over the smaller of both areas, is at least the threshold, and becomes the box around
    them all, with its own score.
    """
    ranked = detections.take(_by_score(detections))
    boxes, size = ranked.boxes_px.copy(), area(ranked.boxes_px)
    pairs = same_class(ranked)
    first, second = pairs.T
    shared = intersection(boxes[first], boxes[second])
    taken = np.zeros(len(ranked), bool)
    for i, j in pairs[shared >= threshold * np.minimum(size[first], size[second])].tolist():
        if not taken[i] and not taken[j]:
            taken[j] = True
            boxes[i, :2] = np.minimum(boxes[i, :2], ranked.boxes_px[j, :2])
            boxes[i, 2:] = np.maximum(boxes[i, 2:], ranked.boxes_px[j, 2:])
    grown = Detections(boxes, ranked.scores, ranked.labels, ranked.tile, ranked.cut, ranked.joined)
    return grown.take(~taken)


def centre_owner(detections: Detections, plan: TilePlan) -> Detections:
    """Keep what has its centre in the part that its tile owns; nothing else."""
    core = np.array([tile.core.box_px for tile in plan], np.float64)[detections.tile]
    centre_xy = (detections.boxes_px[:, :2] + detections.boxes_px[:, 2:]) / 2
    inside = (centre_xy >= core[:, :2]) & (centre_xy < core[:, 2:])
    return detections.take(inside.all(axis=1))


def _by_score(detections: Detections) -> NDArray[np.int64]:
    return np.lexsort((*detections.boxes_px.T, -detections.scores))


def same_class(ranked: Detections) -> NDArray[np.int64]:
    pairs = overlapping_pairs(ranked.boxes_px)
    return pairs[ranked.labels[pairs[:, 0]] == ranked.labels[pairs[:, 1]]]
