"""Triangles, TINs and polyhedral surfaces as the polygons that they cover, seen from above."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

_POINT, _LINE, _POLYGON = 1, 2, 3
_JOINED = {
    4: shapely.MultiPoint,
    5: shapely.MultiLineString,
    6: shapely.MultiPolygon,
    7: shapely.GeometryCollection,
}
_FACES = (15, 16)  # polyhedral surface, TIN
_TRIANGLE = 17
_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000  # of EWKB; ISO adds 1000, 2000 or 3000


def surfaces_from_wkb(wkb: NDArray[np.object_]) -> NDArray[np.object_]:
    """Read WKB of any kind that GEOS knows, and of triangles, TINs and polyhedral surfaces.

    Args:
        wkb: (N,) bytes, or None.

    Returns:
        (N,) geometries in order. A surface is one object, whatever the number of its faces: the
        ground under all of them, flat; empty where all its faces stand upright.

    Raises:
        ValueError: a geometry is of another kind, or damaged.
    """
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    known = np.array([each is None for each in wkb], dtype=np.bool_) | ~shapely.is_missing(
        geometries
    )
    for row in np.flatnonzero(~known):
        try:
            geometries[row] = _parse(bytes(wkb[row]), 0)[0]
        except (struct.error, IndexError, RecursionError, shapely.errors.ShapelyError) as error:
            raise ValueError(f"geometry {row} cannot be read: {error}") from error
    return np.asarray(geometries, dtype=object)


def _parse(wkb: bytes, start: int) -> tuple[Any, int]:
    """Parse the geometry that begins at a byte, and find where it ends."""
    order = "<" if wkb[start] else ">"
    (code,) = struct.unpack_from(f"{order}I", wkb, start + 1)
    at = start + (9 if code & _SRID else 5)
    plain = code & ~(_Z | _M | _SRID)
    kind = plain % 1000
    size = 8 * (2 + bool(code & _Z) + bool(code & _M) + (0, 1, 1, 2)[plain // 1000 % 4])
    if kind in _FACES or kind in _JOINED:
        (count,) = struct.unpack_from(f"{order}I", wkb, at)
        at += 4
        parts = []
        for _ in range(count):
            part, at = _parse(wkb, at)
            parts.append(part)
        return (_from_above(parts) if kind in _FACES else _JOINED[kind](parts)), at
    if kind not in (_POINT, _LINE, _POLYGON, _TRIANGLE):
        raise ValueError(f"geometries of WKB type {kind} are not known")
    end = _end_of(wkb, at, kind, size, order)
    if kind == _TRIANGLE:  # laid out as a polygon is
        code += _POLYGON - _TRIANGLE
    head = wkb[start : start + 1] + struct.pack(f"{order}I", code)
    return shapely.from_wkb(head + wkb[start + 5 : end]), end


def _end_of(wkb: bytes, at: int, kind: int, size: int, order: str) -> int:
    """Find where the coordinates of a point, a line, or the rings of a polygon end."""
    if kind == _POINT:
        return at + size
    rings = 1
    if kind != _LINE:
        (rings,) = struct.unpack_from(f"{order}I", wkb, at)
        at += 4
    for _ in range(rings):
        (points,) = struct.unpack_from(f"{order}I", wkb, at)
        at += 4 + points * size
    return at


def _from_above(faces: Sequence[Any]) -> Any:
    flat = shapely.make_valid(
        shapely.force_2d(np.array(faces, dtype=object)), method="structure", keep_collapsed=False
    )
    whole = shapely.union_all(flat[shapely.area(flat) > 0])
    return whole if whole.area > 0 else shapely.Polygon()
