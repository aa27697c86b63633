"""Scenes: the only room that reads rasters, and that writes maps of numbers.

A scene is a picklable handle: paths and numbers, never an open dataset.
"""

from geo_retina.scene.bands import Palette, common_name, match_bands
from geo_retina.scene.damage.pieces import LostPart, Pieces, read_pieces
from geo_retina.scene.datasets import BLOCK_CACHE_BYTES
from geo_retina.scene.describing import describe_reading, describe_scene, note_other_rasters
from geo_retina.scene.finding import (
    absolute,
    find_dated,
    find_scenes,
    fingerprint,
    mosaic_name,
    scene_names,
)
from geo_retina.scene.mosaic import Mosaic, make_mosaic
from geo_retina.scene.naming import match_names
from geo_retina.scene.opening import (
    as_scene,
    coarsen,
    count_bands,
    inspect_file,
    open_picture,
    open_scene,
)
from geo_retina.scene.reading import Scene
from geo_retina.scene.sampling import sample_values, valid_shares
from geo_retina.scene.scene_file import SceneFile
from geo_retina.scene.stac_items import choose_asset, item_date
from geo_retina.scene.values import ValueMap, ValueRange
from geo_retina.scene.writing import check_raster_output, write_raster

__all__ = [
    "BLOCK_CACHE_BYTES",
    "LostPart",
    "Mosaic",
    "Palette",
    "Pieces",
    "Scene",
    "SceneFile",
    "ValueMap",
    "ValueRange",
    "absolute",
    "as_scene",
    "check_raster_output",
    "choose_asset",
    "coarsen",
    "common_name",
    "count_bands",
    "describe_reading",
    "describe_scene",
    "find_dated",
    "find_scenes",
    "fingerprint",
    "inspect_file",
    "item_date",
    "make_mosaic",
    "match_bands",
    "match_names",
    "mosaic_name",
    "note_other_rasters",
    "open_picture",
    "open_scene",
    "read_pieces",
    "sample_values",
    "scene_names",
    "valid_shares",
    "write_raster",
]
