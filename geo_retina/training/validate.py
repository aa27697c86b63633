"""Validation: the real detect path and the real metrics, on the ground that tunes or tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from geo_retina.errors import SceneError, TrainingError
from geo_retina.evaluation import Evaluation, evaluate
from geo_retina.geodesy import move, reproject
from geo_retina.grid import Grid, Window
from geo_retina.model import Model
from geo_retina.options import DetectOptions, EvaluateOptions, RunOptions, TrainOptions
from geo_retina.quiet import ignored_warnings
from geo_retina.scene import scene_names
from geo_retina.training.framing import common_crs, laid_out, meeting_grid
from geo_retina.training.labels import LabelledScene, TrainingSet
from geo_retina.training.split import Part, Split
from geo_retina.vector import outline_table, to_geodataframe, write_vector

if TYPE_CHECKING:
    import geopandas as gpd

OnGround = Callable[[Grid, NDArray[np.float64]], NDArray[np.bool_]]
"""Tells which pixel positions (N, 2) of a grid lie on some ground; can be pickled."""

Outlines = Callable[[pyproj.CRS], NDArray[np.object_]]
"""The polygons of some ground in a CRS."""

SCORE_FLOOR = 0.05
"""Detections from this score on are looked at when thresholds are chosen."""

_PART_PX = 1024
"""Side of the windows that are read to see which labels lie on data."""

_FEW_LABELS = 30
"""A class with fewer labels on the tuning ground gets no threshold of its own."""


@dataclass(frozen=True, eq=False)
class TuningGround:
    """What validation detects on, and what is to be found there.

    Attributes:
        scenes: those that show such ground.
        names: of these scenes, as detections have them.
        on: tells which pixel positions (N, 2) of a grid lie on it.
        about: where that is, for people.
        truth: labels on it, with their class and scene.
        crs: CRS in which detections and labels meet; see ``framing`` where scenes have none.
        options: how they are matched.
        objects: number of labels.
        detect_options: how detections are made.
        outlines: the polygons of that ground in a CRS; None where it is not known by polygons.
    """

    scenes: tuple[LabelledScene, ...]
    names: tuple[str, ...]
    on: OnGround
    about: str
    truth: gpd.GeoDataFrame
    crs: pyproj.CRS
    options: EvaluateOptions
    objects: int
    detect_options: DetectOptions
    outlines: Outlines | None = None

    @property
    def measured_on(self) -> str:
        """One sentence on what the scores were measured on."""
        matching = (
            f"IoU {self.options.iou:g}"
            if self.options.radius_m is None
            else f"centre distance within {self.options.radius_m:g} m"
        )
        return (
            f"{self.objects} labels on {self.about}, shown by {len(self.scenes)} scenes; matched "
            f"by {matching}"
        )


def choose_tuning_ground(
    training_set: TrainingSet, split: Split, options: TrainOptions
) -> TuningGround:
    """Gather the scenes and labels of the ground that tunes.

    Raises:
        TrainingError: no label lies on it.
    """
    about = f"the tuning ground: {split.describe(Part.TUNE)}"
    outlines = split.outlines(Part.TUNE)
    return choose_ground(training_set, split.on_tune, about, options, outlines)


def choose_ground(
    training_set: TrainingSet,
    on: OnGround,
    about: str,
    options: TrainOptions,
    outlines: Outlines | None = None,
) -> TuningGround:
    """Gather the scenes and labels of some ground, to be scored on.

    Args:
        training_set: scenes and labels.
        on: tells which pixel positions (N, 2) of a grid lie on that ground.
        about: where that is, for people, such as ``the tuning ground: 4 blocks``.
        options: how labels and detections are matched.
        outlines: the polygons of that ground in a CRS, where it has some: scenes may be far
            larger than it, and the rest is not read then.

    Raises:
        TrainingError: no label lies on it, or only some of its scenes have a CRS.
    """
    tuning = tuple(each for each in training_set.scenes if _shows(each, on))
    # What has no data under its centre cannot be found: detections there are dropped, too.
    objects = [_with_data(each, _on_ground(each, each.centres_px, on)) for each in tuning]
    count = sum(int(rows.sum()) for rows in objects)
    if not count:
        raise TrainingError(
            f"no label lies on {about}, so nothing can be scored there; change the split's "
            "options, such as split.block_m or split.tune_fraction, or the seed"
        )
    crs = common_crs([each.scene for each in tuning])
    names = scene_names([each.scene.path for each in tuning])
    points = training_set.points
    tables = [
        _truth_table(each, rows, training_set.classes, points=points, crs=crs, name=name)
        for each, rows, name in zip(tuning, objects, names, strict=True)
    ]
    truth = to_geodataframe(tables, crs)
    # All classes are known, so finding only wrong ones is a score of 0 and no slip of names.
    truth["class"] = truth["class"].astype("category").cat.set_categories(training_set.classes)
    return TuningGround(
        scenes=tuning,
        names=tuple(names),
        on=on,
        about=about,
        truth=truth,
        crs=crs,
        options=_matching(training_set, options),
        objects=count,
        detect_options=_detecting(training_set, options),
        # An area has no place on a scene without a CRS, which is looked at as a whole.
        outlines=None if tuning[0].scene.grid.crs is None else outlines,
    )


def _matching(training_set: TrainingSet, options: TrainOptions) -> EvaluateOptions:
    """How labels and detections are matched; intervals and sizes would only cost time."""
    by_radius = training_set.points
    return EvaluateOptions(
        scene_column="scene",
        class_column="class",
        radius_m=(options.radius_m or training_set.point_size_m) if by_radius else None,
        sizes_px=(),
        sizes_m=(),
        resamples=0,
    )


def _detecting(training_set: TrainingSet, options: TrainOptions) -> DetectOptions:
    """How scenes are read and detected: as they were trained on."""
    first = training_set.scenes[0].scene
    bands = options.data.bands
    if bands is None and all(each.scene.bands == first.bands for each in training_set.scenes):
        bands = first.bands  # the names on the card may be new ones
    return DetectOptions(
        score=SCORE_FLOOR,
        precision=options.precision,
        bands=bands,
        gsd_m=None if first.grid.crs is None else options.data.gsd_m,
        force=True,  # what was trained on fits
    )


@dataclass(frozen=True, eq=False)
class TuningScores:
    """How well a model does on the tuning ground, at the thresholds that suit it best there.

    Attributes:
        thresholds: score threshold of each class, as ``choose_thresholds`` finds it.
        at_thresholds: the evaluation of detections from those scores on.
        ap50: average precision at IoU 0.5 of all detections; None for points.
        ap: the same over IoU 0.5 to 0.95.
        found: the detections from those scores on.
    """

    thresholds: tuple[float, ...]
    at_thresholds: Evaluation
    ap50: float | None
    ap: float | None
    found: gpd.GeoDataFrame

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


def validate(
    model: Model,
    ground: TuningGround,
    run: RunOptions,
    thresholds: Sequence[float] | None = None,
) -> TuningScores:
    """Detect on the tuning ground and score what was found there.

    Objects count for the ground when their centre lies on it, detections and labels alike.

    Args:
        model: to be scored.
        ground: where.
        run: how detections are carried out.
        thresholds: score threshold of each class; left out, those that suit it best there.
    """
    paths = [each.scene.path for each in ground.scenes]
    with tempfile.TemporaryDirectory() as folder:
        options = ground.detect_options
        if ground.outlines is not None:
            area = Path(folder) / "ground.gpkg"
            tables = _outline_tables(ground, ground.outlines)
            write_vector(area, tables, crs=ground.crs, overwrite=False)
            options = replace(options, aoi=str(area))
        # Early in a training, detections from the lowest score on may well reach a limit.
        with ignored_warnings(".* reached a limit and may hold"):
            found = _detect(paths, model, options, run, ground)
    found = keep_on_tuning_ground(found, ground)
    if not found["scene"].isin(ground.truth["scene"]).any():
        found = found.iloc[:0]  # none in a scene with labels: F1 is 0 either way
    every = evaluate(found, ground.truth, ground.options)
    classes = model.card.classes
    chosen = choose_thresholds(every, found, classes) if thresholds is None else tuple(thresholds)
    least = found["class"].map(dict(zip(classes, chosen, strict=True))).astype(float)
    kept = found[found["score"] >= least]
    scores = evaluate(kept, ground.truth, ground.options)
    return TuningScores(chosen, scores, every.ap50, every.ap, kept)


def _detect(
    paths: list[str], model: Model, options: DetectOptions, run: RunOptions, ground: TuningGround
) -> gpd.GeoDataFrame:
    """What is found in the scenes of some ground, in its CRS."""
    scenes = {n: each.scene for n, each in zip(ground.names, ground.scenes, strict=True)}
    if any(scene.grid.crs is not None for scene in scenes.values()):
        return detect(paths, model, options, run, crs=ground.crs.to_wkt())
    # That they have no CRS was known when their pixels were given a size.
    with ignored_warnings(".* no CRS, so .* polygons are"):
        return laid_out(detect(paths, model, options, run), scenes)


def _outline_tables(ground: TuningGround, outlines: Outlines) -> Iterator[pa.Table]:
    """The outlines of some ground, one table for each CRS that its scenes are in."""
    every = (each.scene.grid.crs for each in ground.scenes)
    for crs in {crs.to_wkt(): crs for crs in every if crs is not None}.values():
        yield outline_table(outlines(crs), {}, crs, ground.crs)


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
    """Keep detections whose centre lies on labelled ground of that kind in their scene."""
    centres = shapely.get_coordinates(shapely.centroid(np.asarray(found.geometry)))
    rows_of = found.groupby("scene").indices
    keep = np.zeros(len(found), np.bool_)
    for each, name in zip(ground.scenes, ground.names, strict=True):
        rows = rows_of.get(name)
        if rows is None:
            continue
        grid = meeting_grid(each.scene.grid)
        assert grid.crs is not None  # that is where they meet
        points_px = grid.crs_to_pixels(move(centres[rows], ground.crs, grid.crs))
        keep[rows] = _on_ground(each, points_px, ground.on)
    return found[keep].reset_index(drop=True)


def _shows(each: LabelledScene, on: OnGround) -> bool:
    grid = each.scene.grid
    x = np.linspace(0.5, grid.width - 0.5, max(2, min(grid.width, 256)))
    y = np.linspace(0.5, grid.height - 0.5, max(2, min(grid.height, 256)))
    return bool(on(grid, np.stack(np.meshgrid(x, y), axis=-1)).any())


def _on_ground(
    each: LabelledScene, points_px: NDArray[np.float64], on: OnGround
) -> NDArray[np.bool_]:
    """Tell which points lie inside the scene, on labelled ground of that kind."""
    return each.scores(points_px) & on(each.scene.grid, points_px)


def _with_data(each: LabelledScene, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of (N,) labels that are chosen, those whose centre lies on a valid pixel.

    A part that cannot be read keeps its labels, and is told when it is detected on.
    """
    chosen = np.flatnonzero(rows)
    pixels_px = np.floor(each.centres_px[chosen]).astype(np.int64)
    kept = rows.copy()
    parts_px, part_of = np.unique(pixels_px // _PART_PX, axis=0, return_inverse=True)
    for part, (x, y) in enumerate((parts_px * _PART_PX).tolist()):
        here = np.flatnonzero(part_of.ravel() == part)
        try:
            valid = each.scene.read(Window(y, x, _PART_PX, _PART_PX))[1]
        except SceneError:
            continue
        cols, lines = (pixels_px[here] - [x, y]).T
        kept[chosen[here]] = valid[lines, cols]
    return kept


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
    grid = meeting_grid(each.scene.grid)
    geometry: Any = (
        shapely.points(grid.pixels_to_crs(each.centres_px[rows]))
        if points
        else to_polygons(each.boxes_px[rows], grid)
    )
    geometry = reproject(geometry, grid.crs, crs)
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
