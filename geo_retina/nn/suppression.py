"""Suppression: which of the boxes in a batch no better one of their image and class covers.

Boxes come sorted by image, then from the highest score down. Shapes: M boxes, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from geo_retina.nn.rotated_coding import hull
from geo_retina.nn.rotated_overlap import pair_iou

# Suppression compares every box with every other one of a call. A CPU pays for each pair, so
# images go one by one; a GPU pays for calls, and for a matrix of pairs of this many boxes.
_BOXES_PER_CALL = 32_768

_PAIRS_AT_ONCE = 1_000_000


def suppress_upright(
    boxes_M4: Tensor, scores_M: Tensor, labels_M: Tensor, image_M: Tensor, iou: float
) -> Tensor:
    """Find the positions, ascending, of boxes that stay.

    Args:
        boxes_M4: sorted by image, then score.
        scores_M: of them.
        labels_M: classes.
        image_M: positions in the batch.
        iou: a box that stays suppresses lower-scored ones above it.
    """
    if not len(boxes_M4):
        return image_M
    boxes = _apart(_exact(boxes_M4), labels_M, image_M)
    kept, start = [], 0
    for size in _calls(image_M.bincount().tolist(), boxes.device.type):
        part = slice(start, start + size)
        kept.append(start + nms(boxes[part], scores_M[part].to(boxes), iou).sort().values)
        start += size
    return torch.cat(kept)


def suppress_oriented(rotated_M5: Tensor, labels_M: Tensor, image_M: Tensor, iou: float) -> Tensor:
    """Find the positions, ascending, of oriented boxes that stay.

    Args:
        rotated_M5: sorted by image, then score.
        labels_M: classes.
        image_M: positions in the batch.
        iou: a box that stays suppresses lower-scored ones above it.
    """
    count = len(rotated_M5)
    group = image_M * (int(labels_M.max()) + 1) + labels_M if count else image_M
    hulls = _apart(hull(_exact(rotated_M5)), torch.zeros_like(group), group)
    above, below = _overlapping(rotated_M5, hulls, iou)
    kept = torch.ones(count, dtype=torch.bool, device=rotated_M5.device)
    # A box's fate is settled once those above it are; each round settles at least the next one
    # of every chain, and there are few links to a chain.
    while True:
        suppressed = torch.zeros_like(kept)
        suppressed[below[kept[above]]] = True
        if torch.equal(kept, ~suppressed):
            return kept.nonzero()[:, 0]
        kept = ~suppressed


def _exact(boxes: Tensor) -> Tensor:
    # Float64 keeps the boxes exact whatever the offset; devices without it have few bits to lose.
    return boxes.to(torch.float32 if boxes.device.type == "mps" else torch.float64)


def _apart(boxes_M4: Tensor, labels_M: Tensor, image_M: Tensor) -> Tensor:
    """Lay images side by side, classes below each other: boxes of different ones never touch."""
    if not len(boxes_M4):
        return boxes_M4
    step = boxes_M4.max() - boxes_M4.min().clamp(max=0) + 1
    shift = torch.stack([image_M, labels_M], dim=1) * step
    return boxes_M4 + shift.repeat(1, 2)


def _calls(sizes: list[int], device: str) -> list[int]:
    """Divide boxes into numbers that go into one call each: whole images, in order."""
    limit = 0 if device == "cpu" else _BOXES_PER_CALL
    calls: list[int] = []
    for size in sizes:
        if calls and calls[-1] + size <= limit:
            calls[-1] += size
        else:
            calls.append(size)
    return calls


def _overlapping(rotated_M5: Tensor, hulls_M4: Tensor, iou: float) -> tuple[Tensor, Tensor]:
    """Find the pairs above an IoU: positions of the better box and of the other.

    A sweep along x: of the boxes from left to right, each meets those that begin before it ends.
    """
    order = hulls_M4[:, 0].argsort()
    left, right = hulls_M4[order, 0].contiguous(), hulls_M4[order, 2].contiguous()
    counts = torch.searchsorted(left, right) - torch.arange(1, len(left) + 1, device=left.device)
    counts = counts.clamp(min=0)
    area = (rotated_M5[:, 2] * rotated_M5[:, 3]).to(hulls_M4)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    found = [rotated_M5.new_zeros(2, 0, dtype=torch.int64)]
    for start in range(0, total, _PAIRS_AT_ONCE):
        pair = torch.arange(start, min(start + _PAIRS_AT_ONCE, total), device=left.device)
        first = torch.searchsorted(ends, pair, right=True)
        second = first + 1 + pair - (ends - counts)[first]
        one, other = order[first], order[second]
        low = torch.maximum(hulls_M4[one, :2], hulls_M4[other, :2])
        high = torch.minimum(hulls_M4[one, 2:], hulls_M4[other, 2:])
        most = (high - low).clamp(min=0).prod(dim=1)
        # What the hulls share bounds what the boxes do.
        near = most * (1 + iou) > iou * (area[one] + area[other]) * (1 - 1e-6)
        one, other = one[near & (most > 0)], other[near & (most > 0)]
        covers = pair_iou(rotated_M5[one], rotated_M5[other]) > iou
        found.append(torch.stack([one[covers], other[covers]]))
    pairs = torch.cat(found, dim=1)
    return pairs.amin(dim=0), pairs.amax(dim=0)
