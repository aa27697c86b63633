"""Two other ways of merging, to compare with: soft-NMS and weighted box fusion.

Both visit the detections of a scene one by one, and take no account of what a tile's edge cut. No
library serves: ensemble-boxes works in float32 on coordinates from 0 to 1, in which a scene's
pixels cannot be told apart, and compares all pairs.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import iou
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import in_order, rank
from geo_retina.merge.pairs import Pairs, meeting
from geo_retina.merge.seams import contested
from geo_retina.merge.selecting import rivals
from geo_retina.options import MergeOptions

_DEFAULTS = MergeOptions()


def soft_nms(
    detections: Detections,
    plan: TilePlan,
    options: MergeOptions = _DEFAULTS,
    *,
    sigma: float = 0.5,
    least_score: float = 0.3,
) -> Detections:
    """Lower the scores of detections that better ones of other tiles overlap.

    Bodla et al. 2017, arXiv:1704.04503, with the Gaussian penalty: a kept detection multiplies
    the score of every other one by exp(-IoU^2 / ``sigma``).

    Args:
        detections: clipped to their tiles' windows.
        plan: the tiles that found them.
        options: which may compete.
        sigma: how gently scores are lowered.
        least_score: what is lowered below it is dropped.

    Returns:
        What no other tile sees, and those that end with ``least_score`` or more, in order.
    """
    alone, ranked = _divided(detections, plan, options)
    pairs, overlap = _overlaps(ranked, plan, options)
    neighbours = _neighbours(pairs, len(ranked))
    factor = np.exp(-(overlap**2) / sigma).tolist()
    ends = pairs.tolist()
    scores = ranked.scores.astype(np.float64).tolist()
    heap = [(-score, i) for i, score in enumerate(scores)]
    heapq.heapify(heap)
    kept = np.zeros(len(ranked), bool)
    while heap:
        score, i = heapq.heappop(heap)
        if kept[i] or -score != scores[i]:
            continue  # an older score of it
        if -score < least_score:
            break
        kept[i] = True
        for pair in neighbours[i]:
            j = ends[pair][0] + ends[pair][1] - i
            if not kept[j]:
                scores[j] *= factor[pair]
                heapq.heappush(heap, (-scores[j], j))
    softened = Detections(
        ranked.boxes_px, scores, ranked.labels, ranked.tile, ranked.cut, ranked.joined
    )
    return in_order(Detections.concat([alone, softened.take(kept)]))


def fuse(detections: Detections, plan: TilePlan, options: MergeOptions = _DEFAULTS) -> Detections:
    """Replace detections of one object from several tiles by their weighted mean.

    After Solovyev et al. 2021, arXiv:1910.13302: by score, each detection goes to the cluster
    whose mean box it overlaps most, by an IoU above ``options.iou``, or begins one. Clusters
    are those of detections that it meets itself, and hold one of each tile.

    Args:
        detections: clipped to their tiles' windows.
        plan: the tiles that found them.
        options: which may go together, and the IoU.

    Returns:
        What no other tile sees, and one per cluster, in order: the mean of the boxes, weighted
        by score, the mean score, label and tile of the best, the sides that are cut in all;
        flagged ``joined`` where there are several.
    """
    alone, ranked = _divided(detections, plan, options)
    pairs, _ = _overlaps(ranked, plan, options)
    neighbours = _neighbours(pairs, len(ranked))
    ends, tiles = pairs.tolist(), ranked.tile.tolist()
    boxes, weights = ranked.boxes_px.tolist(), ranked.scores.astype(np.float64).tolist()
    cluster_of = [-1] * len(ranked)
    means: list[list[float]] = []
    sums: list[float] = []
    seen_by: list[set[int]] = []
    for i, box in enumerate(boxes):
        near = {cluster_of[ends[pair][0]] for pair in neighbours[i] if ends[pair][1] == i}
        fits = [(_iou(means[c], box), -c) for c in near if tiles[i] not in seen_by[c]]
        best, negative = max(fits, default=(0.0, 0))
        if best > options.iou:
            c = cluster_of[i] = -negative
            share = weights[i] / max(sums[c] + weights[i], 1e-300)
            means[c] = [m + (b - m) * share for m, b in zip(means[c], box, strict=True)]
            sums[c] += weights[i]
            seen_by[c].add(tiles[i])
        else:
            cluster_of[i] = len(means)
            means.append(box)
            sums.append(weights[i])
            seen_by.append({tiles[i]})
    fused = _fused(ranked, np.array(cluster_of, np.int64), means)
    return in_order(Detections.concat([alone, fused]))


def _divided(
    detections: Detections, plan: TilePlan, options: MergeOptions
) -> tuple[Detections, Detections]:
    """Part what no other tile sees from the others, these by score."""
    is_contested = contested(detections, plan, options)
    seen_twice = detections.take(is_contested)
    by_score = rank(seen_twice, plan, replace(options, rank="score"))
    return detections.take(~is_contested), seen_twice.take(by_score)


def _fused(ranked: Detections, cluster: NDArray[np.int64], means: list[list[float]]) -> Detections:
    _, first, count = np.unique(cluster, return_index=True, return_counts=True)
    cut = np.full(len(first), 0xFF, np.uint8)
    np.bitwise_and.at(cut, cluster, ranked.cut)
    # Summed in rank order, so that the mean does not depend on the order of the input.
    total = np.bincount(cluster, ranked.scores.astype(np.float64), minlength=len(first))
    return Detections(
        np.reshape(means, (-1, 4)),
        (total / np.maximum(count, 1)).astype(np.float32),
        ranked.labels[first],
        ranked.tile[first],
        cut,
        count > 1,
    )


def _overlaps(
    ranked: Detections, plan: TilePlan, options: MergeOptions
) -> tuple[Pairs, NDArray[np.float64]]:
    """Find (P, 2) pairs i < j of different tiles that overlap, sorted, and (P,) their IoU."""
    found = [
        np.empty((0, 2), np.int64),
        *meeting(ranked.boxes_px, *rivals(ranked, plan, options)),
    ]
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    overlap = iou(ranked.boxes_px[pairs[:, 0]], ranked.boxes_px[pairs[:, 1]])
    return pairs[overlap > 0], overlap[overlap > 0]


def _neighbours(pairs: Pairs, n: int) -> list[list[int]]:
    """List, for each of n detections, the pairs that it is in."""
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for pair, (i, j) in enumerate(pairs.tolist()):
        neighbours[i].append(pair)
        neighbours[j].append(pair)
    return neighbours


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0
