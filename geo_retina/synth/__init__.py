"""Draws georeferenced scenes with known objects, of any size, block by block.

Vehicles in parking rows and along roads, trees in woods, orchards and meadows, and tanks in
yards stand among bushes, boulders, houses, trailers, stains, ponds and paint. A scene follows
from its options alone: its pixels do not depend on how it is cut for drawing.
"""

from geo_retina.synth.things import CLASSES
from geo_retina.synth.writer import SynthReport, draw_scene, truth_boxes

__all__ = ["CLASSES", "SynthReport", "draw_scene", "truth_boxes"]
