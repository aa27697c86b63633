"""Train, val and test: ground is divided out by place, in whole blocks or areas, never by file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.dataset.split_areas import Areas, gather_areas
from geo_retina.errors import TrainingError
from geo_retina.geodesy import WGS84, is_on_earth, reproject, unit_m
from geo_retina.grid import Grid, Window
from geo_retina.options import SplitOptions, it_has
from geo_retina.scene import Scene

if TYPE_CHECKING:
    from geo_retina.dataset.labelled_scenes import TrainingSet

BlockKey: TypeAlias = tuple[str, int, int]
"""CRS, column and row of a ground block."""

Key = TypeVar("Key", bound=Hashable)

_SHARED = 0.01
"""Share of a scene's ground that may lie under one in another CRS: frames of pixels, rounded."""


class Subset(IntEnum):
    """What ground is for."""

    TRAIN = 0
    """Samples are drawn from it."""

    VAL = 1
    """It chooses checkpoint, early stop and thresholds."""

    TEST = 2
    """It chooses nothing, and is scored once."""


@dataclass(frozen=True)
class Split:
    """Which ground is for validation and which for the test; all other ground is for training.

    Attributes:
        block_m: side of a block on the ground.
        val: the validation blocks, each (CRS, column, row). The same place in another year's
            scene lies in the same block.
        share: share of the scenes' ground for validation.
        test: the test blocks.
        test_share: share of the scenes' ground for the test.
        areas: polygons of validation and of test ground, instead of blocks.
    """

    block_m: float
    val: frozenset[BlockKey]
    share: float
    test: frozenset[BlockKey] = frozenset()
    test_share: float = 0.0
    areas: Areas | None = None

    @property
    def has_test(self) -> bool:
        """Whether there is test ground."""
        return self.test_share > 0

    def describe(self, part: Subset) -> str:
        """Describe the ground of a part for people."""
        share = self.share if part is Subset.VAL else self.test_share
        if self.areas is not None:
            return f"{self.areas.describe(part)}, {share:.0%} of the ground"
        blocks = self.val if part is Subset.VAL else self.test
        return f"{len(blocks)} ground blocks of {self.block_m:g} m, {share:.0%} of the ground"

    def parts(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.int8]:
        """Find the part to which pixel positions x, y (..., 2) of a grid belong."""
        points_px = np.asarray(points_px, dtype=np.float64)
        if not points_px.size:
            return np.zeros(points_px.shape[:-1], np.int8)
        if self.areas is not None:
            return self.areas.parts(grid, points_px)
        col_row = _block_numbers(grid, points_px, self.block_m)
        low = col_row.reshape(-1, 2).min(axis=0)
        high = col_row.reshape(-1, 2).max(axis=0)
        if np.prod((high - low + 1).astype(np.float64)) > col_row.size:  # far apart
            blocks, where = np.unique(col_row.reshape(-1, 2), axis=0, return_inverse=True)
            crs = frame_name(grid.crs)
            found = [self._part_of((crs, int(col), int(row))) for col, row in blocks]
            return np.array(found, np.int8)[where.reshape(col_row.shape[:-1])]
        table = self._table(grid, low, high)
        offset = col_row - low
        return np.asarray(table[offset[..., 0], offset[..., 1]])

    def mask(self, grid: Grid, window: Window) -> NDArray[np.int8]:
        """Find the part to which the pixels of a window belong, with their centre.

        Returns:
            (height, width) numbers of ``Subset``.
        """
        whole = self._whole(grid, window)
        if whole is not None:
            return np.full((window.height, window.width), whole, np.int8)
        x_min, y_min, x_max, y_max = window.box_px
        x, y = np.meshgrid(np.arange(x_min, x_max) + 0.5, np.arange(y_min, y_max) + 0.5)
        return self.parts(grid, np.stack([x, y], axis=-1))

    def _whole(self, grid: Grid, window: Window) -> int | None:
        """Find the one part that a window lies in, where its corners show it: for most windows."""
        if self.areas is not None:
            return self.areas.whole(grid, window)
        corners = boxes.corners(np.array([window.box_px], dtype=np.float64))[0]
        col_row = _block_numbers(grid, corners, self.block_m)
        # Numbers at the outermost corners bound all those inside.
        table = self._table(grid, col_row.min(axis=0), col_row.max(axis=0))
        return int(table.flat[0]) if (table == table.flat[0]).all() else None

    def on(self, part: Subset, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find which pixel positions x, y (..., 2) of a grid lie on ground of a part."""
        return np.asarray(self.parts(grid, points_px) == part)

    def on_val(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find which pixel positions x, y (..., 2) of a grid lie on validation ground."""
        return self.on(Subset.VAL, grid, points_px)

    def on_test(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find which pixel positions x, y (..., 2) of a grid lie on test ground."""
        return self.on(Subset.TEST, grid, points_px)

    def outlines(self, part: Subset) -> Callable[[pyproj.CRS], NDArray[np.object_]] | None:
        """Return the outliner of a part's blocks in any CRS; None where areas divide the ground."""
        if self.areas is not None:
            return None
        return partial(self._squares, self.val if part is Subset.VAL else self.test)

    def _squares(self, blocks: Set[BlockKey], crs: pyproj.CRS) -> NDArray[np.object_]:
        """Outline the blocks that lie in a CRS, as squares there; may be empty."""
        name = frame_name(crs)
        col_row = np.array([key[1:] for key in sorted(blocks) if key[0] == name], np.float64)
        block = self.block_m / unit_m(crs)
        low = col_row.reshape(-1, 2) * block
        return np.asarray(shapely.box(*low.T, *(low + block).T), dtype=object)

    def _table(
        self, grid: Grid, low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> NDArray[np.int8]:
        """Look up the part of each block of a range, by column and row from ``low``."""
        crs = frame_name(grid.crs)
        return np.array(
            [
                [self._part_of((crs, col, row)) for row in range(int(low[1]), int(high[1]) + 1)]
                for col in range(int(low[0]), int(high[0]) + 1)
            ],
            dtype=np.int8,
        )

    def _part_of(self, key: BlockKey) -> Subset:
        if key in self.val:
            return Subset.VAL
        return Subset.TEST if key in self.test else Subset.TRAIN


def split_ground(
    scenes: Sequence[Scene],
    options: SplitOptions,
    *,
    seed: int,
    training_set: TrainingSet | None = None,
) -> Split:
    """Divide the ground under the scenes into train, val and test.

    Blocks, or the places of a column, are visited in the order of a hash of their name and the
    seed, and each goes to a part where that brings the part's share of the ground nearer to its
    fraction; first to test, so that the share for validation does not change the test ground. More
    scenes, or scenes in another order, so change little in where a place lands.

    Args:
        scenes: whose ground is divided.
        options: how.
        seed: random state of the split.
        training_set: with the labelled ground and the labels' places; needed where the options
            name a column and no areas.

    Raises:
        LabelError: the areas or their column cannot be used.
        TrainingError: a part gets no ground, or scenes of different CRSs show the same ground.
    """
    if options.areas is not None or options.column is not None:
        return _split_areas(scenes, options, seed, training_set)
    _refuse_shared_ground(scenes)
    area: dict[BlockKey, float] = {}
    for scene in scenes:
        for key, pixels in _blocks_under(scene.grid, options.block_m).items():
            area[key] = area.get(key, 0.0) + pixels
    least = 3 if options.test_fraction else 2
    if len(area) < least:
        raise TrainingError(
            f"all scenes lie in {'one ground block' if len(area) == 1 else 'two ground blocks'} of "
            f"{options.block_m:g} m, so none is left to "
            f"{'validate on' if len(area) == 1 else 'test on'}; lower split.block_m to a fraction "
            f"of the scenes' extent"
        )
    val, test = _deal(area, options, seed)
    total = sum(area.values())
    return Split(
        options.block_m,
        frozenset(val),
        sum(area[key] for key in val) / total,
        frozenset(test),
        sum(area[key] for key in test) / total,
    )


def _refuse_shared_ground(scenes: Sequence[Scene]) -> None:
    """Refuse ground seen in two CRSs: blocks are counted in each, and would be divided twice.

    Raises:
        TrainingError: scenes of different CRSs show the same ground.
    """
    placed = [scene for scene in scenes if is_on_earth(scene.grid.crs)]
    frames = np.array([frame_name(scene.grid.crs) for scene in placed])
    if len(set(frames)) < 2:
        return
    outlines = []
    for scene in placed:
        grid = scene.grid
        assert grid.crs is not None
        outline = boxes.to_polygons(np.array([[0.0, 0.0, grid.width, grid.height]]), grid)[0]
        outlines.append(reproject(np.array([outline], dtype=object), grid.crs, WGS84)[0])
    ground = np.array(outlines, dtype=object)
    i, j = shapely.STRtree(ground).query(ground, predicate="intersects")
    across = frames[i] != frames[j]
    i, j = i[across], j[across]
    shared = shapely.area(shapely.intersection(ground[i], ground[j]))
    much = np.flatnonzero(shared > _SHARED * shapely.area(ground[i]))
    if len(much):
        one, other = placed[i[much[0]]], placed[j[much[0]]]
        raise TrainingError(
            f"{one.path} in {frames[i[much[0]]]} and {other.path} in {frames[j[much[0]]]} show the "
            "same ground, which blocks in either CRS would deal to different parts; warp them to "
            "one CRS, or divide the ground by polygons with split.areas"
        )


def _split_areas(
    scenes: Sequence[Scene],
    options: SplitOptions,
    seed: int,
    training_set: TrainingSet | None,
) -> Split:
    """Deal out areas by the names that they have."""
    found = gather_areas(options, training_set)
    pixels = found.pixels(scenes)
    if options.column is None:
        val, test = set(pixels), set[str]()
    else:
        val, test = _named_or_dealt(pixels, options, seed, found.source)
    areas = found.choose(val, test, scenes)
    total = float(sum(scene.grid.height * scene.grid.width for scene in scenes))
    in_val, tests = areas.pixels(scenes)
    if not in_val:
        raise TrainingError(
            f"no validation area of {found.source} lies under a scene; check that they show the "
            "same place, or name other places in split.val"
        )
    return Split(
        options.block_m, frozenset(), in_val / total, test_share=tests / total, areas=areas
    )


def _named_or_dealt(
    pixels: Mapping[str, float], options: SplitOptions, seed: int, source: str
) -> tuple[set[str], set[str]]:
    """Choose the validation and the test places, by name where the options have them."""
    for name in (*(options.val or ()), *(options.test or ())):
        if name not in pixels:
            known = it_has(name, sorted(pixels), none="no place at all", say="it holds")
            raise TrainingError(
                f"no ground under the scenes has {options.column} = {name} in {source}, which "
                f"split names; {known}"
            )
    val, test = set(options.val or ()), set(options.test or ())
    free = {name: p for name, p in pixels.items() if name not in val | test}
    if options.val is not None and options.test is not None:
        return val, test
    if len(free) < 2 and options.val is None:
        raise TrainingError(
            f"the column {options.column} of {source} names {len(pixels)} places under the scenes "
            f"({', '.join(sorted(pixels)[:5])}), too few to deal out; name a column with more, or "
            "leave split.column out to split by blocks"
        )
    total = sum(pixels.values())
    if options.test is None and options.test_fraction:
        test = _reach(free, options.test_fraction * total, f"test {seed}")
    if options.val is None:
        free = {name: p for name, p in free.items() if name not in test}
        val = _reach(free, options.val_fraction * total, seed)
    return val, test


def _deal(
    area: Mapping[BlockKey, float], options: SplitOptions, seed: int
) -> tuple[set[BlockKey], set[BlockKey]]:
    """Choose validation blocks and test blocks at random."""
    total = sum(area.values())
    test: set[BlockKey] = set()
    if options.test_fraction:
        test = _reach(area, options.test_fraction * total, f"test {seed}")
    free = {key: pixels for key, pixels in area.items() if key not in test}
    return _reach(free, options.val_fraction * total, seed), test


def _reach(area: Mapping[Key, float], target_area: float, seed: int | str) -> set[Key]:
    """Choose keys at random that together have about a given area, and at least one."""
    chosen: set[Key] = set()
    held = 0.0
    for key in sorted(area, key=lambda key: _hash(key, seed)):
        if abs(held + area[key] - target_area) < abs(held - target_area):
            chosen.add(key)
            held += area[key]
    if not chosen and area:
        chosen = {min(area, key=lambda key: (area[key], repr(key)))}
    return chosen


def _hash(key: Hashable, seed: int | str) -> bytes:
    named = key if isinstance(key, tuple) else (key,)
    return hashlib.sha256(repr((seed, *named)).encode()).digest()


@lru_cache(maxsize=256)
def frame_name(crs: pyproj.CRS | None) -> str:
    """Name a CRS in short and always alike; scenes without one share a frame, lying apart."""
    if crs is None:
        return "none"
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.to_wkt()


def _unit_m(grid: Grid) -> float:
    return 1.0 if grid.crs is None else unit_m(grid.crs)


def _block_numbers(grid: Grid, points_px: NDArray[np.float64], block_m: float) -> NDArray[np.int64]:
    """Compute column and row (..., 2) of the blocks under pixel positions (..., 2)."""
    points_m = grid.pixels_to_crs(points_px) * _unit_m(grid)
    return np.floor(points_m / block_m).astype(np.int64)


def _blocks_under(grid: Grid, block_m: float) -> dict[BlockKey, float]:
    """List the ground blocks that a grid shows, with the pixels of it in each."""
    block = block_m / _unit_m(grid)
    whole = np.array([[0.0, 0.0, grid.width, grid.height]])
    outline = boxes.to_polygons(whole, grid)[0]
    low = np.floor(np.array(outline.bounds[:2]) / block).astype(np.int64)
    high = np.floor(np.array(outline.bounds[2:]) / block).astype(np.int64)
    col, row = (a.ravel() for a in np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1])
    cells = shapely.box(col * block, row * block, (col + 1) * block, (row + 1) * block)
    pixels = shapely.area(shapely.intersection(cells, outline)) / abs(grid.affine.determinant)
    crs = frame_name(grid.crs)
    return {
        (crs, int(c), int(r)): float(p) for c, r, p in zip(col, row, pixels, strict=True) if p > 0.5
    }
