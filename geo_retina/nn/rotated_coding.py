"""Offsets that lead from upright anchors to oriented boxes, and the way back.

An angle is coded by the cosine and sine of its double and of its fourfold, the unit vectors of two
phases: the first repeats where a rectangle does, every half turn, the second where a square does,
every quarter (dual-frequency phase coding, Yu and Da 2023, arXiv:2211.06368). No angle is a jump.

Shapes: A anchors, P boxes with their anchors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

OFFSETS = 8
"""Outputs of an anchor: dx, dy, log length, log width, cos 2t, sin 2t, cos 4t, sin 4t."""

NEAR_SQUARE = 0.9
"""Width over length from which an angle is told modulo a quarter turn only."""

TINY_PX = 2.0
"""Length under which no angle is told: a label is hardly drawn better than to a pixel."""

_GREATEST_LOG_SCALE = math.log(1000 / 16)
_LEAST_SIDE_PX = 1e-3


def are_oriented(deltas: Tensor) -> bool:
    """Tell offsets (..., 8) of oriented boxes from those of upright ones (..., 4)."""
    return deltas.shape[-1] == OFFSETS


def encode_rotated(anchors_P4: Tensor, rotated_P5: Tensor) -> Tensor:
    """Encode (P, 8) offsets that lead from each anchor to its box.

    Shifts are in anchor sides. Scales are logarithms of length and width over one side, the square
    root of the anchor's area, so that they are the same for an anchor that is turned by a quarter.
    Sides of boxes under 0.001 px count as 0.001 px, so that the result is finite.
    """
    side = anchors_P4[:, 2:] - anchors_P4[:, :2]
    shift = rotated_P5[:, :2] - (anchors_P4[:, :2] + anchors_P4[:, 2:]) / 2
    scale = rotated_P5[:, 2:4].clamp(min=_LEAST_SIDE_PX) / side.prod(dim=1, keepdim=True).sqrt()
    phases = torch.deg2rad(rotated_P5[:, 4:5]) * rotated_P5.new_tensor([2.0, 4.0])
    vectors = torch.stack([phases.cos(), phases.sin()], dim=2).flatten(1)
    return torch.cat([shift / side, scale.log(), vectors], dim=1)


def decode_rotated(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Decode oriented boxes (..., 5) that the offsets (..., 8) lead to; undoes ``encode_rotated``.

    The phase that repeats every quarter turn gives the angle, the other one its quarter. The longer
    side comes first, whichever offset it came from, and the angle lies in [-90, 90). A side
    grows to at most 62.5 times its anchor's, as upright ones do.
    """
    side = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * side + deltas[..., :2] * side
    scale = deltas[..., 2:4].clamp(max=_GREATEST_LOG_SCALE).exp()
    sides = scale * (side[..., :1] * side[..., 1:]).sqrt()
    phases = torch.atan2(deltas[..., 5::2], deltas[..., 4::2])
    half, quarter = torch.rad2deg(phases).unbind(dim=-1)
    rough, fine = half / 2, quarter / 4
    angle = fine + 90 * torch.round((rough - fine) / 90)
    length, width = sides.unbind(dim=-1)
    angle = torch.where(width > length, angle + 90, angle)
    angle = torch.remainder(angle + 90, 180) - 90
    angle = torch.where(angle >= 90, -90.0, angle)
    sides = torch.stack([torch.maximum(length, width), torch.minimum(length, width)], dim=-1)
    return torch.cat([centre, sides, angle[..., None]], dim=-1)


def have_angle(rotated_P5: Tensor) -> Tensor:
    """Tell (P, 8) which offsets mean something.

    All do, but for the half turn of near-squares, and the whole angle of tiny boxes.
    """
    is_long = rotated_P5[:, 3] <= NEAR_SQUARE * rotated_P5[:, 2]
    every = torch.ones(len(rotated_P5), OFFSETS, dtype=torch.bool, device=rotated_P5.device)
    every[:, 4:] = rotated_P5[:, 2:3] >= TINY_PX
    every[:, 4:6] &= is_long[:, None]
    return every


def hull(rotated: Tensor) -> Tensor:
    """Compute the upright boxes (..., 4) around oriented ones (..., 5)."""
    angle = torch.deg2rad(rotated[..., 4:5])
    cos, sin = angle.cos().abs(), angle.sin().abs()
    length, width = rotated[..., 2:3], rotated[..., 3:4]
    half = torch.cat([length * cos + width * sin, length * sin + width * cos], dim=-1) / 2
    return torch.cat([rotated[..., :2] - half, rotated[..., :2] + half], dim=-1)


def turn_phases(vectors: Tensor, *, mirrored: bool, turned: bool) -> Tensor:
    """Move coded angles (..., 4) of a view back to the image.

    Args:
        vectors: cosines and sines, as ``encode_rotated`` has them last.
        mirrored: along one axis, so that angles run the other way.
        turned: rows and columns have changed places after that.
    """
    sign = vectors.new_tensor([1.0, -1.0 if mirrored else 1.0] * 2)
    if turned:  # t becomes 90 - t
        sign = sign * vectors.new_tensor([-1.0, 1.0, 1.0, -1.0])
    return vectors * sign
