"""The lattices of pixels that scenes are on, where their boxes can be compared as such."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.boxes import corners, intersection
from geo_retina.detections import Detections
from geo_retina.grid import Grid
from geo_retina.merge import Scenes

_SAME = 1e-9
"""Relative difference of pixels that are the same: a lattice of 100,000 px shifts by 1e-4 px."""

ROUND = 6
"""Decimals of a pixel that survive a way through a file and back."""


@dataclass(frozen=True, eq=False)
class Lattices:
    """The lattices that scenes of some runs are on, and where on them.

    Attributes:
        grids: one per lattice, its first scene's.
        scenes: where all scenes lie, run by run.
        turns: (S,) times that each was moved round the Earth, so that scenes in degrees which
            meet at a meridian are neighbours in pixels too.
        extents: (S, 2) least and greatest x of each in its CRS, moved so.
    """

    grids: list[Grid]
    scenes: Scenes
    turns: NDArray[np.int64]
    extents: NDArray[np.float64]

    def grid_of(self, scene: int) -> Grid:
        """Return the grid that places pixels of a scene's lattice where that scene has them."""
        grid = self.grids[self.scenes.lattice[scene]]
        back = Affine.translation(-int(self.turns[scene]) * turn_of(grid.crs), 0)
        return Grid(grid.crs, back @ grid.affine, grid.height, grid.width)


def lattices_of(each: Sequence[Grid], settled: NDArray[np.int64]) -> Lattices:
    """Find the lattices that scenes are on: one CRS, and pixels of one size and turn.

    Scenes that lie a part of a pixel apart are on one lattice too: their boxes can be compared.

    Args:
        each: the grids of all scenes.
        settled: (S,) equal for scenes that were merged with each other before.
    """
    grids: list[Grid] = []
    number = []
    for grid in each:
        place = next((k for k, known in enumerate(grids) if _on_lattice(grid, known)), None)
        if place is None:
            place = len(grids)
            grids.append(grid)
        number.append(place)
    lattice = np.array(number, dtype=np.int64)
    extents = np.array([_extent(grid) for grid in each]).reshape(-1, 2)
    turns = np.zeros(len(each), np.int64)
    windows = np.empty((len(each), 4))
    for k, grid in enumerate(grids):
        own = np.flatnonzero(lattice == k)
        if turn := turn_of(grid.crs):
            turns[own] = _turns_to_meet(extents[own].mean(axis=1) / turn)
        for scene in own.tolist():
            moved = np.array([turns[scene] * turn, 0.0])
            corner = grid.crs_to_pixels(each[scene].pixels_to_crs(np.zeros(2)) + moved)
            size_xy = np.array([each[scene].width, each[scene].height])
            windows[scene] = np.round(np.concatenate([corner, corner + size_xy]), ROUND)
            extents[scene] += moved[0]
    # One value for a lattice, so that areas within it compare as pixels do.
    pixel_m2 = np.array([(g.gsd_m or 1.0) ** 2 if len(grids) > 1 else 1.0 for g in grids])
    scenes = Scenes(windows, lattice, settled, pixel_m2[lattice])
    return Lattices(grids, scenes, turns, extents)


def turn_of(crs: pyproj.CRS | None) -> float:
    """Return once round the Earth in a CRS of longitudes, by its unit; 0 in any other."""
    if crs is None or not crs.is_geographic:
        return 0.0
    return float(2 * np.pi / crs.axis_info[0].unit_conversion_factor)


def _turns_to_meet(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count (S,) whole turns that bring scenes together, the first of which stays.

    The circle is cut where the widest gap between scenes is.

    Args:
        places: (S,) of their middles, in turns.
    """
    around = places % 1.0
    ordered = np.sort(around)
    gaps = np.diff(ordered, append=ordered[0] + 1)
    start = ordered[(np.argmax(gaps) + 1) % len(ordered)]
    turns = np.round(start + (around - start) % 1.0 - places).astype(np.int64)
    return np.asarray(turns - turns[0])


def _extent(grid: Grid) -> tuple[float, float]:
    x = grid.pixels_to_crs(corners(np.array([[0.0, 0, grid.width, grid.height]]))[0])[:, 0]
    return float(x.min()), float(x.max())


def _on_lattice(grid: Grid, other: Grid) -> bool:
    a, b = (np.array([m.a, m.b, m.d, m.e]) for m in (grid.affine, other.affine))
    return bool(np.abs(a - b).max() <= _SAME * np.abs(b).max()) and _same_crs(grid.crs, other.crs)


@lru_cache(maxsize=1024)
def _same_crs(a: pyproj.CRS | None, b: pyproj.CRS | None) -> bool:
    return a == b or bool(a and b and a.equals(b, ignore_axis_order=True))


@dataclass(frozen=True, eq=False)
class JoinedScenes:
    """Windows for objects that were joined over several scenes of an earlier merge.

    The window of the one scene that they name would say that they end in the midst of another.

    Attributes:
        first: the scenes of all runs.
        held: (H, 5) windows that hold several of these, and the number of the first.
    """

    first: Scenes
    held: NDArray[np.float64]

    @classmethod
    def of(cls, scenes: Scenes, parts: Iterable[Detections]) -> JoinedScenes:
        """Look through detections for such objects.

        Args:
            scenes: of all runs.
            parts: at least all detections of scenes that were merged with others before.
        """
        held = np.empty((0, 5))
        for found in parts:  # those over one seam have one window
            held = np.unique(np.concatenate([held, _held(found, scenes)[1]]), axis=0)
        return cls(scenes, held)

    @property
    def scenes(self) -> Scenes:
        """The scenes, with those windows added as scenes."""
        origin, first = self.origin, self.first
        windows = np.concatenate([first.windows, self.held[:, :4]])
        each = (first.lattice[origin], first.settled[origin], first.pixel_area[origin])
        return Scenes(windows, *each)

    @property
    def origin(self) -> NDArray[np.int64]:
        """(S,) the scene that each of ``scenes`` stands for."""
        return np.concatenate([np.arange(len(self.first)), self.held[:, 4].astype(np.int64)])

    def place(self, found: Detections) -> Detections:
        """Change ``tile`` of such objects to the number of their window among ``scenes``."""
        at, held = _held(found, self.first)
        if not len(at):
            return found
        known = {row.tobytes(): k for k, row in enumerate(self.held)}
        tile = found.tile.copy()
        tile[at] = [len(self.first) + known[row.tobytes()] for row in held]
        return replace(found, tile=tile)


def _held(found: Detections, scenes: Scenes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find positions of objects joined over several scenes; (J, 5) windows and first scenes."""
    own = scenes.windows_px(found.tile)
    beyond = (found.boxes_px[:, :2] < own[:, :2]) | (found.boxes_px[:, 2:] > own[:, 2:])
    shared = np.bincount(scenes.settled)[scenes.settled] > 1
    at = np.flatnonzero(found.joined & beyond.any(axis=1) & shared[found.tile])
    held = np.empty((len(at), 5))
    for row, (box, first) in enumerate(zip(found.boxes_px[at], found.tile[at], strict=True)):
        parts = (scenes.settled == scenes.settled[first]) & (
            scenes.lattice == scenes.lattice[first]
        )
        parts &= intersection(scenes.windows, np.broadcast_to(box, scenes.windows.shape)) > 0
        parts[first] = True
        low, high = scenes.windows[parts, :2].min(axis=0), scenes.windows[parts, 2:].max(axis=0)
        held[row] = [*low, *high, first]
    return at, held
