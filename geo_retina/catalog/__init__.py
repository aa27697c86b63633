"""Scenes from a catalogue: items of a STAC API on some ground, kept as a collection of items."""

from geo_retina.catalog.finding_items import FoundItems, find_items
from geo_retina.catalog.footprints import Footprints

__all__ = ["Footprints", "FoundItems", "find_items"]
