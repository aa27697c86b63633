"""Coordinate systems: their names and units, and moving positions and ground between them.

All that knows about places on Earth is here. Positions are float64, x before y whatever the axis
order of a CRS's authority. Longitudes have no beginning and no end: what comes out in degrees is in
one piece, also where it crosses the antimeridian, and is then counted beyond 180.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.crs import GeographicCRS, ProjectedCRS
from pyproj.crs.coordinate_operation import PolarStereographicAConversion, UTMConversion

from geo_retina.errors import CrsError, OptionError

Positions = NDArray[np.float64]
Geometries = NDArray[np.object_]
Crs = pyproj.CRS | None

WGS84 = pyproj.CRS("EPSG:4326")
FALLBACK_CRS = "EPSG:4326"
"""Where detections go whose scenes are in several CRSs."""

_GEOD = pyproj.Geod(ellps="WGS84")
METRES_A_DEGREE = float(np.pi / 180 * _GEOD.a)
"""On the equator, and along a meridian of a sphere of that radius."""

_UTM_SOUTH, _UTM_NORTH = -80.0, 84.0
_MARGIN = 0.1
"""Share of an extent by which ground is cut more widely than it is needed."""

_POLAR_DEG = 45.0
"""Ground around a pole is recognised from this latitude on."""

_BACK = 1e-6
"""Share of an extent by which a position may miss its place after going there and back."""

_POLYGON, _MULTIPOLYGON = 3, 6


def crs_label(crs: pyproj.CRS) -> str:
    """Name a CRS for people: ``EPSG:32633``, or its name where no authority numbers it."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def parse_crs(text: str) -> pyproj.CRS:
    """Find the CRS that a user names, by code, WKT, PROJ string or name.

    Raises:
        OptionError: PROJ knows none, or it is not one of maps, such as a vertical one.
    """
    try:
        crs = pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        raise OptionError(
            f"{text} is not a CRS that PROJ knows, wanted for example EPSG:4326"
        ) from None
    if not (crs.is_projected or crs.is_geographic or crs.is_engineering):
        raise OptionError(
            f"{text} is a {crs.type_name}, in which no map is drawn; wanted a projected or "
            "geographic one, for example EPSG:4326"
        )
    return crs


def missing_crs(subject: str, so: str, *, file: str | None = None, otherwise: str = "") -> str:
    """Say that something lacks a CRS: the one sentence, whatever lacks it.

    Args:
        subject: what lacks it.
        so: what cannot be done therefore.
        file: of a vector layer, for the remedy; left out, the remedy is that for an image.
        otherwise: another way out, with its conjunction: ", or leave out --aoi".
    """
    remedy = (
        "give it one, for example with gdal_edit.py -a_srs EPSG:32633"
        if file is None
        else f"give it the right one, for example with: ogr2ogr -a_srs EPSG:32633 fixed.gpkg {file}"
    )
    return f"{subject} has no CRS, so {so}; {remedy}{otherwise}"


def is_on_earth(crs: Crs) -> bool:
    """Tell whether a CRS says where its positions lie on Earth; local ones of a site don't."""
    return crs is not None and crs.geodetic_crs is not None


def is_same(one: Crs, other: Crs) -> bool:
    """Tell whether two CRSs are equal, quickly where they are one object."""
    return one is other or one == other


def is_connected(source: Crs, target: Crs) -> bool:
    """Tell whether positions can be moved from one CRS to the other."""
    return is_same(source, target) or (is_on_earth(source) and is_on_earth(target))


def unit_m(crs: pyproj.CRS) -> float:
    """Metres of a CRS's unit of length; of an angular one, its radians."""
    return float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0


def full_turn(crs: Crs) -> float | None:
    """Units of a full circle, 360 in degrees; None where a CRS is not geographic."""
    if crs is None or not crs.is_geographic:
        return None
    return round(2 * math.pi / unit_m(crs), 9)


@lru_cache(maxsize=256)
def transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    """Make the transformer from one CRS to another, x before y.

    Made once per pair of CRSs: making one costs as much as opening a small scene.

    Raises:
        CrsError: one of them is local, so nothing says where it lies in the other.
    """
    for crs, other in ((source, target), (target, source)):
        if not is_on_earth(crs):
            raise CrsError(
                f"the local CRS {crs_label(crs)} has no place on Earth, so positions cannot be "
                f"moved between it and {crs_label(other)}; give all files in one CRS, or the right "
                "CRS with gdal_edit.py -a_srs or ogr2ogr -a_srs"
            )
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise CrsError(
            f"PROJ cannot move positions from {crs_label(source)} to {crs_label(target)} "
            f"({error}); choose another CRS"
        ) from error


def move(positions: Positions, source: Crs, target: Crs) -> Positions:
    """Move (..., 2) positions to another CRS; not finite where it has no such place.

    They stay as they are where either CRS is None or both are the same.
    """
    if source is None or target is None or is_same(source, target):
        return positions
    xy = np.asarray(positions, dtype=np.float64)
    x, y = transformer(source, target).transform(xy[..., 0], xy[..., 1])
    return np.stack([np.asarray(x), np.asarray(y)], axis=-1).reshape(xy.shape)


def are_expressible(positions: Positions, source: Crs, target: Crs) -> NDArray[np.bool_]:
    """Tell which (N, 2) positions another CRS can hold: they come back to where they were."""
    there = move(positions, source, target)
    fine: NDArray[np.bool_] = np.asarray(np.isfinite(there).all(axis=1))
    if source is None or target is None or is_same(source, target) or not fine.any():
        return np.asarray(fine)
    back = move(np.where(fine[:, None], there, there[fine][0]), target, source)
    missed = np.abs(back - positions)
    turn = full_turn(source)
    if turn is not None:
        missed[:, 0] = np.minimum(missed[:, 0] % turn, turn - missed[:, 0] % turn)
    scale = turn or 1e3 / unit_m(source)
    extent = np.ptp(positions[np.isfinite(positions).all(axis=1)], axis=0).max(initial=0.0)
    return np.asarray(fine & (missed <= _BACK * max(extent, scale)).all(axis=1))


def to_lon_lat(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 2) longitudes and latitudes in degrees; not finite where the CRS has no place.

    Those of a local CRS are its metres as if they were laid around the equator, true to scale
    along both axes: ``METRES_A_DEGREE``.
    """
    if is_on_earth(crs):
        return move(positions, crs, WGS84).reshape(-1, 2)
    return np.asarray(positions * (unit_m(crs) / METRES_A_DEGREE)).reshape(-1, 2)


def from_lon_lat(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 2) positions in a CRS of longitudes and latitudes; inverse of ``to_lon_lat``."""
    if is_on_earth(crs):
        return move(positions, WGS84, crs).reshape(-1, 2)
    return np.asarray(positions * (METRES_A_DEGREE / unit_m(crs))).reshape(-1, 2)


def geocentric_m(positions: Positions, crs: pyproj.CRS) -> Positions:
    """Give (N, 3) geocentric positions, in metres.

    A straight line between two of them is the distance on the ground to a millionth, up to
    10 km, in whatever zones they lie: a map projection is never in the way. In a local CRS they
    are its own metres, in a plane.
    """
    if not is_on_earth(crs):
        flat = np.asarray(positions, np.float64).reshape(-1, 2) * unit_m(crs)
        return np.column_stack([flat, np.zeros(len(flat))])
    lon, lat = np.radians(to_lon_lat(positions, crs)).T
    normal = _GEOD.a / np.sqrt(1 - _GEOD.es * np.sin(lat) ** 2)
    axes = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), (1 - _GEOD.es) * np.sin(lat))
    return np.asarray(normal[:, None] * np.stack(axes, axis=1))


def square_metres(positions: Positions, crs: pyproj.CRS) -> NDArray[np.float64]:
    """Give the (N,) ground areas in m2 of one square unit of the CRS at each position."""
    step = 1e-5 if crs.is_geographic else 1.0
    origin = geocentric_m(positions, crs)
    along_x = geocentric_m(positions + np.array([step, 0.0]), crs) - origin
    along_y = geocentric_m(positions + np.array([0.0, step]), crs) - origin
    return np.asarray(np.linalg.norm(np.cross(along_x, along_y), axis=1) / step**2)


def steps_on_ellipsoid_m(crs: Crs, positions: Positions) -> NDArray[np.float64]:
    """Give the (2,) ground lengths from the first of (3, 2) positions to the two others.

    Not finite without a CRS, in a local one, or off the globe.
    """
    geodetic = crs and crs.geodetic_crs
    geod = crs and crs.get_geod()
    if not geodetic or not geod:
        return np.full(2, np.nan)
    lon, lat = move(positions, crs, geodetic).T * unit_m(geodetic)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return np.full(2, np.nan)
    _, _, sides_m = geod.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:], radians=True)
    return np.abs(np.asarray(sides_m))


def true_aspect(drawn: float, true_m: NDArray[np.float64]) -> float:
    """Give the width of a pixel over its height on the ground.

    Args:
        drawn: as the affine draws it.
        true_m: (2,) its sides on the ellipsoid; where they are finite and differ by more than
            1 %, as in degrees, the map draws lengths east and north differently, and they count.
    """
    if np.isfinite(true_m).all() and abs(true_m[0] / true_m[1] / drawn - 1) > 0.01:
        return float(true_m[0] / true_m[1])
    return drawn


def metric_crs(geodetic: pyproj.CRS, lon: float, lat: float) -> pyproj.CRS:
    """Choose a CRS in metres for a place, on a geographic CRS's own datum: nothing is shifted.

    The UTM zone, or the polar stereographic one that goes with UTM beyond 84 N and 80 S.
    """
    north = lat >= 0
    zone = int((lon + 180) % 360 // 6) + 1
    is_utm = _UTM_SOUTH <= lat <= _UTM_NORTH
    if geodetic.to_epsg() == 4326:
        utm = (32600 if north else 32700) + zone
        return pyproj.CRS.from_epsg(utm if is_utm else 5041 if north else 5042)
    conversion = (
        UTMConversion(str(zone), "N" if north else "S")
        if is_utm
        else PolarStereographicAConversion(
            latitude_natural_origin=90 if north else -90,
            scale_factor_natural_origin=0.994,
            false_easting=2e6,
            false_northing=2e6,
        )
    )
    base = geodetic if geodetic.is_geographic else GeographicCRS(datum=geodetic.datum)
    return ProjectedCRS(conversion, name=f"{geodetic.name} in metres", geodetic_crs=base)


def middle_longitude(x: NDArray[np.float64], turn: float) -> float:
    """Give the middle of longitudes, as the direction that they have on average; 0 for none."""
    angles = x[np.isfinite(x)] * (2 * np.pi / turn)
    if not len(angles):
        return 0.0
    return float(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()) * (turn / (2 * np.pi)))


def wrap(
    x: NDArray[np.float64], turn: float, around: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Count longitudes within half a turn of another."""
    return x - turn * np.round((x - around) / turn)


def reproject(geometries: Geometries, source: Crs, target: Crs) -> Geometries:
    """Move every vertex of geometries to another CRS.

    Edges stay straight between their vertices: exact enough for objects, not for outlines of
    many kilometres, which ``densify`` makes ready. What crosses the antimeridian comes out in one
    piece in degrees, and what surrounds a pole reaches up to it.

    Args:
        geometries: (N,) shapely geometries, None among them allowed.
        source: their CRS; None where they have none.
        target: the CRS wanted; None keeps them as they are.

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
    """Polygons on a map, cut around positions there, in longitudes and latitudes."""
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


def positions_in(
    positions: Positions, source: Crs, target: Crs, bounds: NDArray[np.float64]
) -> list[Positions]:
    """Move (N, 2) positions to where polygons are, as often as these may hold them.

    In degrees, polygons may lie a full turn away from where positions are counted.

    Args:
        positions: in ``source``; not finite among the results where the target has no place.
        source: their CRS.
        target: CRS of the polygons.
        bounds: (4,) of all polygons.
    """
    there = move(positions, source, target)
    turn = full_turn(target)
    if turn is None or not len(there):
        return [there]
    middle = middle_longitude(there[:, 0], turn)
    there = np.column_stack([wrap(there[:, 0], turn, middle), there[:, 1]])
    low, high = np.nanmin(there[:, 0]), np.nanmax(there[:, 0])
    copies = [
        there + np.array([k * turn, 0.0])
        for k in range(-2, 3)
        if low + k * turn <= bounds[2] and high + k * turn >= bounds[0]
    ]
    return copies or [there]


def _bounds_around(spots: Positions, turn: float | None) -> NDArray[np.float64]:
    """Bounds of positions and a margin, in one piece in degrees, and over a pole in them."""
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
    """The parts of polygons within bounds, and in degrees of those full turns away."""
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
    """Without the lines and points that cutting and mending leave."""
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
    """Mend those that were torn apart by the antimeridian, which makes them half a world wide."""
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
    """A geometry whose vertices follow each other without a leap of longitudes."""
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
    """A closed ring without leaps; one around a pole is led along it."""
    x = np.unwrap(xy[:, 0], period=turn)
    ring = np.column_stack([x, xy[:, 1]])
    if abs(x[-1] - x[0]) < turn / 2:
        return ring
    pole = math.copysign(turn / 4, float(xy[:, 1].mean()))
    return np.vstack([ring, [[x[-1], pole], [x[0], pole]], ring[:1]])


def _shifted(geometry: Any, x: float) -> Any:
    return shapely.transform(geometry, lambda xy: xy + np.array([x, 0.0])) if x else geometry
