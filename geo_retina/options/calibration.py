"""Options of fitting a model to other ground, and of quantizing it."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.options.checks import INFINITY, check


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """What is chosen anew, and how detections are matched."""

    search_nms: bool = True
    """Choose the IoU of suppression too, not the thresholds alone."""

    radius_m: float | None = None
    """Point labels: the greatest distance of a match; left out, the size of a point's square."""

    prescreen: bool = False
    """Measure a first look at coarser pixels too, for `geo-retina detect --prescreen`, on 600
    objects or more."""

    def __post_init__(self) -> None:
        check(self, {"radius_m": (1e-9, INFINITY)})


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How ranges of 8-bit integers are measured, and their cost on labelled ground."""

    tiles: int = 64
    """Tiles that ranges are measured on."""

    radius_m: float | None = None
    """Point labels: the greatest distance of a match; left out, the size of a point's square."""

    force: bool = False
    """Write the model although integers cost much."""

    def __post_init__(self) -> None:
        check(self, {"tiles": (1, INFINITY), "radius_m": (1e-9, INFINITY)})
