"""Grids, tiles and blocks: integers and affines only.

Pixel frame: x right, y down, origin at the outer corner of the top-left pixel, so pixel i
covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from geo_retina.errors import GridError, OptionError
from geo_retina.geodesy import steps_on_ellipsoid_m, true_aspect, unit_m


class Window(NamedTuple):
    """A rectangle of whole pixels: first row, first column, height, width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        """x_min, y_min, x_max, y_max in grid pixels."""
        return self.col, self.row, self.col + self.width, self.row + self.height

    def within(self, other: Window) -> Window | None:
        """Cut off what lies outside of another window; None if that is all."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row + self.height, other.row + other.height) - row
        width = min(self.col + self.width, other.col + other.width) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None


def area_of(windows: Iterable[Window]) -> int:
    """Count the pixels of windows, none of which overlap."""
    return sum(window.height * window.width for window in windows)


@dataclass(frozen=True)
class Grid:
    """The pixels that the model sees, and where they lie on the ground.

    Attributes:
        crs: the coordinate system, or None for an image without georeferencing.
        affine: maps pixel (x, y) to CRS (x, y); may rotate and shear.
        height: rows.
        width: columns.
        pixel_m: side of a pixel in metres, where there is no CRS to tell; None for unknown.

    Examples:
        >>> import pyproj
        >>> from affine import Affine
        >>> from geo_retina import Grid
        >>> crs = pyproj.CRS("EPSG:32632")
        >>> grid = Grid(crs, Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000), 100, 200)
        >>> grid.shape, round(grid.gsd_m, 3)
        ((100, 200), 0.5)
    """

    crs: pyproj.CRS | None
    affine: Affine
    height: int
    width: int
    pixel_m: float | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise GridError(f"a grid of {self.height} x {self.width} pixels has no ground")
        if self.affine.determinant == 0 or not math.isfinite(self.affine.determinant):
            raise GridError(f"the affine {tuple(self.affine)[:6]} cannot be inverted")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.height, self.width)

    def pixels_to_crs(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (..., 2) pixel positions x, y to the CRS, in float64."""
        return _apply(self.affine, points_px)

    def crs_to_pixels(self, points_crs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (..., 2) positions x, y in the CRS to pixels, in float64."""
        return _apply(~self.affine, points_crs)

    @cached_property
    def gsd_m(self) -> float | None:
        """Ground length of a pixel's side in metres at the grid's centre.

        The geometric mean of the two sides, by the CRS's unit, or measured on the ellipsoid
        where the CRS is geographic or stretches the ground by more than 1 % there, as Web
        Mercator does away from the equator. Without a CRS, ``pixel_m``.
        """
        if self.crs is None:
            return self.pixel_m
        ground_m = math.sqrt(np.prod(self.sides_on_ellipsoid_m()))
        if self.crs.is_geographic:
            return ground_m
        planar_m = math.sqrt(abs(self.affine.determinant)) * unit_m(self.crs)
        is_stretched = math.isfinite(ground_m) and abs(ground_m / planar_m - 1) > 0.01
        return ground_m if is_stretched else planar_m

    def sides_on_ellipsoid_m(self) -> NDArray[np.float64]:
        """Measure (2,) ground lengths of the pixel at the centre, along x and y of the frame.

        Not finite without a CRS, or off the globe.
        """
        centre_xy = np.array([self.width / 2, self.height / 2])
        steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        return steps_on_ellipsoid_m(self.crs, self.pixels_to_crs(centre_xy + steps))

    @property
    def aspect(self) -> float:
        """Width of a pixel over its height, on the ground."""
        drawn = np.hypot([self.affine.a, self.affine.b], [self.affine.d, self.affine.e])
        return true_aspect(float(drawn[0] / drawn[1]), self.sides_on_ellipsoid_m())

    def sides_m(self) -> NDArray[np.float64]:
        """Measure (2,) ground lengths of the pixel at the centre; ``gsd_m`` is their mean.

        Not finite where that is not known.
        """
        return (self.gsd_m or math.nan) * np.array([self.aspect**0.5, self.aspect**-0.5])

    def lattice_crs(self, points: int = 33) -> NDArray[np.float64]:
        """Return (N, 2) positions in the CRS of a lattice over the grid, its border included."""
        x, y = np.meshgrid(np.linspace(0, self.width, points), np.linspace(0, self.height, points))
        return self.pixels_to_crs(np.column_stack([x.ravel(), y.ravel()]))


def _apply(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.asarray(points, dtype=np.float64)
    x, y = points[..., 0], points[..., 1]
    return np.stack(
        [affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f], axis=-1
    )


@dataclass(frozen=True)
class Tile:
    """One window that the network sees at once.

    Attributes:
        index: position in the plan, row-major.
        row: row of the tile in the plan.
        col: column of the tile in the plan.
        window: its pixels, clipped to the grid; the network sees it padded to ``tile_px``.
        core: the part this tile owns; cores partition the grid.
    """

    index: int
    row: int
    col: int
    window: Window
    core: Window


@dataclass(frozen=True)
class Block:
    """A rectangle of tiles that is read and detected together.

    Attributes:
        index: position among the scene's blocks, row-major.
        tile_rows: rows of tiles in the plan.
        tile_cols: columns of tiles in the plan.
        window: the pixels of all its tiles.
    """

    index: int
    tile_rows: range
    tile_cols: range
    window: Window


@dataclass(frozen=True)
class TilePlan:
    """How a grid is cut: arithmetic only, so that a plan of millions of tiles costs nothing.

    Tile origins are multiples of the step, which is a multiple of the network's coarsest
    stride, so that a network sees an object in every tile at the phase in which it would see
    it in the whole image.

    Attributes:
        height: rows of the grid.
        width: columns of the grid.
        tile_px: side of the square that the network sees.
        step_px: distance of neighbouring tile origins; ``tile_px - step_px`` is the overlap.
    """

    height: int
    width: int
    tile_px: int
    step_px: int

    def __post_init__(self) -> None:
        if not 0 < self.step_px <= self.tile_px:
            raise OptionError(
                f"tiles of {self.tile_px} px with a step of {self.step_px} px leave gaps; "
                "the step must lie between 1 and the tile size"
            )

    @property
    def overlap_px(self) -> int:
        """Pixels that neighbouring tiles share."""
        return self.tile_px - self.step_px

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return _tiles_along(self.height, self.tile_px, self.step_px)

    @property
    def cols(self) -> int:
        """Columns of tiles."""
        return _tiles_along(self.width, self.tile_px, self.step_px)

    @property
    def pixel_factor(self) -> float:
        """Pixels through the network over pixels of the grid."""
        return len(self) * self.tile_px**2 / (self.height * self.width)

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(index) for index in range(len(self)))

    def tile(self, index: int) -> Tile:
        """Return the tile at a row-major position."""
        row, col = divmod(index, self.cols)
        top, bottom, own_top, own_bottom = self._span(row, self.rows, self.height)
        left, right, own_left, own_right = self._span(col, self.cols, self.width)
        return Tile(
            index,
            row,
            col,
            Window(top, left, bottom - top, right - left),
            Window(own_top, own_left, own_bottom - own_top, own_right - own_left),
        )

    def _span(self, i: int, n: int, size: int) -> tuple[int, int, int, int]:
        """Start and end of the i-th tile of n along an axis, and of the part it owns."""
        start, end = i * self.step_px, min(i * self.step_px + self.tile_px, size)
        half = self.overlap_px // 2
        own_start = 0 if i == 0 else start + half
        own_end = size if i == n - 1 else start + self.step_px + half
        return start, end, own_start, own_end

    def windows_px(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N, 4) windows x_min y_min x_max y_max of the tiles at (N,) positions."""
        row, col = np.divmod(np.asarray(indices, dtype=np.int64), self.cols)
        start = np.stack([col, row], axis=-1) * self.step_px
        end = np.minimum(start + self.tile_px, [self.width, self.height])
        return np.concatenate([start, end], axis=-1)

    def cores_px(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N, 4) boxes of what the tiles at (N,) positions own, as ``windows_px``."""
        row, col = np.divmod(np.asarray(indices, dtype=np.int64), self.cols)
        place, half = np.stack([col, row], axis=-1), self.overlap_px // 2
        last = np.array([self.cols, self.rows]) - 1
        start = np.where(place == 0, 0, place * self.step_px + half)
        end = np.where(place == last, [self.width, self.height], (place + 1) * self.step_px + half)
        return np.concatenate([start, end], axis=-1)

    def blocks(self, block_px: int, *, width_px: int | None = None) -> list[Block]:
        """Group tiles into rectangles whose sides are at most about ``block_px``.

        Every tile is in one block. Blocks are of even size, so that none is a sliver.

        Args:
            block_px: height, and width unless that is given.
            width_px: width, where it is another.
        """
        row_groups = self._groups(self.rows, block_px)
        col_groups = self._groups(self.cols, width_px or block_px)
        return [
            Block(index, rows, cols, self._block_window(rows, cols))
            for index, (rows, cols) in enumerate(
                (rows, cols) for rows in row_groups for cols in col_groups
            )
        ]

    def blocks_over(self, chosen: NDArray[np.bool_], block_px: int) -> list[Block]:
        """Group chosen tiles into rectangles, none of which holds a tile that is not chosen.

        Args:
            chosen: (rows, cols) of the plan.
            block_px: as for ``blocks``, whose blocks these are the chosen parts of.

        Returns:
            Blocks by the block of ``blocks`` that they are cut from, then from top to bottom
            and left to right; empty where no tile is chosen. Each chosen tile is in one.
        """
        found: list[Block] = []
        col_groups = self._groups(self.cols, block_px)
        for row_group in self._groups(self.rows, block_px):
            band = chosen[row_group.start : row_group.stop]
            occupied: NDArray[np.bool_] = np.asarray(band.any(axis=0))
            if not occupied.any():
                continue
            for col_group in col_groups:
                if not occupied[col_group.start : col_group.stop].any():
                    continue
                part = band[:, col_group.start : col_group.stop]
                for rows, cols in rectangles(part, row_group.start, col_group.start):
                    found.append(Block(len(found), rows, cols, self._block_window(rows, cols)))
        return found

    def parts_of(self, block: Block, chosen: NDArray[np.bool_]) -> list[Block]:
        """Cut a block into rectangles of chosen tiles, all with its index.

        Args:
            block: of this plan.
            chosen: (rows, cols) of the block's tiles.
        """
        cut = rectangles(chosen, block.tile_rows.start, block.tile_cols.start)
        return [
            Block(block.index, rows, cols, self._block_window(rows, cols)) for rows, cols in cut
        ]

    def block_of(self, tile: int, index: int) -> Block:
        """Make a block of one tile, under a given index."""
        row, col = divmod(tile, self.cols)
        rows, cols = range(row, row + 1), range(col, col + 1)
        return Block(index, rows, cols, self._block_window(rows, cols))

    def _groups(self, n: int, block_px: int) -> list[range]:
        per_block = max(1, (block_px - self.overlap_px) // self.step_px)
        count = math.ceil(n / per_block)
        edges = [i * n // count for i in range(count + 1)]
        return [range(a, b) for a, b in pairwise(edges)]

    def _block_window(self, rows: range, cols: range) -> Window:
        top, left = rows.start * self.step_px, cols.start * self.step_px
        bottom = min((rows.stop - 1) * self.step_px + self.tile_px, self.height)
        right = min((cols.stop - 1) * self.step_px + self.tile_px, self.width)
        return Window(top, left, bottom - top, right - left)

    def core_of(self, block: Block) -> Window:
        """Find the part of the grid that a block's tiles own; these partition the grid too."""
        first = self.tile(block.tile_rows[0] * self.cols + block.tile_cols[0]).core
        last = self.tile(block.tile_rows[-1] * self.cols + block.tile_cols[-1]).core
        return Window(
            first.row,
            first.col,
            last.row + last.height - first.row,
            last.col + last.width - first.col,
        )

    def tiles_of(self, block: Block) -> list[Tile]:
        """List the tiles of a block, row-major."""
        return [self.tile(r * self.cols + c) for r in block.tile_rows for c in block.tile_cols]


def rectangles(
    chosen: NDArray[np.bool_], first_row: int = 0, first_col: int = 0
) -> list[tuple[range, range]]:
    """Cut a mask into rectangles: runs along rows, as far down as the rows below have them too."""
    growing: dict[tuple[int, int], int] = {}  # run of columns: the row it began in
    done: list[tuple[range, range]] = []
    nothing = np.zeros((1, chosen.shape[1]), np.bool_)
    for row, line in enumerate(np.concatenate([chosen, nothing]), first_row):
        steps = np.flatnonzero(np.diff(line, prepend=False, append=False)) + first_col
        runs = {(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)}
        for run in [run for run in growing if run not in runs]:
            done.append((range(growing.pop(run), row), range(*run)))
        for run in runs:
            growing.setdefault(run, row)
    return sorted(done, key=lambda each: (each[0].start, each[1].start))


def _tiles_along(size: int, tile_px: int, step_px: int) -> int:
    return 1 if size <= tile_px else math.ceil((size - tile_px) / step_px) + 1


def plan_tiles(
    shape: tuple[int, int], *, tile_px: int, overlap_px: int, stride_px: int, exact: bool = False
) -> TilePlan:
    """Cut a grid into overlapping tiles on the network's stride grid.

    Args:
        shape: (height, width) of the grid.
        tile_px: the largest tile side allowed, or with ``exact`` the very one.
        overlap_px: the least overlap of neighbouring tiles.
        stride_px: coarsest stride of the network; tile sides and steps are multiples of it.
        exact: take ``tile_px`` (rounded up to the stride) as it is, instead of looking for
            the side up to it that sends the fewest pixels through the network.

    Returns:
        The plan. Its overlap is at least ``overlap_px``, unless one tile sees the whole grid,
        and its last row and column may reach beyond the grid, where the network sees padding.

    Raises:
        OptionError: the overlap leaves no room to step forward.
    """
    largest = math.ceil(tile_px / stride_px) * stride_px
    least = math.ceil(max(2 * overlap_px, overlap_px + stride_px) / stride_px) * stride_px
    if overlap_px < 0 or largest - overlap_px < stride_px:
        raise OptionError(
            f"an overlap of {overlap_px} px is too large for tiles of {largest} px; "
            f"choose an overlap from 0 to {largest - stride_px} px or larger tiles"
        )
    sides = [largest] if exact or least > largest else range(largest, least - 1, -stride_px)
    plans = [TilePlan(*shape, side, (side - overlap_px) // stride_px * stride_px) for side in sides]
    whole = math.ceil(max(shape) / stride_px) * stride_px
    if not exact and whole <= largest:  # one tile has no neighbour to overlap
        plans.append(TilePlan(*shape, whole, whole))
    return min(plans, key=lambda plan: plan.rows * plan.cols * plan.tile_px**2)
