"""Assignment: which anchors stand for which objects.

Boxes are x_min y_min x_max y_max in tile pixels. Shapes: A anchors, M objects, I ignored
regions, H W size of the image, P pairs, B anchors in a block.

Few anchors touch any object, so IoU is computed for pairs that can overlap only: anchors are
taken in blocks of neighbours, and a block whose bounding box misses an object is skipped.
This is exact for any anchors, and fast because ``AnchorGrid`` lists them row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geo_retina.nn.rotated_overlap import pair_iou

IGNORE = -2
"""The anchor is neither object nor background."""

BACKGROUND = -1
"""The anchor stands for no object."""

_BLOCK = 64


class _Pairs(NamedTuple):
    """Anchors and boxes that overlap, ascending by block of anchors, then box."""

    anchor: Tensor
    box: Tensor
    overlap: Tensor


def assign_iou(
    anchors_A4: Tensor,
    boxes_M4: Tensor,
    *,
    foreground_iou: float,
    background_iou: float,
    rotated_M5: Tensor | None = None,
) -> Tensor:
    """Assign anchors by thresholds on their greatest IoU with an object.

    From ``foreground_iou`` on an anchor stands for that object, below ``background_iou`` for
    background, between for nothing. The anchor or anchors that an object overlaps best stand
    for an object too, however little that is: each for the one that it overlaps best itself.

    Args:
        anchors_A4: anchors of all levels.
        boxes_M4: objects; M may be 0.
        foreground_iou: least IoU with an object.
        background_iou: IoU from which an anchor is no longer background.
        rotated_M5: the objects' oriented boxes, whose hulls ``boxes_M4`` are; IoU is with them
            then.

    Returns:
        (A,) int64: position of the object, ``BACKGROUND`` or ``IGNORE``. Of objects that an
        anchor overlaps equally, the first.
    """
    count, device = len(anchors_A4), anchors_A4.device
    assigned_A = torch.full((count,), BACKGROUND, dtype=torch.int64, device=device)
    if not len(boxes_M4) or not count:
        return assigned_A
    pairs = _overlapping(anchors_A4, boxes_M4)
    iou = _iou(pairs, anchors_A4, boxes_M4, rotated_M5)
    best_A = iou.new_zeros(count).scatter_reduce(0, pairs.anchor, iou, "amax")
    best_M = iou.new_zeros(len(boxes_M4)).scatter_reduce(0, pairs.box, iou, "amax")
    match_A = _first_best(pairs, iou, best_A, len(boxes_M4))
    assigned_A[best_A >= background_iou] = IGNORE
    foreground = (best_A >= foreground_iou) & (best_A > 0)
    foreground[pairs.anchor[iou == best_M[pairs.box]]] = True
    return torch.where(foreground, match_A, assigned_A)


def assign_atss(
    anchors_per_level: Sequence[Tensor],
    boxes_M4: Tensor,
    *,
    candidates: int,
    rotated_M5: Tensor | None = None,
) -> Tensor:
    """Assign anchors by adaptive training sample selection (Zhang et al. 2020, arXiv:1912.02424).

    For an object, the ``candidates`` anchors of each level nearest to its centre are looked at.
    Those stand for it whose IoU reaches the mean plus the standard deviation of all of them and
    whose centre lies inside it. Where no IoU reaches that, as of anchors that all lie well within
    a large object, the best of those stand for it; where no centre lies inside, as of an object
    thinner than a cell, any may.

    Args:
        anchors_per_level: (A_l, 4) for each level.
        boxes_M4: objects; M may be 0.
        candidates: anchors per level and object; fewer where the level has fewer.
        rotated_M5: the objects' oriented boxes, whose hulls ``boxes_M4`` are; IoU is with them
            then, and centres lie inside them.

    Returns:
        (A,) int64 over all levels in order: position of the object or ``BACKGROUND``. An anchor
        chosen for several objects stands for the one of greatest IoU, of equal ones the first.
    """
    anchors_A4 = torch.cat(list(anchors_per_level))
    count, device = len(anchors_A4), anchors_A4.device
    assigned_A = torch.full((count,), BACKGROUND, dtype=torch.int64, device=device)
    if not len(boxes_M4) or not count:
        return assigned_A
    chosen_MP = _candidates(anchors_per_level, boxes_M4, candidates)
    near = anchors_A4[chosen_MP]
    low = torch.maximum(near[..., :2], boxes_M4[:, None, :2])
    high = torch.minimum(near[..., 2:], boxes_M4[:, None, 2:])
    box_MP = torch.arange(len(boxes_M4), device=device)[:, None].expand_as(chosen_MP)
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    every = _Pairs(chosen_MP.flatten(), box_MP.flatten(), overlap.flatten())
    iou_MP = _iou(every, anchors_A4, boxes_M4, rotated_M5).view_as(chosen_MP)
    spread = iou_MP.std(dim=1) if iou_MP.shape[1] > 1 else torch.zeros_like(iou_MP[:, 0])
    centre = (near[..., :2] + near[..., 2:]) / 2
    if rotated_M5 is not None:
        inside = _inside_rotated(centre, rotated_M5[:, None])
    else:
        inside = ((centre > boxes_M4[:, None, :2]) & (centre < boxes_M4[:, None, 2:])).all(dim=-1)
    inside |= ~(inside & (iou_MP > 0)).any(dim=1, keepdim=True)
    best_M = torch.where(inside, iou_MP, 0.0).amax(dim=1)
    least_M = torch.minimum(iou_MP.mean(dim=1) + spread, best_M)
    taken = (inside & (iou_MP > 0) & (iou_MP >= least_M[:, None])).flatten()
    pairs, iou = _Pairs(*(field[taken] for field in every)), iou_MP.flatten()[taken]
    best_A = iou.new_full((count,), -1.0).scatter_reduce(0, pairs.anchor, iou, "amax")
    match_A = _first_best(pairs, iou, best_A, len(boxes_M4))
    return torch.where(best_A >= 0, match_A, assigned_A)


def mask_ignored(
    assigned: Tensor, anchors_A4: Tensor, ignore_I4: Tensor, ground_HW: Tensor | None
) -> Tensor:
    """Take background out of regions that nobody labelled.

    Args:
        assigned: (A,) as the functions above return it.
        anchors_A4: anchors of all levels.
        ignore_I4: regions that are neither object nor background; I may be 0.
        ground_HW: bool, True where the image was labelled; None means everywhere.

    Returns:
        (A,) a copy in which background anchors are ``IGNORE`` that have more than half of their
        own area in one ignored region, or their centre on unlabelled ground. Anchors that stand
        for an object keep it. Centres outside the image count as at its border.
    """
    ignored = torch.zeros_like(assigned, dtype=torch.bool)
    if len(ignore_I4) and len(anchors_A4):
        pairs = _overlapping(anchors_A4, ignore_I4)
        mostly = pairs.overlap > 0.5 * _area(anchors_A4)[pairs.anchor]
        ignored[pairs.anchor[mostly]] = True
    if ground_HW is not None:
        limit = torch.tensor(ground_HW.shape[::-1], device=anchors_A4.device) - 1
        centre = ((anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2).floor().long()
        x, y = centre.clamp(min=0).minimum(limit).unbind(dim=1)
        ignored |= ~ground_HW[y, x]
    return assigned.masked_fill(ignored & (assigned == BACKGROUND), IGNORE)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _iou(
    pairs: _Pairs, anchors_A4: Tensor, boxes_M4: Tensor, rotated_M5: Tensor | None = None
) -> Tensor:
    if rotated_M5 is not None:
        anchors = _as_rotated(anchors_A4[pairs.anchor])
        return pair_iou(anchors, rotated_M5[pairs.box]).to(anchors_A4.dtype)
    areas = _area(boxes_M4)[pairs.box] + _area(anchors_A4)[pairs.anchor]
    return pairs.overlap / (areas - pairs.overlap)


def _as_rotated(boxes_P4: Tensor) -> Tensor:
    """Write upright boxes as oriented ones at an angle of 0; their width may be the longer side."""
    centre = (boxes_P4[:, :2] + boxes_P4[:, 2:]) / 2
    side = boxes_P4[:, 2:] - boxes_P4[:, :2]
    return torch.cat([centre, side, torch.zeros_like(side[:, :1])], dim=1)


def _inside_rotated(points: Tensor, rotated: Tensor) -> Tensor:
    """Tell which points (..., 2) lie inside oriented boxes (..., 5)."""
    angle, offset = torch.deg2rad(rotated[..., 4]), points - rotated[..., :2]
    along = offset[..., 0] * angle.cos() + offset[..., 1] * angle.sin()
    across = offset[..., 1] * angle.cos() - offset[..., 0] * angle.sin()
    return (2 * along.abs() < rotated[..., 2]) & (2 * across.abs() < rotated[..., 3])


def _first_best(pairs: _Pairs, iou: Tensor, best_A: Tensor, boxes: int) -> Tensor:
    """Find (A,) the first box that each anchor overlaps best; ``boxes`` where it has none."""
    best = iou == best_A[pairs.anchor]
    none = torch.full_like(best_A, boxes, dtype=torch.int64)
    return none.scatter_reduce(0, pairs.anchor[best], pairs.box[best], "amin")


def _in_blocks(rows: Tensor, size: int) -> Tensor:
    """Cut (A, C) rows into (blocks, size, C), the last row repeated to fill up."""
    missing = -len(rows) % size
    filled = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
    return filled.view(-1, size, rows.shape[1])


def _overlapping(anchors_A4: Tensor, boxes_M4: Tensor) -> _Pairs:
    """Find all pairs whose overlap has an area."""
    blocks = _in_blocks(anchors_A4, _BLOCK)
    low, high = blocks[..., :2].amin(dim=1), blocks[..., 2:].amax(dim=1)
    touching = (low[:, None] < boxes_M4[:, 2:]) & (high[:, None] > boxes_M4[:, :2])
    block, box = touching.all(dim=-1).nonzero(as_tuple=True)
    near, target = blocks[block], boxes_M4[box][:, None]
    x = torch.minimum(near[..., 2], target[..., 2]) - torch.maximum(near[..., 0], target[..., 0])
    y = torch.minimum(near[..., 3], target[..., 3]) - torch.maximum(near[..., 1], target[..., 1])
    overlap = x.clamp(min=0) * y.clamp(min=0)
    anchor = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=block.device)
    pair, column = ((overlap > 0) & (anchor < len(anchors_A4))).nonzero(as_tuple=True)
    return _Pairs(anchor[pair, column], box[pair], overlap[pair, column])


def _candidates(anchors_per_level: Sequence[Tensor], boxes_M4: Tensor, count: int) -> Tensor:
    """Find (M, P) positions among all anchors of the nearest ones of every level."""
    points = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2
    found, start = [], 0
    for anchors in anchors_per_level:
        if len(anchors):
            centres = (anchors[:, :2] + anchors[:, 2:]) / 2
            found.append(start + _nearest(centres, points, min(count, len(anchors))))
        start += len(anchors)
    return torch.cat(found, dim=1)


def _nearest(centres_A2: Tensor, points_M2: Tensor, count: int) -> Tensor:
    """Find (M, count) positions of the nearest centres, nearest first, of equal ones the first."""
    size = max(_BLOCK, count)
    blocks = _in_blocks(centres_A2, size)
    low, high = blocks.amin(dim=1), blocks.amax(dim=1)
    outside = torch.maximum(low[:, None] - points_M2, points_M2 - high[:, None]).clamp(min=0)
    least = outside.square().sum(dim=-1)
    # The nearest block bounds how far the last candidate can be; farther blocks are skipped.
    # A filled-up block repeats its last centre, so its bound is first made safe.
    inside = torch.arange(blocks.shape[0] * size, device=points_M2.device).view(-1, size)
    real = inside < len(centres_A2)
    first = least.argmin(dim=0)
    squared = (blocks[first] - points_M2[:, None]).square().sum(dim=-1)
    squared = squared.masked_fill(~real[first], float("inf"))
    bound = squared.kthvalue(count, dim=1).values
    block, point = (least <= bound).nonzero(as_tuple=True)
    squared = (blocks[block] - points_M2[point][:, None]).square().sum(dim=-1)
    pair, column = ((squared <= bound[point][:, None]) & real[block]).nonzero(as_tuple=True)
    centre, owner, squared = inside[block[pair], column], point[pair], squared[pair, column]
    # Stable sorts from the last key to the first: centre, distance, point.
    order = centre.argsort()
    order = order[squared[order].argsort(stable=True)]
    order = order[owner[order].argsort(stable=True)]
    sizes = owner.bincount(minlength=len(points_M2))
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[owner[order]]
    return centre[order][rank < count].view(len(points_M2), count)
