"""Counting detections and labels by scene, by cell of a grid and by zone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.evaluation.inputs.ground_lengths import (
    NOWHERE,
    cell_corners,
    cell_keys,
    cells_between,
)
from geo_retina.evaluation.inputs.objects import Problem
from geo_retina.evaluation.matching.match_table import IGNORED, TRUE
from geo_retina.evaluation.matching.outcomes import Outcome
from geo_retina.evaluation.metrics.counts import Counts
from geo_retina.geodesy import (
    METRES_A_DEGREE,
    densify,
    from_lon_lat,
    is_on_earth,
    middle_longitude,
    missing_crs,
    positions_in,
    to_lon_lat,
    wrap,
)
from geo_retina.options import EvaluateOptions
from geo_retina.vector.readers.frames import read_frame

_MOST_CELLS = 20_000_000
_NAME = "name"
_POLYGONS = (3, 6)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the objects are that count.

    Attributes:
        crs: of the positions.
        found: (N, 2) of detections; one with its own centre off the labelled ground stands
            where its label is.
        there: (M, 2) of labels.
        scenes: those of the detections and of the labels.
    """

    crs: pyproj.CRS
    found: NDArray[np.float64]
    there: NDArray[np.float64]
    scenes: tuple[NDArray[np.int64], NDArray[np.int64]]


def counting_places(problem: Problem, outcome: Outcome) -> Places:
    """Find positions of the detections and labels that count."""
    rows, labels = np.flatnonzero(outcome.states != IGNORED), np.flatnonzero(problem.truth.counts)
    centres = problem.found.centres[rows]
    moved = ~problem.found.counts[rows] & (outcome.states[rows] == TRUE)
    centres[moved] = problem.truth.centres[outcome.other[rows[moved]]]
    scenes = problem.found.scenes[rows], problem.truth.scenes[labels]
    return Places(problem.crs, centres, problem.truth.centres[labels], scenes)


def count_parts(problem: Problem, places: Places, options: EvaluateOptions) -> dict[str, Counts]:
    """Count by scene, cell and zone, as the options ask, where there is one part at least.

    Raises:
        LabelError: the zones cannot be read, or the cells are too many.
    """
    counts = {}
    if problem.scene_names:
        counts["scene"] = _by_scene(problem, places)
    if options.cell_m is not None:
        counts["cell"] = _by_cell(problem, places, options.cell_m)
    if options.zones is not None:
        counts["zone"] = _by_zone(places, options.zones, options.encoding)
    return {unit: each for unit, each in counts.items() if len(each)}


def _by_scene(problem: Problem, places: Places) -> Counts:
    n = len(problem.scene_names)
    found, there = (np.bincount(codes, minlength=n) for codes in places.scenes)
    # Scenes of which nothing is left inside the ground are no part of this.
    rows = np.flatnonzero(found + there)
    names = np.array(problem.scene_names, dtype=object)
    return Counts("scene", names[rows], found[rows], there[rows])


def _by_cell(problem: Problem, places: Places, side_m: float) -> Counts:
    """Count by cells with an object and, where the ground is known, those with their middle on it.

    Their names are the degrees of their south-western corner, or the metres in a local CRS.
    """
    flat = not is_on_earth(places.crs)
    found, there = (
        cell_keys(to_lon_lat(xy, places.crs), side_m, flat=flat)
        for xy in (places.found, places.there)
    )
    empty = _cells_on_ground(problem, side_m)
    keys = np.unique(np.concatenate([found, there, empty]))
    keys = keys[keys != NOWHERE]
    corners = cell_corners(keys, side_m, flat=flat)[:, :2] * (METRES_A_DEGREE if flat else 1.0)
    names = np.array([f"{lon:.6f} {lat:.6f}" for lon, lat in corners.tolist()], dtype=object)
    return Counts("cell", names, _count(found, keys), _count(there, keys))


def _count(codes: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often each of the sorted keys is among the codes."""
    codes = codes[codes != NOWHERE]
    return np.bincount(np.searchsorted(keys, codes), minlength=len(keys)).astype(np.int64)


def _cells_on_ground(problem: Problem, side_m: float) -> NDArray[np.int64]:
    if problem.ground is None:
        return np.empty(0, np.int64)
    corners = shapely.get_coordinates(densify(np.array([problem.ground], dtype=object)))
    lon_lat = to_lon_lat(corners, problem.crs)
    flat = not is_on_earth(problem.crs)
    if not flat:  # in one piece, also across the antimeridian
        lon_lat[:, 0] = wrap(lon_lat[:, 0], 360.0, middle_longitude(lon_lat[:, 0], 360.0))
    bounds = np.concatenate([np.nanmin(lon_lat, axis=0), np.nanmax(lon_lat, axis=0)])
    many = np.prod(bounds[2:] - bounds[:2]) * (111_000 / side_m) ** 2
    if many > _MOST_CELLS:
        raise LabelError(
            f"cells of {side_m:g} m over the bounds of the ground would be {many:.0g}, expected at "
            f"most {_MOST_CELLS:g}; give a longer side with EvaluateOptions.cell_m"
        )
    keys = cells_between(bounds, side_m, flat=flat)
    box = cell_corners(keys, side_m, flat=flat)
    middle = from_lon_lat((box[:, :2] + box[:, 2:]) / 2, problem.crs)
    if not flat and (bounds[0] < -180 or bounds[2] > 180):
        keys = cell_keys(to_lon_lat(middle, problem.crs), side_m)
    on = shapely.contains_xy(problem.ground, middle)
    if problem.ignored_ground is not None:
        on &= ~shapely.contains_xy(problem.ignored_ground, middle)
    return np.unique(keys[on])


def _by_zone(places: Places, path: str, encoding: str | None) -> Counts:
    """Count by feature; what lies in several, or on their border, counts in each."""
    frame = read_frame(path, encoding=encoding)
    if frame.crs is None:
        raise LabelError(missing_crs(path, "its zones have no place", file=path))
    zones = np.asarray(frame.geometry.array, dtype=object)
    if not len(zones) or not np.isin(shapely.get_type_id(zones), _POLYGONS).all():
        raise LabelError(f"{path} holds something else than polygons, expected zones to count in")
    crs = pyproj.CRS.from_user_input(frame.crs)
    zones = shapely.make_valid(zones)
    bounds = shapely.total_bounds(zones)
    names = [str(name) for name in frame[_NAME]] if _NAME in frame else range(len(zones))
    # Objects go to the zones: however large these are, where an object lies in them is sure.
    found, there = (
        np.sum([_count_in(zones, at) for at in positions_in(xy, places.crs, crs, bounds)], axis=0)
        for xy in (places.found, places.there)
    )
    return Counts("zone", np.array([str(n) for n in names], dtype=object), found, there)


def _count_in(zones: NDArray[np.object_], positions: NDArray[np.float64]) -> NDArray[np.int64]:
    points = shapely.points(positions[np.isfinite(positions).all(axis=1)])
    _, zone = shapely.STRtree(zones).query(points, predicate="intersects")
    return np.bincount(zone, minlength=len(zones)).astype(np.int64)
