"""Free functions over (N, 4) boxes: x_min, y_min, x_max, y_max at pixel edges, float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import GridError

if TYPE_CHECKING:
    from geo_retina.grid import Grid

Boxes = NDArray[np.float64]


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Compute (N,) areas; an inverted box has area 0."""
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return side[:, 0] * side[:, 1]


def shift(boxes: Boxes, x: float, y: float) -> Boxes:
    """Move boxes by (x, y)."""
    return boxes + np.array([x, y, x, y], dtype=np.float64)


def clip(boxes: Boxes, bounds: tuple[float, float, float, float]) -> Boxes:
    """Cut boxes to x_min, y_min, x_max, y_max; a box outside becomes one of area 0."""
    x_min, y_min, x_max, y_max = bounds
    return np.stack(
        [
            np.clip(boxes[:, 0], x_min, x_max),
            np.clip(boxes[:, 1], y_min, y_max),
            np.clip(boxes[:, 2], x_min, x_max),
            np.clip(boxes[:, 3], y_min, y_max),
        ],
        axis=1,
    )


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Compute (N,) areas of overlap of the i-th box of a with the i-th of b."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, 2:], b[:, 2:])
    side = np.maximum(high - low, 0.0)
    return side[:, 0] * side[:, 1]


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Compute (N,) IoU of the i-th box of a with the i-th of b; 0 for no area."""
    overlap = intersection(a, b)
    union = area(a) + area(b) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def corners(boxes: Boxes) -> NDArray[np.float64]:
    """Return (N, 4, 2) corners x, y: top-left, top-right, bottom-right, bottom-left."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def overlapping_pairs(boxes: Boxes, others: Boxes | None = None) -> NDArray[np.int64]:
    """Find the pairs of boxes that touch or overlap.

    Args:
        boxes: (N, 4).
        others: (M, 4); left out, pairs are sought among ``boxes`` themselves.

    Returns:
        (P, 2) indices i, j sorted by i, then j: into ``boxes`` and ``others``, or with i < j
        into ``boxes``. O(n log n + P) by a packed R-tree.
    """
    from shapely import STRtree, box

    if not len(boxes) or (others is not None and not len(others)):
        return np.empty((0, 2), dtype=np.int64)
    shapes = box(*boxes.T)
    targets = shapes if others is None else box(*others.T)
    i, j = STRtree(targets).query(shapes).astype(np.int64)
    if others is None:
        i, j = i[i < j], j[i < j]
    # One sort of whole numbers instead of a lexsort of pairs, a third of the time.
    return np.stack(np.divmod(np.sort(i * len(targets) + j), len(targets)), axis=1)


def at_invalid(boxes_tile: Boxes, valid: NDArray[np.bool_], reach_px: float) -> NDArray[np.bool_]:
    """Find which sides of boxes lie at the edge of valid ground.

    Looked at is the strip from a pixel inside a side to ``reach_px`` beyond it, as far as
    ``valid`` reaches: at least half of it is invalid.

    Args:
        boxes_tile: (N, 4) in pixels of ``valid``, inside it.
        valid: (height, width).
        reach_px: how far valid ground must end beyond a side.

    Returns:
        (N, 4): left, top, right, bottom.
    """
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(valid, axis=0), axis=1, out=sums[1:, 1:])
    low = np.floor(boxes_tile[:, :2]).astype(np.int64)
    high = np.ceil(boxes_tile[:, 2:]).astype(np.int64)
    reach = math.ceil(reach_px)
    at = np.empty((len(boxes_tile), 4), np.bool_)
    for axis in (0, 1):
        for side, (start, end) in enumerate(
            ((low[:, axis] - reach, low[:, axis] + 1), (high[:, axis] - 1, high[:, axis] + reach))
        ):
            strip_low, strip_high = low.copy(), high.copy()
            strip_low[:, axis], strip_high[:, axis] = start, end
            x0, y0 = np.maximum(strip_low, 0).T
            x1, y1 = np.minimum(strip_high, valid.shape[::-1]).T
            shown = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
            at[:, axis + 2 * side] = 2 * shown <= (x1 - x0) * (y1 - y0)
    return at


def to_polygons(boxes_px: Boxes, grid: Grid) -> NDArray[np.object_]:
    """Place pixel boxes on the ground.

    Args:
        boxes_px: (N, 4) grid pixels, x_min y_min x_max y_max, origin at the outer corner of
            the top-left pixel, y down.
        grid: grid of the scene; its affine may rotate.

    Returns:
        (N,) shapely polygons in ``grid.crs``, in its units, in the order given; each ring is
        counter-clockwise on the ground. Without a CRS they are in the affine's own frame.

    Raises:
        GridError: a box is not finite.
    """
    import shapely

    return np.asarray(shapely.polygons(to_rings(boxes_px, grid)))


def to_rings(boxes_px: Boxes, grid: Grid) -> NDArray[np.float64]:
    """Place pixel boxes on the ground as bare coordinates, which is ten times as fast.

    Returns:
        (N, 5, 2) x, y of the rings of ``to_polygons``: four corners and the first again.

    Raises:
        GridError: a box is not finite.
    """
    return place_corners(corners(boxes_px), grid)


def place_corners(corners_px: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Place (N, 4, 2) corners in pixels on the ground, as rings.

    Args:
        corners_px: clockwise as seen, with y down.
        grid: grid of the scene; its affine may rotate and shear.

    Returns:
        (N, 5, 2) x, y: the corners counter-clockwise on the ground, and the first again.

    Raises:
        GridError: a corner is not finite.
    """
    if not np.isfinite(corners_px).all():
        raise GridError("a box with a coordinate that is not finite has no place on the ground")
    rings = grid.pixels_to_crs(corners_px)
    if grid.affine.determinant < 0:
        rings = rings[:, ::-1]
    return np.concatenate([rings, rings[:, :1]], axis=1)
