"""Options of what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check
from geo_retina.options.network import Boxes


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What training minimises."""

    classification: Literal["focal", "balanced", "ce"] = "ce"
    """Focal loss, alpha-balanced cross entropy (focal at gamma 0), or cross entropy."""

    alpha: float = 0.25
    """Weight of objects; background weighs 1 - alpha. Of the focal and the balanced loss alone."""

    gamma: float = 2.0
    """Focusing exponent. Of the focal loss alone."""

    class_weights: Literal["none", "inverse"] = "none"
    """Weigh classes alike, or by the inverse of their frequency in the labels."""

    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    """Loss of the boxes."""

    beta: float = 1 / 9
    """Where smooth L1 turns from square to linear."""

    box_weight: float = 1.0
    """Weight of the box loss against the class loss."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "alpha": (0, 1),
                "gamma": (0, INFINITY),
                "beta": (0, INFINITY),
                "box_weight": (0, INFINITY),
            },
        )
        unused = {"ce": ("alpha", "gamma"), "balanced": ("gamma",)}
        for name in unused.get(self.classification, ()):
            if getattr(self, name) != getattr(LossOptions, name):  # the class has the default
                raise OptionError(
                    f"LossOptions.{name} is {getattr(self, name):g}, but "
                    f"LossOptions.classification is {self.classification}, which does not use it; "
                    "leave it out, or choose classification focal"
                )


@dataclass(frozen=True, kw_only=True)
class AssignOptions:
    """Which anchors stand for which objects."""

    method: Literal["auto", "iou", "atss"] = "auto"
    """By fixed IoU thresholds, or adaptively (ATSS); auto is iou for upright boxes and atss for
    oriented ones, which upright anchors overlap too little."""

    foreground_iou: float = 0.5
    """An anchor with at least this IoU stands for the object."""

    background_iou: float = 0.4
    """An anchor below this IoU with every object is background; between, it is not used."""

    atss_candidates: int = 9
    """Nearest anchors per level that ATSS looks at."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "foreground_iou": (0, 1),
                "background_iou": (0, 1),
                "atss_candidates": (1, INFINITY),
            },
        )
        if self.background_iou > self.foreground_iou:
            raise OptionError(
                f"AssignOptions.background_iou {self.background_iou} is above foreground_iou "
                f"{self.foreground_iou}; it must not be"
            )

    def chosen_for(self, boxes: Boxes) -> Literal["iou", "atss"]:
        """Choose the method for a kind of boxes."""
        if self.method == "auto":
            return "atss" if boxes == "oriented" else "iou"
        return self.method
