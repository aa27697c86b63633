"""Hold what a person has checked: cases, cells, and samples of cells to count by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.geodesy import square_metres, unit_m

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Texts = NDArray[np.object_]
Flags = NDArray[np.bool_]

NO_CELL = -1
"""In place of a cell's number: ground that belongs to none."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """How cells were laid out and drawn, at the first drawing and for good.

    Attributes:
        x_min: left side of column 0, in the CRS of the cells.
        y_min: lower side of row 0.
        width: of a cell, in the units of the CRS.
        height: of a cell.
        random_state: of the order of cells.
        learn_share: share of cells that are for learning.
    """

    x_min: float
    y_min: float
    width: float
    height: float
    random_state: int
    learn_share: float

    def middles(self, row: Ints, col: Ints) -> Floats:
        """(n, 2) middles of squares."""
        x = self.x_min + (col + 0.5) * self.width
        y = self.y_min + (row + 0.5) * self.height
        return np.stack([x, y], axis=-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """All cells that could be drawn, (N,) each, by number.

    Attributes:
        design: how they lie.
        row: of the square, from below.
        col: of the square, from the left.
        stratum: number of the stratum.
        use: ``count`` or ``learn``.
        place: position in the random order of its stratum and use, from 0.
        zone: None where cells were drawn without zones.
        predicted: detections in it at the first drawing.
        area_m2: ground in it that was scanned; not a number where no size is known.
    """

    design: Design
    row: Ints
    col: Ints
    stratum: Ints
    use: Texts
    place: Ints
    zone: Texts
    predicted: Floats
    area_m2: Floats

    def __len__(self) -> int:
        return len(self.row)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of how the cells lie and in which order they are drawn."""
        digest = hashlib.sha256(repr(self.design).encode())
        for column in (self.row, self.col, self.stratum, self.place):
            digest.update(column.astype("<i8").tobytes())
        digest.update("".join(use[0] for use in self.use).encode())
        return digest.hexdigest()

    @property
    def middles(self) -> Floats:
        """(N, 2) middles of all squares."""
        return self.design.middles(self.row, self.col)

    def evened(self, points: Floats) -> Floats:
        """Scale positions so that a unit is as long along x as along y, as in degrees it is not.

        Areas stay as they are, and so do sides of squares as large as something's bounds.
        """
        tall = np.sqrt(self.design.height / self.design.width)
        return np.asarray(points * np.array([tall, 1 / tall]))

    def squares(self, cells: Ints) -> Texts:
        """Outline cells as (n,) polygons: whole squares, with or without ground."""
        design = self.design
        x = design.x_min + self.col[cells] * design.width
        y = design.y_min + self.row[cells] * design.height
        return np.asarray(shapely.box(x, y, x + design.width, y + design.height), dtype=object)

    def cell_at(self, points: Floats) -> Ints:
        """Find the cell that holds each point.

        Args:
            points: (P, 2) x, y in the CRS of the cells.

        Returns:
            (P,) numbers of cells, or ``NO_CELL``. A point on a side belongs to the cell right of
            it or above.
        """
        design = self.design
        origin = np.array([design.x_min, design.y_min])
        steps = np.floor((points - origin) / (design.width, design.height))
        known = np.isfinite(steps).all(axis=1)
        col, row = np.where(known[:, None], steps, -1.0).astype(np.int64).T
        span = int(self.col.max(initial=0)) + 1
        keys = self.row * span + self.col
        order = np.argsort(keys)
        key = np.where((col >= 0) & (col < span) & (row >= 0), row * span + col, -1)
        if not len(keys):
            return np.full(len(points), NO_CELL, np.int64)
        at = np.minimum(np.searchsorted(keys, key, sorter=order), len(keys) - 1)
        return np.where(keys[order[at]] == key, order[at], NO_CELL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases:
    """Rows of the layer ``review``, (N,) each, in its order.

    A row that a person deleted stands at the end, as the rejected detection that it was.

    Attributes:
        status: one of ``STATUSES``.
        name: current class.
        found_name: class as the model had it; None of what the model does not report: an object
            that a person added, a detection below the threshold, one of another run or a label.
        score: of the detection; not a number where a person added it.
        weight: how much it counts in training.
        geometry: shapely geometries in the CRS of the review; None where there is none.
        cell: number of the cell that holds its centre, drawn or not, or ``NO_CELL``.
        case_id: number that the row was handed out with; -1 of an object that a person added.
        is_touched: whether a person has entered anything.
    """

    status: Texts
    name: Texts
    found_name: Texts
    score: Floats
    weight: Floats
    geometry: Texts
    cell: Ints
    case_id: Ints
    is_touched: Flags

    def __len__(self) -> int:
        return len(self.status)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """The cells of one stratum that a person completed, a simple random sample of it.

    They are the run of done cells from the start of the stratum's random order.

    Attributes:
        stratum: its number.
        zone: of the stratum; None where cells were drawn without zones.
        population: cells of the stratum, of either use, from which these were drawn.
        cells: (n,) numbers of the cells, in the order drawn.
        classes: (C,) names, sorted.
        found: (n, C) detections that were handed out, right or not.
        true: (n, C) objects that are there: accepted, changed, added, and left as they were.
        hits: (n, C) detections that are objects of their class.
        missed: (n, C) objects that were not found, or as another class.
        not_counted: done cells beyond a gap in the order, which no estimate may use.
    """

    stratum: int
    zone: str | None
    population: int
    cells: Ints
    classes: tuple[str, ...]
    found: Ints
    true: Ints
    hits: Ints
    missed: Ints
    not_counted: int

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, kw_only=True, eq=False)
class Review:
    """All that a GeoPackage under review says.

    Attributes:
        path: of the file.
        crs: of the cells and cases; None where the detections have none.
        frame: all cells that could be drawn.
        is_drawn: (N,) whether each cell is in the layer ``cells``.
        is_done: (N,) whether a person completed it.
        cases: rows of the layer ``review``.
    """

    path: Path
    crs: pyproj.CRS | None
    frame: Frame
    is_drawn: Flags
    is_done: Flags
    cases: Cases

    @property
    def notes(self) -> tuple[str, ...]:
        """Tell what of the entries counts nowhere, a sentence each."""
        strays = (self.cases.status == np.array("added")) & (self.cases.cell == NO_CELL)
        if not strays.any():
            return ()
        return (
            f"{int(strays.sum()):,} of the objects that were added lie in no cell, on ground that "
            "was not scanned, and are in no count; check their place in the layer review",
        )

    @property
    def units_a_metre(self) -> float:
        """Units of the CRS that are a metre amid the cells, evened; 1 where no size is known."""
        if self.crs is None or not len(self.frame):
            return 1.0
        bounds = shapely.total_bounds(self.frame.squares(np.arange(len(self.frame))))
        area_m2 = square_metres((bounds[None, :2] + bounds[None, 2:]) / 2, self.crs)[0]
        return float(1 / np.sqrt(area_m2)) if area_m2 > 0 else 1 / unit_m(self.crs)

    @property
    def zones(self) -> tuple[str, ...]:
        """Names of the zones in which cells were drawn, sorted."""
        return tuple(sorted({zone for zone in self.frame.zone if zone is not None}))
