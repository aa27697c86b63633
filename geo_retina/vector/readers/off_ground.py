"""Where labels are that lie on none of the ground they are for, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.geodesy import WGS84, crs_label, is_connected, is_on_earth, is_same, positions_in
from geo_retina.vector.readers.label_layers import LabelLayer

_MOST = 1000
"""Labels that are tried in other CRSs."""


class Ground(NamedTuple):
    """Ground that labels should lie on: (N,) polygons in one CRS."""

    crs: pyproj.CRS
    polygons: NDArray[np.object_]


def is_elsewhere(layer: LabelLayer, grounds: Sequence[Ground]) -> bool:
    """Check whether none of the labels, of which there are some, touches any of the ground."""
    if not len(layer):
        return False
    corners = shapely.bounds(layer.geometries)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    centres = shapely.get_coordinates(shapely.centroid(layer.geometries))
    return not _on(np.concatenate([centres, corners]), layer.crs, grounds).any()


def explain_elsewhere(layer: LabelLayer, grounds: Sequence[Ground], what: str) -> str:
    """Say where labels and the ground they miss are, and what to check.

    Args:
        layer: at least one label.
        grounds: at least one polygon in each.
        what: the ground is of, in the plural: "the scenes".
    """
    centres = shapely.get_coordinates(shapely.centroid(layer.geometries))
    middles = [
        _place(np.median(shapely.get_coordinates(shapely.centroid(g.polygons)), axis=0), g.crs)
        for g in grounds
    ]
    remedy = _better_crs(centres[:_MOST], layer.crs, grounds, what)
    return (
        f"by its CRS {crs_label(layer.crs)} the layer is at "
        f"{_place_text(_place(np.median(centres, axis=0), layer.crs))}, and {what} are at "
        f"{_place_text(_middle(middles))}; check that both show the same place and that the "
        f"layer's CRS is right{remedy}"
    )


def _place(position: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64] | None:
    """Return (2,) longitude and latitude; None for a position in a local CRS."""
    if not is_on_earth(crs):
        return None
    whole_world = np.array([-180.0, -90.0, 180.0, 90.0])
    return np.asarray(positions_in(position[None], crs, WGS84, whole_world)[0][0])


def _middle(places: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    known = [place for place in places if place is not None]
    return np.asarray(np.median(known, axis=0)) if known else None


def _place_text(lon_lat: NDArray[np.float64] | None) -> str:
    if lon_lat is None:
        return "no place on Earth, as their CRS is a local one"
    lon, lat = lon_lat.tolist()
    if not np.isfinite(lon_lat).all() or abs(lat) > 90:
        return "no place on Earth"
    return f"{abs(lat):.4f} {'N' if lat >= 0 else 'S'}, {abs(lon):.4f} {'E' if lon >= 0 else 'W'}"


def _better_crs(
    centres: NDArray[np.float64], own: pyproj.CRS, grounds: Sequence[Ground], what: str
) -> str:
    """Name the CRS, or the swap of axes, with which most labels would lie on the ground."""
    candidates = [*(ground.crs for ground in grounds), WGS84, pyproj.CRS("EPSG:3857")]
    for swapped in (False, True):
        points = centres[:, ::-1] if swapped else centres
        for crs in candidates if not swapped else [own, *candidates]:
            if _on(points, crs, grounds).mean() > 0.5:
                axes = " with x and y swapped" if swapped else ""
                return f": most labels would lie on {what} in {crs_label(crs)}{axes}"
    return ""


def _on(
    points: NDArray[np.float64], crs: pyproj.CRS, grounds: Sequence[Ground]
) -> NDArray[np.bool_]:
    """Find (N,) points in a CRS that lie on any of the ground."""
    hit = np.zeros(len(points), np.bool_)
    for ground in grounds:
        if not (is_same(crs, ground.crs) or is_connected(crs, ground.crs)):
            continue
        tree = shapely.STRtree(ground.polygons)
        for there in positions_in(points, crs, ground.crs, shapely.total_bounds(ground.polygons)):
            rows = np.flatnonzero(np.isfinite(there).all(axis=1))
            hit[rows[tree.query(shapely.points(there[rows]), predicate="intersects")[0]]] = True
    return hit
