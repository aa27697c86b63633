"""Scenes: the only room that reads rasters, and that writes maps of numbers.

A scene is a picklable handle: paths and numbers, never an open dataset.
"""

from geo_retina.scene.describing import describe_scene
from geo_retina.scene.finding import (
    absolute,
    find_scenes,
    fingerprint,
    mosaic_name,
    scene_names,
)
from geo_retina.scene.mosaic import Mosaic, make_mosaic
from geo_retina.scene.opening import count_bands, open_scene
from geo_retina.scene.reading import Scene
from geo_retina.scene.writing import check_raster_output, write_raster

__all__ = [
    "Mosaic",
    "Scene",
    "absolute",
    "check_raster_output",
    "count_bands",
    "describe_scene",
    "find_scenes",
    "fingerprint",
    "make_mosaic",
    "mosaic_name",
    "open_scene",
    "scene_names",
    "write_raster",
]
