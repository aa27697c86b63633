"""Read detections, or labels, as the places that a review chooses among."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.errors import LabelError
from geo_retina.geodesy import missing_crs, move_outlines
from geo_retina.review.values import Flags, Floats, Ints, Texts
from geo_retina.vector import open_stream, read_companions, read_metadata, reproject
from geo_retina.vector.formats import GEOMETRY
from geo_retina.vector.readers.refusing import refuse_damage

_TILE_SIDES = 0b1111
"""Bits of ``cut`` that tell of sides of a tile, not of the scene."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Objects that somebody or something found, (N,) each.

    Attributes:
        name: class; None where the layer tells none.
        score: 1 where the layer tells none.
        margin: score less the threshold of its class; negative below it.
        geometry: polygons, or points.
        centre: (N, 2) of the geometry.
        side: of the square as large as its bounds, in units of the CRS; never 0.
        is_at_seam: whether a tile's side cut it, or it was joined of parts.
    """

    name: Texts
    score: Floats
    margin: Floats
    geometry: Texts
    centre: Floats
    side: Floats
    is_at_seam: Flags

    def __len__(self) -> int:
        return len(self.name)

    def take(self, index: Flags | Ints) -> Places:
        """Select where a mask is true, or at positions."""
        return Places(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def read_places(
    path: str | Path,
    crs: pyproj.CRS | None,
    *,
    layer: str | None = None,
    is_labels: bool = False,
) -> tuple[Places, tuple[str, ...]]:
    """Read the objects of a file into a CRS.

    Args:
        path: detections as ``detect`` wrote them, or labels; points or polygons.
        crs: CRS of the result.
        layer: left out, the one named ``detections``, or the only one.
        is_labels: they are true, whatever score they tell.

    Returns:
        The objects in the order of the file, and the classes that its model knows.

    Raises:
        LabelError: the file cannot be read, or an object has no geometry.
    """
    thresholds: dict[str, float] = {}
    if not is_labels:
        thresholds = json.loads(read_metadata(path).get("thresholds", "{}"))
    with open_stream(path, layer) as stream:
        own = stream.crs
        columns = [*_columns(path, stream.tables)]
    names, scores, seams, geometries = (np.concatenate(c) for c in zip(*columns, strict=True))
    if is_labels:
        scores = np.ones(len(scores))
    with refuse_damage(path):
        geometries = shapely.from_wkb(geometries)
    has_class = np.array([name is not None for name in names], bool)
    check_objects(path, geometries, scores, has_class | is_labels | ~has_class.any())
    if (own is None) != (crs is None):
        subject = str(path) if own is None else "the file under review"
        raise LabelError(missing_crs(subject, "the two cannot be compared", file=str(path)))
    geometries = reproject(geometries, own, crs)
    limits = np.array([thresholds.get(name, 0.0) for name in names], np.float64)
    found = Places(
        name=names,
        score=scores,
        margin=scores - limits,
        geometry=geometries,
        centre=shapely.get_coordinates(shapely.centroid(geometries)).reshape(-1, 2),
        side=_sides(geometries),
        is_at_seam=seams.astype(bool),
    )
    return found, tuple(thresholds)


def check_objects(path: str | Path, geometries: Texts, scores: Floats, has_class: Flags) -> None:
    """Refuse rows that lack what every detection has, as one drawn by hand does.

    Raises:
        LabelError: there are some.
    """
    lacks = {
        "geometry": shapely.is_missing(geometries) | shapely.is_empty(geometries),
        "score": np.isnan(scores),
        "class": ~has_class,
    }
    for what, which in lacks.items():
        if which.any():
            raise LabelError(
                f"{path} has {int(which.sum()):,} objects without a {what}, expected one for each "
                "detection; fill or remove these, and draw what is missing in the layer review"
            )


def read_looked_at(path: str | Path, crs: pyproj.CRS | None) -> Texts:
    """Read the ground that detections were made on, without what was not covered.

    Args:
        path: detections as ``detect`` wrote them.
        crs: CRS of the result.

    Returns:
        Polygons that do not overlap.

    Raises:
        LabelError: the file does not tell the ground.
    """
    companions = read_companions(path)
    if companions is None or companions.scanned is None:
        raise LabelError(
            f"{path} does not say which ground was scanned, expected a layer scanned as "
            "geo-retina detect writes it; detect again"
        )
    with open_stream(path) as stream:
        own = stream.crs
    with refuse_damage(path):
        whole = shapely.union_all(_polygons(companions.scanned))
        missing = companions.not_covered
        if missing is not None and missing.num_rows:
            whole = shapely.difference(whole, shapely.union_all(_polygons(missing)))
    polygons = np.array(
        [p for p in shapely.get_parts([whole]) if shapely.get_dimensions(p) == 2], dtype=object
    )
    if not len(polygons):
        raise LabelError(
            f"{path} names no ground that was scanned, expected some in the layer scanned; detect "
            "again"
        )
    return np.asarray(move_outlines(polygons, own, crs), dtype=object)


def _polygons(table: pa.Table) -> Texts:
    """Outlines of a table; those of unknown place are left out."""
    found = shapely.from_wkb(table[GEOMETRY].to_numpy())
    return np.asarray(shapely.make_valid(found[~shapely.is_missing(found)]), dtype=object)


def _columns(path: str | Path, tables: Iterator[pa.Table]) -> Iterator[tuple[Any, ...]]:
    """Give the parts of each table that are needed; at first one without rows."""
    yield np.empty(0, object), np.empty(0), np.empty(0, bool), np.empty(0, object)
    for table in tables:
        count = table.num_rows
        yield (
            _column(table, "class", np.full(count, None)),
            np.asarray(_column(table, "score", np.ones(count)), np.float64),
            _column(table, "joined", np.zeros(count, bool)).astype(bool)
            | (_column(table, "cut", np.zeros(count, np.int64)).astype(np.int64) & _TILE_SIDES > 0),
            table[GEOMETRY].to_numpy(),
        )


def _column(table: pa.Table, name: str, otherwise: Any) -> Any:
    if name not in table.column_names or table[name].null_count == table.num_rows:
        return otherwise
    return table[name].to_numpy()


def _sides(geometries: Texts) -> Floats:
    """Sides of squares as large as bounds; points get the half of the usual distance."""
    low, high = np.split(shapely.bounds(geometries), 2, axis=1)
    sides = np.sqrt(np.prod(high - low, axis=1))
    if (sides > 0).any():
        return np.where(sides > 0, sides, np.median(sides[sides > 0]))
    if len(geometries) < 2:
        return np.ones(len(geometries))
    from scipy.spatial import cKDTree

    centres = shapely.get_coordinates(shapely.centroid(geometries))
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    return np.full(len(geometries), max(float(np.median(nearest)) / 2, 1e-9))


def pair_places(one: Floats, other: Floats, within: Floats) -> tuple[Ints, Ints]:
    """Pair positions that are one place, one to one, the nearest first.

    Args:
        one: (N, 2) positions.
        other: (M, 2) positions in the same CRS; those that are not finite pair with none.
        within: (N,) the distance up to which each of the first is one place with another.

    Returns:
        Positions in the first and in the second, of the pairs.
    """
    from scipy.spatial import cKDTree

    usable = np.flatnonzero(np.isfinite(other).all(axis=1))
    if not len(one) or not len(usable):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    near = cKDTree(other[usable]).query_ball_point(one, within)
    i = np.repeat(np.arange(len(one)), [len(each) for each in near])
    j = usable[np.concatenate([np.asarray(each, np.int64) for each in near])]
    distance = np.linalg.norm(one[i] - other[j], axis=1)
    chosen: list[tuple[int, int]] = []
    left, right = set[int](), set[int]()
    for k in np.lexsort((j, i, distance)).tolist():
        a, b = int(i[k]), int(j[k])
        if a not in left and b not in right:
            left.add(a)
            right.add(b)
            chosen.append((a, b))
    pairs = np.array(chosen, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
