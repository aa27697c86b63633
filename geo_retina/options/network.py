"""Options of the network, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from geo_retina.errors import OptionError
from geo_retina.options.checks import check

Padding = Literal["mirror", "constant"]
"""What a network is shown where there is no ground: ground mirrored at its edge, or 0."""

Boxes = Literal["upright", "oriented"]
"""Whether boxes lie along the pixels' rows and columns, or at any angle."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Architecture of the RetinaNet."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model with ``features_only``."""

    boxes: Boxes = "upright"
    """Kind of boxes that it finds: ``upright``, or ``oriented``, rectangles at any angle."""

    levels: tuple[int, ...] | None = None
    """Pyramid levels in ascending order without gaps, level l at stride 2**l; left out, chosen
    by the labels' sizes."""

    channels: int = 96
    """Channels of the pyramid and the subnets."""

    convs: int = 2
    """3 x 3 convolutions in each subnet before the output."""

    norm: Literal["none", "batch", "group"] = "batch"
    """Normalisation after the subnets' convolutions; batch folds away at inference."""

    pyramid_norm: Literal["none", "batch"] = "none"
    """Normalisation after the pyramid's convolutions."""

    extra_levels_from: Literal["c5", "p5"] = "c5"
    """What the first level above the backbone's is made of: the paper's C5 or the top
    pyramid level."""

    anchor_sides_px: tuple[tuple[float, ...], ...] | None = None
    """Anchor sides (square root of the area) of each level; left out, fitted to the labels."""

    anchor_ratios: tuple[float, ...] | None = None
    """Height over width of the anchors, for every side; left out, fitted to the labels together
    with the sides, or squares where the sides are given."""

    round_anchors: bool = False
    """Round anchor corners to whole pixels, as torchvision does."""

    prior: float = 0.01
    """Initial probability of an object, set through the class subnet's bias."""

    bn_eps: float | None = None
    """Epsilon of the backbone's batch norms; left out, the backbone's own."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "levels": (2, 9),
                "channels": (1, 4096),
                "convs": (0, 16),
                "prior": (1e-9, 0.5),
                "anchor_ratios": (1e-3, 1e3),
            },
        )
        if self.levels is not None and (
            not self.levels or list(self.levels) != list(range(self.levels[0], self.levels[-1] + 1))
        ):
            raise OptionError(
                f"NetworkOptions.levels is {self.levels}, expected ascending levels without gaps, "
                "such as (3, 4, 5)"
            )
        if self.anchor_sides_px is not None:
            if self.anchor_ratios is None:
                object.__setattr__(self, "anchor_ratios", (1.0,))
            counts = {len(sides) for sides in self.anchor_sides_px}
            if len(counts) != 1 or 0 in counts:
                raise OptionError(
                    "NetworkOptions.anchor_sides_px needs the same number of sides for every "
                    f"level, got {self.anchor_sides_px}"
                )
            if self.levels is not None and len(self.anchor_sides_px) != len(self.levels):
                raise OptionError(
                    f"NetworkOptions.anchor_sides_px is for {len(self.anchor_sides_px)} levels, "
                    f"but there are {len(self.levels)}"
                )


_PAPER_LEVELS = (3, 4, 5, 6, 7)
_OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))

_PAPER = NetworkOptions(
    backbone="resnet50",
    levels=_PAPER_LEVELS,
    channels=256,
    convs=4,
    norm="none",
    anchor_sides_px=tuple(tuple(4.0 * 2**lv * s for s in _OCTAVE) for lv in _PAPER_LEVELS),
    anchor_ratios=(0.5, 1.0, 2.0),
)

PRESETS: dict[str, NetworkOptions] = {
    "small": NetworkOptions(),
    "paper": _PAPER,
    "paper-101": replace(_PAPER, backbone="resnet101"),
}
"""Networks by name: ``small`` for dense small objects at speed, ``paper`` for Lin et al. 2017,
on ResNet-50, and ``paper-101`` on ResNet-101."""
