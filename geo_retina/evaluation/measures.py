"""Lengths, areas and cells on the ground, whatever the CRS."""

from __future__ import annotations

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_retina.grid import transformer

_WGS84 = pyproj.CRS("EPSG:4326")
_GEOD = pyproj.Geod(ellps="WGS84")
_METRES_A_DEGREE = float(np.pi / 180 * _GEOD.a)
_COLUMN_BITS = 32
NOWHERE = -1
"""Key of the cell of a position that the globe has not."""


def to_lon_lat(positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(N, 2) longitudes and latitudes in degrees; not finite where the CRS has no such place."""
    move = transformer(crs, _WGS84)
    return np.column_stack(move.transform(*positions.T)).reshape(-1, 2)


def from_lon_lat(positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(N, 2) positions in a CRS of longitudes and latitudes in degrees."""
    move = transformer(_WGS84, crs)
    return np.column_stack(move.transform(*positions.T)).reshape(-1, 2)


def on_ellipsoid_m(positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(N, 3) geocentric positions, in metres.

    A straight line between two of them is the distance on the ground to a millionth, up to
    10 km, in whatever zones they lie: a map projection is never in the way.
    """
    lon, lat = np.radians(to_lon_lat(positions, crs)).T
    normal = _GEOD.a / np.sqrt(1 - _GEOD.es * np.sin(lat) ** 2)
    axes = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), (1 - _GEOD.es) * np.sin(lat))
    return normal[:, None] * np.stack(axes, axis=1)


def square_metres(positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(N,) ground area in m2 of one square unit of the CRS at each position."""
    step = 1e-5 if crs.is_geographic else 1.0
    origin = on_ellipsoid_m(positions, crs)
    along_x = on_ellipsoid_m(positions + np.array([step, 0.0]), crs) - origin
    along_y = on_ellipsoid_m(positions + np.array([0.0, step]), crs) - origin
    return np.linalg.norm(np.cross(along_x, along_y), axis=1) / step**2


def cell_keys(lon_lat: NDArray[np.float64], side_m: float) -> NDArray[np.int64]:
    """Keys of the square cells that hold positions.

    Rows of cells follow the parallels and each has columns of its own, so that a cell is as
    wide as it is high everywhere on the globe.

    Args:
        lon_lat: (N, 2) degrees.
        side_m: of the cells.

    Returns:
        (N,) keys, ``NOWHERE`` for what is not finite. The same place has the same key always.
    """
    ok = np.asarray(np.isfinite(lon_lat).all(axis=1))
    lon, lat = np.where(ok[:, None], lon_lat, 0.0).T
    step = side_m / _METRES_A_DEGREE
    row = np.floor((lat + 90) / step).astype(np.int64)
    col = np.floor((lon + 180) / _width(row, step)).astype(np.int64)
    return np.where(ok, (row << _COLUMN_BITS) | col, NOWHERE)


def cell_corners(keys: NDArray[np.int64], side_m: float) -> NDArray[np.float64]:
    """(N, 4) west, south, east and north of cells, in degrees."""
    step = side_m / _METRES_A_DEGREE
    row, col = keys >> _COLUMN_BITS, keys & ((1 << _COLUMN_BITS) - 1)
    width = _width(row, step)
    west, south = col * width - 180, row * step - 90
    return np.column_stack([west, south, west + width, south + step])


def cells_between(
    west: float, south: float, east: float, north: float, side_m: float
) -> NDArray[np.int64]:
    """Keys of all cells that touch a range of degrees, from south to north."""
    step = side_m / _METRES_A_DEGREE
    rows = np.arange(np.floor((south + 90) / step), np.floor((north + 90) / step) + 1)
    keys = []
    for row in rows.astype(np.int64):
        width = _width(np.array([row]), step)[0]
        col = np.arange(np.floor((west + 180) / width), np.floor((east + 180) / width) + 1)
        keys.append((row << _COLUMN_BITS) | col.astype(np.int64))
    return np.concatenate(keys)


def _width(row: NDArray[np.int64], step: float) -> NDArray[np.float64]:
    """Width in degrees of the cells of a row."""
    middle = np.radians(np.clip((row + 0.5) * step - 90, -89.9, 89.9))
    return np.asarray(step / np.cos(middle))
