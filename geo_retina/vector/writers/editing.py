"""Edit a GeoPackage where it lies, in one transaction, as a GIS may have it open.

Everything else is written beside its place and renamed. A file under review is the exception: a
person works in it, and a GIS that has it open would go on with the file that was renamed away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import shapely

from geo_retina.errors import OutputError
from geo_retina.vector.review_layers import blob_wkb, in_use

_TIMEOUT_S = 10.0


@contextmanager
def edit_package(
    path: str | Path, *, timeout_s: float = _TIMEOUT_S
) -> Iterator[sqlite3.Connection]:
    """Open a GeoPackage for one transaction that happens whole or not at all.

    Args:
        path: of a file that exists.
        timeout_s: seconds to wait for a program that is writing it.

    Raises:
        OutputError: the file is locked, or cannot be written.
    """
    uri = f"{Path(path).resolve().as_uri()}?mode=rw"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
        ) as database:
            _add_functions(database)
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise OutputError(_refusal(path, error)) from error


def refuse_if_open(path: str | Path) -> None:
    """Refuse a GeoPackage that another program has open, before it is replaced.

    A GIS would go on with the old file and what a person enters there would be lost. Programs
    that keep a write-ahead log, as QGIS does, are noticed.

    Raises:
        OutputError: it is open.
    """
    uri = f"{Path(path).resolve().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0.5)) as database:
            # The log can be given up only by the last one who uses it.
            database.execute("PRAGMA journal_mode=DELETE").fetchone()
            database.execute("BEGIN EXCLUSIVE")
            database.rollback()
    except sqlite3.OperationalError as error:
        raise OutputError(_refusal(path, error)) from error


def _refusal(path: str | Path, error: sqlite3.OperationalError) -> str:
    if in_use(error):
        return (
            f"{path} is in use by another program, such as a GIS in which it is edited; save or "
            "close it there, then try again"
        )
    return f"{path} cannot be written: {error}"


def _add_functions(database: sqlite3.Connection) -> None:
    """Add what the triggers of a spatial index call, which a GIS may have made."""
    for place, name in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        database.create_function(name, 1, _bound(place), deterministic=True)
    database.create_function("ST_IsEmpty", 1, _is_empty, deterministic=True)


def _bound(place: int) -> Callable[[bytes | None], float | None]:
    def bound(blob: bytes | None) -> float | None:
        geometry = shapely.from_wkb(blob_wkb(blob))
        return None if geometry is None else float(shapely.bounds(geometry)[place])

    return bound


def _is_empty(blob: bytes | None) -> int | None:
    geometry = shapely.from_wkb(blob_wkb(blob))
    return None if geometry is None else int(shapely.is_empty(geometry))
