"""Candidate pairs of a detection and a label, through a spatial index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.geodesy import geocentric_m

_AT_ONCE = 100_000
"""Pairs of polygons that are intersected at a time, which bounds memory."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and labels of one scene that could be the same object, but for their class.

    Attributes:
        found: (P,) positions of detections, ascending.
        truth: (P,) positions of labels.
        value: (P,) IoU, or distance in metres.
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.found)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Pairs:
        """Select the pairs where a mask is true, or at positions, in that order."""
        return Pairs(self.found[index], self.truth[index], self.value[index])

    def ordered(self, *keys: NDArray[np.float64] | NDArray[np.int64]) -> Pairs:
        """Sort by detection, then by the keys, the first one first."""
        return self.take(np.lexsort([*reversed(keys), self.found]).astype(np.int64))

    def of_one_class(self, problem: Problem) -> Pairs:
        """Select the pairs whose two objects have the same class."""
        return self.take(problem.found.classes[self.found] == problem.truth.classes[self.truth])


def overlapping(problem: Problem, least: float) -> Pairs:
    """Find the pairs that overlap, with their IoU.

    IoU does not change under an affine map, and any map projection is affine over the size
    of an object, so it is the same in every CRS.

    Args:
        problem: what is matched.
        least: pairs of a lower IoU are left out, and those of 0 always.

    Returns:
        By detection, then IoU, highest first; of equal ones the later label first, as in
        pycocotools.
    """
    # By bounds only: the area of overlap, which is needed anyway, tells the rest.
    i, j = _touching(problem.truth.geometries, problem.found.geometries, None)
    pairs = _of_one_scene(problem, i, j)
    a, b = problem.found.boxes[pairs.found], problem.truth.boxes[pairs.truth]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.maximum(sides, 0).prod(axis=1)
    both = problem.found.is_box[pairs.found] & problem.truth.is_box[pairs.truth]
    areas = _areas(problem, pairs)
    iou = _iou(overlap, areas)
    # What the bounds share bounds what the objects share.
    rows = np.flatnonzero(~both & (iou >= least) & (iou > 0))
    iou[rows] = _iou(_intersections(problem, pairs.take(rows)), areas[rows])
    pairs = Pairs(pairs.found, pairs.truth, iou).take((iou > 0) & (iou >= least))
    return pairs.ordered(-pairs.value, -pairs.truth)


def _areas(problem: Problem, pairs: Pairs) -> NDArray[np.float64]:
    """Add (P,) areas of the two of each pair."""
    found, truth = shapely.area(problem.found.geometries), shapely.area(problem.truth.geometries)
    return np.asarray(found[pairs.found] + truth[pairs.truth])


def _iou(overlap: NDArray[np.float64], areas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (P,) IoU from 0 to 1. The overlap may be too large: of bounds, or by rounding."""
    union = areas - overlap
    ratio = np.divide(overlap, union, out=np.ones_like(overlap), where=union > 0)
    return np.where(overlap > 0, np.minimum(ratio, 1.0), 0.0)


def _intersections(problem: Problem, pairs: Pairs) -> NDArray[np.float64]:
    """Compute (P,) area that the two of each pair share."""
    shared = np.empty(len(pairs))
    for start in range(0, len(pairs), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        found = problem.found.geometries[pairs.found[rows]]
        truth = problem.truth.geometries[pairs.truth[rows]]
        shared[rows] = shapely.area(shapely.intersection(found, truth))
    return shared


def within(problem: Problem, radius_m: float) -> Pairs:
    """Find the pairs whose centres are at most so far apart on the ground, with that distance.

    Returns:
        By detection, then distance, then label.
    """
    from scipy.spatial import cKDTree

    found_m = geocentric_m(problem.found.centres, problem.crs)
    truth_m = geocentric_m(problem.truth.centres, problem.crs)
    rows = np.flatnonzero(np.isfinite(found_m).all(axis=1))
    cols = np.flatnonzero(np.isfinite(truth_m).all(axis=1))
    if not len(rows) or not len(cols):
        return _of_one_scene(problem, rows[:0], cols[:0])
    near = cKDTree(found_m[rows]).sparse_distance_matrix(
        cKDTree(truth_m[cols]),
        # Far from the Earth's centre a float64 ends at a nanometre: "at most" needs that much.
        radius_m + 1e-8,
        output_type="ndarray",
    )
    return _with_distance(problem, _of_one_scene(problem, rows[near["i"]], cols[near["j"]]))


def inside(problem: Problem) -> Pairs:
    """Find the pairs with the label's centre in the detection, and the distance of centres.

    Returns:
        By detection, then distance, then label.
    """
    centres = np.full(len(problem.truth), shapely.Point(), dtype=object)
    placed = np.isfinite(problem.truth.centres).all(axis=1)
    centres[placed] = shapely.points(problem.truth.centres[placed])
    i, j = _touching(centres, problem.found.geometries, "intersects")
    return _with_distance(problem, _of_one_scene(problem, i, j))


def _touching(
    truth: NDArray[np.object_], found: NDArray[np.object_], predicate: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find detections and labels that touch, or whose bounds do without a predicate."""
    if not len(truth) or not len(found):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    i, j = shapely.STRtree(truth).query(found, predicate=predicate)
    return i.astype(np.int64), j.astype(np.int64)


def _of_one_scene(problem: Problem, i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
    same = problem.found.scenes[i] == problem.truth.scenes[j]
    return Pairs(i[same].astype(np.int64), j[same].astype(np.int64), np.zeros(int(same.sum())))


def _with_distance(problem: Problem, pairs: Pairs) -> Pairs:
    found_m = geocentric_m(problem.found.centres, problem.crs)[pairs.found]
    truth_m = geocentric_m(problem.truth.centres, problem.crs)[pairs.truth]
    distance = np.linalg.norm(found_m - truth_m, axis=1)
    pairs = Pairs(pairs.found, pairs.truth, distance)
    return pairs.ordered(distance, pairs.truth)
