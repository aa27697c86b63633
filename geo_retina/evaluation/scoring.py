"""``evaluate``: matching and metrics, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.curves import average_precision, best_f1
from geo_retina.evaluation.matching import gains, match_by_score, match_optimally
from geo_retina.evaluation.objects import Problem, gather
from geo_retina.evaluation.pairs import Pairs, inside, overlapping, within
from geo_retina.evaluation.results import CountError, Evaluation, Scores
from geo_retina.options import EvaluateOptions

if TYPE_CHECKING:
    import geopandas as gpd

DEFAULT_RADIUS_M = 6.0
AP_IOUS = np.linspace(0.5, 0.95, 10)

_Score = Callable[[NDArray[np.bool_], NDArray[np.bool_]], Scores]


def evaluate(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions = EvaluateOptions(),
) -> Evaluation:
    """Score detections against labels, in map coordinates.

    Polygon labels are matched by IoU, each detection in order of score taking the free label
    it overlaps most, as pycocotools does but without its limits of detections and areas.
    Point labels, and polygons for which ``radius_m`` or ``in_box`` is given, by their
    centres: the most matches possible, and among those the least total distance; distances
    are those on the ground, whatever the CRSs. The best F1 is exact too: every score is
    tried, in the same manner of matching.

    With ``scene_column``, a label and a detection match only within one scene. All labels
    left after ``where`` and ``ground`` count, whether their scene has detections or not, and
    so do all detections: a detection in a scene without labels is false. So detect over the
    scenes that ``where`` selects, or give their outlines as ``ground``.

    Args:
        detections: file or table with ``score``, ``class`` (where classes are told apart) and
            ``scene`` (where labels are tied to scenes). May be empty.
        labels: file or table of polygons or points; an empty table is fine, an empty file not.
        options: how they are matched.

    Returns:
        The numbers, overall and by class.

    Raises:
        LabelError: a file or a column is missing, has gaps or no CRS, or detections and
            labels name no scene, or no class, in common.
    """
    problem = gather(detections, labels, options)
    by_overlap = not (problem.points or options.in_box or options.radius_m is not None)
    kept = problem.found.scores >= (-np.inf if options.score is None else options.score)
    if by_overlap:
        matching, score = f"IoU {options.iou:g}", _overlap_scorer(problem, options.iou, kept)
    else:
        matching, score = _centre_scorer(problem, options, kept)
    classes = {
        name: score(problem.found.classes == i, problem.truth.classes == i)
        for i, name in enumerate(problem.class_names)
    }
    overall = score(np.ones(len(problem.found), bool), np.ones(len(problem.truth), bool))
    if by_overlap and classes:
        overall = _with_mean_ap(overall, list(classes.values()))
    return Evaluation(
        matching=matching,
        overall=overall,
        classes=classes,
        best_scores=_best_scores(overall, classes, problem.detected_names),
        count_error=_count_error(problem, kept),
        score=options.score,
        scenes_without_labels=_scenes_without_labels(problem, kept),
    )


def _overlap_scorer(problem: Problem, iou: float, kept: NDArray[np.bool_]) -> _Score:
    pairs = overlapping(problem)
    scores = problem.found.scores

    def match(least: float) -> NDArray[np.bool_]:
        # pycocotools' own guard, so that an IoU of 1 can be asked for.
        return match_by_score(pairs.take(pairs.value >= min(least, 1 - 1e-10)), len(scores))

    matched = match(iou)
    at_ious = [match(least) for least in AP_IOUS]

    def score(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Scores:
        labels = int(truth.sum())
        aps = [average_precision(at[found], labels) for at in at_ious]
        f1, threshold = best_f1(matched[found], scores[found], labels)
        return Scores(
            labels=labels,
            detections=int((found & kept).sum()),
            matches=int((found & kept & matched).sum()),
            best_f1=f1,
            best_score=threshold,
            ap50=aps[0],
            ap=_mean(aps),
        )

    return score


def _centre_scorer(
    problem: Problem, options: EvaluateOptions, kept: NDArray[np.bool_]
) -> tuple[str, _Score]:
    radius_m = options.radius_m or DEFAULT_RADIUS_M
    pairs = inside(problem) if options.in_box else within(problem, radius_m)
    matching = "centre in detection" if options.in_box else f"centre distance {radius_m:g} m"
    scores = problem.found.scores
    gain = gains(pairs, len(scores))
    chosen: Pairs = match_optimally(pairs.take(kept[pairs.found]))

    def score(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Scores:
        labels = int(truth.sum())
        distances = chosen.value[found[chosen.found]]
        f1, threshold = best_f1(gain[found], scores[found], labels)
        return Scores(
            labels=labels,
            detections=int((found & kept).sum()),
            matches=len(distances),
            best_f1=f1,
            best_score=threshold,
            position_error_m=float(distances.mean()) if len(distances) else None,
        )

    return matching, score


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def _with_mean_ap(overall: Scores, classes: list[Scores]) -> Scores:
    return replace(
        overall, ap50=_mean([c.ap50 for c in classes]), ap=_mean([c.ap for c in classes])
    )


def _best_scores(
    overall: Scores, classes: dict[str, Scores], detected: tuple[str, ...]
) -> dict[str, float]:
    by_name = classes or dict.fromkeys(detected, overall)
    return {n: s.best_score for n, s in by_name.items() if s.best_score is not None}


def _count_error(problem: Problem, kept: NDArray[np.bool_]) -> CountError:
    labels = len(problem.truth)
    total = int(kept.sum()) - labels
    in_all = CountError(total, total / labels if labels else None)
    n = len(problem.scene_names)
    found = np.bincount(problem.found.scenes[kept], minlength=n)
    truth = np.bincount(problem.truth.scenes, minlength=n)
    # Scenes of which nothing is left inside the ground are no part of this.
    present = np.bincount(problem.found.scenes, minlength=n) + truth > 0
    if not n or not present.any():
        return in_all
    error = (found - truth)[present]
    return replace(
        in_all,
        scenes=len(error),
        bias=float(error.mean()),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
    )


def _scenes_without_labels(problem: Problem, kept: NDArray[np.bool_]) -> int:
    if not problem.scene_names:
        return 0
    return len(np.setdiff1d(problem.found.scenes[kept], problem.truth.scenes))
