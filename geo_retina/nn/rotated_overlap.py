"""Overlap of oriented boxes, pair by pair.

A box is centre x, centre y, length, width and the angle of the length in degrees, from x to y.
Callers give pairs whose upright hulls meet; for all others the overlap is 0. Shapes: P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CORNERS = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))


def pair_intersection(a_P5: Tensor, b_P5: Tensor) -> Tensor:
    """Compute (P,) areas of overlap of the i-th box of a with the i-th of b.

    In the frame of b, which is upright there, the overlap is the integral over b's length of how
    much of a lies within b's width. Around a's sides it is a sum of integrals of y(x), cut to that
    width, so that no corner of the overlap needs to be sought: the sum changes steadily with the
    boxes, also where sides coincide.

    Args:
        a_P5: any floating dtype.
        b_P5: like ``a_P5``.

    Returns:
        Areas in float64, or float32 on a device without it; at most the smaller box's.
    """
    dtype = torch.float32 if a_P5.device.type == "mps" else torch.float64
    a, b = a_P5.to(dtype), b_P5.to(dtype)
    x, y = _corners_seen_from(a, b)
    half_length, half_width = b[:, 2:3] / 2, b[:, 3:4] / 2
    x1, y1 = x.roll(-1, dims=1), y.roll(-1, dims=1)
    start, end = _clamp(x, half_length), _clamp(x1, half_length)
    rise = (y1 - y) / _not_zero(x1 - x)
    # Cut to the side's own ends too: where it hardly advances along x, its slope is no number
    # to go far with.
    low, high = torch.minimum(y, y1), torch.maximum(y, y1)
    y_start = (y + (start - x) * rise).clamp(low, high)
    y_end = (y + (end - x) * rise).clamp(low, high)
    parts = (end - start) * _mean_cut(y_start, y_end, half_width)
    area, smaller = -parts.sum(dim=1), torch.minimum(_area(a), _area(b))
    # What is left of sums around boxes that do not meet is rounding.
    least = 1e-12 if dtype == torch.float64 else 1e-5
    return torch.where(area > least * smaller, area.minimum(smaller), 0.0)


def pair_iou(a_P5: Tensor, b_P5: Tensor) -> Tensor:
    """Compute (P,) IoU of the i-th box of a with the i-th of b; 0 for no area."""
    overlap = pair_intersection(a_P5, b_P5)
    union = _area(a_P5.to(overlap)) + _area(b_P5.to(overlap)) - overlap
    return torch.where(union > 0, overlap / _not_zero(union), torch.zeros_like(overlap))


def _area(boxes_P5: Tensor) -> Tensor:
    return boxes_P5[:, 2] * boxes_P5[:, 3]


def _corners_seen_from(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (P, 4) x and y of a's corners, in order around it, in the frame of b."""
    own, turn = torch.deg2rad(b[:, 4:5]), torch.deg2rad(a[:, 4:5] - b[:, 4:5])
    along, across = a.new_tensor(_CORNERS).unbind(dim=1)
    along, across = along * a[:, 2:3], across * a[:, 3:4]
    dx, dy = a[:, 0:1] - b[:, 0:1], a[:, 1:2] - b[:, 1:2]
    x = dx * own.cos() + dy * own.sin() + along * turn.cos() - across * turn.sin()
    y = dy * own.cos() - dx * own.sin() + along * turn.sin() + across * turn.cos()
    return x, y


def _clamp(values: Tensor, half: Tensor) -> Tensor:
    return values.clamp(-half, half)


def _not_zero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)


def _mean_cut(start: Tensor, end: Tensor, half: Tensor) -> Tensor:
    """Compute the mean of what runs evenly from start to end, cut to [-half, half]."""
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    span = _not_zero(high - low)
    below = ((-half - low) / span).clamp(0, 1)
    above = ((high - half) / span).clamp(0, 1)
    between = (_clamp(low, half) + _clamp(high, half)) / 2
    return half * (above - below) + (1 - above - below) * between
