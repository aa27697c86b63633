"""Networks and scenes of boxes that several tests here use."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.backbones import Backbone
from geo_retina.nn.heads import Subnet
from geo_retina.nn.losses import LossSettings
from geo_retina.nn.pyramid import Pyramid
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.rotated_coding import OFFSETS


def small_network(
    *,
    levels: tuple[int, ...] = (2, 3),
    norm: Literal["none", "batch", "group"] = "batch",
    pyramid_norm: Literal["none", "batch"] = "none",
    bands: int = 3,
    classes: int = 2,
    backbone: str = "test_resnet",
    boxes: Literal["upright", "oriented"] = "upright",
) -> RetinaNet:
    """A RetinaNet of 32 channels on a tiny backbone, one square anchor of 3 strides per level."""
    body = Backbone(backbone, in_channels=bands)
    pyramid = Pyramid(
        body.levels,
        body.channels,
        levels=levels,
        channels=32,
        extra_from="c5",
        norm=pyramid_norm,
    )
    return RetinaNet(
        body,
        pyramid,
        Subnet(32, 1, classes, 1, norm=norm, prior=0.01),
        Subnet(32, 1, OFFSETS if boxes == "oriented" else 4, 1, norm=norm, prior=None),
        AnchorGrid([2**lv for lv in levels], [(3.0 * 2**lv,) for lv in levels], (1.0,), False),
    )


def loss_settings(
    *,
    classification: Literal["focal", "balanced", "ce"] = "focal",
    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1",
    assign: Literal["iou", "atss"] = "iou",
    class_weights: Tensor | None = None,
    box_weight: float = 1.0,
) -> LossSettings:
    """The paper's settings, but for what is given."""
    return LossSettings(
        classification=classification,
        alpha=0.25,
        gamma=2.0,
        box=box,
        beta=1 / 9,
        box_weight=box_weight,
        class_weights=class_weights,
        assign=assign,
        foreground_iou=0.5,
        background_iou=0.4,
        atss_candidates=9,
    )


def random_boxes(
    count: int, size: int, sides: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """(count, 4) boxes wholly inside a square image, sides uniform in a range."""
    low, high = sides
    wh = low + (high - low) * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (size - wh)
    return torch.cat([corner, corner + wh], dim=1)
