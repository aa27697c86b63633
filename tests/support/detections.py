"""Detections to merge, to write and to read again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geo_retina.boxes import oriented
from geo_retina.detections import Detections


def detections_of(boxes_px, scores=1.0, *, labels=0, tile=0, cut=0) -> Detections:
    """Make detections of boxes; what is given once holds for all of them."""
    boxes_px = np.asarray(boxes_px, np.float64).reshape(-1, 4)
    count = len(boxes_px)
    columns = [np.broadcast_to(values, count) for values in (scores, labels, tile, cut)]
    return Detections(boxes_px, *columns, np.zeros(count, np.bool_))


def random_detections(count, seed=0, *, within_px=2900.0, sides_px=(2.0, 60.0)) -> Detections:
    """Draw boxes with corners in a square, of two classes, as any tiles may have found them."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, within_px, (count, 2))
    return Detections(
        np.concatenate([low, low + rng.uniform(*sides_px, (count, 2))], axis=1),
        rng.random(count),
        rng.integers(0, 2, count),
        rng.integers(0, 1 << 40, count),
        rng.integers(0, 256, count),
        rng.random(count) < 0.3,
    )


def oriented_detections(rotated_px, scores=1.0, *, window=None, **columns) -> Detections:
    """Make detections of oriented boxes, whose hulls a window x_min, y_min, x_max, y_max clips."""
    rotated_px = oriented.normalise(rotated_px)
    hulls = oriented.hull(rotated_px)
    if window is not None:
        hulls = np.clip(hulls, window[:2] * 2, window[2:] * 2)
    return replace(detections_of(hulls, scores, **columns), rotated_px=rotated_px)


def random_oriented(count, seed=0, *, within_px=2900.0, sides_px=(2.0, 60.0)) -> Detections:
    """Draw oriented boxes with centres in a square, as ``random_detections`` does upright ones."""
    rng = np.random.default_rng(seed)
    rotated = np.column_stack(
        [
            rng.uniform(0, within_px, (count, 2)),
            rng.uniform(*sides_px, (count, 2)),
            rng.uniform(-90, 90, count),
        ]
    )
    plain = random_detections(count, seed)
    return replace(plain, boxes_px=oriented.hull(rotated), rotated_px=oriented.normalise(rotated))
