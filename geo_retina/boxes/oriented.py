"""Free functions over (N, 5) oriented boxes: rectangles at any angle, float64.

A row is centre x, centre y, length (the long side), width, and ``angle_deg`` of the long side in
[-90, 90). x points right and y down, and the angle grows from +x to +y, so clockwise as seen. Both
sides of a square are long: its angle is in [-45, 45). The frame is in the name: ``rotated_px``,
``rotated_tile``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import ArrayLike, NDArray

from geo_retina.boxes.upright import Boxes, place_corners
from geo_retina.geodesy import is_on_earth, move, unit_m

if TYPE_CHECKING:
    from geo_retina.grid import Grid

Rotated = NDArray[np.float64]

_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
"""Corners by halves of length and width; of an upright box top-left first, then clockwise."""


def normalise(rotated: ArrayLike) -> Rotated:
    """Put the long side first and the angle into its range; the rectangles stay the same."""
    rotated = np.array(rotated, dtype=np.float64).reshape(-1, 5)
    length, width, angle = rotated[:, 2:].T
    is_swapped = width > length
    rotated[:, 2:4] = np.where(is_swapped[:, None], rotated[:, [3, 2]], rotated[:, 2:4])
    turn = np.where(length == width, 90.0, 180.0)
    angle = np.remainder(angle + np.where(is_swapped, 90.0, 0.0) + turn / 2, turn)
    # A remainder just under 0 rounds to the turn itself.
    rotated[:, 4] = np.where(angle >= turn, 0.0, angle) - turn / 2
    return rotated


def area(rotated: Rotated) -> NDArray[np.float64]:
    """Compute (N,) areas."""
    return np.asarray(rotated[:, 2] * rotated[:, 3])


def from_upright(boxes: Boxes) -> Rotated:
    """Write upright boxes as oriented ones."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return normalise(np.column_stack([centre, sides, np.zeros(len(boxes))]))


def corners(rotated: Rotated) -> NDArray[np.float64]:
    """Return (N, 4, 2) corners x, y, clockwise as seen; the first two end a long side."""
    along, across = _axes(rotated)
    halves = rotated[:, None, 2:4] / 2 * _CORNERS
    spread = halves[..., :1] * along[:, None] + halves[..., 1:] * across[:, None]
    return np.asarray(rotated[:, None, :2] + spread)


def from_corners(corners: NDArray[np.float64]) -> Rotated:
    """Read rectangles from (N, 4, 2) corners in order around them, either way; undoes ``corners``.

    Of corners that are nearly a rectangle it is the mean: opposite sides are averaged.
    """
    corners = np.asarray(corners, dtype=np.float64).reshape(-1, 4, 2)
    one = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    other = (corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1]) / 2
    sides = np.hypot(*np.stack([one, other]).transpose(2, 0, 1))
    long = np.where((sides[1] > sides[0])[:, None], other, one)
    angle = np.degrees(np.arctan2(long[:, 1], long[:, 0]))
    columns = [corners.mean(axis=1), sides.max(axis=0), sides.min(axis=0), angle]
    return normalise(np.column_stack(columns))


def hull(rotated: Rotated) -> Boxes:
    """Return the (N, 4) upright boxes around oriented ones."""
    along, across = _axes(rotated)
    half = (np.abs(along) * rotated[:, 2:3] + np.abs(across) * rotated[:, 3:4]) / 2
    return np.concatenate([rotated[:, :2] - half, rotated[:, :2] + half], axis=1)


def shift(rotated: Rotated, x: float, y: float) -> Rotated:
    """Move boxes by (x, y)."""
    return rotated + np.array([x, y, 0.0, 0.0, 0.0])


def clip(rotated: Rotated, bounds: tuple[float, float, float, float]) -> Rotated:
    """Cut boxes to x_min, y_min, x_max, y_max.

    Returns:
        (N, 5) rectangles at the same angle around the parts inside; they may reach beyond the
        bounds again, never beyond the box. Boxes inside come back as they are. A box outside
        becomes one of area 0 at the place nearest to its centre.
    """
    hulls, low, high = hull(rotated), np.array(bounds[:2], float), np.array(bounds[2:], float)
    cut = np.flatnonzero(((hulls[:, :2] < low) | (hulls[:, 2:] > high)).any(axis=1))
    found = rotated.copy()
    if not len(cut):
        return found
    part = rotated[cut]
    along, across = _axes(part)
    points, is_corner = _corners_of_overlap(part, low, high)
    offset = points - part[:, None, :2]
    own = np.stack([(offset * axis[:, None]).sum(axis=2) for axis in (along, across)], axis=2)
    half = part[:, None, 2:4] / 2
    own = np.clip(own, -half, half)
    first = np.where(is_corner[..., None], own, np.inf).min(axis=1)
    last = np.where(is_corner[..., None], own, -np.inf).max(axis=1)
    is_inside = (last > first).all(axis=1)
    with np.errstate(invalid="ignore"):  # of boxes outside, which are replaced
        middle, sides = (first + last) / 2, last - first
        centre = part[:, :2] + middle[:, :1] * along + middle[:, 1:] * across
    centre = np.where(is_inside[:, None], centre, np.clip(part[:, :2], low, high))
    sides = np.where(is_inside[:, None], sides, 0.0)
    found[cut] = normalise(np.column_stack([centre, sides, part[:, 4]]))
    return found


def reach_inside(
    rotated: Rotated, windows: Boxes, directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measure how far the parts of boxes inside windows reach along directions.

    Args:
        rotated: (N, 5).
        windows: (N, 4).
        directions: (N, 2) unit vectors.

    Returns:
        (N, 2) least and greatest; not a number for a box outside its window.
    """
    points, is_corner = _corners_of_overlap(rotated, windows[:, :2], windows[:, 2:])
    along = (points * directions[:, None]).sum(axis=2)
    low = np.where(is_corner, along, np.inf).min(axis=1)
    high = np.where(is_corner, along, -np.inf).max(axis=1)
    inside = np.isfinite(low)[:, None]
    return np.where(inside, np.stack([low, high], axis=1), np.nan)


def around(rotated: Rotated, starts: NDArray[np.int64]) -> Rotated:
    """Find the rectangles around runs of boxes, in the direction of the first of each run.

    Args:
        rotated: (N, 5), run by run.
        starts: (G,) position of the first of each.

    Returns:
        (G, 5).
    """
    frame = rotated[starts]
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rotated)))
    offset = corners(rotated) - frame[run, None, :2]
    axes = _axes(frame)
    reach = np.stack([(offset * axis[run, None]).sum(axis=2) for axis in axes], axis=2)
    first = np.minimum.reduceat(reach.min(axis=1), starts)
    last = np.maximum.reduceat(reach.max(axis=1), starts)
    middle = (first + last) / 2
    centre = frame[:, :2] + middle[:, :1] * axes[0] + middle[:, 1:] * axes[1]
    return normalise(np.column_stack([centre, last - first, frame[:, 4]]))


def minimum_rectangles(polygons: ArrayLike) -> Rotated:
    """Find the smallest rectangle by area around each geometry.

    Args:
        polygons: (N,) shapely geometries in pixels, of any kind; several parts get one rectangle.

    Returns:
        (N, 5). A line has width 0, a point length 0 too, and an empty geometry is not a number.
    """
    import shapely

    hulls = shapely.convex_hull(np.asarray(polygons, dtype=object).reshape(-1))
    points, owner = shapely.get_coordinates(hulls, return_index=True)
    counts = np.bincount(owner, minlength=len(hulls))
    starts = counts.cumsum() - counts
    found = np.full((len(hulls), 5), np.nan)
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        for some in np.array_split(rows, -(-len(rows) * count**2 // _MOST_AT_ONCE)):
            found[some] = _around(points[starts[some, None] + np.arange(count)])
    return found


_MOST_AT_ONCE = 4_000_000
"""Distances of a corner from a side that are computed at once."""


def to_rings(rotated_px: Rotated, grid: Grid) -> NDArray[np.float64]:
    """Place boxes on the ground, their corners exactly, as ``boxes.to_rings`` does upright ones.

    Returns:
        (N, 5, 2) x, y: the four corners counter-clockwise on the ground, and the first again.

    Raises:
        GridError: a box is not finite.
    """
    return place_corners(corners(rotated_px), grid)


def to_polygons(rotated_px: Rotated, grid: Grid) -> NDArray[np.object_]:
    """Place boxes on the ground as (N,) shapely polygons, by ``to_rings``."""
    import shapely

    return np.asarray(shapely.polygons(to_rings(rotated_px, grid)))


def from_rings(rings_crs: NDArray[np.float64], grid: Grid) -> Rotated:
    """Read boxes in pixels from rings or (N, 4, 2) corners on the ground; undoes ``to_rings``."""
    return from_corners(grid.crs_to_pixels(np.asarray(rings_crs)[:, :4]))


class GroundSides(NamedTuple):
    """What an oriented box is on the ground, as columns of a file."""

    azimuth_deg: NDArray[np.float64]
    """(N,) of the long side, in [0, 180), clockwise from north."""

    length_m: NDArray[np.float64]
    """(N,) metres of the long side."""

    width_m: NDArray[np.float64]
    """(N,) metres of the short side."""


def ground_sides(rotated_px: Rotated, grid: Grid, crs: pyproj.CRS | None = None) -> GroundSides:
    """Measure boxes on the ground, along the lines that join the middles of opposite sides.

    Args:
        rotated_px: (N, 5) in pixels of the grid.
        grid: grid of the scene.
        crs: the CRS of the file that the numbers are for; left out, the grid's.

    Returns:
        Azimuths from the grid north of ``crs``, geodesic ones where that is in degrees, or from
        the picture's top without one. Lengths on the ellipsoid, in the unit of the CRS where it
        has no place on Earth, or by ``grid.pixel_m`` without one, not a number without that.
        Which side is the long one is decided on the ground.
    """
    placed = grid.pixels_to_crs(corners(rotated_px))
    middles = (placed + np.roll(placed, -1, axis=1)) / 2  # of the sides, in order around
    # Along the first side, then across it: from the middle of a side to that of the opposite.
    lines = np.stack([middles[:, [3, 1]], middles[:, [0, 2]]])
    if grid.crs is None:
        step = lines[:, :, 1] - lines[:, :, 0]
        up = -1.0 if grid.affine.determinant > 0 else 1.0
        azimuths = _azimuth(step * np.array([1.0, up]))
        pixel_m = np.nan if grid.pixel_m is None else grid.pixel_m
        return _long_first(azimuths, rotated_px[:, 2:4].T * pixel_m)
    written = lines if crs is None else move(lines, grid.crs, crs)
    if is_on_earth(grid.crs):
        azimuths, lengths = _geodesic(lines, grid.crs)
    else:
        lengths = np.hypot(*np.moveaxis(lines[:, :, 1] - lines[:, :, 0], -1, 0))
        azimuths, lengths = np.zeros(lengths.shape), lengths * unit_m(grid.crs)
    if not (crs or grid.crs).is_geographic:
        azimuths = _azimuth(written[:, :, 1] - written[:, :, 0])
    return _long_first(azimuths, lengths)


def _geodesic(
    lines: NDArray[np.float64], crs: pyproj.CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure (..., 2, 2) lines on the ellipsoid: (...) azimuths and metres."""
    geodetic, geod = crs.geodetic_crs, crs.get_geod()
    assert geodetic is not None  # callers look
    assert geod is not None
    degrees = np.degrees(unit_m(geodetic))
    (lon, lat), (to_lon, to_lat) = np.moveaxis(
        move(lines, crs, geodetic) * degrees, (-2, -1), (0, 1)
    )
    azimuths, _, lengths = geod.inv(lon.ravel(), lat.ravel(), to_lon.ravel(), to_lat.ravel())
    return _in_turn(np.reshape(azimuths, lon.shape)), np.reshape(lengths, lon.shape)


def _azimuth(steps_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute azimuths of (..., 2) steps in a plane, north up."""
    return _in_turn(np.degrees(np.arctan2(steps_xy[..., 0], steps_xy[..., 1])))


def _in_turn(azimuths: Any) -> NDArray[np.float64]:
    """Put azimuths of lines without direction into [0, 180)."""
    azimuths = np.remainder(azimuths, 180.0)
    return np.where(azimuths >= 180.0, 0.0, azimuths)


def _long_first(azimuths: NDArray[np.float64], lengths: NDArray[np.float64]) -> GroundSides:
    """Choose the long one of each two lines; of equal ones the first."""
    azimuth = np.where(lengths[1] > lengths[0], azimuths[1], azimuths[0])
    return GroundSides(azimuth, lengths.max(axis=0), lengths.min(axis=0))


def _axes(rotated: Rotated) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute (N, 2) unit vectors along the length and the width; exact at quarter turns."""
    angle = rotated[:, 4]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cos = np.where(angle == -90.0, 0.0, cos)
    return np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)


def _corners_of_overlap(
    rotated: Rotated, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Find (N, 24, 2) points among which the corners of each overlap with bounds are, and which.

    These are corners of either that lie in the other, and crossings of their sides.
    """
    own = corners(rotated)
    low, high = low[..., None, :], high[..., None, :]  # one window for all, or (N, 1, 2)
    window = low + (_CORNERS + 1) / 2 * (high - low)
    along, across = _axes(rotated)
    offset = window - rotated[:, None, :2]
    in_box = (np.abs((offset * along[:, None]).sum(axis=2)) <= rotated[:, None, 2] / 2) & (
        np.abs((offset * across[:, None]).sum(axis=2)) <= rotated[:, None, 3] / 2
    )
    in_window = ((own >= low) & (own <= high)).all(axis=2)
    points = [own, np.broadcast_to(window, own.shape)]
    is_corner = [in_window, in_box]
    side = np.roll(own, -1, axis=1) - own
    for axis in (0, 1):
        other = 1 - axis
        for line in (low[..., axis], high[..., axis]):
            with np.errstate(divide="ignore", invalid="ignore"):  # sides along the line
                share = (line - own[..., axis]) / side[..., axis]
                at = own[..., other] + share * side[..., other]
            crosses = (
                (share >= 0) & (share <= 1) & (at >= low[..., other]) & (at <= high[..., other])
            )
            place = np.where(crosses, at, 0.0)
            pair = (np.broadcast_to(line, place.shape), place)
            points.append(np.stack(pair if axis == 0 else pair[::-1], axis=2))
            is_corner.append(crosses)
    return np.concatenate(points, axis=1), np.concatenate(is_corner, axis=1)


def _around(hulls: NDArray[np.float64]) -> Rotated:
    """Find the smallest rectangles around (N, V, 2) convex rings of V corners."""
    origin = hulls[:, :1]
    points = hulls - origin
    side = np.roll(points, -1, axis=1) - points
    size = np.hypot(side[..., 0], side[..., 1])
    is_side = size > 0
    along = np.where(is_side[..., None], side / np.where(is_side, size, 1.0)[..., None], [1.0, 0.0])
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    # (N, V, V): how far each corner reaches along and across each side.
    reach = np.stack([axis @ points.transpose(0, 2, 1) for axis in (along, across)], axis=-1)
    first, last = reach.min(axis=2), reach.max(axis=2)
    areas = np.where(is_side, (last - first).prod(axis=-1), np.inf)
    best = (np.arange(len(hulls)), areas.argmin(axis=1))
    middle, sides = (first[best] + last[best]) / 2, last[best] - first[best]
    centre = origin[:, 0] + middle[:, :1] * along[best] + middle[:, 1:] * across[best]
    angle = np.degrees(np.arctan2(along[best][:, 1], along[best][:, 0]))
    return normalise(np.column_stack([centre, sides, angle]))
