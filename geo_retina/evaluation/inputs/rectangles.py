"""The smallest rectangles around objects, at any angle, measured on the ground."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import oriented
from geo_retina.geodesy import geocentric_m

Sides = NDArray[np.float64]
"""(N, 3) length and width in metres and the direction of the length in degrees, of a frame with
the axes of the CRS; not numbers where an object has no place."""


def measure_sides(geometries: NDArray[np.object_], crs: pyproj.CRS) -> Sides:
    """Measure the smallest rectangles around (N,) geometries on the ground."""
    return _rectangles(geometries, crs)[0][:, 2:]


def as_rectangles(geometries: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.object_]:
    """Turn (N,) geometries into the smallest rectangles around them, as the ground sees it."""
    rectangles, middle, units = _rectangles(geometries, crs)
    placed = np.isfinite(rectangles).all(axis=1)
    corners = oriented.corners(rectangles[placed]) / units[placed, None]
    found = geometries.copy()
    found[placed] = shapely.polygons(corners + middle[placed, None])
    return found


def _rectangles(
    geometries: NDArray[np.object_], crs: pyproj.CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Find (N, 5) rectangles in metres from (N, 2) middles, and (N, 2) metres a unit there."""
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    placed = np.isfinite(middle).all(axis=1)
    units = np.full((len(geometries), 2), np.nan)
    units[placed] = _metres_a_unit(middle[placed], crs)
    placed &= np.isfinite(units).all(axis=1)
    found = np.full((len(geometries), 5), np.nan)
    points, owner = shapely.get_coordinates(geometries[placed], return_index=True)
    points = (points - middle[placed][owner]) * units[placed][owner]
    flat = shapely.set_coordinates(geometries[placed].copy(), points)
    found[placed] = oriented.minimum_rectangles(flat)
    return found, middle, units


def _metres_a_unit(positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """Measure (N, 2) ground lengths of one unit of the CRS along x and y, at positions."""
    step = 1e-5 if crs.is_geographic else 1.0
    sides = []
    for axis in ([step, 0.0], [0.0, step]):
        half = np.array(axis) / 2
        ends = geocentric_m(positions + half, crs) - geocentric_m(positions - half, crs)
        sides.append(np.linalg.norm(ends, axis=1) / step)
    return np.stack(sides, axis=1)
