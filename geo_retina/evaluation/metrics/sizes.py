"""Scores by the size of objects, on the ground and in pixels."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.objects import Objects, Problem
from geo_retina.evaluation.matching.outcomes import Matcher
from geo_retina.evaluation.metrics.scores import SizeScores
from geo_retina.evaluation.metrics.subsets import rows_by, tally
from geo_retina.geodesy import square_metres
from geo_retina.options import EvaluateOptions

Sides = NDArray[np.float64]


def score_sizes(
    problem: Problem, matcher: Matcher, kept: NDArray[np.bool_], options: EvaluateOptions
) -> tuple[tuple[SizeScores, ...], float | None]:
    """Score by ranges of size, and return the metres a pixel that sizes in px were taken with.

    Returns:
        Ranges in px, then in metres; none where the labels have no size or there are none.
    """
    if problem.points or not len(problem.truth):
        return (), None
    found_m, truth_m = _sides_m(problem, problem.found), _sides_m(problem, problem.truth)
    ranges = []
    found_gsd, truth_gsd = _gsds(problem, found_m, options)
    if np.isfinite(truth_gsd).any() and options.sizes_px:
        sides = (found_m / found_gsd, truth_m / truth_gsd)
        ranges += _score_ranges(problem, matcher, kept, "px", options.sizes_px, sides)
    limits_m = options.sizes_m
    if limits_m is None:
        limits_m = _thirds(truth_m[problem.truth.counts])
    if limits_m:
        ranges += _score_ranges(problem, matcher, kept, "m", limits_m, (found_m, truth_m))
    gsd_m = float(np.nanmedian(found_gsd)) if np.isfinite(found_gsd).any() else None
    return tuple(ranges), gsd_m


def _score_ranges(
    problem: Problem,
    matcher: Matcher,
    kept: NDArray[np.bool_],
    unit: str,
    limits: tuple[float, ...],
    sides: tuple[Sides, Sides],
) -> list[SizeScores]:
    found_of = rows_by(problem.found.classes, len(problem.class_names))
    truth_of = rows_by(problem.truth.classes, len(problem.class_names))
    every = np.arange(len(problem.found)), np.arange(len(problem.truth))
    ranges = []
    for low, high in zip((0.0, *limits), (*limits, np.inf), strict=True):
        false, counts = ((low <= side) & (side < high) for side in sides)
        part = tally(
            problem, matcher, kept, counts & problem.truth.counts, false & problem.found.counts
        )
        classes = {
            name: part.scores(found, truth)
            for name, found, truth in zip(problem.class_names, found_of, truth_of, strict=True)
        }
        ranges.append(SizeScores(unit, low, high, part.scores(*every), classes))
    return ranges


def _sides_m(problem: Problem, objects: Objects) -> Sides:
    """Compute (N,) square root of the area on the ground; NaN where the CRS has no such place."""
    area = shapely.area(objects.geometries) * square_metres(objects.centres, problem.crs)
    return np.asarray(np.sqrt(area))


def _gsds(problem: Problem, found_m: Sides, options: EvaluateOptions) -> tuple[Sides, Sides]:
    """Choose metres a pixel for each detection and label: as given, or from the pixel columns.

    A label has the median of its scene where labels are tied to scenes, else that of all.
    """
    if options.gsd_m is not None:
        return np.full(len(problem.found), options.gsd_m), np.full(
            len(problem.truth), options.gsd_m
        )
    side_px = problem.found.side_px
    known = (side_px > 0) & np.isfinite(found_m)
    gsd = np.where(known, found_m / np.where(known, side_px, 1.0), np.nan)
    middle = float(np.median(gsd[known])) if known.any() else np.nan
    of_scene = np.full(max(len(problem.scene_names), 1), middle)
    for scene, rows in enumerate(rows_by(problem.found.scenes[known], len(problem.scene_names))):
        if len(rows):
            of_scene[scene] = np.median(gsd[known][rows])
    return np.where(known, gsd, middle), of_scene[problem.truth.scenes]


def _thirds(sides: Sides) -> tuple[float, ...]:
    """Divide the sides into thirds, by limits of two digits; fewer where they fall together."""
    sides = sides[np.isfinite(sides) & (sides > 0)]
    if not len(sides):
        return ()
    return tuple(sorted({float(f"{q:.2g}") for q in np.quantile(sides, [1 / 3, 2 / 3])}))
