"""Scenes: the only room that reads rasters.

A scene is a picklable handle: paths and numbers, never an open dataset.
"""

from geo_retina.scene.describing import describe_scene
from geo_retina.scene.finding import absolute, find_scenes, fingerprint, scene_names
from geo_retina.scene.opening import count_bands, open_scene
from geo_retina.scene.reading import Scene

__all__ = [
    "Scene",
    "absolute",
    "count_bands",
    "describe_scene",
    "find_scenes",
    "fingerprint",
    "open_scene",
    "scene_names",
]
