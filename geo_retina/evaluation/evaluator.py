"""``evaluate``: matching and metrics, put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.evaluation.inputs.gathering import gather
from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.evaluation.inputs.scored_ground import on_ground
from geo_retina.evaluation.matching.candidates import inside, overlapping, within
from geo_retina.evaluation.matching.match_table import IGNORED
from geo_retina.evaluation.matching.outcomes import ByCentre, ByOverlap, Matcher
from geo_retina.evaluation.metrics.attribution import (
    LOCATION_IOU,
    attribute,
    confusion,
    match_table,
)
from geo_retina.evaluation.metrics.bootstrap import (
    Blocks,
    add_intervals,
    counted_blocks,
    draw_blocks,
    draw_count_errors,
    ground_blocks,
    interval,
)
from geo_retina.evaluation.metrics.count_places import count_parts, counting_places
from geo_retina.evaluation.metrics.counts import CountError
from geo_retina.evaluation.metrics.scores import Scores
from geo_retina.evaluation.metrics.sizes import score_sizes
from geo_retina.evaluation.metrics.subsets import Rows, Tally, rows_by, tally
from geo_retina.evaluation.result import Evaluation
from geo_retina.options import EvaluateOptions

if TYPE_CHECKING:
    import geopandas as gpd

DEFAULT_RADIUS_M = 6.0


def evaluate(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions = EvaluateOptions(),
) -> Evaluation:
    """Score detections against labels, in map coordinates.

    Polygon labels are matched by IoU, each detection in order of score taking the free label
    it overlaps most, as pycocotools does but without its limit of detections. Point labels,
    and polygons for which ``radius_m`` or ``in_box`` is given, by their centres: the most
    matches possible, and among those the least total distance; distances are those on the
    ground, whatever the CRSs. The best F1 is exact too: every score is tried, in the same
    manner of matching.

    With ``scene_column``, a label and a detection match only within one scene. All labels
    left after ``where`` count, whether their scene has detections or not, and so do all
    detections: a detection in a scene without labels is false. So detect over the scenes that
    ``where`` selects, or give their outlines as ``ground``.

    Labels whose centre lies off the ``ground``, or on ground to ``ignore``, and those of
    ``ignore_where`` need not be found: a detection that matches one of them, and no other,
    counts neither as true nor as false. Nor does a detection without a match whose centre
    lies off the ground; or that has, matched by overlap, a share of at least ``iou`` of its
    area on ground to ignore, or, by centres, its centre there.

    Args:
        detections: file or table with ``score``, ``class`` (where classes are distinguished) and
            ``scene`` (where labels are tied to scenes). May be empty.
        labels: file or table of polygons or points; an empty table is fine, an empty file not.
        options: how they are matched, and what is made of it.

    Returns:
        The numbers, overall and by class, size, scene and part of the ground, and what became
        of each object.

    Raises:
        LabelError: a file or a column is missing, has gaps or no CRS, or detections and
            labels name no scene, or no class, in common; or there would be too many cells or
            blocks of ground.

    Examples:
        >>> from geo_retina import EvaluateOptions, evaluate
        >>> options = EvaluateOptions(class_column="class", resamples=0)
        >>> evaluation = evaluate("detections.gpkg", "labels.gpkg", options)
        >>> evaluation.overall.f1 > 0.9
        True
    """
    return assess(prepare(detections, labels, options), options)


@dataclass(frozen=True, eq=False)
class Case:
    """Detections and labels once they are matched.

    Attributes:
        problem: both sides.
        matcher: how they are matched.
        whole: what all of them come to.
        blocks: the ground blocks they lie in.
    """

    problem: Problem
    matcher: Matcher
    whole: Tally
    blocks: Blocks


def prepare(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions,
) -> Case:
    """Read both sides and match them; arguments and errors as of ``evaluate``."""
    problem = on_ground(gather(detections, labels, options), options)
    kept = problem.found.scores >= (-np.inf if options.score is None else options.score)
    matcher = _matcher(problem, options, kept)
    whole = tally(problem, matcher, kept, problem.truth.counts, problem.found.counts)
    blocks = ground_blocks(problem, whole.outcome, options.block_m)
    return Case(problem, matcher, whole, blocks)


def assess(case: Case, options: EvaluateOptions) -> Evaluation:
    """Make everything of a case that an evaluation holds."""
    problem, matcher, whole, blocks = case.problem, case.matcher, case.whole, case.blocks
    overall, classes, error = _score_whole(whole, blocks, options)
    sizes, gsd_m = score_sizes(problem, matcher, whole.kept, options)
    sides = attribute(problem, matcher, whole.outcome)
    return Evaluation(
        matching=matcher.words,
        overall=overall,
        classes=classes,
        best_scores=_best_scores(overall, classes, problem.detected_names),
        count_error=error,
        matches=match_table(
            whole,
            sides,
            (blocks.found, blocks.truth),
            value_name=matcher.value_name,
            block_m=blocks.side_m,
        ),
        score=options.score,
        scenes_without_labels=_scenes_without_labels(problem, whole),
        scenes_without_detections=_scenes_without_detections(problem),
        labels_not_scanned=_labels_not_scanned(problem),
        duplicate_labels=_duplicate_labels(problem),
        ignored_labels=int((~problem.truth.counts).sum()),
        sizes=sizes,
        scenes=_score_scenes(whole),
        counts=count_parts(problem, counting_places(problem, whole.outcome), options),
        confusion=confusion(problem, *sides),
        gsd_m=gsd_m,
        block_m=blocks.side_m if overall.intervals else None,
    )


def _matcher(problem: Problem, options: EvaluateOptions, kept: NDArray[np.bool_]) -> Matcher:
    if options.in_box:
        return ByCentre(problem, inside(problem), "centre in detection", kept)
    if problem.points or options.radius_m is not None:
        radius_m = options.radius_m or DEFAULT_RADIUS_M
        words = f"centre distance {radius_m:g} m"
        return ByCentre(problem, within(problem, radius_m), words, kept)
    near = overlapping(problem, min(LOCATION_IOU, options.iou))
    return ByOverlap(problem, near, options.iou, kept)


def _score_whole(
    whole: Tally, blocks: Blocks, options: EvaluateOptions
) -> tuple[Scores, dict[str, Scores], CountError]:
    """Score overall and by class, with curves and, if wished, intervals."""
    parts = class_parts(whole.problem)
    scores = [whole.with_curve(whole.scores(*part), part[0]) for part in parts]
    interval_of_error = None
    if options.resamples:
        keys = counted_blocks(whole, blocks)
        drawn = draw_blocks(keys, [blocks], resamples=options.resamples, seed=options.seed)
        if drawn is not None:
            scores = add_intervals(scores, whole, drawn[0], parts)
            interval_of_error = interval(draw_count_errors(whole, drawn[0]))
    overall = scores[-1]
    total = overall.detections - overall.labels
    error = CountError(
        total=total,
        relative=total / overall.labels if overall.labels else None,
        interval=interval_of_error,
    )
    return overall, dict(zip(whole.problem.class_names, scores, strict=False)), error


def class_parts(problem: Problem) -> list[tuple[Rows, Rows]]:
    """List positions of the detections and labels of each class, and last those of all."""
    n = max(len(problem.class_names), 1)
    found = [*rows_by(problem.found.classes, n), np.arange(len(problem.found))]
    truth = [*rows_by(problem.truth.classes, n), np.arange(len(problem.truth))]
    return list(zip(found, truth, strict=True))


def _score_scenes(whole: Tally) -> dict[str, Scores]:
    """Score each scene that has an object that counts."""
    problem = whole.problem
    n = len(problem.scene_names)
    found_of, truth_of = (rows_by(s.scenes, n) for s in (problem.found, problem.truth))
    scores = map(whole.scores, found_of, truth_of)
    return {
        name: each
        for name, each in zip(problem.scene_names, scores, strict=True)
        if each.labels or each.detections
    }


def _best_scores(
    overall: Scores, classes: dict[str, Scores], detected: tuple[str, ...]
) -> dict[str, float]:
    by_name = classes or dict.fromkeys(detected, overall)
    return {n: s.best_score for n, s in by_name.items() if s.best_score is not None}


def _scenes_without_labels(problem: Problem, whole: Tally) -> int:
    if not problem.scene_names:
        return 0
    counted = problem.found.scenes[whole.outcome.states != IGNORED]
    return len(np.setdiff1d(counted, problem.truth.scenes))


def _scenes_without_detections(problem: Problem) -> tuple[str, ...]:
    if not problem.scene_names:
        return ()
    counted = problem.truth.scenes[problem.truth.counts]
    return tuple(
        problem.scene_names[i] for i in np.setdiff1d(counted, problem.found.scenes).tolist()
    )


def _labels_not_scanned(problem: Problem) -> int:
    """Count labels that must be found, though their centre lies on no ground that was scanned."""
    if problem.scanned is None:
        return 0
    shapely.prepare(problem.scanned)
    centres = problem.truth.centres[problem.truth.counts]
    return int((~shapely.intersects_xy(problem.scanned, centres)).sum())


def _duplicate_labels(problem: Problem) -> int:
    """Count labels that must be found and are the same as one before: geometry, class and scene."""
    import pandas as pd

    truth = problem.truth.take(problem.truth.counts)
    same = {"classes": truth.classes, "scenes": truth.scenes}
    return int(pd.DataFrame({"shape": shapely.to_wkb(truth.geometries), **same}).duplicated().sum())
