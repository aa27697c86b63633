"""Detections as Arrow tables with WKB geometry, and those as GeoDataFrames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.detections import NO_DAY, Detections
from geo_retina.errors import GridError, LabelError
from geo_retina.geodesy import full_turn, move_outlines, near_longitude, reproject_rings
from geo_retina.grid import Grid
from geo_retina.vector.formats import AZIMUTH, GEOMETRY, PROBABILITY
from geo_retina.vector.ground_size import ground_sizes
from geo_retina.vector.wkb import rings_to_wkb

if TYPE_CHECKING:
    import geopandas as gpd
    from affine import Affine

DETECTION_SCHEMA = pa.schema(
    [
        ("class", pa.string()),
        ("score", pa.float64()),
        ("scene", pa.string()),
        ("tile", pa.int64()),
        ("cut", pa.int32()),
        ("joined", pa.bool_()),
        ("area_m2", pa.float64()),
        ("longest_m", pa.float64()),
        ("x_min_px", pa.float64()),
        ("y_min_px", pa.float64()),
        ("x_max_px", pa.float64()),
        ("y_max_px", pa.float64()),
        (GEOMETRY, pa.binary()),
    ]
)
"""Columns of ``detections_table`` of upright boxes, in order."""

_SIDES = (AZIMUTH, "length_m", "width_m")
"""Further columns of oriented boxes."""

_MULTIPOLYGON = 6
_FAR_FROM_LEAP = 3 / 8
"""Share of a turn up to which a scene does not reach where longitudes leap."""


def detection_schema(
    *, oriented: bool = False, calibrated: bool = False, dates: Sequence[str] = ()
) -> pa.Schema:
    """List the columns of detections.

    Args:
        oriented: of oriented boxes, which have ``azimuth_deg``, ``length_m`` and ``width_m`` too.
        calibrated: of a calibrated model, with ``probability``.
        dates: columns of dates that follow ``scene``, of ``DATES``.
    """
    fields = list(DETECTION_SCHEMA)
    if oriented:
        at = DETECTION_SCHEMA.names.index("longest_m") + 1
        fields[at:at] = [pa.field(name, pa.float64()) for name in _SIDES]
    at = DETECTION_SCHEMA.names.index("scene") + 1
    fields[at:at] = [pa.field(name, pa.date32()) for name in dates]
    if calibrated:
        at = DETECTION_SCHEMA.names.index("score") + 1
        fields.insert(at, pa.field(PROBABILITY, pa.float64()))
    return pa.schema(fields)


def is_oriented(columns: Iterable[str]) -> bool:
    """Tell by its columns whether a table or file is of oriented boxes."""
    return AZIMUTH in columns


def detections_table(
    detections: Detections,
    grid: Grid,
    *,
    classes: Sequence[str],
    scene: str,
    to_file: Affine | None,
    crs: pyproj.CRS | None = None,
) -> pa.Table:
    """Place the detections of one scene on the ground, as rows of a file.

    Args:
        detections: in pixels of ``grid``.
        grid: grid of the scene; its affine may rotate.
        classes: the model's classes; ``detections.labels`` are positions in it.
        scene: stem of the scene's file.
        to_file: maps grid pixels to the file's own pixels; None where the grid was warped,
            which leaves the pixel columns null.
        crs: CRS of the polygons; left out, the grid's own.

    Returns:
        One row per detection, in order, with the columns of ``detection_schema``: ``geometry``
        as WKB polygons, counter-clockwise; ``score`` as float64 of the same value; ``cut`` the
        bits of ``Cut``; ``area_m2`` and ``longest_m`` as ``ground_sizes`` has them, null without
        a CRS; of oriented boxes ``azimuth_deg``, from the north of the polygons' CRS, ``length_m``
        and ``width_m``; ``x_min_px`` to ``y_max_px`` in the file's pixels, at pixel edges, of
        oriented boxes the hull. A turned ``to_file`` gives the bounds there. No detections give a
        table without rows.

    Raises:
        GridError: a box is not finite, or ``crs`` cannot express its place.
    """
    rings = boxes.place_corners(detections.corners_px, grid)
    rings = reproject_rings(rings, grid.crs, crs)
    if not np.isfinite(rings).all():
        raise GridError(
            f"scene {scene} lies where {crs.name if crs else 'its CRS'} has no coordinates; choose "
            "a CRS that covers it"
        )
    count = len(detections)
    names = pa.DictionaryArray.from_arrays(detections.labels, pa.array(classes, pa.string()))
    area_m2, longest_m = ground_sizes(detections, grid)
    sides: tuple[NDArray[np.float64], ...] = ()
    if detections.rotated_px is not None:
        sides = oriented.ground_sides(detections.rotated_px, grid, crs)
        longest_m = sides[1]
    columns = [
        names.dictionary_decode(),
        pa.array(detections.scores.astype(np.float64)),
        pa.repeat(scene, count),
        pa.array(detections.tile),
        pa.array(detections.cut.astype(np.int32)),
        pa.array(detections.joined),
        *(pa.array(values, from_pandas=True) for values in (area_m2, longest_m, *sides)),
        *_file_pixels(detections.boxes_px, to_file),
        rings_to_wkb(rings),
    ]
    schema = detection_schema(oriented=detections.rotated_px is not None)
    return pa.Table.from_arrays(columns, schema=schema)


def _file_pixels(boxes_px: boxes.Boxes, to_file: Affine | None) -> list[pa.Array]:
    if to_file is None:
        return [pa.nulls(len(boxes_px), pa.float64())] * 4
    if to_file.is_identity:
        return [pa.array(np.ascontiguousarray(values)) for values in boxes_px.T]
    corners = boxes.corners(boxes_px)
    x = to_file.a * corners[..., 0] + to_file.b * corners[..., 1] + to_file.c
    y = to_file.d * corners[..., 0] + to_file.e * corners[..., 1] + to_file.f
    return [pa.array(v) for v in (x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1))]


def outline_table(
    polygons: NDArray[np.object_],
    columns: Mapping[str, Sequence[Any]],
    source: pyproj.CRS | None,
    crs: pyproj.CRS | None,
) -> pa.Table:
    """Write outlines of ground, such as what a run did not cover, as rows of a file.

    Args:
        polygons: (N,) shapely polygons or multi-polygons in ``source``, of one kind, which is
            kept; None for ground of unknown place.
        columns: further columns of N values each.
        source: CRS of the polygons.
        crs: CRS of the result. Outlines are long, so their edges get extra vertices on the way.

    Returns:
        One row per polygon, in order: ``geometry`` as WKB, then ``columns``.
    """
    are_multi = (shapely.get_type_id(polygons) == _MULTIPOLYGON).any()
    polygons = move_outlines(polygons, source, crs)
    if are_multi:  # GEOS unwraps those of one part
        polygons = np.array([_as_multi(polygon) for polygon in polygons], dtype=object)
    geometry = pa.array(shapely.to_wkb(polygons), pa.binary())
    return pa.table({GEOMETRY: geometry, **{k: pa.array(list(v)) for k, v in columns.items()}})


def _as_multi(polygon: Any) -> Any:
    return None if polygon is None else shapely.multipolygons(shapely.get_parts(polygon))


def cut_table(
    table: pa.Table, cut: Callable[[NDArray[np.object_]], NDArray[np.object_]]
) -> pa.Table:
    """Change the polygons of outlines; those of which nothing is left are dropped.

    Args:
        table: as ``outline_table`` makes it. Rows without a geometry stay as they are.
        cut: (N,) polygons to the parts of them that matter.
    """
    if not table.num_rows:
        return table
    polygons = shapely.from_wkb(table[GEOMETRY].to_numpy())
    unknown = shapely.is_missing(polygons)
    left = [
        None
        if part is None
        else shapely.MultiPolygon([p for p in shapely.get_parts(part) if shapely.area(p) > 0])
        for part in cut(polygons)
    ]
    kept = np.array(left, dtype=object)
    column = pa.array(shapely.to_wkb(kept), pa.binary())
    at = table.column_names.index(GEOMETRY)
    return table.set_column(at, GEOMETRY, column).filter(
        pa.array(unknown | ~shapely.is_empty(kept))
    )


def turn_to(table: pa.Table, crs: pyproj.CRS | None, x: float) -> pa.Table:
    """Count the longitudes of a table's geometries around another, as a scene's file does.

    Args:
        table: with WKB in ``geometry``.
        crs: its CRS; nothing changes in one that is not geographic.
        x: longitude in it.
    """
    turn = full_turn(crs)
    if turn is None or abs(x) < _FAR_FROM_LEAP * turn or not table.num_rows:
        return table
    geometries = shapely.from_wkb(table[GEOMETRY].to_numpy())
    column = pa.array(shapely.to_wkb(near_longitude(geometries, turn, x)), pa.binary())
    return table.set_column(table.column_names.index(GEOMETRY), GEOMETRY, column)


def reproject_table(table: pa.Table, source: pyproj.CRS | None, crs: pyproj.CRS | None) -> pa.Table:
    """Move outlines to another CRS, with extra vertices on the way."""
    polygons = shapely.from_wkb(table[GEOMETRY].to_numpy())
    others = {n: table[n].to_pylist() for n in table.column_names if n != GEOMETRY}
    moved = outline_table(polygons, others, source, crs)
    return moved.select([*others, GEOMETRY]).cast(
        pa.schema([*(table.schema.field(n) for n in others), (GEOMETRY, pa.binary())])
    )


def geometry_of(table: pa.Table) -> pa.Array:
    """Return the WKB of a table in one piece."""
    wkb = table[GEOMETRY].combine_chunks()
    return wkb if isinstance(wkb, pa.Array) else pa.concat_arrays(wkb.chunks)


def with_probability(table: pa.Table, probabilities: NDArray[np.float64]) -> pa.Table:
    """Add the probabilities of a calibrated model beside the scores.

    Args:
        table: from ``detections_table``.
        probabilities: (N,) of its rows.
    """
    after_score = table.column_names.index("score") + 1
    values = pa.array(np.asarray(probabilities, np.float64))
    return table.add_column(after_score, PROBABILITY, values)


def with_days(table: pa.Table, days: Mapping[str, NDArray[np.int32]]) -> pa.Table:
    """Add columns of dates after ``scene``.

    Args:
        table: from ``detections_table``.
        days: (N,) of its rows, by column, from 1970-01-01; ``NO_DAY`` for null.
    """
    at = table.column_names.index("scene") + 1
    for name, values in reversed([*days.items()]):
        column = pa.array(values, pa.int32(), mask=values == NO_DAY).cast(pa.date32())
        table = table.add_column(at, name, column)
    return table


def same_days(day: date | None, count: int) -> NDArray[np.int32]:
    """Repeat a day, as ``with_days`` takes it."""
    return np.full(count, NO_DAY if day is None else (day - date(1970, 1, 1)).days, np.int32)


def days_of(table: pa.Table, name: str) -> NDArray[np.int32]:
    """Read a column of dates as (N,) days from 1970-01-01; ``NO_DAY`` where it has none.

    Raises:
        LabelError: it holds something else.
    """
    if name not in table.column_names:
        return np.full(table.num_rows, NO_DAY, np.int32)
    try:
        days = table[name].cast(pa.date32()).cast(pa.int32())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LabelError(
            f"the column {name} of the detections holds {table[name].type} values that are no "
            "dates, expected such as 2026-11-29"
        ) from error
    return np.asarray(days.fill_null(NO_DAY).to_numpy(), np.int32)


def to_geodataframe(tables: Iterable[pa.Table], crs: pyproj.CRS | None) -> gpd.GeoDataFrame:
    """Gather tables in memory: the rows that ``write_vector`` would write.

    Args:
        tables: as from ``detections_table``; none give no rows and the columns of one.
        crs: CRS of their geometries.

    Returns:
        All rows in order, ``id`` from 0 first.
    """
    import geopandas as gpd

    parts = [*tables] or [DETECTION_SCHEMA.empty_table()]
    table = pa.concat_tables(parts)
    geometry = shapely.from_wkb(table[GEOMETRY].to_numpy())
    frame = table.drop_columns([c for c in (GEOMETRY, "id") if c in table.column_names]).to_pandas()
    frame.insert(0, "id", np.arange(len(frame), dtype=np.int64))
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=crs)
