"""Sizes of boxes on the ground, in metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.geodesy import move, unit_m
from geo_retina.grid import Grid

Line = NDArray[np.float64]

_NODES = 33
"""Places along an axis at which a pixel is measured; between them sizes are interpolated."""


def ground_sizes(detections: Detections, grid: Grid) -> tuple[Line, Line]:
    """Measure the areas of boxes and their longer sides, on the ellipsoid.

    A pixel is measured at a lattice of places, since its size varies over a scene: by 0.1 %
    within a UTM zone, by half over 60 degrees of latitude. Between them it is interpolated,
    which errs by less than a millionth over 10 km and a thousandth over a country. Where the CRS
    tells no place on Earth, its own unit of length counts.

    Args:
        detections: in pixels of the grid.
        grid: of the scene; its affine may turn and shear.

    Returns:
        (N,) areas in square metres, of oriented boxes those of the boxes themselves, and (N,)
        longer sides of ``boxes_px`` in metres; not a number without a CRS or a size of pixels.
    """
    boxes_px = detections.boxes_px
    sides_xy, area = _pixel_sizes(grid)
    if sides_xy is None or area is None:
        nothing = np.full(len(boxes_px), np.nan)
        return nothing, nothing
    width = boxes_px[:, 2] - boxes_px[:, 0]
    height = boxes_px[:, 3] - boxes_px[:, 1]
    place = _Place.of(boxes_px, grid)
    longest = np.maximum(width * place.value(sides_xy[0]), height * place.value(sides_xy[1]))
    return detections.areas_px * place.value(area), longest


def _pixel_sizes(grid: Grid) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Measure (2, nodes, nodes) metres of a pixel along x and y, and (nodes, nodes) its area."""
    a = grid.affine
    steps = np.array([[a.a, a.d], [a.b, a.e]])
    if grid.crs is None:
        if grid.pixel_m is None:
            return None, None
        side = np.full((2, _NODES, _NODES), grid.pixel_m)
        return side, side[0] ** 2
    vectors = _on_ellipsoid(grid, steps)
    if vectors is None:
        vectors = np.broadcast_to(steps[:, None, None] * unit_m(grid.crs), (2, _NODES, _NODES, 2))
    along_x, along_y = vectors
    area = abs(along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0])
    return np.linalg.norm(vectors, axis=-1), area


def _on_ellipsoid(grid: Grid, steps: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Measure (2, nodes, nodes, 2) metres east and north of one pixel along x and y, per node."""
    assert grid.crs is not None  # callers look
    geodetic, geod = grid.crs.geodetic_crs, grid.crs.get_geod()
    if geodetic is None or geod is None:
        return None
    x, y = np.meshgrid(np.linspace(0, grid.width, _NODES), np.linspace(0, grid.height, _NODES))
    nodes = grid.pixels_to_crs(np.stack([x, y], axis=-1))
    ends = nodes + 0.5 * steps[:, None, None]
    starts = nodes - 0.5 * steps[:, None, None]
    lon, lat = np.moveaxis(move(np.stack([starts, ends]), grid.crs, geodetic), -1, 0)
    lon, lat = lon * unit_m(geodetic), lat * unit_m(geodetic)
    middle = lat.mean(axis=0)
    # Radii of curvature along the meridian and across it (Snyder 1987, USGS PP 1395, p. 24).
    root = 1 - geod.es * np.sin(middle) ** 2
    north = geod.a * (1 - geod.es) / root**1.5 * (lat[1] - lat[0])
    across = np.remainder(lon[1] - lon[0] + np.pi, 2 * np.pi) - np.pi
    east = geod.a / np.sqrt(root) * np.cos(middle) * across
    vectors = np.stack([east, north], axis=-1)
    return vectors if np.isfinite(vectors).all() else None


class _Place:
    """Where boxes' centres lie between the nodes."""

    def __init__(self, x: Line, y: Line) -> None:
        self.col, self.row = (np.clip(v.astype(np.int64), 0, _NODES - 2) for v in (x, y))
        self.right, self.down = x - self.col, y - self.row

    @classmethod
    def of(cls, boxes_px: Boxes, grid: Grid) -> _Place:
        x = (boxes_px[:, 0] + boxes_px[:, 2]) * (0.5 * (_NODES - 1) / grid.width)
        y = (boxes_px[:, 1] + boxes_px[:, 3]) * (0.5 * (_NODES - 1) / grid.height)
        return cls(x, y)

    def value(self, at_nodes: NDArray[np.float64]) -> Line:
        """Interpolate between the four nodes around."""
        row, col, right, down = self.row, self.col, self.right, self.down
        above = at_nodes[row, col] * (1 - right) + at_nodes[row, col + 1] * right
        below = at_nodes[row + 1, col] * (1 - right) + at_nodes[row + 1, col + 1] * right
        return np.asarray(above * (1 - down) + below * down)
