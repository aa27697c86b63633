"""Labels to scenes: which objects lie where in each scene, and which of its ground was labelled."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.errors import LabelError, TrainingError
from geo_retina.grid import Grid, Window
from geo_retina.options import DataOptions
from geo_retina.scene import Scene, find_scenes, open_scene
from geo_retina.training.index import BoxIndex
from geo_retina.vector import label_boxes, read_ground, read_labels

if TYPE_CHECKING:
    from geo_retina.vector import LabelLayer

log = logging.getLogger(__name__)

ONE_CLASS = "object"
"""Name of the class where neither a column nor a name is given."""


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene and what is known about its ground.

    Attributes:
        scene: the imagery.
        boxes_px: (N, 4) float64 label boxes in grid pixels, not clipped to the grid; each
            touches it.
        labels: (N,) int64 positions in the classes.
        ground_px: the labelled ground as one geometry in grid pixels, or None for all of it.
    """

    scene: Scene
    boxes_px: NDArray[np.float64]
    labels: NDArray[np.int64]
    ground_px: Any | None

    @property
    def centres_px(self) -> NDArray[np.float64]:
        """(N, 2) centres x, y of the label boxes in grid pixels."""
        return (self.boxes_px[:, :2] + self.boxes_px[:, 2:]) / 2

    def centre_px(self, index: int) -> NDArray[np.float64]:
        """(2,) centre x, y of one label box in grid pixels."""
        box = self.boxes_px[index]
        return np.asarray((box[:2] + box[2:]) / 2)

    def near(self, window: Window) -> NDArray[np.int64]:
        """Positions, ascending, of the label boxes that a window shows, and of some more."""
        return self._index.near_rows(window.row, window.row + window.height)

    @cached_property
    def _index(self) -> BoxIndex:
        """Built at the first window; a scene may have a million labels."""
        return BoxIndex(self.boxes_px)

    def holds(self, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which positions x, y (N, 2) lie inside the grid, on labelled ground."""
        grid = self.scene.grid
        inside = (points_px >= 0).all(axis=1) & (points_px < [grid.width, grid.height]).all(axis=1)
        if self.ground_px is not None:
            inside &= shapely.contains_xy(self.ground_px, points_px)
        return np.asarray(inside)

    def labelled(self, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window lie, with their centre, on labelled ground.

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
class LabelCounts:
    """What became of the labels, so that nothing is dropped in silence.

    Attributes:
        read: labels in the layer, after its filter.
        used: labels that lie on a scene.
        per_class: used labels by class.
        no_scene: labels that no scene shows.
        other_class: labels of a class that is not among those trained.
        dropped: features of the layer without a usable geometry.
    """

    read: int
    used: int
    per_class: dict[str, int]
    no_scene: int
    other_class: int
    dropped: int

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in self.per_class.items())
        return (
            f"{self.read} labels read, {self.used} on scenes ({classes}); left out: "
            f"{self.no_scene} on no scene, {self.other_class} of other classes, "
            f"{self.dropped} without a usable geometry"
        )


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Scenes with their labels.

    Attributes:
        scenes: in the order of the paths given.
        classes: names in the order of the labels' numbers.
        points: whether the labels are points with a size.
        counts: what became of the labels.
        fingerprint: SHA-256 of the labels and of the scenes' names and shapes.
    """

    scenes: tuple[LabelledScene, ...]
    classes: tuple[str, ...]
    points: bool
    counts: LabelCounts
    fingerprint: str


def load_training_set(options: DataOptions) -> TrainingSet:
    """Read the label layer once and place it on every scene.

    Raises:
        SceneError: a scene is missing or is no raster.
        LabelError: the layer, or a class or column that the options name, cannot be used.
        TrainingError: the scenes do not go together, or no label lies on any of them.
    """
    scenes = _open_scenes(options)
    layer = read_labels(
        options.labels,
        layer=options.layer,
        where=options.where,
        class_column=options.class_column,
        scene_column=options.scene_column,
    )
    read = len(layer)
    classes, numbers = _number_classes(layer, options)
    layer, numbers = layer.take(numbers >= 0), numbers[numbers >= 0]
    placed, seen = _place(scenes, layer, numbers, options)
    per_class = np.bincount(numbers[seen], minlength=len(classes))
    counts = LabelCounts(
        read=read,
        used=int(seen.sum()),
        per_class=dict(zip(classes, per_class.tolist(), strict=True)),
        no_scene=int((~seen).sum()),
        other_class=read - len(layer),
        dropped=_dropped(layer),
    )
    log.info("%s", counts)
    if not counts.used:
        raise TrainingError(_no_labels_sentence(options, counts, len(scenes)))
    return TrainingSet(placed, classes, layer.is_points, counts, _fingerprint(placed, classes))


def _open_scenes(options: DataOptions) -> list[Scene]:
    """Open all scenes and refuse those that cannot be trained on together."""
    paths = find_scenes(options.scenes, asset=options.asset)
    scenes = [open_scene(path, bands=options.bands) for path in paths]
    first = scenes[0]
    crs_by_wkt: dict[str, pyproj.CRS] = {}
    for i, scene in enumerate(scenes):
        if scene.grid.crs is None:
            raise TrainingError(
                f"{scene.path} has no CRS, so labels cannot be placed on it; give it one, for "
                "example with gdal_edit.py -a_srs EPSG:32633"
            )
        if len(scene.bands) != len(first.bands) or scene.dtype != first.dtype:
            raise TrainingError(
                f"{scene.path} has {len(scene.bands)} bands of {scene.dtype}, but {first.path} "
                f"has {len(first.bands)} of {first.dtype}; train on scenes of one kind, or "
                "choose the same bands of all with data.bands"
            )
        # One object per CRS: comparing two of them costs more than reprojecting a label.
        crs = crs_by_wkt.setdefault(scene.grid.crs.to_wkt(), scene.grid.crs)
        scenes[i] = replace(scene, grid=replace(scene.grid, crs=crs))
    return scenes


def _number_classes(
    layer: LabelLayer, options: DataOptions
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The class names, and each label's position among them (-1 for none of them)."""
    if layer.class_names is None:
        classes = options.classes or (ONE_CLASS,)
        if len(classes) > 1:
            raise LabelError(
                f"data.classes names {len(classes)} classes, but {layer.path} is read without a "
                "class column; name the column with data.class_column"
            )
        return tuple(classes), np.zeros(len(layer), np.int64)
    names = np.array([str(name) for name in layer.class_names], dtype=object)
    found = sorted(set(names) - {"", "None", "nan"})
    classes = tuple(options.classes or found)
    unknown = [name for name in classes if name not in found]
    if unknown:
        raise LabelError(
            f"no label in {layer.path} has {options.class_column} = {unknown[0]}, which "
            f"data.classes names; it holds {', '.join(found[:20]) or 'no class at all'}"
        )
    number = {name: i for i, name in enumerate(classes)}
    return classes, np.array([number.get(name, -1) for name in names], np.int64)


def _dropped(layer: LabelLayer) -> int:
    return layer.dropped_null + layer.dropped_empty + layer.dropped_invalid


def _place(
    scenes: Sequence[Scene], layer: LabelLayer, numbers: NDArray[np.int64], options: DataOptions
) -> tuple[tuple[LabelledScene, ...], NDArray[np.bool_]]:
    """Give every scene its labels; also tells which labels any scene got."""
    by_name = None if layer.scenes is None else _labels_by_scene(layer, scenes, options)
    placed: dict[str, LabelledScene] = {}
    seen = np.zeros(len(layer), np.bool_)
    for crs in {id(s.grid.crs): s.grid.crs for s in scenes}.values():
        assert crs is not None  # scenes without one were refused
        # Reprojected once per CRS, not once per scene.
        here = layer.to_crs(crs)
        tree = None if by_name is not None else shapely.STRtree(here.geometries)
        ground = None if options.ground is None else read_ground(options.ground, crs)
        for scene in (s for s in scenes if s.grid.crs is crs):
            if tree is None:
                assert by_name is not None
                rows = by_name.get(scene.name, np.empty(0, np.int64))
            else:
                rows = np.sort(tree.query(_footprint(scene.grid, options.point_size_m)))
            boxes_px = label_boxes(here.take(rows), scene.grid, point_size_m=options.point_size_m)
            keep = boxes.area(boxes.clip(boxes_px, scene.grid.window.box_px)) > 0
            seen[rows[keep]] = True
            ground_px = None if ground is None else _to_pixels(ground, scene.grid)
            placed[scene.path] = LabelledScene(
                scene, boxes_px[keep], numbers[rows[keep]], ground_px
            )
    return tuple(placed[scene.path] for scene in scenes), seen


def _labels_by_scene(
    layer: LabelLayer, scenes: Sequence[Scene], options: DataOptions
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of the labels by the scene stem that their column names."""
    paths: dict[str, str] = {}
    for scene in scenes:
        other = paths.setdefault(scene.name, scene.path)
        if other != scene.path:
            raise LabelError(
                f"{scene.path} and {other} share the stem {scene.name}, so the column "
                f"{options.scene_column} cannot tell them apart; rename one, or leave out "
                "data.scene_column to join labels by place"
            )
    assert layer.scenes is not None
    names, inverse = np.unique(layer.scenes.astype(str), return_inverse=True)
    rows = np.argsort(inverse, kind="stable").astype(np.int64)
    ends = np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1]
    return dict(zip(names.tolist(), np.split(rows, ends), strict=True))


def _footprint(grid: Grid, point_size_m: float | None) -> Any:
    """The grid's outline on the ground, widened so that half of a point's square fits."""
    margin_px = 1.0 if point_size_m is None else 1.0 + point_size_m / (grid.gsd_m or 1.0)
    outline = np.array([[-margin_px, -margin_px, grid.width + margin_px, grid.height + margin_px]])
    return boxes.to_polygons(outline, grid)[0]


def _to_pixels(ground: Any, grid: Grid) -> Any:
    """Labelled ground in grid pixels, prepared for many queries."""
    near = shapely.intersection(ground, _footprint(grid, None))
    ground_px = shapely.transform(near, grid.crs_to_pixels)
    shapely.prepare(ground_px)
    return ground_px


def _no_labels_sentence(options: DataOptions, counts: LabelCounts, scenes: int) -> str:
    how = (
        "lies on any of them; check that both show the same place and that the layer's CRS is right"
        if options.scene_column is None
        else f"names one of them in its column {options.scene_column} and lies on it; it must hold "
        "the stems of the scene files"
    )
    return f"{options.labels} gives {counts.read} labels for {scenes} scenes, but no label {how}"


def _fingerprint(scenes: Sequence[LabelledScene], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for each in scenes:
        grid = each.scene.grid
        digest.update(repr((each.scene.name, grid.shape, tuple(grid.affine)[:6])).encode())
        digest.update(each.boxes_px.tobytes() + each.labels.tobytes())
    return digest.hexdigest()
