"""What earlier runs wrote, as the rule of combining needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.combine.rule import Found, Scenes
from geo_retina.errors import LabelError
from geo_retina.grid import Grid
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
    def nms_iou(self) -> float:
        """IoU above which its detections suppressed each other within tiles; 1 if not known."""
        found = json.loads(self.companions.metadata.get("options", "{}")).get("nms_iou")
        return 1.0 if found is None else float(found)


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
    crs = pyproj.CRS.from_wkt(row["grid_crs"])
    return SceneGround(
        row["scene"], row["path"], Grid(crs, affine, row["height_px"], row["width_px"])
    )


def lattices_of(scenes: list[SceneGround]) -> tuple[list[Grid], Scenes]:
    """Find the lattices that scenes are on: one CRS, and pixels of one size and turn.

    Returns:
        One grid per lattice, the first scene's; and where all scenes lie.
    """
    lattices: list[Grid] = []
    number, windows = [], []
    for scene in scenes:
        place = next((k for k, g in enumerate(lattices) if _on_lattice(scene.grid, g)), None)
        if place is None:
            place = len(lattices)
            lattices.append(scene.grid)
        number.append(place)
        size_xy = np.array([scene.grid.width, scene.grid.height])
        corner = lattices[place].crs_to_pixels(scene.grid.pixels_to_crs(np.zeros(2)))
        windows.append(np.round(np.concatenate([corner, corner + size_xy]), _ROUND))
    pixel_m2 = np.array([(s.grid.gsd_m or 1.0) ** 2 for s in scenes])
    at = np.array(number, dtype=np.int64)
    for k in range(len(lattices)):  # so that areas within a lattice compare as pixels do
        pixel_m2[at == k] = pixel_m2[at == k][0]
    return lattices, Scenes(np.array(windows).reshape(-1, 4), at, pixel_m2)


def _on_lattice(grid: Grid, other: Grid) -> bool:
    if grid.crs != other.crs:
        return False
    a, b = (np.array([m.a, m.b, m.d, m.e]) for m in (grid.affine, other.affine))
    return bool(np.abs(a - b).max() <= _SAME * np.abs(b).max())


def read_found(
    run: Run, numbers: dict[str, int], lattices: list[Grid], scenes: Scenes, classes: list[str]
) -> Found:
    """Read a run's detections into the pixels of their lattices.

    Args:
        run: the file.
        numbers: of its scenes, by name.
        lattices: as from ``lattices_of``.
        scenes: likewise.
        classes: names by number; new ones are added.

    Returns:
        All of them, in the order of the file; about 70 bytes each.
    """
    parts = []
    with open_stream(run.path) as stream:
        for table in stream.tables:
            parts.append(_found(run, table, numbers, lattices, scenes, classes))
    return concat(parts)


def concat(parts: list[Found]) -> Found:
    """All parts in order; empty for none."""
    empty = Found(np.empty((0, 4)), np.empty(0), *_NOTHING)
    columns = ("boxes", "scores", "labels", "scene", "cut")
    return Found(*(np.concatenate([getattr(p, c) for p in [empty, *parts]]) for c in columns))


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))


def _found(
    run: Run,
    table: pa.Table,
    numbers: dict[str, int],
    lattices: list[Grid],
    scenes: Scenes,
    classes: list[str],
) -> Found:
    rings = wkb_to_rings(geometry_of(table))
    if rings is None:
        raise LabelError(
            f"{run.path} holds other geometries than boxes, wanted the polygons that geo-retina "
            "detect writes"
        )
    scene = _numbers(table["scene"], numbers, run.path)
    boxes = np.empty((len(rings), 4))
    for k, lattice in enumerate(lattices):
        own = scenes.lattice[scene] == k
        boxes[own] = boxes_on(lattice, reproject_rings(rings[own], run.crs, lattice.crs))
    for name in sorted(set(table["class"].unique().to_pylist()) - set(classes)):
        classes.append(name)
    labels = _numbers(table["class"], {n: i for i, n in enumerate(classes)}, run.path)
    cut = table["cut"].to_numpy().astype(np.uint8)
    return Found(boxes, table["score"].to_numpy().astype(np.float64), labels, scene, cut)


def boxes_on(lattice: Grid, rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) bounds of rings in the pixels of a lattice."""
    corners = lattice.crs_to_pixels(rings[:, :4])
    return np.round(np.hstack([corners.min(axis=1), corners.max(axis=1)]), _ROUND)


def _numbers(column: pa.ChunkedArray, numbers: dict[str, int], path: Path) -> NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names = encoded.dictionary.to_pylist()
    unknown = [name for name in names if name not in numbers]
    if unknown or encoded.null_count:
        raise LabelError(
            f"{path} has detections of scene {unknown[0] if unknown else None}, of which its "
            "scanned ground says nothing; wanted a file as geo-retina detect wrote it"
        )
    by_place = np.array([numbers[name] for name in names], dtype=np.int64)
    return by_place[encoded.indices.to_numpy()] if len(names) else np.empty(0, np.int64)
