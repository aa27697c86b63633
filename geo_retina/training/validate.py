"""Validation: the real detect path and the real metrics, on the ground that tunes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import to_polygons
from geo_retina.detector import detect
from geo_retina.errors import TrainingError
from geo_retina.evaluation import Evaluation, evaluate
from geo_retina.model import Model
from geo_retina.options import DetectOptions, EvaluateOptions, RunOptions, TrainOptions
from geo_retina.scene import scene_names
from geo_retina.training.labels import LabelledScene, TrainingSet
from geo_retina.training.split import Split
from geo_retina.vector import outline_table, to_geodataframe, write_vector

if TYPE_CHECKING:
    import geopandas as gpd

SCORE_FLOOR = 0.05
"""Detections from this score on are looked at when thresholds are chosen."""

_FEW_LABELS = 30
"""A class with fewer labels on the tuning ground gets no threshold of its own."""


@dataclass(frozen=True, eq=False)
class TuningGround:
    """What validation detects on, and what is to be found there.

    Attributes:
        scenes: those that show tuning ground.
        names: of these scenes, as detections have them.
        split: where that is.
        truth: labels on it, with their class and scene.
        crs: CRS in which detections and labels meet.
        options: how they are matched.
        objects: number of labels.
        detect_options: how detections are made.
    """

    scenes: tuple[LabelledScene, ...]
    names: tuple[str, ...]
    split: Split
    truth: gpd.GeoDataFrame
    crs: pyproj.CRS
    options: EvaluateOptions
    objects: int
    detect_options: DetectOptions

    @property
    def measured_on(self) -> str:
        """One sentence on what the scores were measured on."""
        matching = (
            f"IoU {self.options.iou:g}"
            if self.options.radius_m is None
            else f"centre distance within {self.options.radius_m:g} m"
        )
        return (
            f"{self.objects} labels on the tuning ground: {len(self.split.tune)} ground blocks of "
            f"{self.split.block_m:g} m, {self.split.share:.0%} of the ground, shown by "
            f"{len(self.scenes)} scenes; matched by {matching}"
        )


def choose_tuning_ground(
    training_set: TrainingSet, split: Split, options: TrainOptions
) -> TuningGround:
    """Gather the scenes and labels of the ground that tunes.

    Raises:
        TrainingError: no label lies on it.
    """
    tuning = tuple(each for each in training_set.scenes if _shows_tune(each, split))
    objects = [_on_tuning_ground(each, each.centres_px, split) for each in tuning]
    count = sum(int(on.sum()) for on in objects)
    if not count:
        raise TrainingError(
            f"no label lies on the tuning ground ({len(split.tune)} blocks of "
            f"{split.block_m:g} m, {split.share:.0%} of the ground), so nothing can choose the "
            "best epoch; change split.block_m, split.tune_fraction or seed"
        )
    found = [each.scene.grid.crs for each in tuning]
    crs = found[0] if all(other == found[0] for other in found) else pyproj.CRS("EPSG:4326")
    assert crs is not None
    points = training_set.points
    names = scene_names([each.scene.path for each in tuning])
    tables = [
        _truth_table(each, on, training_set.classes, points=points, crs=crs, name=name)
        for each, on, name in zip(tuning, objects, names, strict=True)
    ]
    truth = to_geodataframe(tables, crs)
    # All classes are known, so finding only wrong ones is a score of 0 and no slip of names.
    truth["class"] = truth["class"].astype("category").cat.set_categories(training_set.classes)
    radius_m = (options.radius_m or options.data.point_size_m) if points else None
    return TuningGround(
        scenes=tuning,
        names=tuple(names),
        split=split,
        truth=truth,
        crs=crs,
        options=EvaluateOptions(
            scene_column="scene",
            class_column="class",
            radius_m=radius_m,
            sizes_px=(),
            sizes_m=(),
            resamples=0,
        ),
        objects=count,
        detect_options=DetectOptions(score=SCORE_FLOOR, precision=options.precision),
    )


@dataclass(frozen=True, eq=False)
class TuningScores:
    """How well a model does on the tuning ground, at the thresholds that suit it best there.

    Attributes:
        thresholds: score threshold of each class, as ``choose_thresholds`` finds it.
        at_thresholds: the evaluation of detections from those scores on.
        ap50: average precision at IoU 0.5 of all detections; None for points.
        ap: the same over IoU 0.5 to 0.95.
    """

    thresholds: tuple[float, ...]
    at_thresholds: Evaluation
    ap50: float | None
    ap: float | None

    @property
    def f1(self) -> float:
        """Overall F1 at the thresholds."""
        return self.at_thresholds.f1 or 0.0

    def numbers(self) -> dict[str, float]:
        """The numbers of a history's record; those without meaning are left out."""
        found = {
            "f1": self.f1,
            "precision": self.at_thresholds.precision,
            "recall": self.at_thresholds.recall,
            "ap50": self.ap50,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """The single numbers, ready for JSON."""
        return {**self.at_thresholds.summary(), "ap50": self.ap50, "ap": self.ap}


def validate(model: Model, ground: TuningGround, run: RunOptions) -> TuningScores:
    """Detect on the tuning ground and score what was found there.

    Objects count for tuning ground when their centre lies on it, detections and labels alike.
    """
    paths = [each.scene.path for each in ground.scenes]
    with tempfile.TemporaryDirectory() as folder:
        # Scenes that touch tuning ground may be far larger than it: the rest is not read.
        area = Path(folder) / "tune.gpkg"
        write_vector(area, _outlines(ground), crs=ground.crs, overwrite=False)
        options = replace(ground.detect_options, aoi=str(area))
        found = detect(paths, model, options, run, crs=ground.crs.to_wkt())
    found = keep_on_tuning_ground(found, ground)
    if not found["scene"].isin(ground.truth["scene"]).any():
        found = found.iloc[:0]  # none in a scene with labels: F1 is 0 either way
    every = evaluate(found, ground.truth, ground.options)
    classes = model.card.classes
    thresholds = choose_thresholds(every, found, classes)
    least = found["class"].map(dict(zip(classes, thresholds, strict=True))).astype(float)
    kept = found[found["score"] >= least]
    return TuningScores(
        thresholds, evaluate(kept, ground.truth, ground.options), every.ap50, every.ap
    )


def _outlines(ground: TuningGround) -> Iterator[pa.Table]:
    """The tuning blocks, one table for each CRS that its scenes are in."""
    every = (each.scene.grid.crs for each in ground.scenes)
    for crs in {crs.to_wkt(): crs for crs in every if crs is not None}.values():
        yield outline_table(ground.split.tune_polygons(crs), {}, crs, ground.crs)


def choose_thresholds(
    every: Evaluation, found: gpd.GeoDataFrame, classes: Sequence[str]
) -> tuple[float, ...]:
    """Choose the score threshold of each class.

    All thresholds between the best F1's last detection and the next one give that F1; the
    middle of the gap has most room on both sides. A class with few labels takes the threshold
    that suits all classes together: two objects can't tell.
    """
    middle: dict[str | None, float] = {
        None: _middle_of_gap(every.overall.best_score, found["score"].to_numpy())
    }
    for name, scores in every.classes.items():
        if scores.labels >= _FEW_LABELS:
            own = found.loc[found["class"] == name, "score"].to_numpy()
            middle[name] = _middle_of_gap(scores.best_score, own)
    return tuple(middle.get(name, middle[None]) for name in classes)


def _middle_of_gap(best: float | None, scores: NDArray[np.float64]) -> float:
    if best is None:  # nothing matches
        return SCORE_FLOOR
    lower = scores[scores < best]
    return float(best + (lower.max() if len(lower) else SCORE_FLOOR)) / 2


def keep_on_tuning_ground(found: gpd.GeoDataFrame, ground: TuningGround) -> gpd.GeoDataFrame:
    """Keep detections whose centre lies on labelled tuning ground of their scene."""
    centres = shapely.get_coordinates(shapely.centroid(np.asarray(found.geometry)))
    rows_of = found.groupby("scene").indices
    keep = np.zeros(len(found), np.bool_)
    transformers: dict[int, pyproj.Transformer] = {}
    for each, name in zip(ground.scenes, ground.names, strict=True):
        rows = rows_of.get(name)
        if rows is None:
            continue
        crs = each.scene.grid.crs
        move = transformers.get(id(crs))
        if move is None:
            move = pyproj.Transformer.from_crs(ground.crs, crs, always_xy=True)
            transformers[id(crs)] = move
        points_crs = np.column_stack(move.transform(*centres[rows].T))
        points_px = each.scene.grid.crs_to_pixels(points_crs)
        keep[rows] = _on_tuning_ground(each, points_px, ground.split)
    return found[keep].reset_index(drop=True)


def _shows_tune(each: LabelledScene, split: Split) -> bool:
    grid = each.scene.grid
    x = np.linspace(0.5, grid.width - 0.5, max(2, min(grid.width, 256)))
    y = np.linspace(0.5, grid.height - 0.5, max(2, min(grid.height, 256)))
    return bool(split.on_tune(grid, np.stack(np.meshgrid(x, y), axis=-1)).any())


def _on_tuning_ground(
    each: LabelledScene, points_px: NDArray[np.float64], split: Split
) -> NDArray[np.bool_]:
    """Tell which points lie inside the scene, on labelled ground that tunes."""
    return each.holds(points_px) & split.on_tune(each.scene.grid, points_px)


def _truth_table(
    each: LabelledScene,
    rows: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    points: bool,
    crs: pyproj.CRS,
    name: str,
) -> pa.Table:
    """Labels of a scene as a table: points at their centre, others as their box."""
    grid = each.scene.grid
    geometry: Any = (
        shapely.points(grid.pixels_to_crs(each.centres_px[rows]))
        if points
        else to_polygons(each.boxes_px[rows], grid)
    )
    if grid.crs is not crs and grid.crs != crs:
        move = pyproj.Transformer.from_crs(grid.crs, crs, always_xy=True)
        geometry = shapely.transform(geometry, lambda xy: np.column_stack(move.transform(*xy.T)))
    names = _strings(classes[label] for label in each.labels[rows])
    return pa.table(
        {
            "geometry": pa.array(shapely.to_wkb(geometry), pa.binary()),
            "class": names,
            "scene": _strings([name] * int(rows.sum())),
        }
    )


def _strings(values: Iterable[str]) -> pa.Array:
    return pa.array(list(values), pa.string())
