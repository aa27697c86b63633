"""Overlaps of boxes whose scenes share no lattice: areas of polygons on the ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import overlapping_pairs, to_rings
from geo_retina.detections import Detections
from geo_retina.geodesy import transformer
from geo_retina.grid import Grid
from geo_retina.merge import Overlaps, Scenes
from geo_retina.vector import reproject_rings

_DEGREES = pyproj.CRS.from_epsg(4326)

_SIDE = np.linspace(0.0, 1.0, 33)
_RIM = np.array([(x, y) for x in _SIDE for y in _SIDE if x in (0, 1) or y in (0, 1)])
"""Places on the rim of a window of side 1: straight sides in one CRS are bent on the Earth."""


def overlaps_across(
    detections: Detections, scenes: Scenes, lattices: Sequence[Grid]
) -> Overlaps | None:
    """Measure what boxes of different lattices have in common.

    Args:
        detections: those of all scenes; ``tile`` is the number of the scene.
        scenes: where they lie.
        lattices: the grids that give pixels of a lattice their place.

    Returns:
        All pairs that overlap; None where no scenes of different lattices come near each other.
    """
    pairs, shared = [np.empty((0, 2), np.int64)], [np.empty(0)]
    area = np.ones(len(detections))
    for together, plane in _neighbourhoods(scenes, lattices):
        rows = np.flatnonzero(together[detections.tile])
        lattice = scenes.lattice[detections.tile[rows]]
        rings = np.empty((len(rows), 5, 2))
        for k in np.unique(lattice):
            own, grid = lattice == k, lattices[k]
            placed = to_rings(detections.boxes_px[rows[own]], grid)
            rings[own] = reproject_rings(placed, grid.crs, plane)
        polygons = np.asarray(shapely.polygons(rings))
        found = overlapping_pairs(shapely.bounds(polygons).reshape(-1, 4))
        found = found[lattice[found[:, 0]] != lattice[found[:, 1]]]
        common = shapely.area(shapely.intersection(*polygons[found].T))
        area[rows] = shapely.area(polygons)
        pairs.append(rows[found[common > 0]])
        shared.append(common[common > 0])
    if not sum(map(len, pairs)):
        return None
    return Overlaps(np.concatenate(pairs), np.concatenate(shared), area)


def _neighbourhoods(
    scenes: Scenes, lattices: Sequence[Grid]
) -> Iterator[tuple[NDArray[np.bool_], pyproj.CRS]]:
    """Group scenes of several lattices that lie together, with a CRS in which areas are right.

    That is an equal-area CRS around them, one for each neighbourhood, so that scenes on the other
    side of the Earth do not spoil it; for a local CRS, which has no place on the Earth, itself.

    Yields:
        (S,) masks of scenes, and the CRS.
    """
    local = [not (grid.crs and grid.crs.geodetic_crs) for grid in lattices]
    planes: dict[str, list[int]] = {}
    for k, grid in enumerate(lattices):
        if local[k] and grid.crs is not None:
            planes.setdefault(grid.crs.to_wkt(), []).append(k)
    for wkt, of_plane in planes.items():
        if len(of_plane) > 1:
            yield np.isin(scenes.lattice, of_plane), pyproj.CRS.from_wkt(wkt)
    placed = np.flatnonzero(~np.array(local, dtype=bool)[scenes.lattice])
    if len(set(scenes.lattice[placed].tolist())) < 2:
        return
    directions, radii = _spheres(scenes, placed, lattices)
    for members in _clusters(directions, radii, scenes.lattice[placed]):
        together = np.zeros(len(scenes), dtype=bool)
        together[placed[members]] = True
        x, y, z = directions[members].mean(axis=0)
        lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
        yield together, pyproj.CRS.from_proj4(f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f}")


def _spheres(
    scenes: Scenes, placed: NDArray[np.int64], lattices: Sequence[Grid]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute (P, 3) unit vectors to the middles of scenes, (P,) chords from there to the rims."""
    directions, radii = np.empty((len(placed), 3)), np.empty(len(placed))
    for k in np.unique(scenes.lattice[placed]):
        grid = lattices[k]
        own = np.flatnonzero(scenes.lattice[placed] == k)
        window = scenes.windows[placed[own], None]
        rim = grid.pixels_to_crs(window[..., :2] + _RIM * (window[..., 2:] - window[..., :2]))
        assert grid.crs is not None  # local ones were left out
        lon, lat = transformer(grid.crs, _DEGREES).transform(rim[..., 0], rim[..., 1])
        lon, lat = np.radians(lon), np.radians(lat)
        vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
        known = np.isfinite(vectors).all(axis=-1, keepdims=True)  # some rims leave the globe
        middle = np.where(known, vectors, 0).sum(axis=1)
        middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
        far = np.linalg.norm(np.where(known, vectors - middle[:, None], 0), axis=2).max(axis=1)
        directions[own], radii[own] = middle, far
    return directions, radii


def _clusters(
    directions: NDArray[np.float64], radii: NDArray[np.float64], lattice: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Group positions of scenes linked by coming near scenes of other lattices."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    i, j = KDTree(directions).query_pairs(2 * radii.max(), output_type="ndarray").T
    near = np.linalg.norm(directions[i] - directions[j], axis=1) <= radii[i] + radii[j]
    near &= lattice[i] != lattice[j]
    i, j = i[near], j[near]
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(radii),) * 2)
    number = connected_components(graph, directed=False)[1]
    for cluster in np.unique(number[i]):
        yield np.flatnonzero(number == cluster)
