"""Many scenes as one: a grid over all of them, on which the first valid pixel counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.errors import GeoRetinaError, SceneError, SceneMismatchError
from geo_retina.geodesy import is_same, missing_crs, move
from geo_retina.grid import Grid, Window
from geo_retina.scene.opening import on_grid
from geo_retina.scene.reading import Scene
from geo_retina.scene.values import ValueMap

_ALIGNED_PX = 0.01
"""Grids that agree to within this everywhere are one: files write coordinates rounded."""

_EDGE_POINTS = 33  # along each side of a scene, where its outline bends in another CRS


@dataclass(frozen=True)
class Member:
    """A scene of a mosaic.

    Attributes:
        scene: read on its own pixels, or warped to those of the mosaic.
        row: row of the mosaic's grid where its first row lies.
        col: column likewise.
    """

    scene: Scene
    row: int
    col: int

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        """x_min, y_min, x_max, y_max in pixels of the mosaic's grid."""
        height, width = self.scene.grid.shape
        return self.col, self.row, self.col + width, self.row + height


ReadMember = Callable[[Member, Window], tuple[NDArray[Any], NDArray[np.bool_]]]
"""Reads a window of a scene, in its own pixels."""


@dataclass(frozen=True)
class Mosaic:
    """Scenes on one grid, to be read as one scene is. Picklable, as they are.

    Attributes:
        path: name of the mosaic; it has no file.
        members: its scenes; where several have valid pixels, the first one's count.
        grid: over all of them.
        bands: numbers of the bands, as the first scene has them.
        dtype: of the pixels.
        band_names: as the first scene has them.
        crs: in which polygons are written: that of the first scene's file.
        values: from the numbers to values, where all scenes share that; see ``make_mosaic``.
        grid_to_file: None, as no one file has these pixels.
    """

    path: str
    members: tuple[Member, ...]
    grid: Grid
    bands: tuple[int, ...]
    dtype: str
    band_names: tuple[str, ...]
    crs: pyproj.CRS | None
    values: ValueMap | None
    grid_to_file: Affine | None = None

    @property
    def name(self) -> str:
        """Name of the mosaic."""
        return self.path

    @property
    def scenes(self) -> list[Scene]:
        """Its scenes, by precedence."""
        return [member.scene for member in self.members]

    @property
    def day(self) -> date | None:
        """On which day all of its scenes were taken; None where that is not known, or not one."""
        days = {scene.day for scene in self.scenes}
        return days.pop() if len(days) == 1 else None

    @property
    def middle_x(self) -> float:
        """First coordinate of the middle of the first scene's file, in ``crs``."""
        return self.scenes[0].middle_x

    @property
    def paths(self) -> list[str]:
        """Files of its scenes."""
        return [scene.path for scene in self.scenes]

    @property
    def boxes_px(self) -> NDArray[np.float64]:
        """(N, 4) boxes of its scenes in pixels of the grid, x_min y_min x_max y_max."""
        return np.array([member.box_px for member in self.members], np.float64)

    def under(self, *windows: Window) -> Mosaic:
        """Keep only the scenes that any of some windows shows."""
        left, top, right, bottom = self.boxes_px.T
        shown = np.zeros(len(self.members), np.bool_)
        for window in windows:
            x_min, y_min, x_max, y_max = window.box_px
            shown |= (left < x_max) & (right > x_min) & (top < y_max) & (bottom > y_min)
        return replace(self, members=tuple(self.members[i] for i in np.flatnonzero(shown)))

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the grid; as ``Scene.read``."""
        return self.compose(window, lambda member, own: member.scene.read(own))

    def compose(self, window: Window, read: ReadMember) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Put a window together from what is read of each scene, in its own pixels."""
        pixels = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), np.bool_)
        for member in self.under(window).members:
            left, top, right, bottom = member.box_px
            row, stop_row = max(window.row, top), min(window.row + window.height, bottom)
            col, stop_col = max(window.col, left), min(window.col + window.width, right)
            here = np.s_[
                row - window.row : stop_row - window.row, col - window.col : stop_col - window.col
            ]
            if valid[here].all():
                continue  # covered by scenes before it
            own = Window(row - member.row, col - member.col, stop_row - row, stop_col - col)
            more, is_valid = read(member, own)
            if self.values != member.scene.values:
                more = member.scene.to_values(more)
            fresh = is_valid & ~valid[here]
            pixels[:, *here][:, fresh] = more[:, fresh]
            valid[here] |= fresh
        return pixels, valid


def make_mosaic(
    scenes: Sequence[Scene], name: str
) -> tuple[Mosaic, list[tuple[Scene, GeoRetinaError]]]:
    """Put scenes on one grid.

    The grid is that of the first scene that has a CRS, continued over all of them. Scenes whose
    pixels lie on it are read as they are; the others, and those in another CRS, are warped to it.

    Args:
        scenes: at least one, by precedence where they overlap.
        name: of the mosaic.

    Returns:
        The mosaic, and the scenes that have no place in it, with the reason: they differ from the
        first in data type or number of bands, have no CRS, or lie where its CRS does not reach.
        Scenes whose numbers stand for values in ways that differ are read as values.

    Raises:
        SceneError: no scene has a CRS.
    """
    first = next((scene for scene in scenes if scene.grid.crs is not None), None)
    if first is None:
        raise _nowhere(scenes[0])
    members: list[Member] = []
    refused: list[tuple[Scene, GeoRetinaError]] = []
    for scene in scenes:
        try:
            _check_kind(scene, first)
            members.append(_place(scene, first.grid))
        except GeoRetinaError as error:
            refused.append((scene, error))
    boxes = np.array([member.box_px for member in members])
    col, row = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    grid = _shifted(first.grid, row, col, (bottom - row, right - col))
    moved = tuple(replace(m, row=m.row - row, col=m.col - col) for m in members)
    values, dtype = first.values, first.dtype
    if any(member.scene.values != values for member in members):
        values, dtype = None, "float32"
    mosaic = Mosaic(name, moved, grid, first.bands, dtype, first.band_names, first.crs, values)
    return mosaic, refused


def _check_kind(scene: Scene, first: Scene) -> None:
    if scene.dtype != first.dtype or len(scene.bands) != len(first.bands):
        raise SceneMismatchError(
            f"{scene.path} has {len(scene.bands)} bands of {scene.dtype}, but {first.path} has "
            f"{len(first.bands)} of {first.dtype}; a mosaic needs scenes of one kind"
        )


def _nowhere(scene: Scene) -> SceneError:
    so = "nothing says where it lies in a mosaic"
    return SceneError(missing_crs(scene.path, so, otherwise=", or leave it out"))


def _place(scene: Scene, base: Grid) -> Member:
    """Find a scene's place on the pixels of a grid, warping it where they are not its own."""
    crs = scene.grid.crs
    if crs is None:
        raise _nowhere(scene)
    assert base.crs is not None
    points_px = _edge_points(scene.grid)
    points_crs = scene.grid.pixels_to_crs(points_px)
    same_crs = is_same(crs, base.crs)
    if not same_crs:
        points_crs = move(points_crs, crs, base.crs)
    on_base = base.crs_to_pixels(points_crs)
    if not np.isfinite(on_base).all():
        raise SceneError(
            f"{scene.path} lies where the mosaic's CRS, {base.crs.name}, has no coordinates; "
            "begin with a scene nearer to it, or leave it out"
        )
    shift = np.round(on_base[0] - points_px[0])
    if same_crs and np.abs(on_base - points_px - shift).max() <= _ALIGNED_PX:
        return Member(scene, int(shift[1]), int(shift[0]))
    col, row = (math.floor(v) for v in on_base.min(axis=0))
    right, bottom = (math.ceil(v) for v in on_base.max(axis=0))
    grid = _shifted(base, row, col, (bottom - row, right - col))
    return Member(on_grid(scene, grid), row, col)


def _edge_points(grid: Grid) -> NDArray[np.float64]:
    """Return (N, 2) positions x, y along the border of a grid, the origin first."""
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    zeros, ones = np.zeros_like(along), np.ones_like(along)
    sides = [(along, zeros), (ones, along), (along, ones), (zeros, along)]
    unit = np.concatenate([np.stack(side, axis=1) for side in sides])
    return unit * [grid.width, grid.height]


def _shifted(grid: Grid, row: int, col: int, shape: tuple[int, int]) -> Grid:
    """Move a grid to another first pixel of the same lattice, in another shape."""
    return Grid(grid.crs, grid.affine @ Affine.translation(col, row), *shape)
