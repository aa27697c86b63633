"""Detections and labels as arrays, ready to be matched."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.rectangles import Sides

_BOX_TOLERANCE = 1e-7
"""Share of its bounds' area that a box may lack: float64 corners at 5,000 km are that exact."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Detections, or labels, ready to be matched.

    Attributes:
        geometries: (N,) shapely, in the CRS of the detections.
        boxes: (N, 4) their bounds in that CRS; not finite for what the CRS cannot express.
        is_box: (N,) whether an object fills its bounds.
        centres: (N, 2) their centroids in that CRS.
        classes: (N,) positions in the class names; all 0 where classes are not distinguished.
        scenes: (N,) positions in the scene names; all 0 where labels are not tied to scenes.
        scores: (N,) float64; of labels, all 1.
        counts: (N,) bool: of labels, whether one must be found; of detections, whether one
            without a match is false.
        row: (N,) int64 position in what was read.
        class_text: (N,) str, "" where unknown.
        scene_text: (N,) str, "" where unknown.
        side_px: (N,) side in pixels of a square of the same area; NaN where unknown.
    """

    geometries: NDArray[np.object_]
    boxes: NDArray[np.float64]
    is_box: NDArray[np.bool_]
    centres: NDArray[np.float64]
    classes: NDArray[np.int64]
    scenes: NDArray[np.int64]
    scores: NDArray[np.float64]
    counts: NDArray[np.bool_]
    row: NDArray[np.int64]
    class_text: NDArray[np.object_]
    scene_text: NDArray[np.object_]
    side_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.geometries)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Objects:
        """Select the objects where a mask is true, or at positions, in that order."""
        return Objects(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be matched with what.

    Attributes:
        found: the detections, by score, highest first; equal ones in the order given.
        truth: the labels.
        crs: of both.
        class_names: () where classes are not distinguished.
        scene_names: () where labels are not tied to scenes.
        detected_names: classes that the detections name, sorted.
        points: whether the labels are points.
        ground: the labelled ground as one geometry, or None.
        ignored_ground: ground on which nothing counts, or None.
        scanned: the ground that was looked at, as one geometry, or None where that is not known.
        sides: of the rectangles of detections and labels, where the detections are oriented boxes.
    """

    found: Objects
    truth: Objects
    crs: pyproj.CRS
    class_names: tuple[str, ...]
    scene_names: tuple[str, ...]
    detected_names: tuple[str, ...]
    points: bool
    ground: Any = None
    ignored_ground: Any = None
    scanned: Any = None
    sides: tuple[Sides, Sides] | None = None


def make_objects(
    geometries: NDArray[np.object_],
    class_text: NDArray[np.object_] | None,
    scene_text: NDArray[np.object_] | None,
) -> Objects:
    """Make objects with a score of 1; one that the CRS cannot express is kept, far from others."""
    n = len(geometries)
    boxes = shapely.bounds(geometries).reshape(n, 4)
    lost = ~np.isfinite(boxes).all(axis=1)
    if lost.any():
        geometries = geometries.copy()
        geometries[lost] = shapely.Point()
    boxes = np.where(lost[:, None], np.nan, boxes)
    is_box = fills_bounds(geometries, boxes)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    other = ~is_box & ~lost
    centres[other] = shapely.get_coordinates(shapely.centroid(geometries[other]))
    blank = np.full(n, "", dtype=object)
    return Objects(
        geometries=geometries,
        boxes=boxes,
        is_box=is_box,
        centres=centres,
        classes=np.zeros(n, np.int64),
        scenes=np.zeros(n, np.int64),
        scores=np.ones(n),
        counts=np.ones(n, np.bool_),
        row=np.arange(n),
        class_text=blank if class_text is None else class_text,
        scene_text=blank if scene_text is None else scene_text,
        side_px=np.full(n, np.nan),
    )


def fills_bounds(geometries: NDArray[np.object_], bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find boxes along the axes: four corners, and no less area than the bounds."""
    size = bounds[:, 2:] - bounds[:, :2]
    whole = size.prod(axis=1)
    filled = np.abs(shapely.area(geometries) - whole) <= _BOX_TOLERANCE * whole
    plain = (shapely.get_num_coordinates(geometries) == 5) & (whole > 0)
    return np.asarray(plain & filled & np.isfinite(bounds).all(axis=1))
