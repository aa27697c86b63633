"""Where detections of any scenes lie beside each other: by pixels, or in a plane for lattices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.merge import bounds_of_say
from geo_retina.options import MergeOptions
from geo_retina.postprocess.polygons import (
    Neighbourhoods,
    directions_to,
    equal_area_around,
    move_boxes,
)

BITS = 16
"""Of each coordinate of a place."""

_EARTH_M = 6_371_000.0
_FAR_M = 1.9 * _EARTH_M
"""So far from the middle of a plane, places that are neighbours on the Earth may lie apart in it:
the antipode of its middle is the circle at twice the Earth's radius."""

_BENT = 1e-3
"""Share of its size by which a box may bulge between its corners in another CRS."""


@dataclass(frozen=True, eq=False)
class Charts:
    """Charts on which two detections that have to do with each other lie side by side.

    Lattices that share ground share a chart, in an equal-area plane; any other has its pixels for
    a chart. Detections of different charts have nothing to do with each other.

    Attributes:
        of_lattice: (L,) number of the chart of each lattice.
        planes: by chart; None for pixels.
        extents: (C, 4) of the scenes on each.
    """

    of_lattice: NDArray[np.int64]
    planes: tuple[pyproj.CRS | None, ...]
    extents: Boxes
    hoods: Neighbourhoods

    @classmethod
    def of(cls, hoods: Neighbourhoods) -> Charts:
        """Draw the charts of all scenes."""
        scenes, lattices = hoods.scenes, hoods.lattices
        chart = np.arange(len(lattices))
        for hood in hoods.found:
            linked = np.unique(chart[np.unique(scenes.lattice[hood.together])])
            chart[np.isin(chart, linked)] = linked[0]
        of_lattice = np.unique(chart, return_inverse=True)[1].reshape(-1)
        planes: list[pyproj.CRS | None] = []
        extents = np.empty((of_lattice.max(initial=-1) + 1, 4))
        for k in range(len(extents)):
            own = of_lattice[scenes.lattice] == k
            lattice = scenes.lattice[own]
            plane = None
            if len(np.unique(lattice)) > 1:
                plane = _plane_of(scenes.windows[own], lattice, hoods)
            planes.append(plane)
            sides = scenes.windows[own]
            if plane is not None:
                sides = _bounds(move_boxes(sides, lattice, lattices, plane))
                sides = np.clip(np.nan_to_num(sides, nan=0.0), -2 * _EARTH_M, 2 * _EARTH_M)
            extents[k] = [*sides[:, :2].min(axis=0), *sides[:, 2:].max(axis=0)]
        return cls(of_lattice, tuple(planes), extents, hoods)

    def number(self, detections: Detections) -> NDArray[np.int64]:
        """Tell (N,) numbers of the charts that detections lie on."""
        return self.of_lattice[self.hoods.scenes.lattice[detections.tile]]

    def around(self, detections: Detections, options: MergeOptions) -> Boxes:
        """Bound (N, 4) on their charts what may have to do with detections."""
        around = bounds_of_say(detections, options)
        lattice = self.hoods.scenes.lattice[detections.tile]
        chart = self.of_lattice[lattice]
        for k, plane in enumerate(self.planes):
            own = np.flatnonzero(chart == k)
            if plane is None or not len(own):
                continue
            rings = move_boxes(around[own], lattice[own], self.hoods.lattices, plane)
            bounds = _bounds(rings)
            bulge = _BENT * (bounds[:, 2:] - bounds[:, :2])
            bounds = bounds + np.hstack([-bulge, bulge])
            if plane.geodetic_crs is not None:
                far = np.hypot(rings[..., 0], rings[..., 1]).max(axis=1)
                bounds[~(far < _FAR_M)] = [-np.inf, -np.inf, np.inf, np.inf]
            around[own] = bounds
        return around

    def places(self, chart: NDArray[np.int64], around: Boxes) -> NDArray[np.uint64]:
        """Assign (N,) numbers to places: by chart, then squares in squares, as on a quadtree."""
        extents = self.extents[chart]
        with np.errstate(invalid="ignore"):  # what may be anywhere has no middle
            middle = (around[:, :2] + around[:, 2:]) / 2
        size_xy = np.maximum(extents[:, 2:] - extents[:, :2], 1e-9).max(axis=1, keepdims=True)
        share = np.nan_to_num((middle - extents[:, :2]) / size_xy, nan=0.0)
        whole = (np.clip(share, 0, 1) * ((1 << BITS) - 1)).astype(np.uint64)
        interleaved = _spread(whole[:, 0]) | _spread(whole[:, 1]) << np.uint64(1)
        return chart.astype(np.uint64) << np.uint64(2 * BITS) | interleaved


def _plane_of(windows: Boxes, lattice: NDArray[np.int64], hoods: Neighbourhoods) -> pyproj.CRS:
    """Choose a plane for scenes of several lattices."""
    directions = []
    for k in np.unique(lattice):
        grid = hoods.lattices[k]
        assert grid.crs is not None  # else no other lattice could share its ground
        if not grid.crs.geodetic_crs:
            return grid.crs  # a local one, the same for all
        own = windows[lattice == k]
        middle = grid.pixels_to_crs((own[:, :2] + own[:, 2:]) / 2)
        directions.append(directions_to(middle, grid.crs))
    known = np.concatenate(directions)
    return equal_area_around(known[np.isfinite(known).all(axis=1)])


def _bounds(rings: NDArray[np.float64]) -> Boxes:
    return np.hstack([rings.min(axis=1), rings.max(axis=1)])


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Put a zero before each of 16 bits."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | values << np.uint64(shift)) & np.uint64(mask)
    return values
