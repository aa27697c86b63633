"""What earlier runs wrote, as the rule of combining needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.boxes import intersection
from geo_retina.detections import Detections
from geo_retina.errors import LabelError
from geo_retina.grid import Grid
from geo_retina.merge import Scenes
from geo_retina.vector import (
    Companions,
    geometry_of,
    open_stream,
    read_companions,
    reproject_rings,
    wkb_to_rings,
)

_SAME = 1e-9
"""Relative difference of pixels that are the same: a lattice of 100,000 px shifts by 1e-4 px."""

_ROUND = 6
"""Decimals of a pixel that survive a way through a file and back."""

_TOUCHES_PX = 1e-3
"""Nearer than this a side lies on its scene's border: a way through another CRS moves it so far."""


@dataclass(frozen=True, eq=False)
class SceneGround:
    """One scene of one run.

    Attributes:
        name: in the run's file.
        path: of its image.
        grid: on which its boxes were found.
    """

    name: str
    path: str
    grid: Grid


@dataclass(frozen=True, eq=False)
class Run:
    """One file of detections.

    Attributes:
        path: of the file.
        crs: of its geometries.
        companions: what explains it.
        scenes: those that were looked at, in its order.
    """

    path: Path
    crs: pyproj.CRS
    companions: Companions
    scenes: tuple[SceneGround, ...]

    @property
    def is_merged(self) -> bool:
        """Whether its scenes were merged with each other."""
        return "merged_from" in self.companions.metadata

    @property
    def nms_iou(self) -> float:
        """IoU above which its detections suppressed each other within tiles; 1 if not known."""
        return _nms_iou(self.companions.metadata)


def _nms_iou(metadata: Mapping[str, str]) -> float:
    earlier = json.loads(metadata.get("merged_from", "{}")).values()
    found = json.loads(metadata.get("options", "{}")).get("nms_iou")
    return min([1.0 if found is None else float(found), *map(_nms_iou, earlier)])


def read_run(path: str | Path) -> Run:
    """Read all of a run but its detections.

    Raises:
        LabelError: the file cannot be read, or does not say what ground was looked at.
    """
    path = Path(path)
    with open_stream(path) as stream:
        crs = stream.crs
    companions = read_companions(path)
    ground = companions.scanned if companions else None
    if companions is None or ground is None or "affine" not in ground.column_names or crs is None:
        raise LabelError(
            f"{path} does not say which ground was looked at, wanted a file that geo-retina "
            "detect wrote, with its layer scanned or OUT.scanned.gpkg beside it"
        )
    scenes = tuple(_scene(row) for row in ground.drop_columns(["geometry"]).to_pylist())
    return Run(path, crs, companions, scenes)


def _scene(row: dict[str, Any]) -> SceneGround:
    affine = Affine(*map(float, row["affine"].split()))
    crs = _crs_of(row["grid_crs"])
    return SceneGround(
        row["scene"], row["path"], Grid(crs, affine, row["height_px"], row["width_px"])
    )


def lattices_of(runs: Sequence[Run]) -> tuple[list[Grid], Scenes]:
    """Find the lattices that scenes are on: one CRS, and pixels of one size and turn.

    Scenes that lie a part of a pixel apart are on one lattice too: their boxes can be compared.

    Returns:
        One grid per lattice, the first scene's; and where all scenes lie, run by run.
    """
    lattices: list[Grid] = []
    number: list[int] = []
    settled: list[int] = []
    windows = []
    for run in runs:
        first = len(number)
        for scene in run.scenes:
            place = next((k for k, g in enumerate(lattices) if _on_lattice(scene.grid, g)), None)
            if place is None:
                place = len(lattices)
                lattices.append(scene.grid)
            settled.append(first if run.is_merged else len(number))
            number.append(place)
            size_xy = np.array([scene.grid.width, scene.grid.height])
            corner = lattices[place].crs_to_pixels(scene.grid.pixels_to_crs(np.zeros(2)))
            windows.append(np.round(np.concatenate([corner, corner + size_xy]), _ROUND))
    at = np.array(number, dtype=np.int64)
    # One value for a lattice, so that areas within it compare as pixels do.
    several = len(lattices) > 1
    pixel_m2 = np.array([(g.gsd_m or 1.0) ** 2 if several else 1.0 for g in lattices])
    scenes = Scenes(
        np.array(windows).reshape(-1, 4), at, np.array(settled, dtype=np.int64), pixel_m2[at]
    )
    return lattices, scenes


def _on_lattice(grid: Grid, other: Grid) -> bool:
    a, b = (np.array([m.a, m.b, m.d, m.e]) for m in (grid.affine, other.affine))
    return bool(np.abs(a - b).max() <= _SAME * np.abs(b).max()) and _same_crs(grid.crs, other.crs)


@lru_cache(maxsize=1024)
def _same_crs(a: pyproj.CRS | None, b: pyproj.CRS | None) -> bool:
    return a == b or bool(a and b and a.equals(b, ignore_axis_order=True))


@lru_cache(maxsize=64)
def _crs_of(wkt: str) -> pyproj.CRS:
    return pyproj.CRS.from_wkt(wkt)


def read_found(
    run: Run, first: int, lattices: list[Grid], scenes: Scenes, classes: list[str]
) -> Detections:
    """Read a run's detections into the pixels of their lattices.

    Args:
        run: the file.
        first: number of the first of its scenes, among ``scenes``.
        lattices: as from ``lattices_of``.
        scenes: likewise.
        classes: names by number; new ones are added.

    Returns:
        All of them, in the order of the file, with the number of the scene for ``tile``; about 50
        bytes each.

    Raises:
        LabelError: a column or a value is missing, or a geometry is no box.
    """
    numbers = {scene.name: first + k for k, scene in enumerate(run.scenes)}
    with open_stream(run.path) as stream:
        return Detections.concat(
            _found(run, table, numbers, lattices, scenes, classes) for table in stream.tables
        )


def _found(
    run: Run,
    table: pa.Table,
    numbers: dict[str, int],
    lattices: list[Grid],
    scenes: Scenes,
    classes: list[str],
) -> Detections:
    _check_columns(run.path, table)
    rings = wkb_to_rings(geometry_of(table))
    if rings is None or not np.isfinite(rings).all():
        raise LabelError(
            f"{run.path} holds other geometries than boxes, wanted the polygons that geo-retina "
            "detect writes"
        )
    unknown = set(table["scene"].unique().to_pylist()) - set(numbers)
    if unknown:
        raise LabelError(
            f"{run.path} has detections of scene {min(unknown)}, of which its scanned ground says "
            "nothing; wanted a file as geo-retina detect wrote it"
        )
    scene = _numbers(table["scene"], numbers)
    boxes = np.empty((len(rings), 4))
    for k in np.unique(scenes.lattice[scene]):
        own = scenes.lattice[scene] == k
        moved = reproject_rings(rings[own], run.crs, lattices[k].crs)
        boxes[own] = boxes_on(lattices[k], moved, scenes.windows[scene[own]])
    classes += sorted(set(table["class"].unique().to_pylist()) - set(classes))
    return Detections(
        boxes,
        table["score"].to_numpy(),
        _numbers(table["class"], {n: i for i, n in enumerate(classes)}).astype(np.int32),
        scene,
        table["cut"].to_numpy(),
        table["joined"].to_numpy(),
    )


def with_joined_scenes(
    found: Detections, scenes: Scenes
) -> tuple[Detections, Scenes, NDArray[np.int64]]:
    """Give objects that were joined over several scenes a window that holds these.

    The window of the one scene that they name would say that they end in the midst of another.

    Args:
        found: as from ``read_found``.
        scenes: theirs.

    Returns:
        The same with ``tile`` changed where needed; scenes with those added; and (S,) the number
        of the scene that each of these stands for.
    """
    own = scenes.windows_px(found.tile)
    beyond = (found.boxes_px[:, :2] < own[:, :2]) | (found.boxes_px[:, 2:] > own[:, 2:])
    at = np.flatnonzero(found.joined & beyond.any(axis=1))
    held = np.empty((len(at), 5))
    for row, (box, first) in enumerate(zip(found.boxes_px[at], found.tile[at], strict=True)):
        parts = (scenes.settled == scenes.settled[first]) & (
            scenes.lattice == scenes.lattice[first]
        )
        parts &= intersection(scenes.windows, np.broadcast_to(box, scenes.windows.shape)) > 0
        parts[first] = True
        low, high = scenes.windows[parts, :2].min(axis=0), scenes.windows[parts, 2:].max(axis=0)
        held[row] = [*low, *high, first]
    # Those over one seam have one window.
    held, number = np.unique(held, axis=0, return_inverse=True)
    tile = found.tile.copy()
    tile[at] = len(scenes) + number.reshape(-1)
    origin = np.concatenate([np.arange(len(scenes)), held[:, 4].astype(np.int64)])
    windows = np.concatenate([scenes.windows, held[:, :4]])
    each = (scenes.lattice[origin], scenes.settled[origin], scenes.pixel_area[origin])
    return replace(found, tile=tile), Scenes(windows, *each), origin


def boxes_on(
    lattice: Grid, rings: NDArray[np.float64], windows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 4) bounds of rings in the pixels of a lattice.

    Sides that lie on that of the scene's window, but for what a way through a file does to them,
    are put there: fragments join where they touch.
    """
    corners = lattice.crs_to_pixels(rings[:, :4])
    boxes = np.round(np.hstack([corners.min(axis=1), corners.max(axis=1)]), _ROUND)
    return np.where(np.abs(boxes - windows) <= _TOUCHES_PX, windows, boxes)


def _check_columns(path: Path, table: pa.Table) -> None:
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise LabelError(
            f"{path} has no column {', '.join(missing)}, wanted the columns that geo-retina detect "
            "writes; merge its file as it was written"
        )
    gaps = [name for name in _NEEDED if table[name].null_count]
    if gaps:
        raise LabelError(
            f"{path} has {table[gaps[0]].null_count} detections without a value in {gaps[0]}; "
            "fill or remove these"
        )
    if not np.isfinite(table["score"].to_numpy()).all():
        raise LabelError(f"{path} has scores that are no numbers; fill or remove these")


_NEEDED = ("class", "score", "scene", "cut", "joined")


def _numbers(column: pa.ChunkedArray, numbers: dict[str, int]) -> NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names = encoded.dictionary.to_pylist()
    by_place = np.array([numbers[name] for name in names], dtype=np.int64)
    return by_place[encoded.indices.to_numpy()] if len(names) else np.empty(0, np.int64)
