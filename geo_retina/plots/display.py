"""Pixels of any type and any bands, as people look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.scene import Palette, Scene

_EMPTY = 225


@dataclass(frozen=True)
class Display:
    """How pixels become a picture: which bands, and what is black and what white in them.

    Of a colour table, the bands are one, and its numbers have colours.
    """

    bands: tuple[int, ...]
    low: float
    high: float
    palette: Palette | None = None

    @classmethod
    def of(cls, scene: Scene, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Display:
        """Choose by band names and, except for bytes, stretch over the middle 99 % of values."""
        if scene.palette is not None:
            return cls((0,), 0.0, 255.0, scene.palette)
        names = [name.lower() for name in scene.band_names]
        bands: tuple[int, ...] = tuple(range(3)) if len(pixels) >= 3 else (0,)
        if {"red", "green", "blue"} <= set(names):
            bands = tuple(names.index(name) for name in ("red", "green", "blue"))
        if scene.dtype == "uint8" or not valid.any():
            return cls(bands, 0.0, 255.0)
        values = pixels[list(bands)][:, valid].astype(np.float64)
        low, high = np.percentile(values[np.isfinite(values)], (0.5, 99.5))
        return cls(bands, float(low), float(high) if high > low else float(low) + 1)

    def picture(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Show pixels (bands, height, width) as (height, width, 3); empty ones are light grey."""
        if self.palette is not None:
            table = np.array(self.palette, np.uint8)
            coloured = table[np.minimum(pixels[0], len(table) - 1)]
            coloured[~valid] = _EMPTY
            return coloured
        chosen = pixels[list(self.bands)].astype(np.float32)
        share = (chosen - np.float32(self.low)) / np.float32(self.high - self.low)
        share = np.where(np.isfinite(share), share, 0).clip(0, 1)
        bytes_ = (share * 255 + 0.5).astype(np.uint8)
        bytes_[:, ~valid] = _EMPTY
        return np.broadcast_to(bytes_, (3, *valid.shape)).transpose(1, 2, 0)
