"""What merging asks of a box's shape: its area, and what it has in common with another.

Pairs are found by upright boxes, of oriented ones by their hulls; what they share is then measured
between the boxes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo_retina.boxes import Boxes, intersection, oriented
from geo_retina.detections import Detections
from geo_retina.merge.pairs import Pairs
from geo_retina.merge.sources import Line, Mask

AXES_DEG = 10.0
"""Oriented fragments of one object have directions that differ by no more than this."""

SHORT_AXES_DEG = 20.0
"""The same where one of them is short, and its direction less sure."""

LONG = 1.5
"""From this ratio of its sides on, the direction of a fragment tells that of its object."""

_ROUNDING = 1e-9
"""Share of an area that rounding may add to it, or make up between boxes that do not meet."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Boxes of either kind, made ready for the comparison of pairs.

    Attributes:
        boxes: (N, 4) upright boxes, or hulls of oriented ones, which windows do not clip.
        area: (N,) of the boxes themselves.
        rotated: (N, 5) oriented boxes; None for upright ones.
    """

    boxes: Boxes
    area: Line
    rotated: oriented.Rotated | None

    @classmethod
    def of(cls, detections: Detections) -> Shapes:
        """Take those of detections."""
        rotated = detections.rotated_px
        hulls = detections.boxes_px if rotated is None else oriented.hull(rotated)
        return cls(hulls, detections.areas_px, rotated)

    def most_shared(self, pairs: Pairs) -> Line:
        """Bound (P,) areas that the boxes of pairs have in common; of upright ones exactly."""
        i, j = pairs.T
        shared = intersection(self.boxes[i], self.boxes[j])
        if self.rotated is None:
            return shared
        return np.minimum(shared * (1 + _ROUNDING), np.minimum(self.area[i], self.area[j]))

    def shared(self, pairs: Pairs) -> Line:
        """Measure (P,) areas that the boxes of pairs have in common."""
        if self.rotated is None:
            return self.most_shared(pairs)
        import torch

        from geo_retina.nn.rotated_overlap import pair_intersection

        first, second = (torch.from_numpy(self.rotated[at]) for at in pairs.T)
        shared = pair_intersection(first, second).numpy()
        least = self.area[pairs].min(axis=1) * _ROUNDING
        return np.where(shared > least, shared, 0.0)


def axes_agree(detections: Detections, pairs: Pairs) -> Mask:
    """Find (P,) pairs whose directions do not tell that they are of different objects.

    Either side may be the long one, as a short fragment of a wide object is longer across it.
    Upright boxes all agree.
    """
    rotated = detections.rotated_px
    if rotated is None:
        return np.ones(len(pairs), dtype=bool)
    length, width, angle = rotated[pairs, 2:].transpose(2, 0, 1)
    between = np.abs((angle[:, 0] - angle[:, 1] + 45.0) % 90.0 - 45.0)
    short = (length < LONG * width).any(axis=1)
    return np.asarray(between <= np.where(short, SHORT_AXES_DEG, AXES_DEG))


def extents_within(
    detections: Detections, pairs: Pairs, windows: Boxes, axis: int
) -> tuple[Line, Line]:
    """Measure how far boxes reach along x (axis 0) or y (1).

    Args:
        detections: any.
        pairs: (P, 2) positions.
        windows: (P, 4) what of oriented boxes is looked at, since one that runs aslant lies
            elsewhere beyond it. Of upright ones all counts.
        axis: 0 or 1.

    Returns:
        (P, 2) low and high ends; not a number where nothing is inside.
    """
    if detections.rotated_px is None:
        boxes = detections.boxes_px[pairs]
        return boxes[..., axis], boxes[..., axis + 2]
    directions = np.zeros((len(pairs), 2))
    directions[:, axis] = 1.0
    return _reach(detections.rotated_px[pairs], windows, directions)


def extents_across(rotated: oriented.Rotated, pairs: Pairs, windows: Boxes) -> tuple[Line, Line]:
    """Measure (P, 2) how far the parts of oriented boxes inside windows reach across the longer.

    Of what lies side by side and aslant at a seam, the parts may be level along it, but not so.
    """
    boxes = rotated[pairs]
    longer = (boxes[:, 1, 2] > boxes[:, 0, 2]).astype(np.int64)
    angle = np.radians(boxes[np.arange(len(boxes)), longer, 4])
    return _reach(boxes, windows, np.stack([-np.sin(angle), np.cos(angle)], axis=1))


def _reach(boxes: oriented.Rotated, windows: Boxes, directions: Line) -> tuple[Line, Line]:
    """Measure (P, 2) ends of the parts of (P, 2, 5) boxes."""
    twice = (np.repeat(each, 2, axis=0) for each in (windows, directions))
    ends = oriented.reach_inside(boxes.reshape(-1, 5), *twice).reshape(-1, 2, 2)
    return ends[..., 0], ends[..., 1]
