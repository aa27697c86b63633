"""The seam between what computes boxes and everything around it.

Shapes: N tiles of a batch, C bands, H W size of a tile, M boxes found, K classes.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from geo_retina.nn.decoding import Decoded

__all__ = ["Decoded", "Numbers", "NumbersPredictor", "Predictor"]


class Predictor(Protocol):
    """Finds boxes in batches of normalised tiles, on one device.

    Threads share it. It knows neither scenes nor files: tiles come ready for the network, and
    boxes leave in pixels of their tile.
    """

    @property
    def device(self) -> torch.device:
        """Where tiles are given to it."""

    @property
    def batches_at_once(self) -> int:
        """Batches, at least one, that threads may give to it at the same time, in any order."""

    def batch_size(self, tile_px: int) -> int:
        """Count the tiles of that side that a batch should hold; batches may be smaller."""

    def predict(self, tiles_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch.

        Args:
            tiles_NCHW: float32 tiles in the card's bands, normalised as the card says; invalid
                pixels are filled.
            all_boxes: take the time that ground full of objects takes, for an estimate; what is
                found is the same.

        Returns:
            Boxes with an area, by tile, on any device; for every tile, whether it may hold more.

        Raises:
            torch.OutOfMemoryError: the batch does not fit; fewer at once, then smaller ones are
                given.
        """


class Numbers(NamedTuple):
    """Tiles of a batch as their file has them.

    Attributes:
        pixels_NCHW: uint8, in the card's bands, not normalised.
        shown_N1HW: bool; where it is False, the network is to see what a 0 is once normalised.
    """

    pixels_NCHW: Tensor
    shown_N1HW: Tensor


@runtime_checkable
class NumbersPredictor(Protocol):
    """A ``Predictor`` that can normalise tiles of 8 bits itself."""

    @property
    def takes_numbers(self) -> bool:
        """Whether it does so with the options of this run."""

    def predict_numbers(self, tiles: Numbers, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch, as ``Predictor.predict`` does."""
