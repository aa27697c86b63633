"""How far the rectangles of matched objects are off in direction, length and width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geo_retina.evaluation.inputs.rectangles import Sides

NEAR_SQUARE = 0.9
"""Width over length above which the direction of a label means nothing; as in ``nn``, which would
load PyTorch here."""


class SideErrors(NamedTuple):
    """Errors of matched pairs; None where no pair tells one."""

    angle_error_deg: float | None = None
    angle_error_95_deg: float | None = None
    length_error_m: float | None = None
    width_error_m: float | None = None


def side_errors(found: Sides, truth: Sides) -> SideErrors:
    """Compare the rectangles of (P,) detections with those of the labels that they match.

    Returns:
        Median and 95th percentile of the angle between the lengths, from 0 to 90 degrees, without
        pairs whose label is nearly a square; medians of the absolute errors of length and width.
    """
    known = np.isfinite(found).all(axis=1) & np.isfinite(truth).all(axis=1)
    if not known.any():
        return SideErrors()
    found, truth = found[known], truth[known]
    length, width, _ = np.median(np.abs(found - truth), axis=0).tolist()
    long = truth[:, 1] <= NEAR_SQUARE * truth[:, 0]
    if not long.any():
        return SideErrors(length_error_m=length, width_error_m=width)
    turn = np.abs(found[long, 2] - truth[long, 2]) % 180
    middle, high = np.percentile(np.minimum(turn, 180 - turn), [50, 95]).tolist()
    return SideErrors(middle, high, length, width)
