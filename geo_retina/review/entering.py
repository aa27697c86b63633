"""Let labels play the person: ``enter_labels`` fills a review in by what is known to be true."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geo_retina.errors import LabelError
from geo_retina.geodesy import missing_crs, reproject
from geo_retina.review.detections import Places, pair_places, read_places
from geo_retina.review.reading import read_review
from geo_retina.review.row_writing import as_type, note_change
from geo_retina.review.values import NO_CELL, Flags, Floats, Ints, Review, Texts
from geo_retina.vector import LabelLayer, read_labels
from geo_retina.vector.review_layers import CELLS, REVIEW, to_blobs
from geo_retina.vector.writers.editing import edit_package


@dataclass(frozen=True, kw_only=True)
class EntryReport:
    """What labels entered in a review.

    Attributes:
        accepted: rows that are right.
        changed: rows that got another class.
        rejected: rows that are no object.
        added: objects in cells that no row stood for.
        cells: cells that were completed.
    """

    accepted: int
    changed: int
    rejected: int
    added: int
    cells: int


def enter_labels(
    path: str | Path,
    labels: str | Path,
    *,
    where: str | None = None,
    class_column: str | None = None,
    radius_m: float | None = None,
    cases: int | None = None,
) -> EntryReport:
    """Enter in a review what labels say, as a person would who knows them.

    For ground that was labelled before, for teaching, and to tell what a review would bring: every
    drawn cell is completed, and cases are decided in the order of their priority. Detections and
    labels pair by their centres, one to one over all ground, the nearest first.

    Args:
        path: a GeoPackage that ``review_detections`` prepared. Rows in which somebody has entered
            something stay as they are.
        labels: file with all objects on its ground.
        where: attribute filter on the labels, as in SQL's WHERE.
        class_column: column with their classes; left out, every label is of any class.
        radius_m: greatest distance of a pair; left out, half the side of a detection.
        cases: decide so many of those outside cells; left out, all.

    Raises:
        LabelError: the file has no review, or the labels cannot be laid on it.
        OutputError: the file is locked, or cannot be written.

    Examples:
        >>> from geo_retina import ReviewOptions, enter_labels, review_detections
        >>> options = ReviewOptions(cells=20, cell_size_m=20.0)
        >>> report = review_detections("detections.gpkg", options)
        >>> enter_labels("detections.gpkg", "labels.gpkg", class_column="class").cells
        20
    """
    path = Path(path)
    review = read_review(path)
    known = _placed(read_labels(labels, where=where, class_column=class_column), review)
    found, _ = read_places(path, review.crs)
    radius = None if radius_m is None else radius_m * review.units_a_metre
    row, other_label = _pair(review, found.take(found.margin >= 0), known, radius)
    with edit_package(path) as database:
        decided = _decided(database, review, cases)
        counts = _decide(database, review, known, decided, row)
        drawn = np.append(review.is_drawn & ~review.is_done, False)
        missed = other_label & drawn[review.frame.cell_at(_centres(known.geometries))]
        added = _add(database, review, known, missed, found)
        done = database.execute(f"UPDATE {CELLS} SET status = 'done' WHERE status = 'new'").rowcount
        note_change(database, (REVIEW, CELLS))
    return EntryReport(**counts, added=added, cells=done)


def _placed(labels: LabelLayer, review: Review) -> LabelLayer:
    """Bring labels into the CRS of the review."""
    if review.crs is None:
        path = str(review.path)
        raise LabelError(missing_crs(path, "labels cannot be laid on it", file=path))
    moved = reproject(labels.geometries, labels.crs, review.crs)
    return replace(labels, geometries=np.asarray(moved, dtype=object), crs=review.crs)


def _centres(geometries: Texts) -> Floats:
    """(N, 2) of the centroids; not finite of missing geometries."""
    points = shapely.centroid(geometries)
    return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=-1)


def _pair(
    review: Review, reported: Places, known: LabelLayer, radius: float | None
) -> tuple[Ints, Flags]:
    """Pair rows with labels.

    Returns:
        (N,) the label of each row, or -1; and (L,) labels that neither a reported detection nor a
        row has.
    """
    cases = review.cases
    evened = review.frame.evened
    points, places = evened(_centres(cases.geometry)), evened(_centres(known.geometries))
    reported = replace(reported, centre=evened(reported.centre))
    own = cases.found_name != np.array(None)
    label_of_detection = np.full(len(reported), -1)
    i, j = pair_places(reported.centre, places, _reach(reported.side, radius))
    label_of_detection[i] = j
    row = np.full(len(cases), -1)
    # Rows of reported detections stand where these do.
    rows = np.flatnonzero(own)
    i, k = pair_places(points[rows], reported.centre, np.full(len(rows), 1e-3 * _usual(reported)))
    row[rows[i]] = label_of_detection[k]
    free = np.ones(len(known), bool)
    free[label_of_detection[label_of_detection >= 0]] = False
    # Others, below the threshold or of another run, take what is left.
    rows, left = np.flatnonzero(~own), np.flatnonzero(free)
    sides = np.full(len(rows), _usual(reported))
    i, j = pair_places(points[rows], places[left], _reach(sides, radius))
    row[rows[i]] = left[j]
    free[left[j]] = False
    return row, free


def _usual(reported: Places) -> float:
    return float(np.median(reported.side)) if len(reported) else 1.0


def _reach(sides: Floats, radius: float | None) -> Floats:
    return sides / 2 if radius is None else np.full(len(sides), radius)


def _decided(database: sqlite3.Connection, review: Review, cases: int | None) -> Flags:
    """Choose the rows to decide: new ones in cells, and the most useful others."""
    rows = review.cases
    new = (rows.status == "new") & ~rows.is_touched
    in_cell = np.append(review.is_drawn, False)[rows.cell] & (rows.cell != NO_CELL)
    order = {
        number: at
        for at, (number,) in enumerate(
            database.execute(f"SELECT case_id FROM {REVIEW} ORDER BY priority")
        )
    }
    queue = sorted(np.flatnonzero(new & ~in_cell), key=lambda at: order[int(rows.case_id[at])])
    chosen = np.asarray(new & in_cell, dtype=bool)
    chosen[np.array(queue[:cases], np.int64)] = True
    return chosen


def _decide(
    database: sqlite3.Connection, review: Review, known: LabelLayer, decided: Flags, label: Ints
) -> dict[str, int]:
    counts = {"accepted": 0, "changed": 0, "rejected": 0}
    for at in np.flatnonzero(decided).tolist():
        own, status = review.cases.name[at], "accepted"
        name = own if known.class_names is None or label[at] < 0 else known.class_names[label[at]]
        if label[at] < 0:
            status = "rejected"
        elif name != own:
            status = "changed"
        counts[status] += 1
        database.execute(
            f"UPDATE {REVIEW} SET status = ?, class = ? WHERE case_id = ?",
            (status, name, int(review.cases.case_id[at])),
        )
    return counts


def _add(
    database: sqlite3.Connection, review: Review, known: LabelLayer, missed: Flags, found: Places
) -> int:
    query = "SELECT geometry_type_name, srs_id FROM gpkg_geometry_columns WHERE table_name = ?"
    kind, srs_id = database.execute(query, (REVIEW,)).fetchone()
    rows = np.flatnonzero(missed)
    shapes: Any = np.empty(len(rows), dtype=object)
    shapes[:] = [as_type(known.geometries[at], _usual(found), kind) for at in rows]
    usual = next(iter(sorted(set(found.name) - {None})), "object")
    names = [usual if known.class_names is None else known.class_names[at] for at in rows]
    database.executemany(
        f"INSERT INTO {REVIEW} (geom, status, class, weight) VALUES (?, 'added', ?, 1)",
        zip(to_blobs(shapes, srs_id), names, strict=True),
    )
    return len(rows)
