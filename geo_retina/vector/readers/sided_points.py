"""Points with a length, a width and an azimuth: the rectangles that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.geodesy import is_on_earth, move, unit_m
from geo_retina.options import LabelOptions
from geo_retina.vector.readers.columns import angle_column, size_column

if TYPE_CHECKING:
    import geopandas as gpd

_SIDES = ("length_column", "width_column", "azimuth_column")
_STEP_M = 5.0
"""How far to both sides of a point a direction on the map is followed over the ground."""

_CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])


def rectangle_columns(
    frame: gpd.GeoDataFrame, options: LabelOptions, name: str
) -> NDArray[np.float64] | None:
    """Read (N, 3) length and width in metres and azimuth in degrees; None where none is named.

    Raises:
        LabelError: some of the three columns are not named or not there, a length is no number
            above 0, or an azimuth no number.
    """
    named = {key: getattr(options, key) for key in _SIDES}
    absent = [key for key, column in named.items() if column is None]
    if len(absent) == len(_SIDES):
        return None
    if absent:
        raise LabelError(
            f"the points of {name} are read as rectangles, for which data.{absent[0]} is missing; "
            "name the columns of length, width and azimuth, all three"
        )
    length = size_column(frame, options.length_column, name, role="length")
    width = size_column(frame, options.width_column, name, role="width")
    azimuth = angle_column(frame, str(options.azimuth_column), name)
    assert length is not None  # both are named
    assert width is not None
    return np.column_stack([length, width, azimuth])


def point_rectangles(
    points: NDArray[np.object_], sides: NDArray[np.float64], crs: pyproj.CRS, name: str
) -> NDArray[np.object_]:
    """Draw the rectangles that points stand for.

    Args:
        points: (N,) shapely points in ``crs``.
        sides: (N, 3) length and width in metres and azimuth of the length in degrees, clockwise
            from the grid north of ``crs``; geodesic where that is in degrees.
        crs: of the points and of the result.
        name: what messages call the layer.

    Returns:
        (N,) polygons of four corners. Metres are those on the ellipsoid, or of the plane where
        the CRS has no place on Earth.

    Raises:
        LabelError: the geometries are no points.
    """
    if len(points) and not (shapely.get_type_id(points) == 0).all():
        raise LabelError(
            f"{name} holds polygons, but length, width and azimuth columns are for points; leave "
            "the columns out, as a polygon's own shape tells its rectangle"
        )
    centres = shapely.get_coordinates(points)
    halves = sides[:, None, :2] / 2 * _CORNERS
    reach_m = np.hypot(halves[..., 0], halves[..., 1])
    azimuth = sides[:, 2:] + np.degrees(np.arctan2(halves[..., 1], halves[..., 0]))
    if not is_on_earth(crs):
        turn = np.radians(azimuth)
        step = np.stack([np.sin(turn), np.cos(turn)], axis=-1) * (reach_m / unit_m(crs))[..., None]
        return np.asarray(shapely.polygons(centres[:, None] + step))
    geodetic, geod = crs.geodetic_crs, crs.get_geod()
    assert geodetic is not None  # it lies on Earth
    assert geod is not None
    degrees = np.degrees(unit_m(geodetic))
    if not crs.is_geographic:
        turn = np.radians(sides[:, 2])
        step = np.stack([np.sin(turn), np.cos(turn)], axis=1) * (_STEP_M / unit_m(crs))
        ends = (move(centres + way * step, crs, geodetic) * degrees for way in (-1, 1))
        geodesic, _, _ = geod.inv(*np.concatenate(list(ends), axis=1).T)
        azimuth = azimuth + (geodesic - sides[:, 2])[:, None]
    lon, lat = np.repeat(move(centres, crs, geodetic) * degrees, 4, axis=0).T
    lon, lat, _ = geod.fwd(lon, lat, azimuth.ravel(), reach_m.ravel())
    corners = move(np.column_stack([lon, lat]) / degrees, geodetic, crs)
    return np.asarray(shapely.polygons(corners.reshape(-1, 4, 2)))
