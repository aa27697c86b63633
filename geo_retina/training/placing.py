"""Labels on scenes: by the scene that they name, by place, or by the pixels of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.errors import LabelError
from geo_retina.geodesy import is_connected, missing_crs
from geo_retina.grid import Grid
from geo_retina.scene import Scene
from geo_retina.training.regions import footprint
from geo_retina.training.sources import Source
from geo_retina.vector import CocoLabels, LabelLayer, label_boxes


@dataclass(frozen=True, eq=False)
class Placed:
    """Where labels lie on scenes, as columns of one length; a label may lie on several.

    Attributes:
        scene: (P,) position of the scene.
        row: (P,) position of the label in its source.
        boxes_px: (P, 4) its box in grid pixels; each touches the grid.
    """

    scene: NDArray[np.int64]
    row: NDArray[np.int64]
    boxes_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scene)

    @classmethod
    def concat(cls, parts: Sequence[Placed]) -> Placed:
        """One after the other; there may be none."""
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.scene for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.row for part in parts)]),
            np.concatenate([np.empty((0, 4)), *(part.boxes_px for part in parts)]),
        )


def place(source: Source, scenes: Sequence[Scene]) -> Placed:
    """Place the labels of a layer on the scenes that show them.

    Raises:
        LabelError: the labels cannot be tied to the scenes.
    """
    if isinstance(source.layer, CocoLabels):
        return _place_coco(source.layer, scenes)
    layer = source.layer
    by_name = None if layer.scenes is None else _rows_by_scene(source, layer.scenes, scenes)
    free = np.ones(len(layer), np.bool_)
    if layer.scenes is not None:
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
            if by_name is not None:
                rows = np.concatenate([rows, by_name.get(scene.name, np.empty(0, np.int64))])
            parts.append(_on_grid(here, np.sort(rows), source, scene, number))
    return Placed.concat(parts)


def _margin_px(source: Source, grid: Grid) -> float:
    """How far outside a grid a point may lie whose square reaches in."""
    if not source.is_points:
        return 1.0
    assert isinstance(source.layer, LabelLayer)
    sizes = source.layer.sizes_m
    largest_m = source.options.point_size_m if sizes is None else float(sizes.max())
    return 1.0 + (largest_m or 0.0) / (grid.gsd_m or 1.0)


def _on_grid(
    layer: LabelLayer, rows: NDArray[np.int64], source: Source, scene: Scene, number: int
) -> Placed:
    """Those of some labels whose box touches the grid."""
    size_m = source.options.point_size_m
    boxes_px = label_boxes(layer.take(rows), scene.grid, point_size_m=size_m)
    keep = boxes.area(boxes.clip(boxes_px, scene.grid.window.box_px)) > 0
    return Placed(np.full(int(keep.sum()), number), rows[keep], boxes_px[keep])


def _rows_by_scene(
    source: Source, names: NDArray[np.object_], scenes: Sequence[Scene]
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of the labels by the scene stem that their column names."""
    paths: dict[str, str] = {}
    for scene in scenes:
        other = paths.setdefault(scene.name, scene.path)
        if other != scene.path:
            raise LabelError(
                f"{scene.path} and {other} share the stem {scene.name}, so the column "
                f"{source.options.scene_column} cannot tell them apart; rename one, or leave out "
                "data.scene_column to join labels by place"
            )
    named = np.flatnonzero([name is not None for name in names])
    unique, inverse = np.unique(names[named].astype(str), return_inverse=True)
    rows = named[np.argsort(inverse, kind="stable")]
    ends = np.cumsum(np.bincount(inverse, minlength=len(unique)))[:-1]
    return dict(zip(unique.tolist(), np.split(rows, ends), strict=True)) if len(unique) else {}


def _place_coco(labels: CocoLabels, scenes: Sequence[Scene]) -> Placed:
    """Place boxes in the pixels of files on the scenes that are those files."""
    parts = []
    for number, scene in enumerate(scenes):
        image = _image_of(scene, labels)
        if image is None:
            continue
        if scene.grid_to_file is None:
            raise LabelError(
                f"{scene.path} is warped to be read, so boxes in its own pixels, as in "
                f"{labels.path}, cannot be placed on it; warp the file first with gdalwarp -t_srs "
                "and label that, or give the labels as polygons on the ground"
            )
        _check_shape(scene, labels, image)
        rows = np.flatnonzero(labels.image == image)
        to_grid = ~scene.grid_to_file
        corners = boxes.corners(labels.boxes_file[rows])
        x = to_grid.a * corners[..., 0] + to_grid.b * corners[..., 1] + to_grid.c
        y = to_grid.d * corners[..., 0] + to_grid.e * corners[..., 1] + to_grid.f
        boxes_px = np.stack(
            [x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1
        ).reshape(-1, 4)
        keep = boxes.area(boxes.clip(boxes_px, scene.grid.window.box_px)) > 0
        parts.append(Placed(np.full(int(keep.sum()), number), rows[keep], boxes_px[keep]))
    return Placed.concat(parts)


def _image_of(scene: Scene, labels: CocoLabels) -> int | None:
    """Position of the image that is the scene's file: by its path, its name, or its stem."""
    path = PurePosixPath(scene.path)
    names = [(PurePosixPath(str(name)), _as_path(str(name))) for name in labels.files]
    for same in (
        lambda own: path.as_posix().endswith("/" + own.as_posix().lstrip("./")),
        lambda own: own.name == path.name,
        lambda own: own.stem == path.stem,
        lambda own: own.stem.casefold() == path.stem.casefold(),
    ):
        found = [i for i, spellings in enumerate(names) if any(map(same, spellings))]
        if len(found) == 1:
            return found[0]
        if found:
            raise LabelError(
                f"{labels.path} has {len(found)} images that could be {scene.path}, such as "
                f"{labels.files[found[0]]} and {labels.files[found[1]]}; give them names that "
                "tell them apart"
            )
    return None


def _as_path(name: str) -> PurePosixPath:
    """A file's name in annotations, whatever system's slashes and spaces it was written with."""
    return PurePosixPath(unquote(name.partition("?")[0].strip()).replace("\\", "/"))


def _check_shape(scene: Scene, labels: CocoLabels, image: int) -> None:
    assert scene.grid_to_file is not None
    to_file = scene.grid_to_file
    own = (round(scene.grid.height * to_file.e), round(scene.grid.width * to_file.a))
    said = tuple(labels.shapes[image].tolist())
    if 0 not in said and said != own:
        raise LabelError(
            f"{labels.path} says that {labels.files[image]} has {said[1]} x {said[0]} px, but "
            f"{scene.path} has {own[1]} x {own[0]}; the annotations are for another version of "
            "the file"
        )
