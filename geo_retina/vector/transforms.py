"""Geometries from one CRS to another, in float64 and always x before y."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray


def reproject(
    geometries: NDArray[np.object_], source: pyproj.CRS | None, target: pyproj.CRS | None
) -> NDArray[np.object_]:
    """Move every vertex of the geometries to another CRS.

    Edges stay straight between their vertices: exact enough for objects, not for outlines of
    many kilometres.

    Args:
        geometries: (N,) shapely geometries, None among them allowed.
        source: their CRS; None where they have none.
        target: the CRS wanted; None keeps them as they are.

    Returns:
        (N,) new geometries in the same order, or the same array where nothing changes. A
        vertex that ``target`` cannot express becomes infinite.
    """
    if source is None or target is None or source is target or source == target:
        return geometries
    move = pyproj.Transformer.from_crs(source, target, always_xy=True)
    moved = shapely.transform(geometries, lambda xy: np.column_stack(move.transform(*xy.T)))
    return np.asarray(moved, dtype=object)
