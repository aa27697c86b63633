"""Choose the scenes, labels and outlines of the ground that validation scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import oriented, to_polygons
from geo_retina.dataset.labelled_scenes import LabelledScene, TrainingSet
from geo_retina.dataset.split import Split, Subset
from geo_retina.errors import SceneError, TrainingError
from geo_retina.geodesy import move, reproject
from geo_retina.grid import Grid, Window
from geo_retina.options import DetectOptions, EvaluateOptions
from geo_retina.options.training_parts import ScoringOptions
from geo_retina.scene import scene_names
from geo_retina.training.validation.frame import common_crs, meeting_grid
from geo_retina.vector import to_geodataframe

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


@dataclass(frozen=True, eq=False)
class ValidationGround:
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


def choose_val_ground(
    training_set: TrainingSet, split: Split, options: ScoringOptions
) -> ValidationGround:
    """Gather the scenes and labels of the validation ground.

    Raises:
        TrainingError: no label lies on it.
    """
    about = f"the validation ground: {split.describe(Subset.VAL)}"
    outlines = split.outlines(Subset.VAL)
    return choose_ground(training_set, split.on_val, about, options, outlines)


def choose_ground(
    training_set: TrainingSet,
    on: OnGround,
    about: str,
    options: ScoringOptions,
    outlines: Outlines | None = None,
) -> ValidationGround:
    """Gather the scenes and labels of some ground, to be scored on.

    Args:
        training_set: scenes and labels.
        on: tells which pixel positions (N, 2) of a grid lie on that ground.
        about: where that is, for people, such as ``the validation ground: 4 blocks``.
        options: how scenes are read and detections matched.
        outlines: the polygons of that ground in a CRS, where it has some: scenes may be far
            larger than it, and the rest is not read then.

    Raises:
        TrainingError: no label lies on it, or only some of its scenes have a CRS.
    """
    val_ground = tuple(each for each in training_set.scenes if _shows(each, on))
    # What has no data under its centre cannot be found: detections there are dropped, too.
    objects = [_with_data(each, _on_ground(each, each.centres_px, on)) for each in val_ground]
    count = sum(int(rows.sum()) for rows in objects)
    if not count:
        raise TrainingError(
            f"no label lies on {about}, so nothing can be scored there; change the split's "
            "options, such as split.block_m or split.val_fraction, or the seed"
        )
    crs = common_crs([each.scene for each in val_ground])
    names = scene_names([each.scene.path for each in val_ground])
    tables = [
        _truth_table(
            replace(each, rotated_px=each.rotated_px if options.oriented else None),
            rows,
            training_set.classes,
            points=training_set.points,
            crs=crs,
            name=name,
        )
        for each, rows, name in zip(val_ground, objects, names, strict=True)
    ]
    truth = to_geodataframe(tables, crs)
    # All classes are known, so finding only wrong ones is a score of 0 and no slip of names.
    truth["class"] = truth["class"].astype("category").cat.set_categories(training_set.classes)
    return ValidationGround(
        scenes=val_ground,
        names=tuple(names),
        on=on,
        about=about,
        truth=truth,
        crs=crs,
        options=_matching(training_set, options),
        objects=count,
        detect_options=_detecting(training_set, options),
        # An area has no place on a scene without a CRS, which is looked at as a whole.
        outlines=None if val_ground[0].scene.grid.crs is None else outlines,
    )


def _matching(training_set: TrainingSet, options: ScoringOptions) -> EvaluateOptions:
    """Choose how labels and detections are matched; intervals and sizes would only cost time."""
    by_radius = training_set.points
    return EvaluateOptions(
        scene_column="scene",
        class_column="class",
        radius_m=(options.radius_m or training_set.point_size_m) if by_radius else None,
        sizes_px=(),
        sizes_m=(),
        resamples=0,
    )


def _detecting(training_set: TrainingSet, options: ScoringOptions) -> DetectOptions:
    """Choose how scenes are read and detected in: as they were trained on."""
    first = training_set.scenes[0].scene
    bands = options.bands
    if bands is None and all(each.scene.bands == first.bands for each in training_set.scenes):
        bands = first.bands  # the names on the card may be new ones
    return DetectOptions(
        score=SCORE_FLOOR,
        precision=options.precision,
        bands=bands,
        gsd_m=None if first.grid.crs is None else options.gsd_m,
        force=True,  # what was trained on fits
    )


def keep_on_val_ground(found: gpd.GeoDataFrame, ground: ValidationGround) -> gpd.GeoDataFrame:
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
    """Find which points lie inside the scene, on labelled ground of that kind."""
    return each.scores(points_px) & on(each.scene.grid, points_px)


def _with_data(each: LabelledScene, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Select, of (N,) chosen labels, those whose centre lies on a valid pixel.

    A part that cannot be read keeps its labels, and is reported when it is detected on.
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
    """Write labels of a scene as a table: points at their centre, others as their box."""
    grid = meeting_grid(each.scene.grid)
    geometry: Any
    if points:
        geometry = shapely.points(grid.pixels_to_crs(each.centres_px[rows]))
    elif each.rotated_px is not None:
        geometry = oriented.to_polygons(each.rotated_px[rows], grid)
    else:
        geometry = to_polygons(each.boxes_px[rows], grid)
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
