"""Read the layers of a review into frozen values."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.review.entry_checks import (
    check_cells_in_place,
    check_classes,
    check_columns,
    check_places,
    check_statuses,
    read_weights,
)
from geo_retina.review.values import Cases, Design, Floats, Frame, Review, Texts
from geo_retina.vector.formats import is_package
from geo_retina.vector.readers.frames import check_readable
from geo_retina.vector.readers.refusing import open_package, refuse_damage
from geo_retina.vector.review_layers import (
    CELL_STATUSES,
    CELLS,
    DESIGN,
    DETECTION,
    ENTRIES,
    FORMAT,
    FOUND,
    FRAME,
    REVIEW,
    STATUSES,
    blob_wkb,
    package_crs,
    tables_of_review,
)


def read_review(path: str | Path) -> Review:
    """Read what a person has entered in a GeoPackage.

    Args:
        path: a file that ``review_detections`` prepared.

    Raises:
        LabelError: it cannot be read, holds no review, or an entry has no meaning.
    """
    path = Path(path)
    check_readable(path)
    check_is_package(path)
    with open_package(path) as database:
        check_has_review(database, path)
        return review_of(database, path)


def check_is_package(path: Path) -> None:
    """Refuse formats that cannot hold a review.

    Raises:
        LabelError: it is one.
    """
    if not is_package(path):
        raise LabelError(
            f"{path} cannot hold a review, expected a GeoPackage; detect with an output that ends "
            "in .gpkg"
        )


def check_has_review(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a file without the layers of a review, or with those of a newer program.

    Raises:
        LabelError: it is one.
    """
    there, missing = tables_of_review(database)
    if not there:
        raise LabelError(
            f"{path} has no review, expected the layers {REVIEW} and {CELLS}; run geo-retina "
            "review on it first"
        )
    if missing:
        raise LabelError(
            f"{path} has the layer {there[0]} without {', '.join(missing)}, which only geo-retina "
            "review writes, as if the layer was copied or made by hand; take the whole file under "
            "review, or rename or remove the layer"
        )
    check_columns(database, path)
    (number,) = database.execute(f"SELECT value FROM {DESIGN} WHERE name = 'format'").fetchone()
    if int(number) > FORMAT:
        raise LabelError(
            f"{path} holds a review of format {number}, expected at most {FORMAT}; use the newer "
            "geo-retina that wrote it"
        )


def review_of(database: sqlite3.Connection, path: Path) -> Review:
    """Read a review of an open GeoPackage that has one.

    Raises:
        LabelError: an entry has no meaning, or the tables are damaged.
    """
    with refuse_damage(path):
        return _review_of(database, path)


def _review_of(database: sqlite3.Connection, path: Path) -> Review:
    frame = _read_frame(database)
    crs = package_crs(database, CELLS)
    drawn = np.zeros(len(frame), bool)
    done = np.zeros(len(frame), bool)
    cells = _columns(database, CELLS, ("cell", "status", "geom"), "fid")
    check_statuses(path, CELLS, cells["cell"], cells["status"], CELL_STATUSES)
    for cell, status in zip(cells["cell"], cells["status"], strict=True):
        if not isinstance(cell, int) or not 0 <= cell < len(frame):
            raise LabelError(
                f"{path} has a cell {cell} that was not drawn, expected the cells that geo-retina "
                "review drew; remove it, since cells chosen by hand are no sample"
            )
        drawn[cell] = True
        done[cell] |= status == "done"
    check_cells_in_place(path, frame, cells["cell"].astype(np.int64), _geometries(cells["geom"]))
    cases = _read_cases(database, path, frame)
    return Review(path=path, crs=crs, frame=frame, is_drawn=drawn, is_done=done, cases=cases)


def handed_out(database: sqlite3.Connection) -> Texts:
    """Read the geometries of all rows as they were handed out."""
    blobs = [blob for (blob,) in database.execute(f"SELECT geom FROM {FOUND} ORDER BY case_id")]
    return _geometries(np.array([*blobs, None], dtype=object)[:-1])


def _read_frame(database: sqlite3.Connection) -> Frame:
    about = dict(database.execute(f"SELECT name, value FROM {DESIGN}"))
    design = Design(
        x_min=float(about["x_min"]),
        y_min=float(about["y_min"]),
        width=float(about["width"]),
        height=float(about["height"]),
        random_state=int(about["random_state"]),
        learn_share=float(about["learn_share"]),
    )
    names = ("cell", "row", "col", "stratum", "use", "place", "zone", "predicted", "area_m2")
    columns = _columns(database, FRAME, names, "cell")
    if (columns["cell"] != np.arange(len(columns["cell"]))).any():
        raise LabelError("its table review_frame has gaps")
    return Frame(
        design=design,
        row=columns["row"].astype(np.int64),
        col=columns["col"].astype(np.int64),
        stratum=columns["stratum"].astype(np.int64),
        use=columns["use"],
        place=columns["place"].astype(np.int64),
        zone=columns["zone"],
        predicted=columns["predicted"].astype(np.float64),
        area_m2=_numbers(columns["area_m2"]),
    )


def _read_cases(database: sqlite3.Connection, path: Path, frame: Frame) -> Cases:
    names = ("fid", "geom", "status", "class", "score", "weight", "case_id", "is_touched")
    rows = _columns(database, ENTRIES, names, "fid")
    found = _columns(database, FOUND, ("case_id", "origin", "class", "score", "geom"), "case_id")
    at = _places(rows["case_id"], found["case_id"])
    check_statuses(path, REVIEW, rows["fid"], rows["status"], STATUSES)
    rows["status"] = _statuses(rows["status"], at)
    rows["weight"] = read_weights(path, rows["fid"], rows["weight"]).astype(object)
    check_classes(path, rows["fid"], rows["class"], rows["status"], found["class"])
    # What a person deletes is no object.
    deleted = np.setdiff1d(np.arange(len(found["case_id"])), at)
    for name, column in rows.items():
        gone = {"fid": None, "status": "rejected", "weight": 1.0, "is_touched": 1}
        values = _filled(gone[name], len(deleted)) if name in gone else found[name][deleted]
        rows[name] = np.concatenate([column, values])
    at = np.concatenate([at, deleted])
    handed = {name: _pick(column, at) for name, column in found.items()}
    geometry = _geometries(rows["geom"])
    # A row whose polygon was deleted still has the shape and place that were found.
    geometry = np.where(shapely.is_missing(geometry), _geometries(handed["geom"]), geometry)
    where = _centres(geometry)
    check_places(path, rows["fid"], where, rows["status"])
    return Cases(
        status=rows["status"],
        name=rows["class"],
        found_name=np.where(handed["origin"] == DETECTION, handed["class"], _filled(None, 1)),
        score=_numbers(rows["score"]),
        weight=rows["weight"].astype(np.float64),
        geometry=geometry,
        cell=frame.cell_at(where),
        case_id=np.where(at >= 0, rows["case_id"], -1).astype(np.int64),
        is_touched=(rows["is_touched"] == 1) | (at < 0),
    )


def _places(numbers: Texts, handed_out: Texts) -> NDArray[np.int64]:
    """Positions of the detections behind rows; -1 of what a person added.

    A polygon that a person split or copied leaves several rows of one number: the first is the
    detection.
    """
    place = {number: at for at, number in enumerate(handed_out)}
    return np.array([place.pop(number, -1) for number in numbers], np.int64)


def _statuses(entered: Texts, at: NDArray[np.int64]) -> Texts:
    """Statuses of rows; a row without one is new, or added where no detection stands behind it."""
    status = entered.copy()
    for row, text in enumerate(entered):
        if not text:
            status[row] = "new" if at[row] >= 0 else "added"
    return status


def _columns(
    database: sqlite3.Connection, table: str, names: tuple[str, ...], order: str
) -> dict[str, Texts]:
    """Columns of a table as arrays of objects."""
    rows = database.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}").fetchall()
    columns = {name: np.empty(len(rows), dtype=object) for name in names}
    for at, name in enumerate(names):
        columns[name][:] = [row[at] for row in rows]
    return columns


def _numbers(values: NDArray[Any]) -> Floats:
    return np.array([math.nan if v is None else float(v) for v in values], np.float64)


def _filled(value: Any, count: int) -> Texts:
    return np.array([value] * count, dtype=object)


def _pick(values: Texts, at: NDArray[np.int64]) -> Texts:
    """Values by position; None for -1."""
    return np.concatenate([values, _filled(None, 1)])[at]


def _geometries(blobs: Texts) -> Texts:
    """Decode geometries; an empty one is none."""
    wkb = np.array([*map(blob_wkb, blobs), None], dtype=object)[:-1]
    shapes = np.array(shapely.from_wkb(wkb), dtype=object)
    shapes[shapely.is_empty(shapes)] = None
    return shapes


def _centres(geometries: Texts) -> Floats:
    """(N, 2) centroids; not a number of missing ones."""
    points = shapely.centroid(geometries)
    return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=-1)
