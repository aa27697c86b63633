"""What becomes a detection in a tile, by a card and the options of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from geo_retina.model import Card
from geo_retina.nn.decoding import DecodeSettings
from geo_retina.options import DetectOptions


def first_look_options(options: DetectOptions, card: Card) -> DetectOptions:
    """Say what a first look takes for a sign of an object.

    Args:
        options: of the run, which has a first look.
        card: that says how.
    """
    assert card.prescreen is not None  # checked when the run was planned
    return replace(options, prescreen=False, score=card.prescreen.score, min_score=None, tta=1)


@dataclass(frozen=True, eq=False)
class Limits:
    """Thresholds and limits for tiles of any size.

    Attributes:
        settings: for tiles of the card's size.
        card_tile_px: their side.
    """

    settings: DecodeSettings
    card_tile_px: int

    @classmethod
    def of(cls, card: Card, options: DetectOptions, device: torch.device) -> Limits:
        """Choose them for a run."""
        floor = options.floor
        thresholds = card.thresholds if floor is None else (floor,) * len(card.classes)
        settings = DecodeSettings(
            thresholds=torch.tensor(thresholds, device=device),
            candidates=options.candidates,
            nms_iou=card.nms_iou if options.nms_iou is None else options.nms_iou,
            max_per_image=options.max_per_tile,
        )
        return cls(settings, card.tile_px)

    def for_shape(self, shape: tuple[int, int]) -> DecodeSettings:
        """Scale the limits to tiles of a size: as many boxes to an area as in the card's tiles."""
        times = max(1.0, shape[0] * shape[1] / self.card_tile_px**2)
        return replace(
            self.settings,
            candidates=math.ceil(self.settings.candidates * times),
            max_per_image=math.ceil(self.settings.max_per_image * times),
        )
