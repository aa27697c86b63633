"""Areas of interest: polygons of any file, on the pixels of any grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import to_polygons
from geo_retina.errors import LabelError
from geo_retina.geodesy import (
    carry_ground,
    densify,
    missing_crs,
    move_outlines,
    positions_in,
)
from geo_retina.grid import Grid
from geo_retina.vector.readers.frames import read_frame

_MARGIN_PX = 2.0  # so that cutting to a scene never decides about a box at its border


@dataclass(frozen=True, eq=False)
class Area:
    """Where objects are detected.

    Attributes:
        polygons: (N,) shapely polygons and multi-polygons.
        crs: their CRS.
        source: the file, for messages.
    """

    polygons: NDArray[np.object_]
    crs: pyproj.CRS
    source: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the polygons and their CRS, whatever file holds them."""
        digest = hashlib.sha256(self.crs.to_wkt().encode())
        for wkb in sorted(shapely.to_wkb(shapely.normalize(self.polygons))):
            digest.update(wkb)
        return digest.hexdigest()

    def on(self, grid: Grid) -> Any | None:
        """Move the area to pixels of a grid, prepared for many queries.

        Returns:
            One geometry, cut to the grid and a little around it; None where they do not meet.

        Raises:
            LabelError: the grid has no CRS, so nothing says where the area lies on it.
        """
        if grid.crs is None:
            so = f"the area {self.source} has no place on it"
            raise LabelError(
                missing_crs("a scene", so, otherwise=", or leave out DetectOptions.aoi")
            )
        far_xy = (grid.width + _MARGIN_PX, grid.height + _MARGIN_PX)
        around = to_polygons(np.array([[-_MARGIN_PX, -_MARGIN_PX, *far_xy]]), grid)[0]
        near = shapely.union_all(
            carry_ground(self.polygons, self.crs, grid.crs, grid.lattice_crs())
        )
        if not shapely.intersects(near, around):
            return None
        area_px = shapely.transform(shapely.intersection(near, around), grid.crs_to_pixels)
        if not shapely.intersects(area_px, shapely.box(0, 0, grid.width, grid.height)):
            return None
        shapely.prepare(area_px)
        return area_px

    def holds(self, positions: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.bool_]:
        """Find which (N, 2) positions in a CRS lie in the area.

        They are moved to the area's CRS, not the area to theirs: it may be far larger than what
        theirs can express.
        """
        held = np.zeros(len(positions), np.bool_)
        for there in positions_in(positions, crs, self.crs, shapely.bounds(self._whole)):
            held |= shapely.contains_xy(self._whole, there)
        return held

    def cut(self, polygons: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.object_]:
        """Cut (N,) polygons in a CRS to the area; None among them stays."""
        around = shapely.get_coordinates(densify(polygons))
        near = shapely.union_all(carry_ground(self.polygons, self.crs, crs, around))
        return np.asarray(shapely.intersection(polygons, near), dtype=object)

    def outlines_in(self, crs: pyproj.CRS) -> NDArray[np.object_]:
        """Move the (N,) polygons to a CRS that is no smaller than the area.

        Raises:
            CrsError: the CRS cannot express them.
        """
        return np.asarray(move_outlines(self.polygons, self.crs, crs), dtype=object)

    @cached_property
    def _whole(self) -> Any:
        """All polygons as one geometry in their own CRS, prepared."""
        whole = shapely.union_all(self.polygons)
        shapely.prepare(whole)
        return whole


def read_area(path: str | Path, layer: str | None = None) -> Area:
    """Read the polygons of a vector file as an area of interest.

    Args:
        path: any file GDAL reads, or GeoParquet, in any CRS.
        layer: needed where there are several.

    Raises:
        LabelError: the file is missing or no vector file, a layer must be chosen, or it holds
            no polygon or has no CRS.
    """
    frame = read_frame(
        path,
        layer=layer,
        layer_remedy="choose one with DetectOptions.aoi_layer",
        geometry_only=True,
    )
    geometries = np.asarray(frame.geometry, dtype=object)
    geometries = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
    geometries = shapely.force_2d(shapely.make_valid(geometries))
    if not len(geometries):
        raise LabelError(f"the area {path} holds no polygon, expected at least one")
    if shapely.get_dimensions(geometries).min() < 2:
        raise LabelError(
            f"the area {path} holds points or lines, expected polygons; buffer them first"
        )
    if frame.crs is None:
        raise LabelError(missing_crs(f"the area {path}", "it has no place", file=str(path)))
    return Area(geometries, pyproj.CRS(frame.crs), str(path))
