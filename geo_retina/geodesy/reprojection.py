"""Geometries from one CRS to another: in one piece, and cut first to where they matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import CrsError
from geo_retina.geodesy.positions import Positions, middle_longitude, move, wrap
from geo_retina.geodesy.systems import Crs, crs_label, full_turn, is_same, transformer

Geometries = NDArray[np.object_]

_MARGIN = 0.1
"""Share of an extent by which ground is cut more widely than it is needed."""

_POLAR_DEG = 45.0
"""Ground around a pole is recognised from this latitude on."""

_POLYGON, _MULTIPOLYGON = 3, 6


def reproject(geometries: Geometries, source: Crs, target: Crs) -> Geometries:
    """Move every vertex of geometries to another CRS.

    Edges stay straight between their vertices: exact enough for objects, not for outlines of
    many kilometres, which ``densify`` makes ready. What crosses the antimeridian comes out in one
    piece in degrees, and what surrounds a pole reaches up to it.

    Args:
        geometries: (N,) shapely geometries, None among them allowed.
        source: their CRS; None where they have none.
        target: the CRS of the result; None keeps them as they are.

    Returns:
        (N,) new geometries in the same order, or the same array where nothing changes. A
        vertex that ``target`` cannot express becomes infinite.
    """
    if source is None or target is None or is_same(source, target):
        return geometries
    moved = shapely.transform(geometries, lambda xy: move(xy, source, target))
    turn = full_turn(target)
    moved = np.asarray(moved, dtype=object)
    return moved if turn is None else _in_one_piece(moved, turn)


def reproject_rings(rings: Positions, source: Crs, target: Crs) -> Positions:
    """Move (N, 5, 2) closed rings to another CRS, as ``reproject`` does geometries."""
    if source is None or target is None or is_same(source, target):
        return rings
    moved = np.empty_like(rings)
    moved[:, :4] = move(rings[:, :4], source, target)
    turn = full_turn(target)
    if turn is not None and len(moved):
        x = moved[:, :4, 0]
        if np.ptp(x, axis=1).max() > turn / 2 and np.isfinite(x).all():
            moved[:, :4, 0] = x = wrap(x, turn, x[:, :1])
            moved[:, :4, 0] -= turn * np.round(x.mean(axis=1, keepdims=True) / turn)
    moved[:, 4] = moved[:, 0]
    return moved


def near_longitude(geometries: Geometries, turn: float, around: float) -> Geometries:
    """Count geometries in degrees within half a turn of a longitude, each in one piece.

    One that was cut in two at the antimeridian, as GeoJSON asks for, becomes one again.
    """
    whole = _in_one_piece(geometries, turn, join=True)
    bounds = shapely.bounds(whole).reshape(-1, 4)
    turns = np.nan_to_num(np.round(((bounds[:, 0] + bounds[:, 2]) / 2 - around) / turn))
    rows = np.flatnonzero(turns)
    if len(rows):
        whole = whole.copy()
        whole[rows] = [
            _shifted(g, -n * turn) for g, n in zip(whole[rows], turns[rows], strict=True)
        ]
    return whole


def densify(polygons: Geometries) -> Geometries:
    """Add vertices, so that edges stay on their ground when reprojected.

    A straight edge of 50 km departs by up to 50 m from the same edge in another CRS; at a
    64th of the polygon's extent between vertices, that shrinks 4096-fold.
    """
    extent = np.nan_to_num(np.ptp(shapely.bounds(polygons).reshape(-1, 2, 2), axis=1).max(axis=1))
    step = np.where(extent > 0, extent / 64, 1.0)
    return np.asarray(shapely.segmentize(polygons, step), dtype=object)


def carry_ground(polygons: Geometries, source: Crs, target: Crs, around: Positions) -> Geometries:
    """Move polygons of ground to another CRS, cut first to where it matters.

    However large the polygons are, what is moved lies near the positions, so that the other CRS
    can express it; edges get extra vertices on the way. In degrees, ground is found a full turn
    to either side as well.

    Args:
        polygons: (N,) shapely polygons and multi-polygons; N may be 0.
        source: their CRS.
        target: CRS of the result.
        around: (M, 2) positions in ``target`` that span the ground that matters, such as a
            lattice over a scene; those that are not finite are left out.

    Returns:
        (N,) valid polygons and multi-polygons, empty where they do not come near.

    Raises:
        CrsError: the target cannot express ground so near, or one of the CRSs is local.
    """
    same, target_turn = is_same(source, target), full_turn(target)
    if not len(polygons) or source is None or target is None or (same and target_turn is None):
        return polygons
    if not same:
        transformer(source, target)  # or it says why there is none
    around = around[np.isfinite(around).all(axis=1)]
    broken = ~shapely.is_valid(polygons)
    if broken.any():
        polygons = np.where(broken, shapely.make_valid(polygons), polygons)
    spots = move(around, target, source)
    spots = spots[np.isfinite(spots).all(axis=1)]
    if not len(spots):
        return np.full(len(polygons), shapely.Polygon(), dtype=object)
    turn, geodetic = full_turn(source), source.geodetic_crs
    if turn is None and geodetic is not None:
        # By way of degrees, as ground on both sides of the antimeridian is far apart on a map.
        degrees = _in_degrees(polygons, source, geodetic.to_2d(), spots)
        return carry_ground(degrees, geodetic.to_2d(), target, around)
    cut = _cut_to(polygons, _bounds_around(spots, turn), turn)
    if same:
        return cut
    moved = shapely.make_valid(reproject(densify(cut), source, target))
    if target_turn is not None and len(moved):
        moved = _cut_to(moved, _bounds_around(around, target_turn), target_turn)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise CrsError(
            f"some ground lies where {crs_label(target)} has no coordinates; choose another CRS"
        )
    return _polygons_only(np.asarray(moved, dtype=object))


def _in_degrees(
    polygons: Geometries, source: pyproj.CRS, geodetic: pyproj.CRS, spots: Positions
) -> Geometries:
    """Move polygons on a map, cut around positions there, to longitudes and latitudes."""
    turn = full_turn(geodetic) or 360.0
    lon = wrap(move(spots, source, geodetic)[:, 0], turn, 0.0)
    sides = [lon >= 0, lon < 0] if np.ptp(lon) > turn / 2 else [np.ones(len(lon), np.bool_)]
    found = np.full(len(polygons), shapely.Polygon(), dtype=object)
    for side in sides:
        near = spots[side]
        cut = densify(_cut_to(polygons, _bounds_around(near, None), None))
        inside = shapely.transform(cut, lambda xy: _on_the_map(xy, source, geodetic, near))  # noqa: B023
        moved = shapely.make_valid(reproject(inside, source, geodetic))
        found = np.asarray(shapely.union(found, moved), dtype=object)
    return _polygons_only(found)


def _on_the_map(
    xy: Positions, source: pyproj.CRS, geodetic: pyproj.CRS, spots: Positions
) -> Positions:
    """Pull positions beyond the Earth's outline, as at the corners of an oval map, back to it."""
    lost = ~np.isfinite(move(xy, source, geodetic)).all(axis=1)
    if not lost.any():
        return xy
    centre, far = np.median(spots, axis=0), xy[lost]
    near = np.broadcast_to(centre, far.shape).copy()
    for _ in range(40):
        middle = (near + far) / 2
        fine = np.isfinite(move(middle, source, geodetic)).all(axis=1)
        near[fine], far[~fine] = middle[fine], middle[~fine]
    pulled = xy.copy()
    pulled[lost] = near
    return pulled


def move_outlines(polygons: Geometries, source: Crs, target: Crs) -> Geometries:
    """Move outlines of ground to another CRS, with extra vertices on the way.

    Raises:
        CrsError: the target cannot express them, or one of the CRSs is local.
    """
    if source is None or target is None or is_same(source, target):
        return polygons
    moved = reproject(densify(polygons), source, target)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise CrsError(
            f"some ground lies where {crs_label(target)} has no coordinates; choose another CRS"
        )
    return moved


def _bounds_around(spots: Positions, turn: float | None) -> NDArray[np.float64]:
    """Bound positions with a margin, in one piece in degrees, and over a pole in them."""
    if turn is not None:
        middle = middle_longitude(spots[:, 0], turn)
        spots = np.column_stack([wrap(spots[:, 0], turn, middle), spots[:, 1]])
    low, high = spots.min(axis=0), spots.max(axis=0)
    margin = max(_MARGIN * (high - low).max(), 1e-9 * np.abs(spots).max(), 1e-9)
    low, high = low - margin, high + margin
    if turn is not None:
        if high[0] - low[0] > turn / 2:
            low[0], high[0] = -turn / 2, turn / 2
            pole, polar = turn / 4, _POLAR_DEG / 360 * turn
            high[1] = pole if high[1] > polar else high[1]
            low[1] = -pole if low[1] < -polar else low[1]
        low[1], high[1] = max(low[1], -turn / 4), min(high[1], turn / 4)
    return np.array([*low, *high])


def _cut_to(polygons: Geometries, bounds: NDArray[np.float64], turn: float | None) -> Geometries:
    """Cut polygons to bounds, and in degrees also those parts that lie full turns away."""
    whole = shapely.total_bounds(polygons)
    found = np.full(len(polygons), shapely.Polygon(), dtype=object)
    for k in range(-2, 3) if turn is not None else [0]:
        shift = k * (turn or 0.0)
        # Where the polygons lie that are meant by the bounds after that many turns.
        west, east = bounds[0] + shift, bounds[2] + shift
        if west > whole[2] or east < whole[0]:
            continue
        part = shapely.intersection(polygons, shapely.box(west, bounds[1], east, bounds[3]))
        if shift:
            part = np.array([_shifted(each, -shift) for each in part], dtype=object)
        found = shapely.union(found, part)
    return _polygons_only(np.asarray(found, dtype=object))


def _polygons_only(geometries: Geometries) -> Geometries:
    """Drop the lines and points that cutting and repairing leave."""
    kinds = shapely.get_type_id(geometries)
    odd = np.flatnonzero((kinds != _POLYGON) & (kinds != _MULTIPOLYGON))
    if len(odd):
        geometries = geometries.copy()
        for row in odd:
            parts = shapely.get_parts(geometries[row])
            parts = parts[shapely.get_dimensions(parts) == 2]
            geometries[row] = shapely.union_all(parts) if len(parts) else shapely.Polygon()
    return geometries


def _in_one_piece(geometries: Geometries, turn: float, *, join: bool = False) -> Geometries:
    """Repair those torn apart by the antimeridian, which makes them half a world wide."""
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    width = bounds[:, 2] - bounds[:, 0]
    torn = np.flatnonzero((width > turn / 2) & np.isfinite(width))
    if not len(torn):
        return geometries
    geometries = geometries.copy()
    for row in torn:
        whole = _unwrapped(geometries[row], turn)
        if join:
            whole = shapely.union_all(shapely.get_parts(shapely.make_valid(whole)))
        low, _, high, _ = shapely.bounds(whole)
        geometries[row] = _shifted(whole, -turn * round((low + high) / 2 / turn))
    return geometries


def _unwrapped(geometry: Any, turn: float) -> Any:
    """Shift vertices by whole turns until no longitude leaps from one to the next."""
    if shapely.get_num_geometries(geometry) > 1 or shapely.get_type_id(geometry) > _POLYGON:
        parts = [_unwrapped(part, turn) for part in shapely.get_parts(geometry)]
        middles = [(b[0] + b[2]) / 2 for b in map(shapely.bounds, parts)]
        near = [
            _shifted(part, -turn * round((middle - middles[0]) / turn))
            for part, middle in zip(parts, middles, strict=True)
        ]
        return type(geometry)(near)
    if shapely.get_type_id(geometry) != _POLYGON:
        xy = shapely.get_coordinates(geometry)
        xy[:, 0] = np.unwrap(xy[:, 0], period=turn)
        return shapely.set_coordinates(geometry, xy)
    shell = _unwrapped_ring(shapely.get_coordinates(geometry.exterior), turn)
    middle = (shell[:, 0].min() + shell[:, 0].max()) / 2
    holes = []
    for ring in geometry.interiors:
        hole = _unwrapped_ring(shapely.get_coordinates(ring), turn)
        hole[:, 0] -= turn * np.round((hole[:, 0].mean() - middle) / turn)
        holes.append(hole)
    return shapely.Polygon(shell, holes)


def _unwrapped_ring(xy: Positions, turn: float) -> Positions:
    """Unwrap a closed ring's longitudes; one around a pole is led along it."""
    x = np.unwrap(xy[:, 0], period=turn)
    ring = np.column_stack([x, xy[:, 1]])
    if abs(x[-1] - x[0]) < turn / 2:
        return ring
    pole = math.copysign(turn / 4, float(xy[:, 1].mean()))
    return np.vstack([ring, [[x[-1], pole], [x[0], pole]], ring[:1]])


def _shifted(geometry: Any, x: float) -> Any:
    return shapely.transform(geometry, lambda xy: xy + np.array([x, 0.0])) if x else geometry
