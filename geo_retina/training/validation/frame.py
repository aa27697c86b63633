"""Where detections and labels meet when a model is scored: on the ground, or in pixels.

Scoring is done in map coordinates. Scenes without a CRS have none, so their pixels are laid out in
a CRS of convenience, each scene at the same place: labels and detections are matched scene by
scene, and nothing of it is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely
from affine import Affine

from geo_retina.boxes import to_polygons
from geo_retina.errors import TrainingError
from geo_retina.geodesy import WGS84, missing_crs
from geo_retina.grid import Grid
from geo_retina.scene import Scene, open_scene
from geo_retina.vector.formats import AZIMUTH

if TYPE_CHECKING:
    import geopandas as gpd

_PIXELS = pyproj.CRS("EPSG:32631")
"""In metres, and true to scale around its middle, which scenes without a CRS are laid on."""

_MIDDLE_M = 500_000

_BOX_PX = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]


def common_crs(scenes: Sequence[Scene]) -> pyproj.CRS:
    """Choose the CRS of all scenes, or longitudes and latitudes where they are in several.

    Raises:
        TrainingError: some scenes have a CRS and others have none.
    """
    found = [scene.grid.crs for scene in scenes]
    if any(crs is None for crs in found) and any(crs is not None for crs in found):
        path = scenes[found.index(None)].path
        so = "a model cannot be scored on it together with the scenes that have one"
        raise TrainingError(missing_crs(path, so, otherwise=", or train on scenes of one sort"))
    grids = [meeting_grid(scene.grid) for scene in scenes]
    first = grids[0].crs
    assert first is not None
    return first if all(grid.crs == first for grid in grids) else WGS84


def meeting_grid(grid: Grid) -> Grid:
    """Return the grid itself, or its pixels laid out in metres where it has no CRS."""
    if grid.crs is not None:
        return grid
    side_m = math.sqrt(abs(grid.affine.determinant))
    affine = Affine(side_m, 0, _MIDDLE_M, 0, -side_m, 0)
    return Grid(_PIXELS, affine, grid.height, grid.width)


def at_meeting(scene: Scene) -> Scene:
    """Place a scene on that grid."""
    return scene if scene.grid.crs is not None else replace(scene, grid=meeting_grid(scene.grid))


def laid_out(found: gpd.GeoDataFrame, scenes: dict[str, Scene]) -> gpd.GeoDataFrame:
    """Lay out detections of scenes without a CRS on the grids where they are matched with labels.

    Args:
        found: as ``detect`` gives them, with boxes in the pixels of their files.
        scenes: by the names that the detections have.
    """
    polygons = np.asarray(found.geometry.array, dtype=object).copy()
    is_oriented = AZIMUTH in found.columns
    boxes_px = found[_BOX_PX].to_numpy(np.float64)
    for name, rows in found.groupby("scene", observed=True).indices.items():
        scene = scenes[str(name)]
        grid = meeting_grid(scene.grid)
        if not is_oriented:
            polygons[rows] = to_polygons(boxes_px[rows], grid)
            continue
        # They lie in the frame of the file, whose pixels are those of the grid.
        file = open_scene(scene.path).grid
        corners = shapely.get_coordinates(polygons[rows]).reshape(-1, 5, 2)
        polygons[rows] = shapely.polygons(grid.pixels_to_crs(file.crs_to_pixels(corners)))
    return found.set_geometry(polygons, crs=_PIXELS)
