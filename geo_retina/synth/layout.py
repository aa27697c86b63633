"""What stands where: the objects and look-alikes of each parcel, in metres.

A parcel's things are drawn from its own generator, so that any part of a scene can be laid
out without the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.synth.freight import (
    LORRY_REACH_M,
    make_lorries,
    park_lorries,
    shunt_wagons,
    stack_containers,
)
from geo_retina.synth.parcels import Land, Parcel, Use, Way
from geo_retina.synth.plot import (
    EDGE_GAP_M,
    Plot,
    make_trees,
    make_vehicles,
    scatter_clutter,
)
from geo_retina.synth.things import (
    CLASSES,
    ROUND,
    Kind,
    Things,
    boxes_m,
    corners_m,
    half_extents_m,
    is_object,
)

_MAX_IOU, _MAX_SHARE = 0.12, 0.3
"""Boxes of a class may overlap by this at the most, and by this share of the smaller one:
crowns touch, and cars that stand at an angle have boxes that do."""

_LORRIES_ON_ROADS = 0.4
"""Share of what drives there that is a lorry, where goods are handled."""

_SHARE = {
    Use.FIELD: 0.06,
    Use.MEADOW: 0.32,
    Use.PARKING: 3.0,
    Use.ORCHARD: 1.6,
    Use.WOOD: 2.1,
    Use.YARD: 1.0,
    Use.HOMES: 0.8,
    Use.LORRIES: 1.5,
    Use.SIDINGS: 1.3,
    Use.STACKS: 2.0,
}
"""Objects of a parcel by use, relative to the scene's density."""


def _parking(plot: Plot) -> list[Things]:
    """Lay rows of stalls, back to back, with an aisle between; the taken ones and their lines."""
    rng = plot.rng
    pitch = rng.uniform(2.5, 3.0)
    stalls, steps = plot.lattice(pitch, 8.0)
    # Two rows 5.3 m apart, then an aisle: shift every second row towards its partner.
    shift = np.where(steps[:, 1] % 2 == 0, 1.35, -1.35)
    cos, sin = np.cos(plot.parcel.angle), np.sin(plot.parcel.angle)
    stalls = stalls + shift[:, None] * np.array([-sin, cos])
    open_ = plot.land.room_m(plot.parcel, stalls) > 3.0 + EDGE_GAP_M
    stalls, steps = stalls[open_], steps[open_]
    chance = np.clip(plot.quota / max(len(stalls), 1), 0, 0.97)
    liking = 0.75 + 0.5 * rng.random(64)[steps[:, 1] % 64]
    taken = rng.random(len(stalls)) < np.clip(chance * liking, 0, 0.97)
    wobble = rng.normal(0, 0.12, (len(stalls), 2))
    facing = plot.parcel.angle + np.pi / 2 + rng.normal(0, 0.03, len(stalls))
    facing = facing + np.pi * rng.integers(0, 2, len(stalls))
    cars = make_vehicles(plot, (stalls + wobble)[taken], facing[taken])
    lines = stalls + np.array([cos, sin]) * pitch / 2
    paint = plot.things(
        Kind.PAINT,
        lines,
        np.full((len(lines), 2), [4.8, 0.15]),
        angle=plot.parcel.angle + np.pi / 2,
    )
    return [cars, paint if plot.clutter > 0 else paint[:0], scatter_clutter(plot, Kind.PATCH, 3)]


def _orchard(plot: Plot) -> list[Things]:
    pitch = plot.rng.uniform(4.2, 6.2)
    places, _ = plot.lattice(pitch, pitch * plot.rng.uniform(1.0, 1.25))
    places = places[plot.land.room_m(plot.parcel, places) > pitch / 2 + EDGE_GAP_M]
    places = places[plot.rng.random(len(places)) < plot.quota / max(len(places), 1)]
    places = places + plot.rng.normal(0, 0.2, places.shape)
    return [
        make_trees(plot, places, max(3.3, pitch * 0.72), pitch * 1.0),
        scatter_clutter(plot, Kind.BUSH, 4),
    ]


def _wood(plot: Plot) -> list[Things]:
    centres = plot.scatter(3)
    n = plot.quota * 4
    near = centres[plot.rng.integers(0, 3, n)] + plot.rng.normal(0, 9, (n, 2))
    return [
        make_trees(plot, near),
        scatter_clutter(plot, Kind.BUSH, 14),
        scatter_clutter(plot, Kind.BOULDER, 2),
    ]


def _meadow(plot: Plot) -> list[Things]:
    return [
        make_trees(plot, plot.scatter(plot.quota * 2)),
        scatter_clutter(plot, Kind.BUSH, 10),
        scatter_clutter(plot, Kind.BOULDER, 6),
        scatter_clutter(plot, Kind.POND, 1),
    ]


def _field(plot: Plot) -> list[Things]:
    return [
        make_trees(plot, plot.scatter(plot.quota)),
        scatter_clutter(plot, Kind.BOULDER, 7),
        scatter_clutter(plot, Kind.PATCH, 2),
        scatter_clutter(plot, Kind.BUSH, 3),
    ]


def _yard(plot: Plot) -> list[Things]:
    diameter = plot.rng.uniform(5.0, 10.0)
    places, _ = plot.lattice(diameter * 1.22, diameter * 1.22)
    places = places[plot.land.room_m(plot.parcel, places) > diameter / 2 + EDGE_GAP_M]
    n = min(len(places), max(int(plot.quota * 0.6), 1 if plot.quota else 0))
    corner = plot.scatter(1)
    places = places[np.argsort(((places - corner) ** 2).sum(axis=1), kind="stable")[:n]]
    size = plot.sizes(len(places), diameter * 0.9, diameter)
    tanks = plot.things(Kind.TANK, places, size, height_m=size[:, 0] * 0.5)
    square = plot.parcel.angle + np.pi / 2 * plot.rng.integers(0, 2, plot.quota)
    return [
        tanks,
        scatter_clutter(plot, Kind.TRAILER, 9),
        make_vehicles(plot, plot.scatter(plot.quota), square),
        scatter_clutter(plot, Kind.PATCH, 6),
        scatter_clutter(plot, Kind.POND, 2),
    ]


def _homes(plot: Plot) -> list[Things]:
    places, _ = plot.lattice(20.0, 24.0)
    places = places + plot.rng.normal(0, 1.5, places.shape)
    size = np.stack(
        [plot.rng.uniform(10, 15, len(places)), plot.rng.uniform(8, 10, len(places))], 1
    )
    houses = plot.things(Kind.HOUSE, places, size, angle=plot.parcel.angle, height_m=5.0)
    cos, sin = np.cos(plot.parcel.angle), np.sin(plot.parcel.angle)
    drive = places + np.array([-sin, cos]) * (size[:, 1:] / 2 + 3.6)
    drive = drive[plot.rng.permutation(len(drive))][: plot.quota]
    crowns = make_trees(plot, plot.scatter(plot.quota * 3), 3.3, 7.0)
    return [
        houses,
        make_vehicles(plot, drive, plot.parcel.angle + np.pi / 2),
        crowns,
        scatter_clutter(plot, Kind.BUSH, 8),
        scatter_clutter(plot, Kind.PATCH, 3),
    ]


_LAYOUTS: dict[Use, Callable[[Plot], list[Things]]] = {
    Use.FIELD: _field,
    Use.MEADOW: _meadow,
    Use.PARKING: _parking,
    Use.ORCHARD: _orchard,
    Use.WOOD: _wood,
    Use.YARD: _yard,
    Use.HOMES: _homes,
    Use.LORRIES: park_lorries,
    Use.SIDINGS: shunt_wagons,
    Use.STACKS: stack_containers,
}


def _road(plot: Plot, other: Parcel, spacing_m: float) -> list[Things]:
    """Lay cars and paint along the road between two parcels."""
    here, there = np.array([plot.parcel.x, plot.parcel.y]), np.array([other.x, other.y])
    across = (there - here) / np.linalg.norm(there - here)
    along = np.array([-across[1], across[0]])
    reach = plot.land.cell_m
    t = np.arange(-reach, reach, 6.0)
    middle = (here + there) / 2 + t[:, None] * along
    heading = float(np.arctan2(along[1], along[0]))
    paint = plot.things(Kind.PAINT, middle, np.full((len(t), 2), [2.4, 0.18]), angle=heading)
    n = int(plot.rng.poisson(2 * reach / spacing_m))
    t = plot.rng.uniform(-reach, reach, n)
    lane = plot.rng.choice([-1.75, 1.75], n)
    cars = (here + there) / 2 + t[:, None] * along + lane[:, None] * across
    things = [make_vehicles(plot, cars, heading), paint if plot.clutter > 0 else paint[:0]]
    if plot.land.freight:
        longer = plot.rng.random(n) < _LORRIES_ON_ROADS
        lorries = make_lorries(plot, cars[longer], np.full(longer.sum(), heading))
        things = [lorries[_on_way(plot, other, lorries, LORRY_REACH_M + 8.0)], *things]
    return [part[_on_way(plot, other, part, 8.0)] for part in things]


def _on_way(plot: Plot, other: Parcel, things: Things, clear_m: float) -> NDArray[np.bool_]:
    """Find (N,) things that lie between these two parcels, away from where others touch them."""
    points = np.stack([things["x"], things["y"]], axis=1)
    own = np.array([plot.parcel.x, plot.parcel.y])
    others = plot.land.around(plot.parcel, 2)
    third = np.array([[p.x, p.y] for p in others if (p.row, p.col) != (other.row, other.col)])
    far = ((points[:, None] - third) ** 2).sum(axis=2)
    near = ((points - own) ** 2).sum(axis=1)
    gap_m = (far - near[:, None]) / (2 * np.linalg.norm(third - own, axis=1))
    return np.asarray(gap_m.min(axis=1) > clear_m)


def _separate(things: Things, *, freight: bool) -> Things:
    """Keep, in order, what overlaps nothing kept before; like objects may touch a little."""
    rivals: dict[int, list[int]] = {}
    for i, j in (_outlines_that_meet(things) if freight else _boxes_that_meet(things)).tolist():
        rivals.setdefault(j, []).append(i)
    kept: dict[int, None] = {}
    for i in range(len(things)):
        if not any(rival in kept for rival in rivals.get(i, ())):
            kept[i] = None
    return things[list(kept)]


def _boxes_that_meet(things: Things) -> NDArray[np.int64]:
    """Find pairs (P, 2) whose boxes overlap by more than like objects may."""
    area = boxes_m(things)
    pairs = boxes.overlapping_pairs(area)
    first, second = area[pairs[:, 0]], area[pairs[:, 1]]
    common = boxes.intersection(first, second)
    kinds = things["kind"][pairs]
    alike = (kinds[:, 0] == kinds[:, 1]) & (kinds[:, 0] < len(CLASSES))
    smaller = np.minimum(boxes.area(first), boxes.area(second))
    touch = alike & (boxes.iou(first, second) <= _MAX_IOU) & (common <= _MAX_SHARE * smaller)
    painted = (kinds == Kind.PAINT).any(axis=1)
    return pairs[~painted & ~touch & (common > 0)]


def _outlines_that_meet(things: Things) -> NDArray[np.int64]:
    """Find pairs (P, 2) whose rectangles overlap, turned as they are; round things by their box."""
    area = boxes_m(things)
    pairs = boxes.overlapping_pairs(area)
    on_top = ~np.isin(things["kind"], (Kind.PAINT, Kind.RAILS))
    pairs = pairs[on_top[pairs].all(axis=1)]
    shapes = np.where(
        np.isin(things["kind"], ROUND), shapely.box(*area.T), shapely.polygons(corners_m(things))
    )
    return pairs[shapely.area(shapely.intersection(*shapes[pairs].T)) > 0]


@lru_cache(maxsize=8192)
def lay_out(land: Land, density_m2: float, clutter: float, row: int, col: int) -> Things:
    """Lay out the things of one parcel, objects and look-alikes, in a fixed order.

    Args:
        land: the scene's parcels.
        density_m2: objects per square metre.
        clutter: look-alikes, relative to the usual number.
        row: of the parcel's cell.
        col: of the parcel's cell.

    Returns:
        (N,) of dtype ``THING``. Things of different parcels do not overlap.
    """
    parcel = land.parcel(row, col)
    entropy = np.random.SeedSequence([land.seed, row % 2**32, col % 2**32])
    rng = np.random.Generator(np.random.Philox(entropy))
    expected = density_m2 * land.cell_m**2
    plot = Plot(land, parcel, rng, int(rng.poisson(expected * _SHARE[parcel.use])), clutter)
    inside = np.concatenate(_LAYOUTS[parcel.use](plot))
    reach = np.linalg.norm(half_extents_m(inside).reshape(-1, 2, 2).max(axis=1), axis=1)
    centres = np.stack([inside["x"], inside["y"]], axis=1)
    inside = inside[land.room_m(parcel, centres) > reach + EDGE_GAP_M]
    inside = _limit(_separate(inside, freight=land.freight), plot)
    roads = []
    for other in land.around(parcel, 1):
        if (other.row, other.col) > (row, col) and land.way(parcel, other) == Way.ROAD:
            roads += _road(plot, other, 500.0 / max(expected, 1e-9))
    if roads:
        apart = _separate(np.concatenate(roads), freight=land.freight)
        inside = np.concatenate([inside, apart])
    things = inside
    things.setflags(write=False)
    return things


def _limit(things: Things, plot: Plot) -> Things:
    """Keep at most the parcel's number of objects, the first ones; look-alikes all stay."""
    counted = is_object(things, freight=plot.land.freight)
    return things[~counted | (np.cumsum(counted) <= plot.quota)]
