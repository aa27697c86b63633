"""Which objects count: by the labelled ground, and by ground on which nothing counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Objects, Problem
from geo_retina.options import EvaluateOptions
from geo_retina.vector import read_ground

_LEAST_SHARE = 1e-6
"""A detection with less of its area on the ground only touches it."""


def on_ground(problem: Problem, options: EvaluateOptions) -> Problem:
    """Mark what counts, and leave out detections that lie outside the ground.

    A label counts, that is must be found, where its centre lies on the ground and on none to
    be ignored. A detection is false without a match only where its centre lies on the ground;
    one that reaches over the border from outside may match, and else does not count.

    Raises:
        LabelError: a file of ground cannot be read or holds no polygons.
    """
    # Cells are counted on all of the ground; other scores need it where objects are.
    reach = None if options.cell_m is not None else _reach(problem)
    if options.ground is not None:
        area = read_ground(options.ground, problem.crs, reach, encoding=options.encoding)
        shapely.prepare(area)
        here = _hold(area, problem.found.centres)
        found = replace(problem.found, counts=here).take(here | _reach_over(problem, area, ~here))
        labels = problem.truth.counts & _hold(area, problem.truth.centres)
        truth = replace(problem.truth, counts=labels)
        problem = replace(problem, found=found, truth=truth, ground=area)
    if options.ignore is not None:
        area = read_ground(options.ignore, problem.crs, reach, encoding=options.encoding)
        shapely.prepare(area)
        labels = problem.truth.counts & ~_hold(area, problem.truth.centres)
        truth = replace(problem.truth, counts=labels)
        problem = replace(problem, truth=truth, ignored_ground=area)
    return problem


def on_ignored_ground(problem: Problem) -> NDArray[np.bool_]:
    """Find (N,) detections that have their centre on ground to be ignored."""
    if problem.ignored_ground is None:
        return np.zeros(len(problem.found), np.bool_)
    return _hold(problem.ignored_ground, problem.found.centres)


def shares_ignored(problem: Problem) -> NDArray[np.float64]:
    """Measure (N,) share of each detection's area on ground to be ignored."""
    if problem.ignored_ground is None:
        return np.zeros(len(problem.found))
    return _shares(problem.found, problem.ignored_ground)


def _reach(problem: Problem) -> NDArray[np.float64]:
    """Return (M, 2) positions that span all objects."""
    boxes = np.concatenate([problem.found.boxes, problem.truth.boxes])
    return np.asarray(boxes.reshape(-1, 2))


def _hold(area: Any, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(shapely.contains_xy(area, positions), dtype=np.bool_)


def _reach_over(problem: Problem, area: Any, outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    reach = np.zeros(len(problem.found), np.bool_)
    rows = np.flatnonzero(outside)
    reach[rows] = _shares(problem.found.take(rows), area) > _LEAST_SHARE
    return reach


def _shares(objects: Objects, area: Any) -> NDArray[np.float64]:
    """Share of each object's area in a prepared one; 0 for what has no area."""
    share = np.zeros(len(objects))
    inside = shapely.contains_properly(area, objects.geometries)
    share[inside] = 1.0
    rows = np.flatnonzero(~inside & shapely.intersects(area, objects.geometries))
    geometries = objects.geometries[rows]
    whole = shapely.area(geometries)
    part = shapely.area(shapely.intersection(geometries, area))
    share[rows] = np.divide(part, whole, out=np.zeros(len(rows)), where=whole > 0)
    return share
