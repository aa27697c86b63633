"""Labels on scenes: by the scene that they name, by place, or by the pixels of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.affinity import affine_transform

from geo_retina import boxes
from geo_retina.boxes.oriented import minimum_rectangles
from geo_retina.dataset.regions import footprint
from geo_retina.dataset.sources import Source
from geo_retina.errors import LabelError
from geo_retina.geodesy import is_connected, missing_crs
from geo_retina.grid import Grid
from geo_retina.scene import Scene, match_names
from geo_retina.vector import CocoLabels, LabelLayer, label_boxes, label_rectangles


@dataclass(frozen=True, eq=False)
class Placed:
    """Where labels lie on scenes, as columns of one length; a label may lie on several.

    Attributes:
        scene: (P,) position of the scene.
        row: (P,) position of the label in its source.
        boxes_px: (P, 4) its box in grid pixels; each touches the grid.
        rotated_px: (P, 5) the oriented box, where these were asked for; its hull is as the box
            or a little larger.
    """

    scene: NDArray[np.int64]
    row: NDArray[np.int64]
    boxes_px: NDArray[np.float64]
    rotated_px: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scene)

    @classmethod
    def concat(cls, parts: Sequence[Placed], *, oriented: bool = False) -> Placed:
        """Join parts one after the other; there may be none."""
        rotated = [part.rotated_px for part in parts if part.rotated_px is not None]
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.scene for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.row for part in parts)]),
            np.concatenate([np.empty((0, 4)), *(part.boxes_px for part in parts)]),
            np.concatenate([np.empty((0, 5)), *rotated]) if oriented else None,
        )


def put_labels_on_scenes(
    source: Source, scenes: Sequence[Scene], *, oriented: bool = False
) -> Placed:
    """Place the labels of a layer on the scenes that show them.

    Args:
        source: the layer.
        scenes: the scenes.
        oriented: find the smallest rectangle of each label too, at any angle.

    Raises:
        LabelError: the labels cannot be tied to the scenes.
    """
    if isinstance(source.layer, CocoLabels):
        return _place_coco(source, source.layer, scenes, oriented=oriented)
    layer = source.layer
    by_name: dict[int, NDArray[np.int64]] = {}
    free = np.ones(len(layer), np.bool_)
    if layer.scenes is not None:
        by_name = _rows_by_scene(layer.scenes, scenes_named(source, scenes))
        free = np.array([name is None for name in layer.scenes], dtype=np.bool_)
    parts = []
    for crs in {id(s.grid.crs): s.grid.crs for s in scenes}.values():
        if crs is None:
            so = f"the labels of {layer.path} cannot be placed on it"
            raise LabelError(missing_crs("a scene", so))
        if not is_connected(layer.crs, crs):
            continue  # none of them can be there; where nothing else is, that is said
        # Reprojected once per CRS, not once per scene.
        here = layer.to_crs(crs)
        rows_free = np.flatnonzero(free)
        tree = shapely.STRtree(here.geometries[free])
        for number, scene in enumerate(scenes):
            if scene.grid.crs is not crs:
                continue
            outline = footprint(scene.grid, _margin_px(source, scene.grid))
            rows = rows_free[tree.query(outline)]
            rows = np.concatenate([rows, by_name.get(number, np.empty(0, np.int64))])
            on = _on_grid(here, np.sort(rows), source, scene, oriented=oriented)
            parts.append(replace(on, scene=np.full(len(on.row), number)))
    return Placed.concat(parts, oriented=oriented)


def _margin_px(source: Source, grid: Grid) -> float:
    """Bound how far outside a grid a point may lie whose square reaches in."""
    if not source.is_points:
        return 1.0
    assert isinstance(source.layer, LabelLayer)
    sizes = source.layer.sizes_m
    largest_m = source.options.point_size_m if sizes is None else float(sizes.max())
    return 1.0 + (largest_m or 0.0) / (grid.gsd_m or 1.0)


def _on_grid(
    layer: LabelLayer, rows: NDArray[np.int64], source: Source, scene: Scene, *, oriented: bool
) -> Placed:
    """Select those of some labels whose box touches the grid."""
    size_m = source.options.point_size_m
    boxes_px = label_boxes(layer.take(rows), scene.grid, point_size_m=size_m)
    keep = boxes.area(boxes.clip(boxes_px, scene.grid.window.box_px)) > 0
    rows, rotated_px = rows[keep], None
    if oriented:
        rotated_px = label_rectangles(layer.take(rows), scene.grid, point_size_m=size_m)
    return Placed(np.zeros(len(rows), np.int64), rows, boxes_px[keep], rotated_px)


def scenes_named(source: Source, scenes: Sequence[Scene]) -> dict[str, int]:
    """Find the scenes that a layer's labels, or its list of images, name, and their positions.

    Returns:
        By the names as the layer has them; those that name none are left out.

    Raises:
        LabelError: a name could mean several scenes, or several names one.
    """
    if source.named is None:
        return {}
    is_coco = isinstance(source.layer, CocoLabels)
    column = "" if is_coco else f"column {source.options.scene_column} of "
    paths = [scene.path for scene in scenes]
    given_in = f"{column}{source.layer.path}"
    found = match_names(source.named, paths, given_in=given_in, alone=is_coco)
    return {source.named[name]: scene for name, scene in found.items()}


def _rows_by_scene(
    names: NDArray[np.object_], scene_of: Mapping[str, int]
) -> dict[int, NDArray[np.int64]]:
    """Group row numbers of the labels by the scene that their column names."""
    scene = np.array([scene_of.get(str(name), -1) for name in names], np.int64)
    rows = np.argsort(scene, kind="stable")
    each, first = np.unique(scene[rows], return_index=True)
    found = zip(each.tolist(), np.split(rows, first[1:]), strict=True) if len(rows) else ()
    return {number: part for number, part in found if number >= 0}


def _place_coco(
    source: Source, labels: CocoLabels, scenes: Sequence[Scene], *, oriented: bool
) -> Placed:
    """Place boxes in the pixels of files on the scenes that are those files."""
    parts = []
    image_of = {str(name): image for image, name in enumerate(labels.files)}
    for name, number in sorted(scenes_named(source, scenes).items(), key=itemgetter(1)):
        scene, image = scenes[number], image_of[name]
        if scene.grid_to_file is None:
            raise LabelError(
                f"{scene.path} is warped to be read, so boxes in its own pixels, as in "
                f"{labels.path}, cannot be placed on it; warp the file first with gdalwarp -t_srs "
                "and label that, or give the labels as polygons on the ground"
            )
        _check_shape(scene, labels, image)
        rows = np.flatnonzero(labels.image == image)
        to_grid = ~scene.grid_to_file
        if labels.relative:
            height, width = _file_shape(scene)
            to_grid = to_grid @ Affine.scale(width, height)
        corners = boxes.corners(labels.boxes_file[rows])
        x = to_grid.a * corners[..., 0] + to_grid.b * corners[..., 1] + to_grid.c
        y = to_grid.d * corners[..., 0] + to_grid.e * corners[..., 1] + to_grid.f
        boxes_px = np.stack(
            [x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1
        ).reshape(-1, 4)
        keep = boxes.area(boxes.clip(boxes_px, scene.grid.window.box_px)) > 0
        rows, rotated_px = rows[keep], None
        if oriented:
            matrix = [to_grid.a, to_grid.b, to_grid.d, to_grid.e, to_grid.c, to_grid.f]
            outlines = [affine_transform(each, matrix) for each in labels.outlines_file[rows]]
            rotated_px = minimum_rectangles(np.array(outlines, dtype=object))
        parts.append(Placed(np.full(len(rows), number), rows, boxes_px[keep], rotated_px))
    return Placed.concat(parts, oriented=oriented)


def _file_shape(scene: Scene) -> tuple[int, int]:
    """Compute the height and width of the file that a scene is read from."""
    to_file = scene.grid_to_file
    assert to_file is not None  # it is not warped
    return round(scene.grid.height * to_file.e), round(scene.grid.width * to_file.a)


def _check_shape(scene: Scene, labels: CocoLabels, image: int) -> None:
    own = _file_shape(scene)
    said = tuple(labels.shapes[image].tolist())
    if 0 not in said and said != own:
        raise LabelError(
            f"{labels.path} says that {labels.files[image]} has {said[1]} x {said[0]} px, but "
            f"{scene.path} has {own[1]} x {own[0]}; the annotations are for another version of "
            "the file"
        )
