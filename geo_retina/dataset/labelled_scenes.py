"""Labels to scenes: which objects lie where in each scene, and which of its ground was labelled."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geo_retina.dataset.box_index import BoxIndex
from geo_retina.dataset.common_bands import open_alike
from geo_retina.dataset.label_placement import Placed, put_labels_on_scenes
from geo_retina.dataset.naming import name_warnings, names_another, with_stems
from geo_retina.dataset.regions import Regions, without
from geo_retina.dataset.reviewed import Reviewed, read_reviewed
from geo_retina.dataset.sources import LabelCounts, Source, number_classes, read_source_layers
from geo_retina.dataset.stray_labels import why_on_no_scene
from geo_retina.errors import LabelError, TrainingError
from geo_retina.geodesy import missing_crs
from geo_retina.grid import Window
from geo_retina.options import DataOptions
from geo_retina.scene import Scene, find_scenes, note_other_rasters
from geo_retina.vector import LabelLayer, is_label_folder

log = logging.getLogger(__name__)

_APART_M = 1_000_000  # local frames of scenes without a CRS begin this far from each other


def _no_boxes() -> NDArray[np.float64]:
    return np.empty((0, 4))


def _no_points() -> NDArray[np.float64]:
    return np.empty((0, 2))


def _no_numbers() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene and what is known about its ground.

    Attributes:
        scene: the imagery. One without a CRS has a grid in metres of a frame of its own.
        boxes_px: (N, 4) float64 label boxes in grid pixels, not clipped to the grid; each
            touches it.
        labels: (N,) int64 positions in the classes.
        ground_px: the labelled ground as one geometry in grid pixels, or None for all of it.
        ignored_px: (K, 4) float64 boxes that are neither object nor background.
        places: distinct places that its labels name, sorted.
        weights: (N,) float64 how often samples are drawn around each label; None for all alike.
        rejected_px: (K, 2) float64 centres x, y of false positives that a person rejected.
        rejected_weights: (K,) float64 how often samples are drawn around these.
        rotated_px: (N, 5) float64 the labels' oriented boxes; None where these were not asked for.
        ignored_rotated_px: (K, 5) float64 those of the ignored ones.
    """

    scene: Scene
    boxes_px: NDArray[np.float64]
    labels: NDArray[np.int64]
    ground_px: Any | None
    ignored_px: NDArray[np.float64] = field(default_factory=_no_boxes)
    places: tuple[str, ...] = ()
    weights: NDArray[np.float64] | None = None
    rejected_px: NDArray[np.float64] = field(default_factory=_no_points)
    rejected_weights: NDArray[np.float64] = field(default_factory=_no_numbers)
    rotated_px: NDArray[np.float64] | None = None
    ignored_rotated_px: NDArray[np.float64] | None = None

    @property
    def gsd_m(self) -> float:
        """Metres a pixel."""
        grid = self.scene.grid
        return grid.gsd_m or math.sqrt(abs(grid.affine.determinant))

    @property
    def centres_px(self) -> NDArray[np.float64]:
        """(N, 2) centres x, y of the label boxes in grid pixels."""
        return (self.boxes_px[:, :2] + self.boxes_px[:, 2:]) / 2

    def centre_px(self, index: int) -> NDArray[np.float64]:
        """Return (2,) centre x, y of one label box in grid pixels."""
        box = self.boxes_px[index]
        return np.asarray((box[:2] + box[2:]) / 2)

    def near(self, window: Window) -> NDArray[np.int64]:
        """Find positions, ascending, of the label boxes that a window shows, and of some more."""
        return self._index.near_rows(window.row, window.row + window.height)

    def near_ignored(self, window: Window) -> NDArray[np.int64]:
        """Find positions, ascending, of the ignored boxes that a window shows, and some more."""
        return self._ignored_index.near_rows(window.row, window.row + window.height)

    @cached_property
    def _index(self) -> BoxIndex:
        """Built at the first window; a scene may have a million labels."""
        return BoxIndex(self.boxes_px)

    @cached_property
    def _ignored_index(self) -> BoxIndex:
        return BoxIndex(self.ignored_px)

    def holds(self, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find which positions x, y (N, 2) lie inside the grid, on labelled ground."""
        grid = self.scene.grid
        inside = (points_px >= 0).all(axis=1) & (points_px < [grid.width, grid.height]).all(axis=1)
        if self.ground_px is not None:
            inside &= shapely.contains_xy(self.ground_px, points_px)
        return np.asarray(inside)

    def scores(self, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find where, of positions x, y (N, 2), an object counts when a model is scored.

        On labelled ground, and in no ignored box.
        """
        counts = self.holds(points_px)
        if len(self.ignored_px) and counts.any():
            rows = np.flatnonzero(counts)
            tree = shapely.STRtree(shapely.box(*self.ignored_px.T))
            hit, _ = tree.query(shapely.points(points_px[rows]), predicate="intersects")
            counts[rows[hit]] = False
        return counts

    def labelled(self, window: Window) -> NDArray[np.bool_]:
        """Find which pixels of a window lie, with their centre, on labelled ground.

        Args:
            window: pixels of the grid; may reach beyond it, where nothing is labelled.

        Returns:
            (height, width) bool.
        """
        rows = np.arange(window.row, window.row + window.height)
        cols = np.arange(window.col, window.col + window.width)
        grid = self.scene.grid
        inside = ((rows >= 0) & (rows < grid.height))[:, None] & (
            (cols >= 0) & (cols < grid.width)
        )[None, :]
        if self.ground_px is None or shapely.contains(self.ground_px, shapely.box(*window.box_px)):
            return inside
        x, y = np.meshgrid(cols + 0.5, rows + 0.5)
        return inside & shapely.contains_xy(self.ground_px, x, y)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Scenes with their labels.

    Attributes:
        scenes: in the order of the paths given.
        classes: names in the order of the labels' numbers.
        points: whether the labels are points with a size.
        counts: what became of the labels.
        fingerprint: SHA-256 of the labels and of the scenes' names and shapes.
        sources: what became of the labels of each layer, in order.
        warnings: one sentence on each layer that does not fit its scenes, on names that are no
            scene's, and on scenes that no label names.
        ground: the polygons of the labelled ground as they were read, or None for all ground.
        point_size_m: the middle size of point labels; None for others.
        reviewed: what the card tells of a review among the labels; None without one.
    """

    scenes: tuple[LabelledScene, ...]
    classes: tuple[str, ...]
    points: bool
    counts: LabelCounts
    fingerprint: str
    sources: tuple[LabelCounts, ...] = ()
    warnings: tuple[str, ...] = ()
    ground: LabelLayer | None = None
    point_size_m: float | None = None
    reviewed: dict[str, Any] | None = None


def load_training_set(
    options: DataOptions,
    *,
    place_column: str | None = None,
    oriented: bool = False,
    log_warnings: bool = True,
) -> TrainingSet:
    """Read the label layers once and place them on every scene.

    Args:
        options: scenes and layers.
        place_column: column of the labelled ground, or where there is none of the labels, that
            names the place to which ground belongs.
        oriented: find the smallest rectangle of each label too, at any angle.
        log_warnings: log the warnings too, where the caller does not tell them itself.

    Raises:
        SceneError: a scene is missing or is no raster.
        LabelError: a layer, or a class or column that the options name, cannot be used.
        TrainingError: the scenes do not go together, or no label lies on any of them.
    """
    scenes = _open_scenes(options)
    sources, ignore = read_source_layers(
        options, place_column=None if options.ground else place_column
    )
    reviewed = read_reviewed(options, oriented=oriented)
    if reviewed is not None:
        sources.append(reviewed.source)
    classes = number_classes(sources, options)
    placed = [put_labels_on_scenes(source, scenes, oriented=oriented) for source in sources]
    ground = Regions.read_ground(options, place_column)
    if ground is not None:
        ground = with_stems(ground, scenes, options.ground_scene_column)
        _check_named(ground.layer, scenes, options)
    known = _Ground(ground, tuple(ignore), reviewed, is_only=len(sources) == 1)
    labelled = _gather(scenes, sources, placed, known)
    counts = tuple(
        _count(source, part, labelled, classes)
        for source, part in zip(sources, placed, strict=True)
    )
    doubts = (
        *(
            why_on_no_scene(source, scenes)
            for source, count in zip(sources, counts, strict=True)
            if len(source) and not count.used + count.ignored
        ),
        *name_warnings(sources, placed, ground, scenes),
    )
    total = LabelCounts.total(counts)
    log.info("%s", total)
    if not total.used:
        raise TrainingError(_no_labels_sentence(options, total, len(scenes), doubts))
    warnings = (*doubts, *filter(None, [note_other_rasters(scenes)]))
    for warning in warnings if log_warnings else ():
        log.warning("%s", warning)
    return TrainingSet(
        labelled,
        classes,
        all(source.is_points for source in sources if len(source)),
        total,
        _fingerprint(labelled, classes),
        counts,
        warnings,
        None if ground is None else ground.layer,
        _middle_size(sources),
        None if reviewed is None else reviewed.about,
    )


def _open_scenes(options: DataOptions) -> list[Scene]:
    """Open all scenes and refuse those that cannot be trained on together."""
    paths = find_scenes(options.scenes, asset=options.asset)
    first = _open(paths[0], options)
    scenes = [first, *(_open(path, options, first) for path in paths[1:])]
    in_pixels = options.review is None and all(
        source.path.lower().endswith(".json") or is_label_folder(source.path)
        for source in options.sources
    )
    crs_by_wkt: dict[str, pyproj.CRS] = {}
    for i, scene in enumerate(scenes):
        if len(scene.bands) != len(first.bands) or scene.value_dtype != first.value_dtype:
            raise TrainingError(
                f"{scene.path} has {len(scene.bands)} bands of {scene.value_dtype}, but "
                f"{first.path} has {len(first.bands)} of {first.value_dtype}; train on scenes of "
                "one kind, or "
                "choose the same bands of all with data.bands"
            )
        if scene.grid.crs is None:
            scenes[i] = _in_frame_of_its_own(scene, i, options, in_pixels=in_pixels)
            continue
        # One object per CRS: comparing two of them costs more than reprojecting a label.
        crs = crs_by_wkt.setdefault(scene.grid.crs.to_wkt(), scene.grid.crs)
        scenes[i] = replace(scene, grid=replace(scene.grid, crs=crs))
    return scenes


def _open(path: str, options: DataOptions, first: Scene | None = None) -> Scene:
    """Open a scene; one without a CRS is not resampled, as its resolution is not known."""
    scene = open_alike(path, options, first)
    if options.gsd_m is None or scene.grid.crs is None:
        return scene
    return open_alike(path, options, first, gsd_m=options.gsd_m)


def _in_frame_of_its_own(
    scene: Scene, number: int, options: DataOptions, *, in_pixels: bool
) -> Scene:
    """Give a scene without a CRS a grid in metres, far from those of all others."""
    if not in_pixels:
        so, way_out = "labels cannot be placed on it", ", or labels in its pixels, as COCO's"
        raise TrainingError(missing_crs(scene.path, so, otherwise=way_out))
    if options.gsd_m is None:
        so, way_out = "its pixel size is unknown", ", or say how many metres it is with data.gsd_m"
        raise TrainingError(missing_crs(scene.path, so, otherwise=way_out))
    side_m = options.gsd_m
    affine = Affine(side_m, 0, number * _APART_M, 0, -side_m, 0)
    return replace(scene, grid=replace(scene.grid, affine=affine))


@dataclass(frozen=True, eq=False)
class _Ground:
    """All that tells which ground was labelled.

    Attributes:
        labelled: polygons of it; None where that is all ground.
        ignore: ground to be ignored.
        reviewed: what a person checked.
        is_only: there are no other labels than these.
    """

    labelled: Regions | None
    ignore: tuple[Regions, ...]
    reviewed: Reviewed | None
    is_only: bool

    def under(self, scene: Scene) -> Any | None:
        """Find the labelled ground of a scene in grid pixels; None for all of the grid."""
        found = None if self.labelled is None else self.labelled.under(scene)
        if self.reviewed is not None:
            found = self.reviewed.ground(scene, found, is_only=self.is_only)
        return without(scene, found, self.ignore)

    def rejected_on(self, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give places of rejected finds on a scene, in grid pixels, and their weights."""
        if self.reviewed is None:
            return _no_points(), _no_numbers()
        return self.reviewed.rejected_on(scene)


def _gather(
    scenes: Sequence[Scene],
    sources: Sequence[Source],
    placed: Sequence[Placed],
    ground: _Ground,
) -> tuple[LabelledScene, ...]:
    """Bring the labels of all layers together, scene by scene, layer by layer."""
    every = Placed.concat(placed, oriented=any(part.rotated_px is not None for part in placed))
    offsets = np.cumsum([0, *(len(source) for source in sources)])[:-1]
    owner = np.concatenate(
        [np.full(len(part), at) for at, part in zip(offsets, placed, strict=True)]
    )
    row = every.row + owner.astype(np.int64)
    numbers = np.concatenate([source.numbers for source in sources])
    ignored = np.concatenate([source.ignored for source in sources])
    places = np.concatenate([source.places for source in sources])
    weights = np.concatenate([source.weights for source in sources])
    order = np.argsort(every.scene, kind="stable")
    ends = np.cumsum(np.bincount(every.scene, minlength=len(scenes)))[:-1]
    gathered = []
    for scene, part in zip(scenes, np.split(order, ends), strict=True):
        rows, boxes_px = row[part], every.boxes_px[part]
        rotated_px = None if every.rotated_px is None else every.rotated_px[part]
        is_object = ~ignored[rows]
        rejected = ground.rejected_on(scene)
        named = {str(name) for name in places[rows] if name is not None}
        gathered.append(
            LabelledScene(
                scene,
                boxes_px[is_object],
                numbers[rows[is_object]],
                ground.under(scene),
                boxes_px[~is_object],
                tuple(sorted(named)),
                None if (weights == 1).all() else weights[rows[is_object]],
                *rejected,
                None if rotated_px is None else rotated_px[is_object],
                None if rotated_px is None else rotated_px[~is_object],
            )
        )
    return tuple(gathered)


def _check_named(ground: LabelLayer, scenes: Sequence[Scene], options: DataOptions) -> None:
    """Refuse ground of which every polygon names a scene that is none of these."""
    if ground.scenes is None or not len(ground.scenes):
        return
    named = list(dict.fromkeys(ground.scenes.tolist()))
    if None in named or {scene.name for scene in scenes} & set(named):
        return
    raise LabelError(
        f"no polygon of {ground.path} names one of the {len(scenes)} scenes in its column "
        f"{options.ground_scene_column}, which holds {', '.join(map(str, named[:3]))}; it must "
        f"hold the stems of the scene files, such as {scenes[0].name}, or leave out "
        "data.ground_scene_column to take the ground by place"
    )


def _count(
    source: Source, placed: Placed, scenes: Sequence[LabelledScene], classes: Sequence[str]
) -> LabelCounts:
    """Count how many labels of a layer were read, used, ignored and left out."""
    seen = np.zeros(len(source), np.bool_)
    seen[placed.row] = True
    held = np.zeros(len(source), np.bool_)
    for number in np.unique(placed.scene):
        rows = placed.scene == number
        boxes_px = placed.boxes_px[rows]
        on = scenes[int(number)].holds((boxes_px[:, :2] + boxes_px[:, 2:]) / 2)
        held[placed.row[rows][on]] = True
    used = seen & ~source.ignored
    per_class = np.bincount(source.numbers[used], minlength=len(classes))
    return LabelCounts(
        name=source.name,
        read=source.read,
        used=int(used.sum()),
        per_class=dict(zip(classes, per_class.tolist(), strict=True)),
        no_scene=int((~seen).sum()),
        other_scene=int(names_another(source, [each.scene for each in scenes]).sum()),
        other_class=source.read - len(source),
        ignored=int((seen & source.ignored).sum()),
        off_ground=int((used & ~held).sum()),
        by_place=source.by_place,
        no_geometry=source.layer.dropped_null,
        empty=getattr(source.layer, "dropped_empty", 0),
        invalid=source.layer.dropped_invalid,
        repaired=getattr(source.layer, "repaired", 0),
    )


def _middle_size(sources: Sequence[Source]) -> float | None:
    sizes = [source.size_m for source in sources if source.size_m is not None]
    return float(np.median(sizes)) if sizes else None


def _no_labels_sentence(
    options: DataOptions, counts: LabelCounts, scenes: int, warnings: Sequence[str]
) -> str:
    if counts.read and warnings:
        return "; ".join(warnings)
    named = [source.path for source in options.sources]
    names = ", ".join(named if options.review is None else [*named, options.review])
    return (
        f"{names} gives {counts.read} labels for {scenes} scenes, but none of them is an object of "
        f"a class that is trained ({counts}); check data.classes and the ignore column"
    )


def _fingerprint(scenes: Sequence[LabelledScene], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for each in scenes:
        grid = each.scene.grid
        digest.update(repr((each.scene.name, grid.shape, tuple(grid.affine)[:6])).encode())
        digest.update(each.boxes_px.tobytes() + each.labels.tobytes())
        digest.update(each.ignored_px.tobytes())
        more_of = (each.weights, each.rejected_px, each.rejected_weights, each.rotated_px)
        for more in more_of:
            if more is not None and len(more):
                digest.update(more.tobytes())
        if each.ground_px is not None:
            digest.update(shapely.to_wkb(each.ground_px))
    return digest.hexdigest()
