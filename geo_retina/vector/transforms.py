"""Geometries from one CRS to another, in float64 and always x before y."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.grid import Grid, transformer


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
    move = transformer(source, target)
    moved = shapely.transform(geometries, lambda xy: np.column_stack(move.transform(*xy.T)))
    return np.asarray(moved, dtype=object)


def reproject_rings(
    rings: NDArray[np.float64], source: pyproj.CRS | None, target: pyproj.CRS | None
) -> NDArray[np.float64]:
    """Move (N, 5, 2) closed rings to another CRS, as ``reproject`` does geometries."""
    if source is None or target is None or source is target or source == target:
        return rings
    move = transformer(source, target)
    moved = np.empty_like(rings)
    moved[:, :4] = np.stack(move.transform(rings[:, :4, 0], rings[:, :4, 1]), axis=-1)
    moved[:, 4] = moved[:, 0]
    return moved


def pixel_sides_m(grid: Grid) -> NDArray[np.float64]:
    """Ground lengths in metres of a pixel at the grid's centre, along rows and along columns.

    Their geometric mean is ``grid.gsd_m``. Their ratio is that of the affine's columns, or the
    one on the ellipsoid where the CRS draws lengths east and north differently, as degrees do.

    Args:
        grid: one with a CRS.

    Returns:
        (2,) along x, along y of the pixel frame.
    """
    assert grid.gsd_m is not None  # callers refuse grids without a CRS
    affine = grid.affine
    drawn = np.hypot([affine.a, affine.b], [affine.d, affine.e])
    ratio = drawn[0] / drawn[1]
    true_m = grid.sides_on_ellipsoid_m()
    if np.isfinite(true_m).all() and abs(true_m[0] / true_m[1] / ratio - 1) > 0.01:
        ratio = true_m[0] / true_m[1]
    return grid.gsd_m * np.array([ratio**0.5, ratio**-0.5])
