"""Boxes as arrays, and the arithmetic on them: ``upright`` ones here, ``oriented`` ones beside.

Upright boxes are (N, 4): x_min, y_min, x_max, y_max at pixel edges, float64. Oriented ones are
(N, 5): see ``geo_retina.boxes.oriented``.
"""

from geo_retina.boxes.upright import (
    Boxes,
    area,
    at_invalid,
    clip,
    corners,
    intersection,
    iou,
    overlapping_pairs,
    place_corners,
    shift,
    to_polygons,
    to_rings,
)

__all__ = [
    "Boxes",
    "area",
    "at_invalid",
    "clip",
    "corners",
    "intersection",
    "iou",
    "overlapping_pairs",
    "place_corners",
    "shift",
    "to_polygons",
    "to_rings",
]
