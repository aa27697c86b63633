"""The land: parcels around jittered points, what each is used for, and the roads between them.

All in metres of the scene's own frame: x right, y down, origin at the outer corner of the
top-left pixel. Parcel (row, col) has its point in that cell of a square grid and owns the
ground nearer to it than to any other point.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geo_retina.synth.noise import mix

CELL_M, FREIGHT_CELL_M = 64.0, 96.0
"""Distance of neighbouring parcels' points, on average; lorries and wagons need more room."""

_JITTER = 0.3
"""Points stay this share of a cell around its centre: the nearest lies in the 3 x 3 cells."""


class Use(IntEnum):
    """What a parcel is used for."""

    FIELD = 0
    MEADOW = 1
    PARKING = 2
    ORCHARD = 3
    WOOD = 4
    YARD = 5
    HOMES = 6
    LORRIES = 7
    SIDINGS = 8
    STACKS = 9


class Way(IntEnum):
    """What runs along the border of two parcels."""

    NONE = 0
    TRACK = 1
    ROAD = 2


_HALF_WIDTH_M = {Way.NONE: 0.0, Way.TRACK: 1.6, Way.ROAD: 3.6}
_USE_SHARE = np.cumsum([0.21, 0.13, 0.15, 0.13, 0.14, 0.11, 0.13])
_FREIGHT_SHARE = np.cumsum([0.12, 0.08, 0.06, 0.0, 0.06, 0.0, 0.06, 0.24, 0.17, 0.21])
_BUILT = (Use.PARKING, Use.YARD, Use.HOMES, Use.LORRIES, Use.STACKS)


@dataclass(frozen=True)
class Parcel:
    """One parcel.

    Attributes:
        row: row of its cell.
        col: column of its cell.
        x: its point in metres.
        y: its point in metres.
        use: what it is used for.
        key: 32 random bits.
        angle: direction in radians of its rows, furrows and fronts.
    """

    row: int
    col: int
    x: float
    y: float
    use: Use
    key: int
    angle: float


@dataclass(frozen=True)
class Land:
    """The parcels of a seed, without end in any direction.

    Attributes:
        seed: of the scene.
        cell_m: side of the cells.
        freight: goods are handled here, in rows at any angle.
    """

    seed: int
    cell_m: float
    freight: bool = False

    def parcel(self, row: int, col: int) -> Parcel:
        """Return the parcel of a cell; cells may be negative."""
        return _parcel(self, row, col)

    def way(self, a: Parcel, b: Parcel) -> Way:
        """Choose what runs along the border of two parcels, the same either way round."""
        first, second = sorted([(a.row, a.col), (b.row, b.col)])
        chance = mix(self.seed, 31, *first, *second) / 2**32
        road = 0.45 if a.use in _BUILT or b.use in _BUILT else 0.12
        return Way.ROAD if chance < road else Way.TRACK if chance < road + 0.2 else Way.NONE

    def half_width_m(self, a: Parcel, b: Parcel) -> float:
        """Return half the width of that way."""
        return _HALF_WIDTH_M[self.way(a, b)]

    def around(self, parcel: Parcel, reach: int) -> list[Parcel]:
        """List the other parcels up to ``reach`` cells away, row by row."""
        span = range(-reach, reach + 1)
        return [
            self.parcel(parcel.row + i, parcel.col + j)
            for i in span
            for j in span
            if (i, j) != (0, 0)
        ]

    def room_m(self, parcel: Parcel, points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Measure (N,) distances of (N, 2) points x, y to the end of a parcel or its ways.

        Negative outside.
        """
        others = self.around(parcel, 2)
        centres = np.array([[p.x, p.y] for p in others])
        own = np.array([parcel.x, parcel.y])
        apart = np.linalg.norm(centres - own, axis=1)
        far = ((points_m[:, None] - centres) ** 2).sum(axis=2)
        near = ((points_m - own) ** 2).sum(axis=1)
        half = np.array([self.half_width_m(parcel, other) for other in others])
        return ((far - near[:, None]) / (2 * apart) - half).min(axis=1)


@lru_cache(maxsize=1 << 14)
def _parcel(land: Land, row: int, col: int) -> Parcel:
    key = mix(land.seed, 17, row, col)
    jitter_x, jitter_y, of_use, turn = (mix(key, i) / 2**32 for i in range(4))
    if land.freight:
        angle, share = turn * np.pi, _FREIGHT_SHARE
    else:
        # Rows within some 16 degrees of the axes keep the boxes of neighbours apart.
        angle, share = (turn - 0.5) * 0.55 + np.pi / 2 * (key >> 7 & 1), _USE_SHARE
    return Parcel(
        row,
        col,
        (col + 0.5 + _JITTER * (2 * jitter_x - 1)) * land.cell_m,
        (row + 0.5 + _JITTER * (2 * jitter_y - 1)) * land.cell_m,
        Use(int(np.searchsorted(share, of_use, side="right").clip(0, len(share) - 1))),
        key,
        float(angle),
    )
