"""Blocks of pixels in, detections out, on one device."""

from geo_retina.engine.computing import Engine
from geo_retina.engine.devices import choose_device, choose_dtype, describe_devices, list_devices
from geo_retina.engine.mirroring import Mirrored, fill, mirror
from geo_retina.engine.pixels import BlockDetections, BlockPixels, Stopped, inside
from geo_retina.engine.runtimes import (
    Place,
    check_runtime,
    has_openvino,
    name_operators,
    place_here,
    resolve_runtime,
)
from geo_retina.engine.to_grid import cut_sides
from geo_retina.engine.torch_predictor import TorchPredictor

__all__ = [
    "BlockDetections",
    "BlockPixels",
    "Engine",
    "Mirrored",
    "Place",
    "Stopped",
    "TorchPredictor",
    "check_runtime",
    "choose_device",
    "choose_dtype",
    "cut_sides",
    "describe_devices",
    "fill",
    "has_openvino",
    "inside",
    "list_devices",
    "mirror",
    "name_operators",
    "place_here",
    "resolve_runtime",
]
