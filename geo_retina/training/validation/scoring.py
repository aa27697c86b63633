"""Validation: the real detect path and the real metrics, on the validation or test ground."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from geo_retina.detector import detect
from geo_retina.evaluation import IGNORED, TRUE, Evaluation, evaluate
from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.quiet import ignored_warnings
from geo_retina.training.validation.epoch_measure import Measure, measure_epoch
from geo_retina.training.validation.frame import laid_out
from geo_retina.training.validation.ground import (
    SCORE_FLOOR,
    Outlines,
    ValidationGround,
    keep_on_val_ground,
)
from geo_retina.vector import outline_table, write_vector

if TYPE_CHECKING:
    import geopandas as gpd


_FEW_LABELS = 30
"""A class with fewer labels on the validation ground gets no threshold of its own."""

_STEP = 0.001
"""Distance of the thresholds that are tried."""

_REACH = 0.05
"""How far the thresholds reach whose F1 is averaged; see docs/training.md for what it gains."""


@dataclass(frozen=True, eq=False)
class ValidationScores:
    """How well a model does on the validation ground, at the thresholds that suit it there.

    Attributes:
        thresholds: score threshold of each class, as ``choose_thresholds`` finds it.
        at_thresholds: the evaluation of detections from those scores on.
        ap50: average precision at IoU 0.5 of all detections; None for points.
        ap: the same over IoU 0.5 to 0.95.
        found: the detections from those scores on.
        every: the evaluation of all detections.
    """

    thresholds: tuple[float, ...]
    at_thresholds: Evaluation
    ap50: float | None
    ap: float | None
    found: gpd.GeoDataFrame
    every: Evaluation

    @property
    def f1(self) -> float:
        """Overall F1 at the thresholds."""
        return self.at_thresholds.f1 or 0.0

    def numbers(self) -> dict[str, float]:
        """Return the numbers of a history's record; those without meaning are left out."""
        found = {
            "f1": self.f1,
            "precision": self.at_thresholds.precision,
            "recall": self.at_thresholds.recall,
            "ap50": self.ap50,
            "ap": self.ap,
        }
        return {name: value for name, value in found.items() if value is not None}

    def measure(self, by: Measure) -> float:
        """Compute the number by which epochs are compared."""
        return measure_epoch(by, self.f1, self.ap, self.every)

    def to_dict(self) -> dict[str, Any]:
        """Return the single numbers, ready for JSON."""
        return {**self.at_thresholds.summary(), "ap50": self.ap50, "ap": self.ap}


def validate(
    model: Model,
    ground: ValidationGround,
    run: RunOptions,
    thresholds: Sequence[float] | None = None,
) -> ValidationScores:
    """Detect on the validation ground and score the predictions there.

    Objects count for the ground when their centre lies on it, detections and labels alike.

    Args:
        model: to be scored.
        ground: where.
        run: how detections are carried out.
        thresholds: score threshold of each class; left out, those that suit it there.
    """
    found = detect_on_ground(model, ground, run)
    every = evaluate(found, ground.truth, ground.options)
    classes = model.card.classes
    chosen = choose_thresholds(every, classes) if thresholds is None else tuple(thresholds)
    least = found["class"].map(dict(zip(classes, chosen, strict=True))).astype(float)
    kept = found[found["score"] >= least]
    scores = evaluate(kept, ground.truth, ground.options)
    return ValidationScores(chosen, scores, every.ap50, every.ap, kept, every)


def detect_on_ground(model: Model, ground: ValidationGround, run: RunOptions) -> gpd.GeoDataFrame:
    """Detect from the lowest score on; keep what has its centre on the ground.

    Args:
        model: to detect with.
        ground: where.
        run: how detections are carried out.
    """
    paths = [each.scene.path for each in ground.scenes]
    # Early in a training, detections from the lowest score on may well reach a limit.
    limits = ignored_warnings(".* reached a limit and may hold")
    with detecting_on(ground) as options, limits:
        found = _detect(paths, model, options, run, ground)
    found = keep_on_val_ground(found, ground)
    if not found["scene"].isin(ground.truth["scene"]).any():
        found = found.iloc[:0]  # none in a scene with labels: F1 is 0 either way
    return found


@contextmanager
def detecting_on(ground: ValidationGround) -> Iterator[DetectOptions]:
    """Say how some ground is detected on, its outlines being the area of interest if it has any."""
    with tempfile.TemporaryDirectory() as folder:
        options = ground.detect_options
        if ground.outlines is not None:
            area = Path(folder) / "ground.gpkg"
            tables = _outline_tables(ground, ground.outlines)
            write_vector(area, tables, crs=ground.crs, overwrite=False)
            options = replace(options, aoi=str(area))
        yield options


def _detect(
    paths: list[str],
    model: Model,
    options: DetectOptions,
    run: RunOptions,
    ground: ValidationGround,
) -> gpd.GeoDataFrame:
    """Detect in the scenes of some ground, in its CRS."""
    scenes = {n: each.scene for n, each in zip(ground.names, ground.scenes, strict=True)}
    if any(scene.grid.crs is not None for scene in scenes.values()):
        return detect(paths, model, options, run, crs=ground.crs.to_wkt())
    # That they have no CRS was known when their pixels were given a size.
    with ignored_warnings(".* no CRS, so .* polygons are"):
        return laid_out(detect(paths, model, options, run), scenes)


def _outline_tables(ground: ValidationGround, outlines: Outlines) -> Iterator[pa.Table]:
    """Outline some ground, one table for each CRS that its scenes are in."""
    every = (each.scene.grid.crs for each in ground.scenes)
    for crs in {crs.to_wkt(): crs for crs in every if crs is not None}.values():
        yield outline_table(outlines(crs), {}, crs, ground.crs)


def choose_thresholds(every: Evaluation, classes: Sequence[str]) -> tuple[float, ...]:
    """Choose the score threshold of each class, a class with few labels that of all together.

    The best F1 hangs on few objects around one threshold, which on other ground is another. So the
    one is taken whose F1 is highest when averaged over thresholds close to it.

    Args:
        every: evaluation of all detections.
        classes: of the model.
    """
    found = every.matches.detections
    found = found.take(found.by_score != IGNORED)
    is_true = found.by_score == TRUE
    shared = steady_threshold(found.score, is_true, every.overall.labels)
    own = {}
    for name, scores in every.classes.items():
        if scores.labels >= _FEW_LABELS:
            rows = found.class_name == name
            own[name] = steady_threshold(found.score[rows], is_true[rows], scores.labels)
    return tuple(own.get(name, shared) for name in classes)


def steady_threshold(scores: NDArray[np.float64], is_true: NDArray[np.bool_], labels: int) -> float:
    """Find the threshold whose F1, averaged up to 0.05 to either side, is highest.

    Args:
        scores: (N,) of detections.
        is_true: (N,) which of them add an object to those of higher scores.
        labels: number of objects there are.

    Returns:
        The middle one where several are; the lowest score where nothing matches.
    """
    if not is_true.any():
        return SCORE_FLOOR
    thresholds = np.arange(round(SCORE_FLOOR / _STEP), round(1 / _STEP) + 1) * _STEP
    order = np.argsort(scores)
    below = np.searchsorted(scores[order], thresholds)
    hits = is_true.sum() - np.append(0, np.cumsum(is_true[order]))[below]
    f1 = 2 * hits / (labels + len(scores) - below)
    reach = round(_REACH / _STEP)
    averages = sliding_window_view(np.pad(f1, reach, mode="edge"), 2 * reach + 1).mean(axis=1)
    best = np.flatnonzero(averages >= averages.max() - 1e-12)
    return float(thresholds[best[len(best) // 2]])
