"""What earlier runs wrote, as the rule of combining needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.boxes import oriented
from geo_retina.detections import Detections
from geo_retina.errors import LabelError
from geo_retina.geodesy import is_same
from geo_retina.grid import Grid
from geo_retina.postprocess.lattices import ROUND, Lattices, turn_of
from geo_retina.vector import (
    FIRST_SEEN,
    SCENE_DATE,
    Companions,
    days_of,
    geometry_of,
    is_oriented,
    open_stream,
    read_companions,
    reproject_rings,
    wkb_to_rings,
)

_TOUCHES_PX = 1e-3
"""Nearer than this a side lies on its scene's border: a way through another CRS moves it so far."""


@dataclass(frozen=True, eq=False)
class SceneGround:
    """One scene of one run.

    Attributes:
        name: in the run's file.
        path: of its image.
        grid: on which its boxes were found.
        day: on which it was taken; None where that is not known.
    """

    name: str
    path: str
    grid: Grid
    day: date | None = None

    def is_same_image(self, other: SceneGround) -> bool:
        """Tell whether two scenes are one file: a path may be relative, so the ground counts too.

        Models may have seen it in pixels of other sizes, so its ends differ by two of them.
        """
        if self.path != other.path or not is_same(self.grid.crs, other.grid.crs):
            return False
        grids = self.grid, other.grid
        ends = [
            each.pixels_to_crs(np.array([[0.0, 0.0], [each.width, each.height]])) for each in grids
        ]
        sides = [abs(float(each.affine.determinant)) ** 0.5 for each in grids]
        return bool(np.abs(ends[0] - ends[1]).max() <= 2 * max(sides))


@dataclass(frozen=True, eq=False)
class Run:
    """One file of detections.

    Attributes:
        path: of the file.
        crs: of its geometries.
        companions: what explains it.
        scenes: those that were looked at, in its order.
        columns: of its detections.
    """

    path: Path
    crs: pyproj.CRS
    companions: Companions
    scenes: tuple[SceneGround, ...]
    columns: tuple[str, ...]

    @property
    def is_merged(self) -> bool:
        """Whether its scenes were merged with each other."""
        about = self.companions.metadata
        options = json.loads(about.get("options", "{}"))
        return "merged_from" in about or bool(options.get("across_scenes"))

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
        first = next(iter(stream.tables), None)
    columns = () if first is None else tuple(first.column_names)
    companions = read_companions(path)
    ground = companions.scanned if companions else None
    if companions is None or ground is None or "affine" not in ground.column_names or crs is None:
        raise LabelError(
            f"{path} does not say which ground was scanned, expected a file that geo-retina "
            "detect wrote, with its layer scanned or OUT.scanned.gpkg beside it"
        )
    rows = ground.drop_columns(["geometry"]).to_pylist()
    scenes: dict[str, SceneGround] = {}
    for row in rows:  # one has two where it was screened
        scene = _scene(row)
        known = scenes.setdefault(scene.name, scene)
        if not known.is_same_image(scene):
            raise LabelError(
                f"{path} has several scenes named {scene.name}, so nothing tells whose its objects "
                "are; merge the files from which it was made all at once"
            )
    return Run(path, crs, companions, tuple(scenes.values()), columns)


def _scene(row: dict[str, Any]) -> SceneGround:
    affine = Affine(*map(float, row["affine"].split()))
    crs = _crs_of(row["grid_crs"])
    grid = Grid(crs, affine, row["height_px"], row["width_px"])
    return SceneGround(row["scene"], row["path"], grid, row.get(SCENE_DATE))


@lru_cache(maxsize=64)
def _crs_of(wkt: str) -> pyproj.CRS:
    return pyproj.CRS.from_wkt(wkt)


def read_found(
    run: Run, first: int, lattices: Lattices, classes: list[str], *, dated: bool
) -> Iterator[Detections]:
    """Read a run's detections into the pixels of their lattices.

    Args:
        run: the file.
        first: number of the first of its scenes.
        lattices: as from ``lattices_of``.
        classes: names by number; new ones are added.
        dated: with the days on which they were first seen.

    Yields:
        Some of them at a time, in the order of the file, with the number of the scene for
        ``tile``.

    Raises:
        LabelError: a column or a value is missing, or a geometry is no box.
    """
    numbers = {scene.name: first + k for k, scene in enumerate(run.scenes)}
    with open_stream(run.path) as stream:
        for table in stream.tables:
            yield _found(run, table, numbers, lattices, classes, dated=dated)


def _found(
    run: Run,
    table: pa.Table,
    numbers: dict[str, int],
    lattices: Lattices,
    classes: list[str],
    *,
    dated: bool,
) -> Detections:
    _check_columns(run.path, table)
    rings = wkb_to_rings(geometry_of(table))
    if rings is None or not np.isfinite(rings).all():
        raise LabelError(
            f"{run.path} holds other geometries than boxes, expected the polygons that geo-retina "
            "detect writes"
        )
    unknown = set(table["scene"].unique().to_pylist()) - set(numbers)
    if unknown:
        raise LabelError(
            f"{run.path} has detections of scene {min(unknown)}, of which its scanned ground says "
            "nothing; expected a file as geo-retina detect wrote it"
        )
    scene = _numbers(table["scene"], numbers)
    turned = is_oriented(table.column_names)
    boxes, rotated = np.empty((len(rings), 4)), np.empty((len(rings), 5))
    joined = table["joined"].to_numpy()
    lattice = lattices.scenes.lattice[scene]
    for k in np.unique(lattice):
        own, grid = lattice == k, lattices.grids[k]
        moved = reproject_rings(rings[own], run.crs, grid.crs)
        if turn := turn_of(grid.crs):
            moved = _at_scene(moved, lattices.extents[scene[own]], turn)
        windows = lattices.scenes.windows[scene[own]]
        if turned:
            rotated[own] = rotated_on(grid, moved)
            beyond = joined[own] & run.is_merged  # over several scenes
            boxes[own] = hulls_on(rotated[own], windows, beyond)
        else:
            boxes[own] = boxes_on(grid, moved, windows)
    classes += sorted(set(table["class"].unique().to_pylist()) - set(classes))
    return Detections(
        boxes,
        table["score"].to_numpy(),
        _numbers(table["class"], {n: i for i, n in enumerate(classes)}).astype(np.int32),
        scene,
        table["cut"].to_numpy(),
        joined,
        rotated_px=rotated if turned else None,
        first_seen=first_days(table) if dated else None,
    )


def first_days(table: pa.Table) -> NDArray[np.int32]:
    """Read (N,) days on which objects of a file were first seen: at least by their own scenes."""
    return np.minimum(days_of(table, FIRST_SEEN), days_of(table, SCENE_DATE))


def _at_scene(
    rings: NDArray[np.float64], extents: NDArray[np.float64], turn: float
) -> NDArray[np.float64]:
    """Move (N, 5, 2) rings round the Earth to the longitudes of their scenes."""
    x, (west, east) = rings[..., 0], extents.T[..., None]
    slack = (east - west) * 1e-6
    outside = (x < west - slack) | (x > east + slack)
    turns = np.where(outside, np.round(((west + east) / 2 - x) / turn), 0.0)
    return np.stack([x + turns * turn, rings[..., 1]], axis=-1)


def boxes_on(
    lattice: Grid, rings: NDArray[np.float64], windows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bound (N, 4) rings in the pixels of a lattice.

    Sides that lie on that of the scene's window, but for what a way through a file does to them,
    are put there: fragments join where they touch.
    """
    points = lattice.crs_to_pixels(rings[:, :4])
    return _at_borders(np.hstack([points.min(axis=1), points.max(axis=1)]), windows)


def rotated_on(lattice: Grid, rings: NDArray[np.float64]) -> oriented.Rotated:
    """Read (N, 5) oriented boxes in the pixels of a lattice."""
    return oriented.normalise(np.round(oriented.from_rings(rings, lattice), ROUND))


def hulls_on(
    rotated: oriented.Rotated, windows: NDArray[np.float64], beyond: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Bound oriented boxes, within the windows of their scenes but for those that go beyond."""
    hulls = _at_borders(oriented.hull(rotated), windows)
    low, high = np.tile(windows[:, :2], 2), np.tile(windows[:, 2:], 2)
    return np.where(beyond[:, None], hulls, np.clip(hulls, low, high))


def _at_borders(boxes: NDArray[np.float64], windows: NDArray[np.float64]) -> NDArray[np.float64]:
    boxes = np.round(boxes, ROUND)
    return np.where(np.abs(boxes - windows) <= _TOUCHES_PX, windows, boxes)


def _check_columns(path: Path, table: pa.Table) -> None:
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise LabelError(
            f"{path} has no column {', '.join(missing)}, expected the columns that geo-retina "
            f"detect writes; merge its file as it was written"
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
