"""Scenes without a CRS: where detections and labels of them meet."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from support.stubs import write_scene

from geo_retina.boxes import oriented, to_polygons
from geo_retina.grid import Grid
from geo_retina.scene import open_scene
from geo_retina.training.validation.frame import laid_out, meeting_grid

ROTATED = np.array([[40.0, 30, 30, 8, 35], [70, 60, 12, 12, -20]])


@pytest.mark.parametrize("affine", [Affine.identity(), Affine(2, 0, 7, 0, -2, 90)])
@pytest.mark.filterwarnings("ignore:.*")
def test_oriented_boxes_are_laid_out_as_they_are_turned_and_upright_ones_by_their_pixels(
    tmp_path, affine
):
    path = tmp_path / "a.tif"
    write_scene(path, np.zeros((1, 90, 100), np.uint8), crs=None, affine=affine)
    scene = open_scene(str(path))
    grid = scene.grid
    hulls = oriented.hull(ROTATED)
    names = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
    columns = {"scene": ["a", "a"], **dict(zip(names, hulls.T, strict=True))}
    # As training has it, in a frame of its own; the polygons are in the file's.
    own = Grid(None, Affine(0.3, 0, 5_000_000, 0, -0.3, 0), 90, 100)
    in_training = {"a": replace(scene, grid=own)}
    meeting = meeting_grid(own)
    upright = gpd.GeoDataFrame(columns, geometry=list(to_polygons(hulls, grid)))
    found = laid_out(upright, in_training)
    assert shapely.equals_exact(
        found.geometry.array[0], to_polygons(hulls, meeting)[0], tolerance=1e-6, normalize=True
    )
    turned = gpd.GeoDataFrame(
        {**columns, "azimuth_deg": 0.0}, geometry=list(oriented.to_polygons(ROTATED, grid))
    )
    found = laid_out(turned, in_training)
    corners = shapely.get_coordinates(found.geometry.array).reshape(-1, 5, 2)
    again = oriented.from_rings(corners, meeting)
    for one, other in zip(oriented.corners(again), oriented.corners(ROTATED), strict=True):
        apart = shapely.hausdorff_distance(shapely.Polygon(one), shapely.Polygon(other))
        assert apart < 1e-6
