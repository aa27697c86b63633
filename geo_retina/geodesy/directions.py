"""Directions of lines on the ground, from one CRS's north to another's."""

from __future__ import annotations

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_retina.geodesy.positions import Positions, move
from geo_retina.geodesy.systems import Crs, is_same, unit_m

_STEP_M = 10.0
"""Length of the line that is moved: short enough to be straight, far above what floats resolve."""


def turn_azimuths(
    azimuths_deg: NDArray[np.float64], positions: Positions, source: Crs, target: Crs
) -> NDArray[np.float64]:
    """Say by the north of another CRS which way lines run.

    Args:
        azimuths_deg: (N,) of lines, clockwise from the grid north of ``source``, or geodesic where
            that is in degrees; not a number where not known.
        positions: (N, 2) where the lines are, in ``source``.
        source: CRS.
        target: CRS.

    Returns:
        (N,) in [0, 180), as ``target`` has them. As they were where either CRS is None or both
        are the same.
    """
    if source is None or target is None or is_same(source, target) or not len(azimuths_deg):
        return azimuths_deg
    starts = np.asarray(positions, dtype=np.float64)
    ends = _stepped(starts, azimuths_deg, source)
    turned = _azimuths(move(starts, source, target), move(ends, source, target), target) % 180.0
    return np.where(turned >= 180.0, 0.0, turned)  # a remainder just under 0 rounds to the turn


def _stepped(starts: Positions, azimuths_deg: NDArray[np.float64], crs: pyproj.CRS) -> Positions:
    if not crs.is_geographic:
        angle = np.radians(azimuths_deg)
        step = _STEP_M / unit_m(crs)
        return starts + step * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    degree = np.degrees(unit_m(crs))
    lon, lat = (starts * degree).T
    geod = crs.get_geod()
    assert geod is not None  # a geographic CRS has an ellipsoid
    ends = geod.fwd(lon, lat, azimuths_deg, np.full(len(lon), _STEP_M))[:2]
    # Longitudes may be counted beyond 180.
    ends_lon = ends[0] + 360.0 * np.round((lon - ends[0]) / 360.0)
    return np.stack([ends_lon, ends[1]], axis=1) / degree


def _azimuths(starts: Positions, ends: Positions, crs: pyproj.CRS) -> NDArray[np.float64]:
    if not crs.is_geographic:
        return np.asarray(np.degrees(np.arctan2(*(ends - starts).T)))
    degree = np.degrees(unit_m(crs))
    geod = crs.get_geod()
    assert geod is not None
    return np.asarray(geod.inv(*(starts * degree).T, *(ends * degree).T)[0])
