"""Small files under review, written row by row."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.vector import Companions, Target, outline_table, write_outputs
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
UTM = pyproj.CRS("EPSG:32633")


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
    database.execute(f"INSERT INTO {FOUND} VALUES (?, 'detection', ?, 0.5, ?)", (at, name, blob))


def _write_case(database, at, *, status, x, name="a", found="a", note=None, weight=1.0):
    if found is not None:
        _write_found(database, at, found, x)
    (blob,) = to_blobs(np.array([square(x, 5)], dtype=object), 32633)
    database.execute(
        f"INSERT INTO {REVIEW} (geom, status, class, score, note, weight, case_id) "
        "VALUES (?, ?, ?, 0.5, ?, ?, ?)",
        (blob, status, name, note, weight, None if found is None else at),
    )


def write_found(path, xy, *, score=None, name=None, half=1.0, ground=None, cut=None, crs=UTM):
    """Write detections, squares around points, as a run over some ground does.

    Args:
        path: of the GeoPackage.
        xy: (N, 2) centres.
        score: (N,); left out, 0.9. The threshold of class ``a`` is 0.5, of ``b`` 0.3.
        name: (N,) classes; left out, ``a``.
        half: (N,) half sides.
        ground: polygon that was looked at; left out, 200 units from the origin.
        cut: (N,) bits.
    """
    xy = np.asarray(xy, float).reshape(-1, 2)
    n = len(xy)
    half = np.broadcast_to(np.asarray(half, float), n)
    shapes = [square(x, y, h) for (x, y), h in zip(xy, half, strict=True)]
    columns = {
        "class": pa.array(["a"] * n if name is None else list(name), pa.string()),
        "score": pa.array(np.full(n, 0.9) if score is None else np.asarray(score, float)),
        "scene": pa.array(["s"] * n, pa.string()),
        "cut": pa.array([0] * n if cut is None else list(cut), pa.int32()),
        "joined": pa.array([False] * n, pa.bool_()),
        "geometry": pa.array(shapely.to_wkb(np.array(shapes, dtype=object)), pa.binary()),
    }
    table = pa.table(columns)
    ground = shapely.multipolygons([shapely.box(0, 0, 200, 200) if ground is None else ground])
    scanned = outline_table(np.array([ground], dtype=object), {"scene": ["s"]}, crs, crs)
    about = {"thresholds": '{"a": 0.5, "b": 0.3}', "min_score": "0.1"}
    write_outputs(
        [Target(path, True)],
        [table],
        Companions(scanned, None, about),
        crs=crs,
        classes=("a", "b"),
        geometry="polygon",
    )
    return path


def write_found_in_degrees(path):
    """Write 200 objects on ground far north, where a degree is half as long east as north."""
    ground = shapely.box(10.0, 60.0, 10.02, 60.01)
    xy = np.array([10.0, 60.0]) + scattered(200, high=1.0, low=0.0) * (0.02, 0.01)
    return write_found(path, xy, half=1e-5, ground=ground, crs=pyproj.CRS(4326))


def scattered(count, seed=0, low=2.0, high=198.0):
    return np.random.default_rng(seed).uniform(low, high, (count, 2))


def edit(path, *statements):
    """Change a file as another program would, whose index of places is left as it is."""
    with closing(sqlite3.connect(path)) as database, database:
        for name in ("IsEmpty", "MinX", "MaxX", "MinY", "MaxY"):
            database.create_function(f"ST_{name}", 1, lambda _: 1)
        for statement in statements:
            database.execute(statement)


def rows_of(path, table="review", columns="*"):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
