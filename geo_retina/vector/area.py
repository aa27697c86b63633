"""Areas of interest: polygons of any file, on the pixels of any grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import to_polygons
from geo_retina.errors import LabelError
from geo_retina.grid import Grid
from geo_retina.vector.reading import read_frame
from geo_retina.vector.tables import densify
from geo_retina.vector.transforms import reproject

_MARGIN_PX = 2.0  # so that cutting to a scene never decides about a box at its border


@dataclass(frozen=True, eq=False)
class Area:
    """Where detections are wanted.

    Attributes:
        polygons: (N,) shapely polygons and multi-polygons.
        crs: their CRS.
        source: the file, for messages.
    """

    polygons: NDArray[np.object_]
    crs: pyproj.CRS
    source: str
    _by_crs: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the polygons and their CRS, whatever file holds them."""
        digest = hashlib.sha256(self.crs.to_wkt().encode())
        for wkb in sorted(shapely.to_wkb(shapely.normalize(self.polygons))):
            digest.update(wkb)
        return digest.hexdigest()

    def on(self, grid: Grid) -> Any | None:
        """The area in pixels of a grid, prepared for many queries.

        Returns:
            One geometry, cut to the grid and a little around it; None where they do not meet.

        Raises:
            LabelError: the grid has no CRS, so nothing says where the area lies on it.
        """
        if grid.crs is None:
            raise LabelError(
                f"the area {self.source} has no place on a scene without a CRS; give the scene "
                "one, or leave out --aoi"
            )
        far_xy = (grid.width + _MARGIN_PX, grid.height + _MARGIN_PX)
        around = to_polygons(np.array([[-_MARGIN_PX, -_MARGIN_PX, *far_xy]]), grid)[0]
        whole = self.in_crs(grid.crs)
        if not shapely.intersects(whole, around):
            return None
        area_px = shapely.transform(shapely.intersection(whole, around), grid.crs_to_pixels)
        if not shapely.intersects(area_px, shapely.box(0, 0, grid.width, grid.height)):
            return None
        shapely.prepare(area_px)
        return area_px

    def in_crs(self, crs: pyproj.CRS) -> Any:
        """All polygons as one geometry in a CRS, prepared; made once per CRS."""
        key = crs.to_wkt()
        if key not in self._by_crs:
            polygons = self.polygons
            if self.crs != crs:
                moved = reproject(densify(polygons), self.crs, crs)
                # Ground that this CRS cannot express is ground that no scene in it shows.
                finite = [bool(np.isfinite(shapely.get_coordinates(one)).all()) for one in moved]
                polygons = shapely.make_valid(moved[finite])
            whole = shapely.union_all(polygons)
            shapely.prepare(whole)
            self._by_crs[key] = whole
        return self._by_crs[key]


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
        path, layer=layer, layer_remedy="choose one with --aoi-layer", geometry_only=True
    )
    geometries = np.asarray(frame.geometry, dtype=object)
    geometries = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
    geometries = shapely.force_2d(shapely.make_valid(geometries))
    if not len(geometries):
        raise LabelError(f"the area {path} holds no polygon, wanted at least one")
    if shapely.get_dimensions(geometries).min() < 2:
        raise LabelError(
            f"the area {path} holds points or lines, wanted polygons; buffer them first"
        )
    if frame.crs is None:
        raise LabelError(
            f"the area {path} has no CRS; give it one, for example with ogr2ogr -a_srs EPSG:4326"
        )
    return Area(geometries, pyproj.CRS(frame.crs), str(path))
