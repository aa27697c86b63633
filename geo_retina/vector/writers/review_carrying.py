"""Keep what a person entered in a GeoPackage when a new run takes its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.errors import OutputError
from geo_retina.geodesy import reproject
from geo_retina.vector.formats import GEOMETRY, is_package
from geo_retina.vector.review_layers import (
    CELLS,
    REVIEW,
    REVIEW_TABLES,
    blob_wkb,
    entries_in,
    package_crs,
    tables_of_review,
)
from geo_retina.vector.writers.editing import edit_package, refuse_if_open


def check_review_kept(path: str | Path) -> None:
    """Refuse to replace a file with a person's entries that could not be carried over.

    Raises:
        OutputError: a GIS has it open, or tables of the review are missing.
    """
    entries = entries_in(path)
    if not entries:
        return
    refuse_if_open(path)
    with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)) as database:
        missing = tables_of_review(database)[1]
    if missing:
        raise OutputError(
            f"{path} holds {entries:,} entries of a person without {', '.join(missing)}, so they "
            "cannot be carried over; name another output, or give discard_review=True"
        )


def refuse_layers_of_others(path: Path, own: Collection[str]) -> None:
    """Refuse to replace a GeoPackage in which somebody keeps layers of their own.

    Args:
        path: of any output; one that is no GeoPackage has no other layers.
        own: names of layers and tables that the writer makes anew; those of a review are as well.

    Raises:
        OutputError: it holds others.
    """
    if not (is_package(path) and path.is_file()):
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            names = [name for (name,) in database.execute("SELECT table_name FROM gpkg_contents")]
    except sqlite3.DatabaseError:
        return  # no GeoPackage, or one in use, which is refused elsewhere
    others = sorted(set(names) - {*own, *REVIEW_TABLES, "layer_styles"})
    if others:
        raise OutputError(
            f"{path} holds {', '.join(others)}, which is no part of a file of detections "
            "and would be lost; name another output, or move these layers to another file"
        )


def carry_review(old: Path, draft: Path, ground: pa.Table | None, crs: pyproj.CRS | None) -> int:
    """Copy the layers of a review, as they are, to the file that takes the other's place.

    Every row keeps its place on the ground; ``review`` finds by place which detections of the new
    run have a row. Columns that a person added come along, and styles that a person changed.

    Args:
        old: the file that will be replaced; it need not exist.
        draft: the new one, complete but for the review.
        ground: what the new run scanned, polygons.
        crs: theirs.

    Returns:
        How many entries there are.

    Raises:
        OutputError: a GIS has the older file open, or cells that were drawn lie on other ground.
    """
    entries = entries_in(old)
    if not entries:
        return 0
    check_review_kept(old)
    with closing(sqlite3.connect(f"{old.resolve().as_uri()}?mode=ro", uri=True)) as source:
        _check_ground(source, old, ground, crs)
        with edit_package(draft) as database:
            for name in REVIEW_TABLES:
                _copy_table(source, database, name)
            _copy_styles(source, database)
    return entries


def _check_ground(
    source: sqlite3.Connection, old: Path, ground: pa.Table | None, crs: pyproj.CRS | None
) -> None:
    """Refuse a run over other ground than that from which cells were drawn."""
    blobs = [blob for (blob,) in source.execute(f"SELECT geom FROM {CELLS}") if blob]
    if not blobs or ground is None:
        return
    cells = shapely.from_wkb(np.array([blob_wkb(blob) for blob in blobs], dtype=object))
    inner = shapely.point_on_surface(cells[~shapely.is_empty(cells)])
    moved = reproject(inner, package_crs(source, CELLS), crs)
    outlines = shapely.from_wkb(ground[GEOMETRY].to_numpy())
    whole = shapely.union_all(shapely.make_valid(outlines[~shapely.is_missing(outlines)]))
    shapely.prepare(whole)
    off = int((~shapely.intersects(whole, moved)).sum())
    if off:
        raise OutputError(
            f"{old} holds a person's review, of which {off} of {len(inner)} cells lie off the "
            "ground of the new detections; name another output, or give discard_review=True"
        )


def _copy_table(source: sqlite3.Connection, database: sqlite3.Connection, name: str) -> None:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
    (statement,) = source.execute(query, (name,)).fetchone()
    database.execute(statement)
    columns = [row[1] for row in source.execute(f"PRAGMA table_info({name})")]
    listed = ", ".join(f'"{column}"' for column in columns)
    srs_id = _copy_description(source, database, name)
    rows = source.execute(f"SELECT {listed} FROM {name}")
    marks = ", ".join(
        "with_srs(?, ?)" if srs_id is not None and c == "geom" else "?" for c in columns
    )
    at = columns.index("geom") + 1 if srs_id is not None else 0
    values = ((*r[:at], srs_id, *r[at:]) if at else r for r in rows)
    database.create_function("with_srs", 2, _with_srs, deterministic=True)
    database.executemany(f"INSERT INTO {name} ({listed}) VALUES ({marks})", values)


def _copy_description(
    source: sqlite3.Connection, database: sqlite3.Connection, name: str
) -> int | None:
    """Register a layer or table in the new file, and its CRS; gives the CRS's number there."""
    query = "SELECT * FROM gpkg_contents WHERE table_name = ?"
    cursor = source.execute(query, (name,))
    about = dict(zip([d[0] for d in cursor.description], cursor.fetchone(), strict=True))
    query = "SELECT * FROM gpkg_geometry_columns WHERE table_name = ?"
    cursor = source.execute(query, (name,))
    row = cursor.fetchone()
    if row is not None:
        shape = dict(zip([d[0] for d in cursor.description], row, strict=True))
        about["srs_id"] = shape["srs_id"] = _copy_srs(source, database, shape["srs_id"])
    _insert(database, "gpkg_contents", about)
    if row is not None:
        _insert(database, "gpkg_geometry_columns", shape)
    return about["srs_id"] if row is not None else None


def _copy_srs(source: sqlite3.Connection, database: sqlite3.Connection, srs_id: int) -> int:
    """Find or add a CRS in the new file; numbers of CRSs without an authority may differ."""
    what = "organization, organization_coordsys_id, definition"
    query = f"SELECT srs_name, {what} FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
    name, *about = source.execute(query, (srs_id,)).fetchone()
    query = f"SELECT srs_id, {what} FROM gpkg_spatial_ref_sys"
    for number, organization, code, definition in database.execute(query):
        if (organization, code) == tuple(about[:2]) and (
            organization.upper() == "EPSG" or definition == about[2] or number in (-1, 0)
        ):
            return int(number)
    (taken,) = database.execute("SELECT MAX(srs_id) FROM gpkg_spatial_ref_sys").fetchone()
    query = "SELECT 1 FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
    number = srs_id if database.execute(query, (srs_id,)).fetchone() is None else taken + 1
    row = dict(zip(what.split(", "), about, strict=True))
    _insert(database, "gpkg_spatial_ref_sys", {"srs_name": name, "srs_id": number, **row})
    return int(number)


def _copy_styles(source: sqlite3.Connection, database: sqlite3.Connection) -> None:
    query = "SELECT * FROM layer_styles WHERE f_table_name IN (?, ?)"
    cursor = source.execute(query, (REVIEW, CELLS))
    names = [column[0] for column in cursor.description]
    for row in cursor:
        values = dict(zip(names, row, strict=True))
        _insert(database, "layer_styles", {k: v for k, v in values.items() if k != "id"})


def _insert(database: sqlite3.Connection, table: str, values: dict[str, object]) -> None:
    listed = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({listed}) VALUES ({marks})", tuple(values.values()))


def _with_srs(blob: bytes | None, srs_id: int) -> bytes | None:
    """Write the number of a CRS into the head of a geometry."""
    if blob is None:
        return None
    number = srs_id.to_bytes(4, "little" if blob[3] & 1 else "big", signed=True)
    return blob[:4] + number + blob[8:]
