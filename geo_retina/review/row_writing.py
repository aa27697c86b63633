"""Add rows to the layers of a review; nothing that is there is changed or removed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import shapely

from geo_retina.options import ReviewOptions
from geo_retina.review.values import NO_CELL, Frame, Ints, Texts
from geo_retina.vector.review_layers import (
    CELLS,
    DESIGN,
    FORMAT,
    FOUND,
    FRAME,
    REVIEW,
    to_blobs,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class NewCase:
    """One row for the layer ``review``.

    Attributes:
        origin: ``DETECTION`` where the model reports it.
        name: its class.
        score: of it.
        geometry: in the CRS of the review.
        side: of a usual object, for points that become squares.
        reason: one of ``REASONS``.
        cell: number of the drawn cell that holds it, or ``NO_CELL``.
    """

    origin: str
    name: str | None
    score: float
    geometry: Any
    side: float
    reason: str
    cell: int


def write_frame(database: sqlite3.Connection, frame: Frame, options: ReviewOptions) -> None:
    """Store all cells that can be drawn, and how they were laid out, once and for all."""
    about = {"format": FORMAT, **asdict(frame.design)}
    rows = [(name, repr(value)) for name, value in about.items()]
    rows.append(("options", json.dumps(asdict(options))))
    database.executemany(f"INSERT INTO {DESIGN} VALUES (?, ?)", rows)
    columns = (frame.row, frame.col, frame.stratum, frame.use, frame.place, frame.zone)
    numbers = [c.tolist() for c in (*columns, frame.predicted)]
    areas = [None if np.isnan(a) else float(a) for a in frame.area_m2]
    database.executemany(
        f"INSERT INTO {FRAME} (cell, row, col, stratum, use, place, zone, predicted, area_m2) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        zip(range(len(frame)), *numbers, areas, strict=True),
    )


def write_cells(
    database: sqlite3.Connection, frame: Frame, cells: Ints, shapes: Texts, srs_id: int
) -> None:
    """Add drawn cells to the layer, to be looked at."""
    database.executemany(
        f"INSERT INTO {CELLS} (geom, cell, status, use, stratum, place, zone) "
        "VALUES (?, ?, 'new', ?, ?, ?, ?)",
        [
            (blob, int(k), frame.use[k], int(frame.stratum[k]), int(frame.place[k]), frame.zone[k])
            for k, blob in zip(cells, to_blobs(shapes, srs_id), strict=True)
        ],
    )


def write_cases(
    database: sqlite3.Connection, cases: Sequence[NewCase], geometry: str, srs_id: int
) -> None:
    """Add cases to the layer, and remember them as they were handed out."""
    shapes = np.empty(len(cases), dtype=object)
    shapes[:] = [as_type(case.geometry, case.side, geometry) for case in cases]
    blobs = to_blobs(shapes, srs_id)
    first = _next_number(database, FOUND, "case_id")
    priority = _next_number(database, REVIEW, "priority", start=1)
    for at, (case, blob) in enumerate(zip(cases, blobs, strict=True)):
        database.execute(
            f"INSERT INTO {FOUND} (case_id, origin, class, score, geom) VALUES (?, ?, ?, ?, ?)",
            (first + at, case.origin, case.name, case.score, blob),
        )
        cell = None if case.cell == NO_CELL else case.cell
        database.execute(
            f"INSERT INTO {REVIEW} (geom, status, class, score, reason, priority, weight, cell, "
            "case_id) VALUES (?, 'new', ?, ?, ?, ?, 1, ?, ?)",
            (blob, case.name, case.score, case.reason, priority + at, cell, first + at),
        )


def note_change(database: sqlite3.Connection, layers: Sequence[str]) -> None:
    """Tell other programs that layers changed, and how far they reach now."""
    for layer in layers:
        blobs = [blob for (blob,) in database.execute(f"SELECT geom FROM {layer}") if blob]
        bounds: list[float | None] = [None] * 4
        if blobs:
            # What this program writes has its bounds in the head; a GIS's rows may reach further.
            heads = np.array([b[8:40] for b in blobs if (b[3] >> 1) & 7 == 1])
            boxes = np.frombuffer(b"".join(heads.tolist()), "<f8").reshape(-1, 4)
            if len(boxes):
                west, _, south, _ = boxes.min(axis=0)
                _, east, _, north = boxes.max(axis=0)
                bounds = [float(west), float(south), float(east), float(north)]
        database.execute(
            "UPDATE gpkg_contents SET min_x = ?, min_y = ?, max_x = ?, max_y = ?, "
            "last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE table_name = ?",
            (*bounds, layer),
        )


def _next_number(database: sqlite3.Connection, table: str, column: str, *, start: int = 0) -> int:
    (greatest,) = database.execute(f"SELECT MAX({column}) FROM {table}").fetchone()
    return start if greatest is None else int(greatest) + 1


def as_type(geometry: Any, side: float, kind: str) -> Any:
    """Make a geometry fit the layer: points in one of points, else one polygon."""
    if kind == "POINT":
        return shapely.centroid(geometry)
    if shapely.get_dimensions(geometry) < 2:
        x, y = shapely.get_coordinates(shapely.centroid(geometry))[0]
        return shapely.box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    if geometry.geom_type == "Polygon":
        return shapely.force_2d(geometry)
    parts = shapely.get_parts(geometry)
    return shapely.force_2d(parts[0] if len(parts) == 1 else shapely.convex_hull(geometry))
