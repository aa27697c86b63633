"""Positions from one CRS to another, and lengths and areas on the ellipsoid."""

from __future__ import annotations

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_retina.geodesy.systems import (
    WGS84,
    Crs,
    full_turn,
    is_on_earth,
    is_same,
    transformer,
    unit_m,
)

Positions = NDArray[np.float64]

_GEOD = pyproj.Geod(ellps="WGS84")
METRES_A_DEGREE = float(np.pi / 180 * _GEOD.a)
"""On the equator, and along a meridian of a sphere of that radius."""

_BACK = 1e-6
"""Share of an extent by which a position may miss its place after going there and back."""


def move(positions: Positions, source: Crs, target: Crs) -> Positions:
    """Move (..., 2) positions to another CRS; not finite where it has no such place.

    They stay as they are where either CRS is None or both are the same.
    """
    if source is None or target is None or is_same(source, target):
        return positions
    xy = np.asarray(positions, dtype=np.float64)
    x, y = transformer(source, target).transform(xy[..., 0], xy[..., 1])
    return np.stack([np.asarray(x), np.asarray(y)], axis=-1).reshape(xy.shape)


def are_expressible(positions: Positions, source: Crs, target: Crs) -> NDArray[np.bool_]:
    """Find which (N, 2) positions another CRS can hold: they come back to where they were."""
    there = move(positions, source, target)
    fine: NDArray[np.bool_] = np.asarray(np.isfinite(there).all(axis=1))
    if source is None or target is None or is_same(source, target) or not fine.any():
        return np.asarray(fine)
    back = move(np.where(fine[:, None], there, there[fine][0]), target, source)
    missed = np.abs(back - positions)
    turn = full_turn(source)
    if turn is not None:
        missed[:, 0] = np.minimum(missed[:, 0] % turn, turn - missed[:, 0] % turn)
    scale = turn or 1e3 / unit_m(source)
    extent = np.ptp(positions[np.isfinite(positions).all(axis=1)], axis=0).max(initial=0.0)
    return np.asarray(fine & (missed <= _BACK * max(extent, scale)).all(axis=1))


def to_lon_lat(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 2) longitudes and latitudes in degrees; not finite where the CRS has no place.

    Those of a local CRS are its metres as if they were laid around the equator, true to scale
    along both axes: ``METRES_A_DEGREE``.
    """
    if is_on_earth(crs):
        return move(positions, crs, WGS84).reshape(-1, 2)
    return np.asarray(positions * (unit_m(crs) / METRES_A_DEGREE)).reshape(-1, 2)


def from_lon_lat(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 2) positions in a CRS of longitudes and latitudes; inverse of ``to_lon_lat``."""
    if is_on_earth(crs):
        return move(positions, WGS84, crs).reshape(-1, 2)
    return np.asarray(positions * (METRES_A_DEGREE / unit_m(crs))).reshape(-1, 2)


def geocentric_m(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 3) geocentric positions, in metres.

    A straight line between two of them is the distance on the ground to a millionth, up to
    10 km, in whatever zones they lie: a map projection is never in the way. In a local CRS they
    are its own metres, in a plane.
    """
    if not is_on_earth(crs):
        flat = np.asarray(positions, np.float64).reshape(-1, 2) * unit_m(crs)
        return np.column_stack([flat, np.zeros(len(flat))])
    lon, lat = np.radians(to_lon_lat(positions, crs)).T
    normal = _GEOD.a / np.sqrt(1 - _GEOD.es * np.sin(lat) ** 2)
    axes = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), (1 - _GEOD.es) * np.sin(lat))
    return np.asarray(normal[:, None] * np.stack(axes, axis=1))


def square_metres(positions: Positions, crs: pyproj.CRS) -> NDArray[np.float64]:
    """Give the (N,) ground areas in m2 of one square unit of the CRS at each position."""
    step = 1e-5 if crs.is_geographic else 1.0
    origin = geocentric_m(positions, crs)
    along_x = geocentric_m(positions + np.array([step, 0.0]), crs) - origin
    along_y = geocentric_m(positions + np.array([0.0, step]), crs) - origin
    return np.asarray(np.linalg.norm(np.cross(along_x, along_y), axis=1) / step**2)


def steps_on_ellipsoid_m(crs: Crs, positions: Positions) -> NDArray[np.float64]:
    """Give the (2,) ground lengths from the first of (3, 2) positions to the two others.

    Not finite without a CRS, in a local one, or off the globe.
    """
    geodetic = crs and crs.geodetic_crs
    geod = crs and crs.get_geod()
    if not geodetic or not geod:
        return np.full(2, np.nan)
    lon, lat = move(positions, crs, geodetic).T * unit_m(geodetic)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return np.full(2, np.nan)
    _, _, sides_m = geod.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:], radians=True)
    return np.abs(np.asarray(sides_m))


def true_aspect(drawn: float, true_m: NDArray[np.float64]) -> float:
    """Give the width of a pixel over its height on the ground.

    Args:
        drawn: as the affine draws it.
        true_m: (2,) its sides on the ellipsoid; where they are finite and differ by more than
            1 %, as in degrees, the map draws lengths east and north differently, and they count.
    """
    if np.isfinite(true_m).all() and abs(true_m[0] / true_m[1] / drawn - 1) > 0.01:
        return float(true_m[0] / true_m[1])
    return drawn


def middle_longitude(x: NDArray[np.float64], turn: float) -> float:
    """Give the middle of longitudes, as the direction that they have on average; 0 for none."""
    angles = x[np.isfinite(x)] * (2 * np.pi / turn)
    if not len(angles):
        return 0.0
    return float(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()) * (turn / (2 * np.pi)))


def wrap(
    x: NDArray[np.float64], turn: float, around: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Count longitudes within half a turn of another."""
    return x - turn * np.round((x - around) / turn)


def positions_in(
    positions: Positions, source: Crs, target: Crs, bounds: NDArray[np.float64]
) -> list[Positions]:
    """Move (N, 2) positions to where polygons are, as often as these may hold them.

    In degrees, polygons may lie a full turn away from where positions are counted.

    Args:
        positions: in ``source``; not finite among the results where the target has no place.
        source: their CRS.
        target: CRS of the polygons.
        bounds: (4,) of all polygons.
    """
    there = move(positions, source, target)
    turn = full_turn(target)
    if turn is None or not len(there):
        return [there]
    middle = middle_longitude(there[:, 0], turn)
    there = np.column_stack([wrap(there[:, 0], turn, middle), there[:, 1]])
    low, high = np.nanmin(there[:, 0]), np.nanmax(there[:, 0])
    copies = [
        there + np.array([k * turn, 0.0])
        for k in range(-2, 3)
        if low + k * turn <= bounds[2] and high + k * turn >= bounds[0]
    ]
    return copies or [there]
