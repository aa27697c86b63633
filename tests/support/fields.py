"""Small scenes with bright squares on dark ground, and their labels, for the tests to train on."""

from __future__ import annotations

import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine

from geo_retina.boxes import to_polygons
from geo_retina.grid import Grid
from geo_retina.scene import open_scene
from support import stubs

CRS = "EPSG:32632"
AFFINE = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)


def rotated(degrees: float, x_m: float = 0.5, y_m: float = 0.5) -> Affine:
    """A grid turned on the ground, with pixels of these sides."""
    turn = math.radians(degrees)
    c, s = math.cos(turn), math.sin(turn)
    return Affine(c * x_m, s * y_m, 500_000, s * x_m, -c * y_m, 5_300_000)


def write_scene(path: Path, pixels: np.ndarray, *, crs=CRS, affine=AFFINE, nodata=None) -> Path:
    """Write (bands, height, width) pixels, by default on this module's grid."""
    return stubs.write_scene(path, pixels, crs=crs, affine=affine, nodata=nodata)


def write_labels(path: Path, boxes_px, *, grid: Grid, points=False, crs=None, **columns) -> Path:
    """Write boxes in grid pixels as polygons, or as points at their centres, in any CRS."""
    geometry = to_polygons(np.asarray(boxes_px, np.float64), grid)
    if points:
        geometry = shapely.centroid(geometry)
    frame = gpd.GeoDataFrame(geometry=list(geometry), crs=grid.crs).assign(**columns)
    (frame if crs is None else frame.to_crs(crs)).to_file(path)
    return path


def squares(side=400, step=26, size=12, seed=0, margin=10):
    """(3, side, side) pixels with a bright square in each cell of a lattice, and their boxes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 110, (3, side, side)).astype(np.uint8)
    boxes = []
    for row in range(margin, side - step, step):
        for col in range(margin, side - step, step):
            y, x = np.array([row, col]) + rng.integers(0, step - size - 2, 2)
            pixels[:, y : y + size, x : x + size] = 220
            boxes.append([x, y, x + size, y + size])
    return pixels, np.array(boxes, np.float64)


def field(folder: Path, name="field", **how) -> tuple[Path, Path, np.ndarray]:
    """Write a scene of squares and its label layer; returns both paths and the boxes."""
    pixels, boxes_px = squares(**how)
    scene = write_scene(folder / f"{name}.tif", pixels)
    labels = write_labels(folder / f"{name}.gpkg", boxes_px, grid=open_scene(scene).grid)
    return scene, labels, boxes_px
