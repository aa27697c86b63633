"""Options of calibrating a model on other ground."""

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

    def __post_init__(self) -> None:
        check(self, {"radius_m": (1e-9, INFINITY)})
