"""All that a run leaves: its detections in one or more files, and what explains them.

A GeoPackage holds everything: the detections, the ground that was scanned and the ground that
was not, styles, and a table that says how they came about. Formats of one layer get files beside
them for what they cannot hold.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyproj

from geo_retina.errors import OutputError
from geo_retina.files import Output, new_files, parse_json, remove_file, scratch_beside
from geo_retina.options import Geometry
from geo_retina.vector.formats import (
    check_output,
    check_shapefile_size,
    is_dataset_name,
    is_package,
    parquet_files,
)
from geo_retina.vector.readers.arrow_streams import open_stream, read_layer
from geo_retina.vector.readers.frames import SCANNED_LAYER, is_parquet
from geo_retina.vector.readers.refusing import open_package, refuse_damage
from geo_retina.vector.tables import DETECTION_SCHEMA, reproject_table
from geo_retina.vector.writers.dataset_item import write_item
from geo_retina.vector.writers.review_carrying import (
    carry_review,
    check_review_kept,
    refuse_layers_of_others,
)
from geo_retina.vector.writers.rows import Shape, Written
from geo_retina.vector.writers.spool import Spool
from geo_retina.vector.writers.styles import (
    NOT_COVERED_COLOUR,
    SCANNED_COLOUR,
    Kind,
    class_style,
    plain_style,
    write_styles,
)
from geo_retina.vector.writers.vector_file import (
    Layer,
    check_has_place,
    write_draft,
)

DETECTIONS, POINTS = "detections", "detection_points"
SCANNED, NOT_COVERED = SCANNED_LAYER, "not_covered"
METADATA = "metadata"
"""Table of a GeoPackage, and key of a Parquet file's footer, that says how it came about."""

PARQUET_KEY = "geo_retina"


class Target(NamedTuple):
    """A file to write, and whether it may take the place of one that exists.

    Attributes:
        path: of the file.
        overwrite: replace an existing one.
        discard_review: with what a person entered in it, which otherwise is carried over.
    """

    path: Path
    overwrite: bool
    discard_review: bool = False


@dataclass(frozen=True, eq=False)
class Companions:
    """What explains a set of detections.

    Attributes:
        scanned: the ground that was scanned, polygons with columns of its own; None where
            that is not known.
        not_covered: the ground that should have been and was not; may be without rows.
        metadata: texts by name: model, options, versions, time.
    """

    scanned: pa.Table | None
    not_covered: pa.Table | None
    metadata: Mapping[str, str]


def write_outputs(
    targets: Sequence[Target],
    tables: Iterable[pa.Table],
    companions: Companions,
    *,
    crs: pyproj.CRS | None,
    classes: Sequence[str],
    geometry: Geometry,
) -> Written:
    """Write detections and what explains them to one or several files.

    All files are moved into place when all are complete, so a failure leaves every older output
    as it was.

    Args:
        targets: where to, at least one; suffixes say the formats.
        tables: as ``detections_table`` makes them, of one schema; read once, one at a time.
        companions: what explains them.
        crs: CRS of all geometries.
        classes: in the order of the legend; others that turn up in the tables follow them.
        geometry: polygons, their centres, or both, which only a GeoPackage holds.

    Returns:
        What was written, which is counted on the way: counting before would take a second merge,
        or all detections in memory. Its counts are in the order of the legend, none left out.

    Raises:
        OutputError: a target could not be written or is not fit for what it should hold.
    """
    for target in targets:
        check_target(target, geometry)
        check_has_place(target.path, crs)
    with ExitStack() as stack:
        paths = stack.enter_context(new_files([Output(t.path, t.overwrite) for t in targets]))
        needs_spool = len(targets) > 1 or geometry == "both" or _has_shapefile(targets)
        if needs_spool:
            parked = stack.enter_context(scratch_beside(targets[0].path))
            tables = Spool(parked / "rows.arrow", tables)
            _check_sizes(targets, tables)
        written = Written(0, {}, 0)
        for path, target in zip(paths, targets, strict=True):
            draft = _Draft(path, target.path, crs, geometry)
            written = _in_order(draft.write_detections(tables, companions), classes)
            draft.write_companions(companions, list(written.counts))
            if is_dataset_name(path):
                write_item(path, companions.metadata)
        for path, target in zip(paths, targets, strict=True):
            if target.overwrite and not target.discard_review:
                carry_review(target.path, path, companions.scanned, crs)
        names = {name for path in paths for name in os.listdir(path.parent)}
    for target in targets:
        _forget_stale(target.path, names)
    return written


def _in_order(written: Written, classes: Sequence[str]) -> Written:
    """Put the counts of given classes first, which are 0 where there are none."""
    return replace(written, counts={**dict.fromkeys(classes, 0), **written.counts})


def check_target(target: Target, geometry: Geometry) -> None:
    """Refuse what could not be written, before work is spent on it.

    Raises:
        OutputError: as ``check_output``; or the format holds one layer and two are asked for.
    """
    path = target.path
    check_output(path, overwrite=target.overwrite, keeps_review=True)
    if target.overwrite:
        refuse_layers_of_others(path, {DETECTIONS, POINTS, SCANNED, NOT_COVERED, METADATA})
    if target.overwrite and not target.discard_review:
        check_review_kept(path)
    if geometry == "both" and not is_package(path):
        raise OutputError(
            f"{path} holds one layer, but polygons and points are asked for; write .gpkg, or "
            "choose one of them with RunOptions.geometry"
        )


def companion_path(path: Path, name: str) -> Path:
    """Name the file beside a format of one layer for its other layers: ``OUT.scanned.gpkg``.

    A data set has it in its folder: ``OUT/_scanned.gpkg``.
    """
    if is_dataset_name(path):
        return path / f"_{name}.gpkg"
    return path.with_name(f"{path.name}.{name}.gpkg")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read what a file says about how it came about, by name.

    Args:
        path: a GeoPackage, a GeoParquet file, or another with ``OUT.scanned.gpkg`` beside it.

    Returns:
        Texts by name; none where nothing is known.
    """
    path = Path(path)
    if is_parquet(path):
        import pyarrow.parquet as pq

        with refuse_damage(path):
            stored = pq.read_metadata(parquet_files(path)[0]).metadata or {}
            text = stored.get(PARQUET_KEY.encode())
            return _checked(dict(parse_json(text)) if text else {})
    path = path if is_package(path) else companion_path(path, SCANNED)
    if not path.exists():
        return {}
    with open_package(path) as database:
        query = "SELECT 1 FROM sqlite_master WHERE name = ?"
        if not database.execute(query, (METADATA,)).fetchall():
            return {}
        return _checked(dict(database.execute(f"SELECT name, value FROM {METADATA} ORDER BY fid")))


def _checked(metadata: dict[str, str]) -> dict[str, str]:
    """Check that the metadata used here have the types that they were written with."""
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"its metadata {name} is no text")
    scores = parse_json(metadata.get("thresholds", "{}"))
    floor = parse_json(metadata.get("min_score", "null"))
    options = parse_json(metadata.get("options", "{}"))
    if not isinstance(scores, dict) or not isinstance(options, dict):
        raise ValueError("its metadata thresholds and options are no groups of keys")
    for value in (*scores.values(), floor, options.get("nms_iou")):
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
            raise ValueError(f"its metadata hold {value!r}, expected a number from 0 to 1")
    if None in scores.values():
        raise ValueError("its metadata have a class without a threshold")
    return metadata


def read_companions(path: str | Path) -> Companions | None:
    """Read what explains the detections of a file: layers of ground, and metadata.

    Args:
        path: a file that ``write_outputs`` wrote.

    Returns:
        All of it, in the CRS of the file; None where nothing is known.

    Raises:
        LabelError: the file, or one beside it, cannot be read.
    """
    path = Path(path)
    metadata = read_metadata(path)
    with open_stream(path) as stream:
        crs = stream.crs
    scanned = _read_ground(path, SCANNED, crs)
    if scanned is None and not metadata:
        return None
    return Companions(scanned, _read_ground(path, NOT_COVERED, crs), metadata)


def _read_ground(path: Path, name: str, crs: pyproj.CRS | None) -> pa.Table | None:
    """Read a layer of ground and move it to the detections' CRS, should these have moved since."""
    from pyogrio import list_layers

    file = path if is_package(path) else companion_path(path, name)
    if not file.exists():
        return None
    with refuse_damage(file):
        if name not in {str(layer) for layer, _ in list_layers(file)}:
            return None
    table, own = read_layer(file, name)
    return table if own == crs else reproject_table(table, own, crs)


@dataclass(frozen=True, eq=False)
class _Draft:
    """One output that is not in its place yet."""

    path: Path
    target: Path
    crs: pyproj.CRS | None
    geometry: Geometry

    def write_detections(self, tables: Iterable[pa.Table], companions: Companions) -> Written:
        about = {PARQUET_KEY: json.dumps(dict(companions.metadata))}
        shape: Shape = "point" if self.geometry == "point" else "asis"
        layer = Layer(DETECTIONS, self.crs, shape, about=about)
        written = write_draft(self.path, tables, layer, target=self.target)
        if self.geometry == "both":
            points = Layer(POINTS, self.crs, "point", append=True)
            write_draft(self.path, tables, points, target=self.target)
        return written

    def write_companions(self, companions: Companions, classes: Sequence[str]) -> None:
        if is_package(self.path):
            scanned = missing = self.path
        else:
            scanned = companion_path(self.path, SCANNED)
            missing = companion_path(self.path, NOT_COVERED)
        if companions.scanned is not None:
            self._write_ground(scanned, companions.scanned, SCANNED)
        if _has_rows(companions.not_covered) or is_package(self.path):
            self._write_ground(missing, companions.not_covered, NOT_COVERED)
        with _refusing_disk(self.target):
            self._write_tables(scanned, missing, companions, classes)

    def _write_tables(
        self, scanned: Path, missing: Path, companions: Companions, classes: Sequence[str]
    ) -> None:
        """Write the metadata, and how the layers look."""
        if scanned.exists():
            _write_metadata(scanned, companions.metadata)
        styles = {
            SCANNED: plain_style(SCANNED_COLOUR),
            NOT_COVERED: plain_style(NOT_COVERED_COLOUR, hatched=True),
        }
        if is_package(self.path):
            kind: Kind = "Point" if self.geometry == "point" else "Polygon"
            styles[DETECTIONS] = class_style(classes, kind=kind)
            if self.geometry == "both":
                styles[POINTS] = class_style(classes, kind="Point")
        for path in {scanned, missing}:
            if path.exists():
                write_styles(path, styles)

    def _write_ground(self, path: Path, table: pa.Table | None, name: str) -> None:
        if table is None:
            return
        layer = Layer(name, self.crs, append=path.exists(), geometry_type="MultiPolygon")
        write_draft(path, [table], layer, target=self.target)


def _has_shapefile(targets: Sequence[Target]) -> bool:
    return any(target.path.suffix.lower() == ".shp" for target in targets)


def _check_sizes(targets: Sequence[Target], rows: Spool) -> None:
    for target in targets:
        if target.path.suffix.lower() == ".shp":
            schema = rows.schema or DETECTION_SCHEMA
            check_shapefile_size(target.path, schema, rows.rows, rows.longest_texts)


def _forget_stale(path: Path, written: Collection[str]) -> None:
    """Remove what an earlier output of this name left beside it and this one does not have."""
    if is_dataset_name(path):
        return  # it has all of it in itself
    for name in (SCANNED, NOT_COVERED):
        beside = companion_path(path, name)
        if beside.name not in written:
            remove_file(beside)


def _has_rows(table: pa.Table | None) -> bool:
    return table is not None and table.num_rows > 0


@contextmanager
def _refusing_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:  # such as: database or disk is full
        raise OutputError(f"{path} cannot be written: {error}") from error


def _write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            f"CREATE TABLE {METADATA} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, "
            "name TEXT NOT NULL, value TEXT)"
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change) "
            "VALUES (?, 'attributes', ?, (SELECT MAX(last_change) FROM gpkg_contents))",
            (METADATA, METADATA),
        )
        database.executemany(
            f"INSERT INTO {METADATA} (name, value) VALUES (?, ?)", list(metadata.items())
        )
