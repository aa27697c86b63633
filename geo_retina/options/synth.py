"""Options of drawing scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check

SynthContent = Literal["mixed", "freight"]


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """A drawn scene with known objects."""

    height: int = 4096
    """Rows."""

    width: int = 4096
    """Columns."""

    gsd_m: float = 0.3
    """Metres a pixel."""

    epsg: int = 32632
    """A projected CRS in metres."""

    origin_xy: tuple[float, float] = (500_000.0, 5_300_000.0)
    """CRS position of the outer corner of the top-left pixel."""

    rotation_deg: float = 0.0
    """Turn of the grid on the ground, counter-clockwise."""

    bands: int = 3
    """Bands: red, green, blue, near infrared, then further ones."""

    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"
    """Type of the pixels."""

    content: SynthContent = "mixed"
    """What stands on the ground: vehicles, trees and tanks, whose truth is upright boxes; or rows
    of lorries, wagons and containers at any angle, whose truth is rotated ones."""

    density: float = 300.0
    """Objects per million pixels, in clusters and rows."""

    difficulty: float = 0.5
    """From 0, clean, to 1: contrast falls; clutter, shadows, noise and occlusion grow."""

    nodata_corner: bool = True
    """Leave a slanted corner of the scene empty, as at the edge of an image strip."""

    seed: int = 0
    """Same seed and options, same bytes."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "height": (1, INFINITY),
                "width": (1, INFINITY),
                "gsd_m": (1e-6, INFINITY),
                "bands": (1, 64),
                "density": (0, 1e5),
                "difficulty": (0, 1),
            },
        )
        if self.content not in get_args(SynthContent):
            raise OptionError(
                f"SynthOptions.content is {self.content!r}, expected mixed or freight"
            )
