"""Candidate pairs of a detection and a label, through a spatial index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.objects import Objects, Problem


@dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and labels of one class and scene that could be the same object.

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
        """Those where a mask is true, or at positions, in that order."""
        return Pairs(self.found[index], self.truth[index], self.value[index])

    def ordered(self, *keys: NDArray[np.float64] | NDArray[np.int64]) -> Pairs:
        """By detection, then by the keys, the first one first."""
        return self.take(np.lexsort([*reversed(keys), self.found]).astype(np.int64))


def overlapping(problem: Problem) -> Pairs:
    """Pairs that overlap, with their IoU.

    IoU does not change under an affine map, and any map projection is affine over the size
    of an object, so it is the same in every CRS.

    Returns:
        By detection, then IoU, highest first; of equal ones the later label first, as in
        pycocotools.
    """
    # By bounds only: the area of overlap, which is needed anyway, tells the rest.
    i, j = _touching(problem.truth.geometries, problem.found.geometries, None)
    pairs = _comparable(problem, i, j)
    a, b = problem.found.geometries[pairs.found], problem.truth.geometries[pairs.truth]
    overlap = shapely.area(shapely.intersection(a, b))
    union = shapely.area(a) + shapely.area(b) - overlap
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    pairs = Pairs(pairs.found, pairs.truth, iou).take(iou > 0)
    return pairs.ordered(-pairs.value, -pairs.truth)


def within(problem: Problem, radius_m: float) -> Pairs:
    """Pairs whose centres are at most so far apart on the ground, with that distance.

    Returns:
        By detection, then distance, then label.
    """
    from scipy.spatial import cKDTree

    found_m = problem.on_ellipsoid_m(problem.found)
    truth_m = problem.on_ellipsoid_m(problem.truth)
    rows = np.flatnonzero(np.isfinite(found_m).all(axis=1))
    cols = np.flatnonzero(np.isfinite(truth_m).all(axis=1))
    if not len(rows) or not len(cols):
        return _comparable(problem, rows[:0], cols[:0])
    near = cKDTree(found_m[rows]).sparse_distance_matrix(
        cKDTree(truth_m[cols]),
        # Far from the Earth's centre a float64 ends at a nanometre: "at most" needs that much.
        radius_m + 1e-8,
        output_type="ndarray",
    )
    return _with_distance(problem, _comparable(problem, rows[near["i"]], cols[near["j"]]))


def inside(problem: Problem) -> Pairs:
    """Pairs where the label's centre lies in the detection, with the distance of the centres.

    Returns:
        By detection, then distance, then label.
    """
    centres = np.full(len(problem.truth), shapely.Point(), dtype=object)
    placed = np.isfinite(problem.truth.centres).all(axis=1)
    centres[placed] = shapely.points(problem.truth.centres[placed])
    i, j = _touching(centres, problem.found.geometries, "intersects")
    return _with_distance(problem, _comparable(problem, i, j))


def _touching(
    truth: NDArray[np.object_], found: NDArray[np.object_], predicate: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of detections and of labels that touch, or whose bounds do without predicate."""
    if not len(truth) or not len(found):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    i, j = shapely.STRtree(truth).query(found, predicate=predicate)
    return i.astype(np.int64), j.astype(np.int64)


def _comparable(problem: Problem, i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
    """Pairs of one class and one scene."""
    found: Objects = problem.found
    truth: Objects = problem.truth
    same = (found.classes[i] == truth.classes[j]) & (found.scenes[i] == truth.scenes[j])
    return Pairs(i[same].astype(np.int64), j[same].astype(np.int64), np.zeros(int(same.sum())))


def _with_distance(problem: Problem, pairs: Pairs) -> Pairs:
    found_m = problem.on_ellipsoid_m(problem.found.take(pairs.found))
    truth_m = problem.on_ellipsoid_m(problem.truth.take(pairs.truth))
    distance = np.linalg.norm(found_m - truth_m, axis=1)
    pairs = Pairs(pairs.found, pairs.truth, distance)
    return pairs.ordered(distance, pairs.truth)
