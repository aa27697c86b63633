"""Boxes and points as WKB without a geometry object in between, and back.

Four corners and the first again are 93 bytes, a point is 21, whatever their numbers: so a column
of them is one array of bytes. Through shapely the same takes ten times as long.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rings = NDArray[np.float64]
"""(N, 5, 2) x, y of closed rings of four corners."""

_RING = np.dtype([("head", "V13"), ("xy", "<f8", (5, 2))])
_POINT = np.dtype([("head", "V5"), ("xy", "<f8", (2,))])
# Little-endian, polygon, one ring, five vertices; little-endian, point.
_RING_HEAD = np.frombuffer(b"\x01\x03\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00", "V13")
_POINT_HEAD = np.frombuffer(b"\x01\x01\x00\x00\x00", "V5")

_CHUNK_ROWS = 1 << 20
"""Arrow counts the bytes of a chunk in 32 bits."""


def rings_to_wkb(rings: Rings) -> pa.ChunkedArray:
    """Write (N,) WKB polygons of closed rings, in order."""
    return _to_wkb(rings, _RING, _RING_HEAD)


def points_to_wkb(points: NDArray[np.float64]) -> pa.ChunkedArray:
    """Write (N,) WKB points of (N, 2) positions x, y, in order."""
    return _to_wkb(points, _POINT, _POINT_HEAD)


def wkb_to_rings(wkb: pa.Array) -> Rings | None:
    """Read the rings of WKB polygons of four corners each.

    Args:
        wkb: (N,) binary.

    Returns:
        (N, 5, 2); None where any geometry is missing or of another form.
    """
    if wkb.null_count or not pa.types.is_binary(wkb.type):
        return None
    _, offsets, data = wkb.buffers()
    count, size = len(wkb), _RING.itemsize
    if not count:
        return np.empty((0, 5, 2))
    at = np.frombuffer(offsets, np.int32, count + 1, wkb.offset * 4)
    if at[-1] - at[0] != count * size or (np.diff(at) != size).any():
        return None
    rows = np.frombuffer(data, _RING, count, at[0])
    if (rows["head"] != _RING_HEAD).any():
        return None
    return np.ascontiguousarray(rows["xy"])


def centres(rings: Rings) -> NDArray[np.float64]:
    """Compute (N, 2) centres of the four corners."""
    return np.asarray(rings[:, :4].mean(axis=1))


def _to_wkb(xy: NDArray[np.float64], layout: np.dtype, head: NDArray[np.void]) -> pa.ChunkedArray:
    chunks = [
        _chunk(xy[start : start + _CHUNK_ROWS], layout, head)
        for start in range(0, len(xy), _CHUNK_ROWS)
    ]
    return pa.chunked_array(chunks, pa.binary())


def _chunk(xy: NDArray[np.float64], layout: np.dtype, head: NDArray[np.void]) -> pa.Array:
    rows = np.empty(len(xy), layout)
    rows["head"] = head
    rows["xy"] = xy
    offsets = np.arange(len(xy) + 1, dtype=np.int32) * np.int32(layout.itemsize)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(rows.view(np.uint8))]
    return pa.Array.from_buffers(pa.binary(), len(xy), buffers)
