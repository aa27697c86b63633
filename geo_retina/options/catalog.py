"""Options of a search for scenes in a catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check

Signing = Literal["none", "planetary-computer"]


_DATE = r"(\d{4}(-\d\d(-\d\d([Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:?\d\d))?)?)?|\.\.|)"
_DATES = re.compile(f"{_DATE}(/{_DATE})?")


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """Which items of a catalogue are the scenes."""

    collections: tuple[str, ...]
    """Collections of the catalogue to search, such as naip."""

    bbox: tuple[float, float, float, float] | None = None
    """Ground as west, south, east, north in degrees; west is greater than east where it crosses
    the antimeridian. Give this or an area of interest."""

    aoi: str | None = None
    """Vector file with the polygons of the ground, in any CRS."""

    aoi_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    datetime: str | None = None
    """Date, or first and last one, such as 2022, 2022-05/2022-09 or 2022-01-01/.. ; left out,
    all."""

    query: tuple[str, ...] = ()
    """Further conditions on properties of the items, such as eo:cloud_cover<10."""

    newest: bool = False
    """Take only what shows ground that no newer item shows."""

    asset: str | None = None
    """Asset whose bytes are counted, as for detecting; left out, an item's only image."""

    sign: Signing = "none"
    """How addresses get a signature when they are read: none, or planetary-computer."""

    limit: int = 100_000
    """Items that a search may find; more are refused, as part of the ground would be missing."""

    def __post_init__(self) -> None:
        check(self, {"limit": (1, INFINITY)})
        if not self.collections:
            raise OptionError("FindOptions.collections is empty, expected at least one")
        if (self.bbox is None) == (self.aoi is None):
            raise OptionError(
                "FindOptions.bbox and FindOptions.aoi are "
                f"{'both' if self.aoi else 'not'} given; give one of them"
            )
        if self.aoi_layer is not None and self.aoi is None:
            raise OptionError("FindOptions.aoi_layer is given without FindOptions.aoi")
        if self.datetime is not None and not (self.datetime and _DATES.fullmatch(self.datetime)):
            raise OptionError(
                f"FindOptions.datetime is {self.datetime!r}, expected a date such as 2022, 2022-05 "
                "or 2022-05-31, or two with a slash between them"
            )
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west <= 180 and -180 <= east <= 180 and west != east):
                raise OptionError(
                    f"FindOptions.bbox goes from longitude {west:g} to {east:g}, expected two "
                    "different ones between -180 and 180"
                )
            if not -90 <= south < north <= 90:
                raise OptionError(
                    f"FindOptions.bbox goes from latitude {south:g} to {north:g}, expected the "
                    "southern one first, between -90 and 90; the order is west, south, east, north"
                )
