"""Define the layers and tables that a GeoPackage under review holds.

Two layers are for people: ``review``, a row a case, and ``cells``, squares of ground to be looked
at completely. Three tables beside them remember what was handed out: ``review_found`` the
detections as they were, ``review_frame`` every cell that could be drawn with its stratum and its
place in the random order, ``review_design`` how the cells were laid out.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import OutputError

Status = Literal["new", "accepted", "rejected", "changed", "added"]
Use = Literal["count", "learn"]
CellStatus = Literal["new", "done"]

STATUSES: Final = ("new", "accepted", "rejected", "changed", "added")
CELL_STATUSES: Final = ("new", "done")
USES: Final = ("count", "learn")
TRUE_STATUSES: Final = ("accepted", "changed", "added")
"""Those of objects that are there; in a cell that is done, ``new`` counts as accepted too."""

REASONS: Final = ("uncertain", "disagrees", "seam", "size", "crowded", "cell")
"""Near the threshold; unlike the other run or the labels; at a seam between tiles; of an odd size
for its class; where many overlap; in a cell, where every detection has a row."""

DETECTION: Final = "detection"
"""Origin of a case that the model reports as an object; others only may be objects."""

REVIEW: Final = "review"
CELLS: Final = "cells"
FOUND: Final = "review_found"
FRAME: Final = "review_frame"
DESIGN: Final = "review_design"
REVIEW_TABLES: Final = (REVIEW, CELLS, FOUND, FRAME, DESIGN)

FORMAT: Final = 1
"""Rises when an older program could not read the layers any longer."""

_SCHEMA: Final = {
    REVIEW: "fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom {geometry}, "
    "status TEXT DEFAULT 'added', class TEXT, score REAL, reason TEXT, priority INTEGER, "
    "note TEXT, weight REAL DEFAULT 1, cell INTEGER, case_id INTEGER",
    CELLS: "fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom MULTIPOLYGON, "
    "cell INTEGER, status TEXT DEFAULT 'new', use TEXT, stratum INTEGER, place INTEGER, "
    "zone TEXT, note TEXT",
    FOUND: "case_id INTEGER PRIMARY KEY NOT NULL, origin TEXT NOT NULL, class TEXT, score REAL, "
    "geom BLOB",
    FRAME: "cell INTEGER PRIMARY KEY NOT NULL, row INTEGER NOT NULL, col INTEGER NOT NULL, "
    "stratum INTEGER NOT NULL, use TEXT NOT NULL, place INTEGER NOT NULL, zone TEXT, "
    "predicted REAL NOT NULL, area_m2 REAL",
    DESIGN: "name TEXT PRIMARY KEY NOT NULL, value TEXT",
}


def columns_of_review(table: str) -> tuple[str, ...]:
    """Name the columns of a layer or table of a review."""
    return tuple(column.split()[0] for column in _SCHEMA[table].split(", "))


def create_review_tables(
    database: sqlite3.Connection, geometry: str, srs_id: int, *, only: tuple[str, ...]
) -> None:
    """Create layers and tables of a review in a GeoPackage, inside the caller's transaction.

    Args:
        database: the GeoPackage.
        geometry: type of the cases' geometries, as GeoPackages name it: POLYGON.
        srs_id: the package's number of the CRS.
        only: names of those to create, which must not exist.
    """
    for name in only:
        kind = "features" if name in (REVIEW, CELLS) else "attributes"
        database.execute(f"CREATE TABLE {name} ({_SCHEMA[name].format(geometry=geometry)})")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
            "VALUES (?, ?, ?, ?)",
            (name, kind, name, srs_id if kind == "features" else None),
        )
        if kind == "features":
            shape = geometry if name == REVIEW else "MULTIPOLYGON"
            database.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)",
                (name, shape, srs_id),
            )


ENTRIES: Final = (
    f"(SELECT {REVIEW}.*, coalesce(status, 'new') <> 'new' OR coalesce(note, '') <> '' "
    f"OR coalesce(weight, 1) <> 1 OR {FOUND}.case_id IS NULL OR {REVIEW}.class IS NOT "
    f"{FOUND}.class OR {REVIEW}.geom IS NOT {FOUND}.geom AS is_touched "
    f"FROM {REVIEW} LEFT JOIN {FOUND} USING (case_id))"
)
"""Query for the cases, and whether each differs from what was handed out."""


def tables_of_review(database: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """Name the tables of a review that a GeoPackage has, and those that it lacks."""
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    there = [name for name in REVIEW_TABLES if name in names]
    return there, [name for name in REVIEW_TABLES if name not in names]


def holds_review(database: sqlite3.Connection) -> bool:
    """Tell whether a GeoPackage has any table of a review."""
    return bool(tables_of_review(database)[0])


def count_entries(database: sqlite3.Connection) -> int:
    """Count what a person has entered in a GeoPackage: cases, deleted ones, and cells.

    Of layers that were copied without the tables beside them, every row with a status counts that
    is not new.
    """
    there, missing = tables_of_review(database)
    if missing:
        return sum(_decided_rows(database, name) for name in there if name in (REVIEW, CELLS))
    queries = (
        f"SELECT COUNT(*) FROM {ENTRIES} WHERE is_touched",
        f"SELECT COUNT(*) FROM {FOUND} WHERE case_id NOT IN "
        f"(SELECT case_id FROM {REVIEW} WHERE case_id IS NOT NULL)",
        f"SELECT COUNT(*) FROM {CELLS} WHERE status <> 'new' OR coalesce(note, '') <> ''",
    )
    return sum(int(database.execute(query).fetchone()[0]) for query in queries)


def _decided_rows(database: sqlite3.Connection, layer: str) -> int:
    columns = {row[1] for row in database.execute(f"PRAGMA table_info({layer})")}
    if "status" not in columns:
        return 0
    query = f"SELECT COUNT(*) FROM {layer} WHERE coalesce(status, 'new') <> 'new'"
    return int(database.execute(query).fetchone()[0])


def entries_in(path: str | Path) -> int:
    """Count what a person has entered in a file; 0 where there is no file or no review in it.

    Raises:
        OutputError: another program keeps the file from being read.
    """
    path = Path(path)
    if not path.is_file():
        return 0
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return count_entries(database)
    except sqlite3.OperationalError as error:
        if in_use(error):
            raise OutputError(
                f"{path} is in use by another program, so its entries cannot be read; close it "
                "there, then try again"
            ) from error
        return 0
    except sqlite3.DatabaseError:  # no database, or a broken one, which may be replaced
        return 0


def in_use(error: sqlite3.OperationalError) -> bool:
    """Tell whether an error means that another program has the file locked."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_UNDEFINED = (-1, 0, 99999)
"""Numbers that GeoPackages, and GDAL, give to no CRS."""


def package_crs(database: sqlite3.Connection, layer: str) -> pyproj.CRS | None:
    """Read the CRS of a layer of a GeoPackage; None where it has none."""
    query = (
        "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys "
        "JOIN gpkg_geometry_columns USING (srs_id) WHERE table_name = ?"
    )
    organization, code, definition = database.execute(query, (layer,)).fetchone()
    if definition == "undefined" or code in _UNDEFINED:
        return None
    if organization.upper() == "EPSG":
        return pyproj.CRS.from_epsg(code)
    return pyproj.CRS.from_wkt(definition)


def to_blobs(geometries: NDArray[np.object_], srs_id: int) -> list[bytes | None]:
    """Encode geometries as GeoPackages hold them: a head with their bounds, then WKB."""
    head = b"GP\x00\x03" + srs_id.to_bytes(4, "little", signed=True)
    bounds = shapely.bounds(geometries)[:, [0, 2, 1, 3]].astype("<f8")
    wkb = shapely.to_wkb(geometries, byte_order=1)
    return [
        None if each is None else head + box.tobytes() + each
        for each, box in zip(wkb, bounds, strict=True)
    ]


_BOUNDS_BYTES = (0, 32, 48, 48, 64)


def blob_wkb(blob: bytes | None) -> bytes | None:
    """Strip the head of a GeoPackage's geometry; None of a missing one.

    Raises:
        ValueError: it is none.
    """
    if blob is None:
        return None
    kind = (blob[3] >> 1) & 7 if len(blob) > 8 and blob[:2] == b"GP" else 5
    if kind >= len(_BOUNDS_BYTES):
        raise ValueError("a geometry has no head of a GeoPackage")
    return blob[8 + _BOUNDS_BYTES[kind] :]
