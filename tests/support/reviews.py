"""Small files under review, written row by row."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import shapely

from geo_retina.vector.review_layers import (
    CELLS,
    DESIGN,
    FOUND,
    FRAME,
    REVIEW,
    REVIEW_TABLES,
    create_review_tables,
    to_blobs,
)

SIDE = 10.0


def square(x, y, half=1.0):
    return shapely.box(x - half, y - half, x + half, y + half)


def write_review(path, cells, cases, deleted=()):
    """Write a file whose frame is a row of cells of ``SIDE`` from x 0 on.

    Args:
        path: of the GeoPackage.
        cells: (stratum, use, place, status) of each; a status None leaves it undrawn.
        cases: dicts of a case's columns with ``x``, and ``found`` where it was a detection.
        deleted: (class, x) of detections whose rows were deleted.
    """
    gpd.GeoDataFrame({"class": ["a"]}, geometry=[square(5, 5)], crs="EPSG:32633").to_file(
        path, layer="detections", engine="pyogrio"
    )
    with closing(sqlite3.connect(path)) as database, database:
        create_review_tables(database, "POLYGON", 32633, only=REVIEW_TABLES)
        about = {"format": 1, "x_min": 0, "y_min": 0, "width": SIDE, "height": SIDE}
        about |= {"random_state": 0, "learn_share": 0.5}
        rows = [(name, str(value)) for name, value in about.items()]
        database.executemany(f"INSERT INTO {DESIGN} VALUES (?, ?)", rows)
        for at, (stratum, use, place, status) in enumerate(cells):
            row = (at, 0, at, stratum, use, place, None, 1.0, SIDE**2)
            database.execute(f"INSERT INTO {FRAME} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            if status is not None:
                database.execute(
                    f"INSERT INTO {CELLS} (cell, status, use, stratum, place) VALUES (?,?,?,?,?)",
                    (at, status, use, stratum, place),
                )
        for at, case in enumerate(cases):
            _write_case(database, at, **case)
        for at, (name, x) in enumerate(deleted, len(cases)):
            _write_found(database, at, name, x)


def _write_found(database, at, name, x):
    (blob,) = to_blobs(np.array([square(x, 5)], dtype=object), 32633)
    database.execute(f"INSERT INTO {FOUND} VALUES (?, ?, 0.5, ?)", (at, name, blob))


def _write_case(database, at, *, status, x, name="a", found="a", note=None, weight=1.0):
    if found is not None:
        _write_found(database, at, found, x)
    (blob,) = to_blobs(np.array([square(x, 5)], dtype=object), 32633)
    database.execute(
        f"INSERT INTO {REVIEW} (geom, status, class, score, note, weight, case_id) "
        "VALUES (?, ?, ?, 0.5, ?, ?, ?)",
        (blob, status, name, note, weight, None if found is None else at),
    )
