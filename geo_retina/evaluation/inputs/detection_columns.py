"""What a table of detections holds: geometries, scores, sizes in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.evaluation.inputs.objects import fills_bounds

if TYPE_CHECKING:
    import geopandas as gpd

_PIXEL_COLUMNS = ("x_min_px", "y_min_px", "x_max_px", "y_max_px")


def found_geometries(frame: gpd.GeoDataFrame, name: str) -> NDArray[np.object_]:
    """Take the geometries, and repair those that are not valid.

    Raises:
        LabelError: a detection has none.
    """
    geometries = np.asarray(frame.geometry.array, dtype=object)
    missing = int((shapely.is_missing(geometries) | shapely.is_empty(geometries)).sum())
    if missing:
        raise LabelError(f"{missing} detections in {name} have no geometry; delete those rows")
    turned = np.flatnonzero(~fills_bounds(geometries, shapely.bounds(geometries)))
    broken = turned[~shapely.is_valid(geometries[turned])]
    if len(broken):
        geometries = geometries.copy()
        geometries[broken] = shapely.make_valid(geometries[broken])
    return geometries


def found_scores(frame: gpd.GeoDataFrame, name: str) -> NDArray[np.float64]:
    """Take the scores.

    Raises:
        LabelError: there are none, or they are no numbers.
    """
    if "score" not in frame.columns:
        raise LabelError(
            f"{name} has no column score, expected detections as geo-retina writes them"
        )
    try:
        scores = frame["score"].to_numpy(dtype=np.float64, na_value=np.nan)
    except ValueError:
        raise LabelError(f"the column score of {name} holds text, expected numbers") from None
    if np.isnan(scores).any():
        raise LabelError(f"{int(np.isnan(scores).sum())} detections in {name} have no score")
    return scores


def found_sides_px(frame: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Compute the side of the square with each pixel box's area, where the columns are there."""
    if not set(_PIXEL_COLUMNS) <= set(frame.columns):
        return np.full(len(frame), np.nan)
    try:
        values = [frame[c].to_numpy(dtype=np.float64, na_value=np.nan) for c in _PIXEL_COLUMNS]
    except ValueError:
        return np.full(len(frame), np.nan)
    x_min, y_min, x_max, y_max = values
    return np.sqrt(np.maximum(x_max - x_min, 0) * np.maximum(y_max - y_min, 0))
