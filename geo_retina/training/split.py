"""Fit and tune: ground is dealt out by place, in whole blocks, never by file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.errors import TrainingError
from geo_retina.grid import Grid, Window
from geo_retina.options import SplitOptions
from geo_retina.scene import Scene

BlockKey: TypeAlias = tuple[str, int, int]
"""CRS, column and row of a ground block."""


@dataclass(frozen=True)
class Split:
    """Which ground tunes; all other ground fits.

    Attributes:
        block_m: side of a block on the ground.
        tune: the blocks that tune, each (CRS, column, row). The same place in another year's
            scene lies in the same block.
        share: share of the scenes' ground that tunes.
    """

    block_m: float
    tune: frozenset[BlockKey]
    share: float

    def on_tune(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which pixel positions x, y (..., 2) of a grid lie on tuning ground."""
        points_px = np.asarray(points_px, dtype=np.float64)
        if not points_px.size:
            return np.zeros(points_px.shape[:-1], np.bool_)
        col_row = _block_numbers(grid, points_px, self.block_m)
        low = col_row.reshape(-1, 2).min(axis=0)
        high = col_row.reshape(-1, 2).max(axis=0)
        table = self._table(grid, low, high)
        offset = col_row - low
        return np.asarray(table[offset[..., 0], offset[..., 1]])

    def tune_mask(self, grid: Grid, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window lie, with their centre, on tuning ground.

        Returns:
            (height, width) bool.
        """
        x_min, y_min, x_max, y_max = window.box_px
        corners = np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]])
        col_row = _block_numbers(grid, corners.astype(np.float64), self.block_m)
        # Numbers at the outermost corners bound all those inside; most windows end here.
        table = self._table(grid, col_row.min(axis=0), col_row.max(axis=0))
        if table.all() or not table.any():
            return np.full((window.height, window.width), bool(table.any()))
        x, y = np.meshgrid(np.arange(x_min, x_max) + 0.5, np.arange(y_min, y_max) + 0.5)
        return self.on_tune(grid, np.stack([x, y], axis=-1))

    def tune_polygons(self, crs: pyproj.CRS) -> NDArray[np.object_]:
        """The tuning blocks that lie in a CRS, as squares there; may be empty."""
        name = _crs_name(crs)
        col_row = np.array([key[1:] for key in sorted(self.tune) if key[0] == name], np.float64)
        axes = crs.axis_info
        block = self.block_m / (axes[0].unit_conversion_factor if axes else 1.0)
        low = col_row.reshape(-1, 2) * block
        return np.asarray(shapely.box(*low.T, *(low + block).T), dtype=object)

    def _table(
        self, grid: Grid, low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each block of a range tunes, by column and row from ``low``."""
        crs = _crs_name(grid.crs)
        return np.array(
            [
                [(crs, int(col), int(row)) in self.tune for row in range(low[1], high[1] + 1)]
                for col in range(low[0], high[0] + 1)
            ],
            dtype=np.bool_,
        )


def split_ground(scenes: Sequence[Scene], options: SplitOptions, *, seed: int) -> Split:
    """Deal the ground under the scenes to fit and tune.

    Blocks are visited in the order of a hash of their place and the seed, and each goes to
    tune where that brings tune's share of the ground nearer to ``tune_fraction``. More scenes,
    or scenes in another order, so change little in where a place lands.

    Raises:
        TrainingError: all the ground lies in one block.
    """
    area: dict[BlockKey, float] = {}
    for scene in scenes:
        for key, pixels in _blocks_under(scene.grid, options.block_m).items():
            area[key] = area.get(key, 0.0) + pixels
    if len(area) < 2:
        raise TrainingError(
            f"all scenes lie in one ground block of {options.block_m:g} m, so none is left to "
            "tune on; lower split.block_m to a fraction of the scenes' extent"
        )
    total = sum(area.values())
    wanted = options.tune_fraction * total
    tune: set[BlockKey] = set()
    held = 0.0
    for key in sorted(area, key=lambda key: _hash(key, seed)):
        if abs(held + area[key] - wanted) < abs(held - wanted):
            tune.add(key)
            held += area[key]
    if not tune:
        smallest = min(area, key=lambda key: (area[key], key))
        tune, held = {smallest}, area[smallest]
    return Split(options.block_m, frozenset(tune), held / total)


def _hash(key: BlockKey, seed: int) -> bytes:
    return hashlib.sha256(repr((seed, *key)).encode()).digest()


@lru_cache(maxsize=256)
def _crs_name(crs: pyproj.CRS | None) -> str:
    """A short, stable name of the CRS."""
    assert crs is not None
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.to_wkt()


def _block_numbers(grid: Grid, points_px: NDArray[np.float64], block_m: float) -> NDArray[np.int64]:
    """Column and row (..., 2) of the blocks under pixel positions (..., 2)."""
    assert grid.crs is not None
    axes = grid.crs.axis_info
    unit_m = axes[0].unit_conversion_factor if axes else 1.0
    return np.floor(grid.pixels_to_crs(points_px) * unit_m / block_m).astype(np.int64)


def _blocks_under(grid: Grid, block_m: float) -> dict[BlockKey, float]:
    """Ground blocks that a grid shows, with the pixels of it in each."""
    assert grid.crs is not None
    axes = grid.crs.axis_info
    block = block_m / (axes[0].unit_conversion_factor if axes else 1.0)
    whole = np.array([[0.0, 0.0, grid.width, grid.height]])
    outline = boxes.to_polygons(whole, grid)[0]
    low = np.floor(np.array(outline.bounds[:2]) / block).astype(np.int64)
    high = np.floor(np.array(outline.bounds[2:]) / block).astype(np.int64)
    col, row = (a.ravel() for a in np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1])
    cells = shapely.box(col * block, row * block, (col + 1) * block, (row + 1) * block)
    pixels = shapely.area(shapely.intersection(cells, outline)) / abs(grid.affine.determinant)
    crs = _crs_name(grid.crs)
    return {
        (crs, int(c), int(r)): float(p) for c, r, p in zip(col, row, pixels, strict=True) if p > 0.5
    }
