"""Lay cells over the ground that was scanned, and draw from them at random, in strata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely

from geo_retina.errors import OptionError
from geo_retina.geodesy import square_metres, steps_on_ellipsoid_m, unit_m
from geo_retina.options import ReviewOptions
from geo_retina.review.strata import FEWEST, strata_by_count
from geo_retina.review.values import NO_CELL, Design, Floats, Frame, Ints, Texts
from geo_retina.review.zones import zones_at

_MOST_CELLS = 1_000_000
_OBJECTS_A_CELL = 4.0
_SIDES_A_CELL = 3.0
"""A cell is at least as many usual objects wide, so that few lie on its border."""
_FEWEST_CELLS = 400
"""Cells that the ground should have at the least, where no size is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """Ground that was scanned.

    Attributes:
        parts: polygons that do not overlap.
        crs: theirs; None of an image without georeferencing.
        zones: polygons by name, in the same CRS; none where there are no zones.
    """

    parts: Texts
    crs: pyproj.CRS | None
    zones: dict[str, Any]

    def units_a_metre(self) -> Floats:
        """(2,) units of the CRS along x and y that are a metre at the middle of the ground."""
        west, south, east, north = shapely.total_bounds(self.parts)
        middle = np.array([(west + east) / 2, (south + north) / 2])
        step = max(east - west, north - south) * 1e-3
        ends = middle + np.array([[0.0, 0.0], [step, 0.0], [0.0, step]])
        metres = steps_on_ellipsoid_m(self.crs, ends)
        if np.isfinite(metres).all() and (metres > 0).all():
            return step / metres
        return np.full(2, 1.0 if self.crs is None else 1 / unit_m(self.crs))


def lay_cells(ground: Ground, centres: Floats, side: float, options: ReviewOptions) -> Frame:
    """Cut ground into square cells, in strata, and shuffle each stratum once and for all.

    Args:
        ground: all that was looked at.
        centres: (N, 2) of the detections.
        side: of a usual detection, in units of the CRS; 0 where there is none.
        options: size of cells, strata, and the state of the random order.

    Raises:
        OptionError: there would be too many cells, or too few are asked for.
    """
    sides_xy = _cell_sides(ground, len(centres), side, options)
    x_min, y_min = shapely.total_bounds(ground.parts)[:2]
    design = Design(
        x_min=float(x_min), y_min=float(y_min),
        width=float(sides_xy[0]), height=float(sides_xy[1]),
        random_state=options.random_state, learn_share=options.learn_share,
    )  # fmt: skip
    row, col, area = _squares_with_ground(ground, design)
    middles = design.middles(row, col)
    zone = zones_at(ground.zones, middles)
    area_m2 = np.full(len(row), math.nan)
    if ground.crs is not None:
        area_m2 = area * square_metres(middles, ground.crs)
    frame = Frame(
        design=design, row=row, col=col, stratum=np.zeros(len(row), np.int64),
        use=np.full(len(row), "count", object), place=np.zeros(len(row), np.int64),
        zone=zone, predicted=np.zeros(len(row)), area_m2=area_m2,
    )  # fmt: skip
    cell = frame.cell_at(centres)
    predicted = np.bincount(cell[cell != NO_CELL], minlength=len(row)).astype(np.float64)
    stratum = _strata(predicted, zone, options)
    use, place = _shuffle(stratum, options)
    return Frame(
        design=design, row=row, col=col, stratum=stratum, use=use, place=place,
        zone=zone, predicted=predicted, area_m2=area_m2,
    )  # fmt: skip


def cell_squares(ground: Texts, frame: Frame, cells: Ints) -> Texts:
    """(n,) the ground inside cells, as multi-polygons."""
    squares = frame.squares(cells)
    tree = shapely.STRtree(ground)
    at, part = tree.query(squares, predicate="intersects")
    pieces = shapely.intersection(squares[at], ground[part])
    shapes = np.empty(len(cells), object)
    for k in range(len(cells)):
        whole = shapely.union_all(pieces[at == k])
        polygons = [p for p in shapely.get_parts(whole) if shapely.get_dimensions(p) == 2]
        shapes[k] = shapely.multipolygons(polygons)
    return shapes


def _cell_sides(ground: Ground, count: int, side: float, options: ReviewOptions) -> Floats:
    """(2,) width and height of cells in units of the CRS."""
    units = ground.units_a_metre()
    if options.cell_size_m is not None:
        return options.cell_size_m * units
    area_m2 = float(shapely.area(ground.parts).sum()) / float(np.prod(units))
    wide = math.sqrt(area_m2 * _OBJECTS_A_CELL / max(count, 1))
    wide = min(wide, math.sqrt(area_m2 / _FEWEST_CELLS))
    wide = max(wide, _SIDES_A_CELL * side / math.sqrt(float(np.prod(units))))
    wide = max(wide, math.sqrt(area_m2 * 2 / _MOST_CELLS))
    # Two digits, so that the size can be told and given again.
    digits = 1 - math.floor(math.log10(wide))
    return round(wide, digits) * units


def _squares_with_ground(ground: Ground, design: Design) -> tuple[Ints, Ints, Floats]:
    """Rows and columns of the squares that hold ground, by place, and its area in their units."""
    origin = np.array([design.x_min, design.y_min] * 2)
    sides = np.array([design.width, design.height] * 2)
    spans = (shapely.bounds(ground.parts) - origin) / sides
    first = np.floor(spans[:, :2]).astype(np.int64)
    last = np.maximum(np.ceil(spans[:, 2:]).astype(np.int64), first + 1)
    count = int(np.prod(last - first, axis=1).sum())
    if count > 4 * _MOST_CELLS:
        raise OptionError(
            f"the ground has about {count:,} cells of {design.width:g} x {design.height:g} units "
            f"of its CRS, expected at most {_MOST_CELLS:,}; give a larger ReviewOptions.cell_size_m"
        )
    numbers = np.concatenate([_lattice(a, b) for a, b in zip(first, last, strict=True)])
    numbers = np.unique(numbers, axis=0)
    squares = _boxes(design, numbers[:, 0], numbers[:, 1])
    at, part = shapely.STRtree(ground.parts).query(squares, predicate="intersects")
    pieces = shapely.area(shapely.intersection(squares[at], ground.parts[part]))
    area = np.bincount(at, pieces, minlength=len(squares)).astype(np.float64)
    holds = area > 1e-9 * design.width * design.height
    return numbers[holds, 0], numbers[holds, 1], area[holds]


def _lattice(first_xy: Ints, last_xy: Ints) -> Ints:
    """(K, 2) rows and columns of all squares of a range."""
    row, col = np.mgrid[first_xy[1] : last_xy[1], first_xy[0] : last_xy[0]]
    return np.stack([row.ravel(), col.ravel()], axis=1)


def _boxes(design: Design, row: Ints, col: Ints) -> Texts:
    x = design.x_min + col * design.width
    y = design.y_min + row * design.height
    return np.asarray(shapely.box(x, y, x + design.width, y + design.height), dtype=object)


def _strata(predicted: Floats, zone: Texts, options: ReviewOptions) -> Ints:
    """(N,) numbers of strata: by predicted count, within each zone."""
    zones = sorted(set(zone), key=lambda name: (name is None, name or ""))
    shares = [s for s in (options.learn_share, 1 - options.learn_share) if s > 0]
    fewest = math.floor(options.cells * min(shares) / (2 * FEWEST * len(zones)))
    number = min(options.strata, max(fewest, 1))
    stratum = np.zeros(len(predicted), np.int64)
    first = 0
    for name in zones:
        inside = np.array([each == name for each in zone], bool)
        stratum[inside] = first + strata_by_count(predicted[inside], number)
        first = int(stratum[inside].max()) + 1
    return stratum


def _shuffle(stratum: Ints, options: ReviewOptions) -> tuple[Texts, Ints]:
    """(N,) use and place in the random order of each cell's stratum."""
    random = np.random.default_rng(options.random_state)
    use = np.full(len(stratum), "count", dtype=object)
    place = np.zeros(len(stratum), np.int64)
    for each in np.unique(stratum):
        order = random.permutation(np.flatnonzero(stratum == each))
        upto = np.floor(np.arange(len(order) + 1) * options.learn_share + 1e-9)
        learns = np.diff(upto) > 0
        use[order[learns]] = "learn"
        place[order[learns]] = np.arange(learns.sum())
        place[order[~learns]] = np.arange((~learns).sum())
    return use, place
