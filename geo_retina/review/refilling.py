"""Prepare detections for a person's eyes: ``review_detections``."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from geo_retina.errors import LabelError, OptionError
from geo_retina.options import ReviewOptions
from geo_retina.review.case_choice import choose_cases
from geo_retina.review.cell_layout import Ground, cell_squares, lay_cells
from geo_retina.review.detections import Places, pair_places, read_looked_at, read_places
from geo_retina.review.reading import (
    check_has_review,
    check_is_package,
    handed_out,
    review_of,
)
from geo_retina.review.row_writing import (
    NewCase,
    note_change,
    write_cases,
    write_cells,
    write_frame,
)
from geo_retina.review.samples import samples_of
from geo_retina.review.strata import cells_to_draw, fewest_cells
from geo_retina.review.styles import known_classes, review_styles
from geo_retina.review.values import NO_CELL, Flags, Floats, Frame, Review, Texts
from geo_retina.review.zones import read_zones
from geo_retina.vector.readers.frames import check_readable, detections_layer
from geo_retina.vector.readers.refusing import open_package
from geo_retina.vector.review_layers import (
    CELLS,
    DESIGN,
    DETECTION,
    FRAME,
    REASONS,
    REVIEW,
    REVIEW_TABLES,
    USES,
    create_review_tables,
    holds_review,
    package_crs,
)
from geo_retina.vector.writers.editing import edit_package
from geo_retina.vector.writers.styles import Kind, put_styles

_FIXED = ("learn_share", "cell_size_m", "strata", "zones", "zone_column", "random_state")
"""Options that count at the first drawing."""


@dataclass(frozen=True, kw_only=True)
class ReviewReport:
    """What waits for a person in a file.

    Attributes:
        path: of the file.
        cases_added: rows added to the queue now, beside cells.
        cases_open: rows that wait, beside cells.
        reasons: cases added, by reason.
        cells_added: cells drawn now.
        cells_open: cells that wait.
        cells_done: cells that a person completed.
        cell_rows: rows added now for detections in cells.
        entries: rows in which a person has entered something.
        notes: what else should be known, a sentence each.
    """

    path: Path
    cases_added: int
    cases_open: int
    reasons: dict[str, int]
    cells_added: int
    cells_open: int
    cells_done: int
    cell_rows: int
    entries: int
    notes: tuple[str, ...]


def review_detections(path: str | Path, options: ReviewOptions | None = None) -> ReviewReport:
    """Add to a GeoPackage what a person should look at, or fill it up again.

    The layer ``review`` gets cases, the layer ``cells`` squares of ground drawn at random. What a
    person has entered stays, and nothing is deleted. All happens in one transaction.

    Args:
        path: a GeoPackage that ``detect_to_file`` wrote; its ``detections`` are not touched.
        options: how much, and chosen how.

    Raises:
        LabelError: the file is no such one, or an entry in it has no meaning.
        OptionError: fewer cells are asked for than can be drawn in strata.
        OutputError: the file is locked, or cannot be written.

    Examples:
        >>> from geo_retina import ReviewOptions, review_detections
        >>> options = ReviewOptions(cells=20, cell_size_m=20.0)
        >>> review_detections("detections.gpkg", options).cells_added
        20
    """
    path, options = Path(path), options or ReviewOptions()
    check_is_package(path)
    check_readable(path)
    source = _read_source(path, options)
    with edit_package(path) as database:
        notes = _prepare(database, source, options)
        review = review_of(database, path)
        is_known = _known(database, review, source.found)
        added = cells_to_draw(review.frame, review.is_drawn, options.cells)
        shapes = cell_squares(source.ground.parts, review.frame, added)
        write_cells(database, review.frame, added, shapes, source.srs_id)
        review = review_of(database, path)
        in_cells = _cases_in_cells(review, source.found, is_known)
        queue = _queue(review, source, is_known, options)
        write_cases(database, [*queue, *in_cells], source.geometry, source.srs_id)
        note_change(database, (REVIEW, CELLS))
        review = review_of(database, path)
        names = known_classes(source.classes, source.found.name, review.cases.name)
        kind: Kind = "Point" if source.geometry == "POINT" else "Polygon"
        put_styles(database, review_styles(kind, names), replace=False)
    return _report(
        review, queue, len(in_cells), len(added), (*notes, *_cell_notes(review, options))
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    """What is in the file, and beside it, before anything is added.

    Attributes:
        path: of the file.
        geometry: type of the cases' geometries, as GeoPackages name it.
        srs_id: number of the CRS in the package.
        found: the detections, in the CRS of the review.
        classes: those that the model knows.
        other: those of another run, or labels.
        ground: what was looked at.
    """

    path: Path
    geometry: str
    srs_id: int
    found: Places
    classes: tuple[str, ...]
    other: Places | None
    ground: Ground


def _read_source(path: Path, options: ReviewOptions) -> _Source:
    layer = detections_layer(path)
    with open_package(path) as database:
        has_review = holds_review(database)
        if has_review:
            check_has_review(database, path)
        is_laid_out = has_review and _has_drawn(database)
        query = "SELECT geometry_type_name, srs_id FROM gpkg_geometry_columns WHERE table_name = ?"
        own = REVIEW if has_review else layer
        geometry, srs_id = database.execute(query, (own,)).fetchone()
        crs = package_crs(database, own)
    found, classes = read_places(path, crs)
    other = None
    if options.against is not None:
        other, _ = read_places(options.against, crs)
    elif options.labels is not None:
        other, _ = read_places(options.labels, crs, layer=options.labels_layer, is_labels=True)
    return _Source(
        path=path,
        geometry="POINT" if geometry == "POINT" else "POLYGON",
        srs_id=srs_id,
        found=found,
        classes=classes,
        other=other,
        ground=_read_ground(path, crs, None if is_laid_out else options),
    )


def _read_ground(path: Path, crs: pyproj.CRS | None, zoned: ReviewOptions | None) -> Ground:
    """Read the ground that was scanned, and the zones on it."""
    polygons = read_looked_at(path, crs)
    zones = {}
    if zoned is not None and zoned.zones is not None:
        around = shapely.get_coordinates(polygons)
        zones = read_zones(
            zoned.zones, crs, around, layer=zoned.zones_layer, column=zoned.zone_column
        )
    return Ground(parts=polygons, crs=crs, zones=zones)


def _prepare(
    database: sqlite3.Connection, source: _Source, options: ReviewOptions
) -> tuple[str, ...]:
    """Create the layers and lay out the cells, once; later tell what counted then."""
    if holds_review(database):
        check_has_review(database, source.path)
        if _has_drawn(database):
            return _unused_options(database, options)
    frame = lay_cells(source.ground, *_reported(source.found), options)
    fewest = fewest_cells(frame)
    if 0 < options.cells < fewest:
        raise OptionError(
            f"ReviewOptions.cells is {options.cells}, expected at least {fewest}, two of each use "
            "in each zone, without which no spread can be estimated; draw more, or give fewer zones"
        )
    if holds_review(database):  # with a queue alone, for which cells were laid out and none drawn
        database.execute(f"DELETE FROM {FRAME}")
        database.execute(f"DELETE FROM {DESIGN}")
    else:
        create_review_tables(database, source.geometry, source.srs_id, only=REVIEW_TABLES)
    write_frame(database, frame, options)
    return _zone_notes(source.ground, frame, options)


def _zone_notes(ground: Ground, frame: Frame, options: ReviewOptions) -> tuple[str, ...]:
    """Tell which zones have no cell, because they lie elsewhere or are narrow.

    Raises:
        LabelError: none has one.
    """
    empty = [name for name in ground.zones if not (frame.zone == name).any()]
    if not empty:
        return ()
    if len(empty) == len(ground.zones):
        raise LabelError(
            f"{options.zones} has no zone that holds the middle of a cell of the ground that was "
            "scanned, expected zones on that ground; check their CRS, or leave them out"
        )
    return (
        f"{len(empty)} of {len(ground.zones)} zones hold the middle of no cell, such as "
        f"{empty[0]}, and will have no interval",
    )


def _has_drawn(database: sqlite3.Connection) -> bool:
    """Tell whether cells have been drawn, although a person may have removed them since."""
    (count,) = database.execute(f"SELECT COUNT(*) FROM {CELLS}").fetchone()
    return count > 0 or _options_then(database)["cells"] > 0


def _options_then(database: sqlite3.Connection) -> dict[str, Any]:
    """Read the options of the first drawing; a file of another version may not name all."""
    query = f"SELECT value FROM {DESIGN} WHERE name = 'options'"
    return {**asdict(ReviewOptions()), **json.loads(database.execute(query).fetchone()[0])}


def _reported(found: Places) -> tuple[Floats, float]:
    """Centres of the detections that the model reports, and the side of a usual one."""
    reported = found.take(found.margin >= 0)
    return reported.centre, float(np.median(reported.side)) if len(reported) else 0.0


def _unused_options(database: sqlite3.Connection, options: ReviewOptions) -> tuple[str, ...]:
    """Tell which options have no effect any longer."""
    then = _options_then(database)
    now, plain = asdict(options), asdict(ReviewOptions())
    unused = [name for name in _FIXED if now[name] not in (then[name], plain[name])]
    return tuple(
        f"cells were laid out with ReviewOptions.{name} {then[name]}, which holds for this file; "
        f"{now[name]} was not used"
        for name in unused
    )


def _known(database: sqlite3.Connection, review: Review, found: Places) -> Flags:
    """Tell which detections stand where a row was handed out, or a person put an object."""
    evened = review.frame.evened
    centre = evened(found.centre)
    handed = shapely.get_coordinates(shapely.centroid(handed_out(database))).reshape(-1, 2)
    moved = review.cases.geometry[review.cases.is_touched]
    moved = moved[~shapely.is_missing(moved)]
    entered = shapely.get_coordinates(shapely.centroid(moved)).reshape(-1, 2)
    is_known = np.zeros(len(found), bool)
    for places in (handed, entered):
        left = np.flatnonzero(~is_known)
        i, _ = pair_places(centre[left], evened(places), found.side[left] / 2)
        is_known[left[i]] = True
    return is_known


def _cases_in_cells(review: Review, found: Places, is_known: Flags) -> list[NewCase]:
    """Rows for reported detections in drawn cells, but for cells that are done."""
    cell = review.frame.cell_at(found.centre)
    waits = np.append(review.is_drawn & ~review.is_done, False)
    unlisted = np.flatnonzero(waits[cell] & ~is_known & (found.margin >= 0))
    unlisted = unlisted[np.lexsort((-found.score[unlisted], cell[unlisted]))]
    return [_new_case(found, int(k), "cell", int(cell[k])) for k in unlisted]


def _queue(
    review: Review, source: _Source, is_known: Flags, options: ReviewOptions
) -> list[NewCase]:
    """Cases to fill the queue up to its budget."""
    found, other, cases = source.found, source.other, review.cases
    waits, evened = _waits(review), review.frame.evened
    drawn = np.append(review.is_drawn, False)
    excluded = is_known | drawn[review.frame.cell_at(found.centre)]
    centre = found.centre
    if other is not None:
        cases_at = evened(_centres(cases.geometry))
        i, _ = pair_places(evened(other.centre), cases_at, other.side / 2)
        stands = np.zeros(len(other), bool)
        stands[i] = True
        excluded = np.append(excluded, stands | drawn[review.frame.cell_at(other.centre)])
        centre = np.concatenate([centre, other.centre])
    # Cases are for training, so the ground of cells that may be drawn to count by comes last.
    counting = np.append(review.frame.use == "count", False)
    turn = np.where(excluded, -1, counting[review.frame.cell_at(centre)].astype(np.int64))
    chosen = choose_cases(
        replace(found, centre=evened(found.centre)),
        None if other is None else replace(other, centre=evened(other.centre)),
        turn,
        occupied=evened(_centres(cases.geometry[waits])),
        count=options.budget - int(waits.sum()),
        random_state=review.frame.design.random_state,
    )
    rows = []
    for choice in chosen:
        places, at = (found, choice.place)
        if choice.place >= len(found):
            assert other is not None  # it gave that place
            places, at = other, choice.place - len(found)
        row = _new_case(places, at, choice.reason, NO_CELL)
        origin = DETECTION if places is found and found.margin[at] >= 0 else "candidate"
        name = row.name if row.name is not None else _usual(source)
        rows.append(replace(row, origin=origin, name=name))
    return rows


def _new_case(places: Places, at: int, reason: str, cell: int) -> NewCase:
    return NewCase(
        origin=DETECTION,
        name=places.name[at],
        score=float(places.score[at]),
        geometry=places.geometry[at],
        side=float(places.side[at]),
        reason=reason,
        cell=cell,
    )


def _usual(source: _Source) -> str:
    """Name the only class, or the most frequent one, for labels that tell none."""
    if len(source.classes) == 1 or not len(source.found):
        return source.classes[0] if source.classes else "object"
    return str(Counter(source.found.name).most_common(1)[0][0])


def _waits(review: Review) -> Flags:
    """Rows of the queue that nobody has looked at: new ones outside drawn cells."""
    drawn = np.append(review.is_drawn, False)
    return np.asarray((review.cases.status == "new") & ~drawn[review.cases.cell], dtype=bool)


def _centres(geometries: Texts) -> Floats:
    points = shapely.centroid(geometries)
    return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=-1)


def _cell_notes(review: Review, options: ReviewOptions) -> tuple[str, ...]:
    """Tell of cells that were completed out of turn, and of too few."""
    notes = []
    beyond = sum(each.not_counted for use in USES for each in samples_of(review, use))
    if beyond:
        notes.append(
            f"{beyond} done cells lie beyond a gap in the order of a stratum and do not count; "
            "complete the cells before them, by place in the layer cells"
        )
    if options.cells > len(review.frame):
        notes.append(
            f"{options.cells:,} cells were asked for and the ground has {len(review.frame):,}; "
            "all are drawn"
        )
    return (*notes, *review.notes)


def _report(
    review: Review, queue: list[NewCase], in_cells: int, added: int, notes: tuple[str, ...]
) -> ReviewReport:
    reasons = Counter(case.reason for case in queue)
    return ReviewReport(
        path=review.path,
        cases_added=len(queue),
        cases_open=int(_waits(review).sum()),
        reasons={name: reasons[name] for name in REASONS if reasons[name]},
        cells_added=added,
        cells_open=int((review.is_drawn & ~review.is_done).sum()),
        cells_done=int(review.is_done.sum()),
        cell_rows=in_cells,
        entries=int(review.cases.is_touched.sum()),
        notes=notes,
    )
