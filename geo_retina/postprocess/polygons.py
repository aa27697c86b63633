"""Boxes whose scenes share no lattice: what they have in common on the ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import Boxes, corners, overlapping_pairs, place_corners
from geo_retina.detections import Detections
from geo_retina.geodesy import move, transformer
from geo_retina.grid import Grid
from geo_retina.merge import Overlaps, Scenes
from geo_retina.vector import reproject_rings

_DEGREES = pyproj.CRS.from_epsg(4326)

_STEPS = 32
"""Parts of the side of a scene's outline: straight sides in one CRS are bent on the Earth."""

_EVERYWHERE = shapely.box(-1e9, -1e9, 1e9, 1e9)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Scenes of several lattices that lie together.

    Attributes:
        together: (S,) mask of them.
        plane: a CRS in which areas are right.
        outlines: (S,) polygons of their ground in it; None for others.
    """

    together: NDArray[np.bool_]
    plane: pyproj.CRS
    outlines: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """All places where boxes cannot be compared in pixels.

    Attributes:
        scenes: all of them.
        lattices: the grids that give pixels of a lattice their place.
        found: the places; none where no scenes of different lattices come near each other.
    """

    scenes: Scenes
    lattices: Sequence[Grid]
    found: tuple[Neighbourhood, ...]

    @classmethod
    def of(cls, scenes: Scenes, lattices: Sequence[Grid]) -> Neighbourhoods:
        """Look for them."""
        found = [
            Neighbourhood(together, plane, _outlines(scenes, together, lattices, plane))
            for together, plane in _neighbourhoods(scenes, lattices)
        ]
        return cls(scenes, lattices, tuple(found))

    def overlaps(self, detections: Detections) -> Overlaps | None:
        """Measure what boxes of different lattices have in common.

        Args:
            detections: any; ``tile`` is the number of the scene.

        Returns:
            All pairs that overlap; None where there is none.
        """
        pairs, shared = [np.empty((0, 2), np.int64)], [np.empty(0)]
        area = np.ones(len(detections))
        for rows, polygons, hood in self._placed(detections):
            lattice = self.scenes.lattice[detections.tile[rows]]
            near = overlapping_pairs(shapely.bounds(polygons).reshape(-1, 4))
            near = near[lattice[near[:, 0]] != lattice[near[:, 1]]]
            if detections.rotated_px is not None:  # found by their hulls, as within a lattice
                corners_px = detections.corners_px[rows]
                polygons = np.asarray(
                    shapely.polygons(move_corners(corners_px, lattice, self.lattices, hood.plane))
                )
            common = shapely.area(shapely.intersection(*polygons[near].T))
            area[rows] = shapely.area(polygons)
            pairs.append(rows[near[common > 0]])
            shared.append(common[common > 0])
        if not sum(map(len, pairs)):
            return None
        return Overlaps(np.concatenate(pairs), np.concatenate(shared), area)

    def abroad(self, detections: Detections) -> NDArray[np.bool_]:
        """Find (N,) detections on ground at which scenes of other lattices look."""
        is_abroad = np.zeros(len(detections), dtype=bool)
        for rows, polygons, hood in self._placed(detections):
            lattice = self.scenes.lattice[detections.tile[rows]]
            for other in np.unique(self.scenes.lattice[hood.together]).tolist():
                at = np.flatnonzero(lattice != other)
                here = hood.together & (self.scenes.lattice == other)
                tree = shapely.STRtree(hood.outlines[here])
                met = tree.query(polygons[at], predicate="intersects")[0]
                is_abroad[rows[at[met]]] = True
        return is_abroad

    def _placed(
        self, detections: Detections
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.object_], Neighbourhood]]:
        """Place detections in each neighbourhood; those that have no place there are left out."""
        for hood in self.found:
            rows = np.flatnonzero(hood.together[detections.tile])
            if not len(rows):
                continue
            boxes, lattice = detections.boxes_px[rows], self.scenes.lattice[detections.tile[rows]]
            rings = move_boxes(boxes, lattice, self.lattices, hood.plane)
            known = np.isfinite(rings).all(axis=(1, 2))
            yield rows[known], np.asarray(shapely.polygons(rings[known])), hood


def move_boxes(
    boxes_px: Boxes, lattice: NDArray[np.int64], lattices: Sequence[Grid], plane: pyproj.CRS
) -> NDArray[np.float64]:
    """Move boxes of several lattices to one CRS, as (N, 5, 2) rings."""
    return move_corners(corners(boxes_px), lattice, lattices, plane)


def move_corners(
    corners_px: NDArray[np.float64],
    lattice: NDArray[np.int64],
    lattices: Sequence[Grid],
    plane: pyproj.CRS,
) -> NDArray[np.float64]:
    """Move (N, 4, 2) corners of boxes of several lattices to one CRS, as (N, 5, 2) rings."""
    rings = np.empty((len(corners_px), 5, 2))
    for k in np.unique(lattice):
        own, grid = lattice == k, lattices[k]
        rings[own] = reproject_rings(place_corners(corners_px[own], grid), grid.crs, plane)
    return rings


def _outlines(
    scenes: Scenes, together: NDArray[np.bool_], lattices: Sequence[Grid], plane: pyproj.CRS
) -> NDArray[np.object_]:
    """Outline scenes in a plane; one that leaves the plane may be everywhere."""
    outlines = np.full(len(scenes), None, dtype=object)
    for k in np.unique(scenes.lattice[together]):
        own, grid = np.flatnonzero(together & (scenes.lattice == k)), lattices[k]
        moved = move(_rims(scenes.windows[own], grid), grid.crs, plane)
        known = np.isfinite(moved).all(axis=(1, 2))
        outlines[own[~known]] = _EVERYWHERE
        polygons = np.asarray(shapely.polygons(moved[known]), dtype=object)
        outlines[own[known]] = np.where(shapely.is_valid(polygons), polygons, _EVERYWHERE)
    return outlines


def _rims(windows: Boxes, grid: Grid) -> NDArray[np.float64]:
    """Place (W, R, 2) points around windows in the CRS of a lattice."""
    rim = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, 1, 1), 1 / _STEPS))
    low, size_xy = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    return grid.pixels_to_crs(low + rim * size_xy)


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
        yield together, equal_area_around(directions[members])


def equal_area_around(directions: NDArray[np.float64]) -> pyproj.CRS:
    """Make an equal-area CRS around the middle of (P, 3) unit vectors."""
    x, y, z = directions.mean(axis=0)
    lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    return pyproj.CRS.from_proj4(f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f}")


def _spheres(
    scenes: Scenes, placed: NDArray[np.int64], lattices: Sequence[Grid]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute (P, 3) unit vectors to the middles of scenes, (P,) chords from there to the rims."""
    directions, radii = np.empty((len(placed), 3)), np.empty(len(placed))
    for k in np.unique(scenes.lattice[placed]):
        grid = lattices[k]
        own = np.flatnonzero(scenes.lattice[placed] == k)
        vectors = directions_to(_rims(scenes.windows[placed[own]], grid), grid.crs)
        known = np.isfinite(vectors).all(axis=-1, keepdims=True)  # some rims leave the globe
        middle = np.where(known, vectors, 0).sum(axis=1)
        middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
        far = np.linalg.norm(np.where(known, vectors - middle[:, None], 0), axis=2).max(axis=1)
        directions[own], radii[own] = middle, far
    return directions, radii


def directions_to(points_crs: NDArray[np.float64], crs: pyproj.CRS | None) -> NDArray[np.float64]:
    """Compute (..., 3) unit vectors from the middle of the Earth to places on it."""
    assert crs is not None  # local ones have no place on the Earth
    lon, lat = transformer(crs, _DEGREES).transform(points_crs[..., 0], points_crs[..., 1])
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


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
