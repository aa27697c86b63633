"""Small layers of squares and points, in metres from one place in UTM."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely

UTM = "EPSG:32633"
ORIGIN_XY = np.array([500_000.0, 5_300_000.0])


def squares(boxes, crs=UTM, **columns):
    boxes = np.asarray(boxes, float).reshape(-1, 4) + np.tile(ORIGIN_XY, 2)
    return gpd.GeoDataFrame(columns, geometry=list(shapely.box(*boxes.T)), crs=crs)


def points(xy, crs=UTM, **columns):
    xy = np.asarray(xy, float).reshape(-1, 2) + ORIGIN_XY
    return gpd.GeoDataFrame(columns, geometry=list(shapely.points(xy)), crs=crs)


def around(xy, scores, half=2.0, **columns):
    """Detections: squares centred at the points."""
    xy = np.asarray(xy, float).reshape(-1, 2)
    return squares(np.concatenate([xy - half, xy + half], axis=1), score=scores, **columns)
