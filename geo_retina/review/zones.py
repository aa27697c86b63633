"""Read zones, such as districts, for which there should be counts of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely

from geo_retina.errors import LabelError
from geo_retina.geodesy import carry_ground, missing_crs
from geo_retina.options import it_has
from geo_retina.review.values import Floats, Texts
from geo_retina.vector.readers.frames import read_frame


def read_zones(
    path: str, crs: pyproj.CRS | None, around: Any, *, layer: str | None, column: str | None
) -> dict[str, Any]:
    """Read polygons by name.

    Args:
        path: any vector file.
        crs: CRS of the result.
        around: (K, 2) positions in it around which zones matter.
        layer: needed where the file has several.
        column: names of zones; left out, they are numbered from 1.

    Returns:
        One polygon or multi-polygon per name, in the order of the file; zones of one name are one.

    Raises:
        LabelError: the file cannot be read, has no such column, or no polygons.
    """
    frame = read_frame(path, layer=layer, layer_remedy="choose one with ReviewOptions.zones_layer")
    if frame.crs is None or crs is None:
        without = path if frame.crs is None else "the file of detections"
        raise LabelError(missing_crs(without, "zones have no place on it", file=path))
    geometries = np.asarray(frame.geometry, dtype=object)
    usable = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if not usable.any() or (shapely.get_dimensions(geometries[usable]) < 2).any():
        raise LabelError(f"{path} holds no polygons or other geometries too, expected zones")
    if column is None:
        names = [str(number + 1) for number in range(len(frame))]
    elif column not in frame.columns:
        known = [str(name) for name in frame.columns if name != frame.geometry.name]
        raise LabelError(f"{path} has no column {column}; {it_has(column, known)}")
    else:
        nameless = int(frame[column].isna().to_numpy()[usable].sum())
        if nameless:
            raise LabelError(
                f"{path} has {nameless} zones without a name in the column {column}, expected one "
                "for each; fill the column or remove these"
            )
        names = [str(value) for value in frame[column]]
    polygons = shapely.force_2d(shapely.make_valid(geometries[usable]))
    moved = carry_ground(polygons, pyproj.CRS(frame.crs), crs, around)
    by_name: dict[str, list[Any]] = {}
    for at, polygon in zip(np.flatnonzero(usable), moved, strict=True):
        by_name.setdefault(names[at], []).append(polygon)
    return {name: shapely.union_all(parts) for name, parts in by_name.items()}


def zones_at(zones: dict[str, Any], middles: Floats) -> Texts:
    """(N,) name of the zone that holds the middle of each cell; the first where several do."""
    found = np.full(len(middles), None, dtype=object)
    for name, polygon in reversed(zones.items()):
        shapely.prepare(polygon)
        found[shapely.contains_xy(polygon, middles)] = name
    return found
