"""Draws georeferenced scenes with known objects, of any size, block by block.

Vehicles in parking rows and along roads, trees in woods, orchards and meadows, and tanks in
yards stand among bushes, boulders, houses, trailers, stains, ponds and paint. Where the content
is freight, lorries are parked in rows, wagons stand in sidings and containers in stacks, at any
angle. A scene follows from its options alone: its pixels do not depend on how it is cut for
drawing.
"""

from geo_retina.synth.things import CLASSES, FREIGHT_CLASSES
from geo_retina.synth.writer import (
    SynthReport,
    draw_scene,
    scene_classes,
    truth_boxes,
    truth_rotated,
)

__all__ = [
    "CLASSES",
    "FREIGHT_CLASSES",
    "SynthReport",
    "draw_scene",
    "scene_classes",
    "truth_boxes",
    "truth_rotated",
]
