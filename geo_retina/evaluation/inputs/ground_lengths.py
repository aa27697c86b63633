"""Square cells on the ground, whatever the CRS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.geodesy import METRES_A_DEGREE

_COLUMN_BITS = 32
NOWHERE = -1
"""Key of the cell of a position that the globe has not."""


def cell_keys(
    lon_lat: NDArray[np.float64], side_m: float, *, flat: bool = False
) -> NDArray[np.int64]:
    """Compute the keys of the square cells that hold positions.

    Rows of cells follow the parallels and each has columns of its own, so that a cell is as
    wide as it is high everywhere on the globe.

    Args:
        lon_lat: (N, 2) degrees.
        side_m: of the cells.
        flat: the degrees stand for metres of a plane, as those of a local CRS do.

    Returns:
        (N,) keys, ``NOWHERE`` for what is not finite. The same place has the same key always.
    """
    ok = np.asarray(np.isfinite(lon_lat).all(axis=1))
    lon, lat = np.where(ok[:, None], lon_lat, 0.0).T
    step = side_m / METRES_A_DEGREE
    row = np.floor((lat + 90) / step).astype(np.int64)
    col = np.floor((lon + 180) / _width(row, step, flat=flat)).astype(np.int64)
    return np.where(ok, (row << _COLUMN_BITS) | col, NOWHERE)


def cell_corners(
    keys: NDArray[np.int64], side_m: float, *, flat: bool = False
) -> NDArray[np.float64]:
    """Compute (N, 4) west, south, east and north of cells, in degrees."""
    step = side_m / METRES_A_DEGREE
    row, col = keys >> _COLUMN_BITS, keys & ((1 << _COLUMN_BITS) - 1)
    width = _width(row, step, flat=flat)
    west, south = col * width - 180, row * step - 90
    return np.column_stack([west, south, west + width, south + step])


def cells_between(
    bounds: NDArray[np.float64], side_m: float, *, flat: bool = False
) -> NDArray[np.int64]:
    """List the keys of all cells between west, south, east, north in degrees, south first."""
    west, south, east, north = bounds
    step = side_m / METRES_A_DEGREE
    rows = np.arange(np.floor((south + 90) / step), np.floor((north + 90) / step) + 1)
    keys = []
    for row in rows.astype(np.int64):
        width = _width(np.array([row]), step, flat=flat)[0]
        col = np.arange(np.floor((west + 180) / width), np.floor((east + 180) / width) + 1)
        keys.append((row << _COLUMN_BITS) | col.astype(np.int64))
    return np.concatenate(keys)


def _width(row: NDArray[np.int64], step: float, *, flat: bool) -> NDArray[np.float64]:
    """Compute the width in degrees of the cells of a row."""
    if flat:
        return np.full(row.shape, step)
    middle = np.radians(np.clip((row + 0.5) * step - 90, -89.9, 89.9))
    return np.asarray(step / np.cos(middle))
