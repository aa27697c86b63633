"""The feature pyramid of Lin et al. 2017, arXiv:1612.03144.

Shapes: N batch, C channels, H W size; C3 and P3 are backbone and pyramid features of level 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from geo_retina.errors import ModelError


class Pyramid(nn.Module):
    """Semantically strong features at several strides.

    Each backbone level gets a 1 x 1 lateral convolution; from the coarsest down, the upper map
    is doubled (nearest) and added. Only the levels that are used are smoothed by a 3 x 3
    convolution. The way down always begins at the backbone's coarsest level, so that a single
    fine level sees the context too. Levels above the backbone's come from 3 x 3 convolutions of
    stride 2, with a ReLU before every one but the first.

    Args:
        in_levels: levels of the backbone's features, ascending.
        in_channels: channels of each.
        levels: levels used, ascending, without gaps.
        channels: channels of every pyramid level.
        extra_from: what the first level above the backbone's is made of: ``c5``, the backbone's
            coarsest features (the paper), or ``p5``, the coarsest smoothed pyramid level.
        norm: ``batch`` puts a batch norm after each convolution that has no stride.

    Raises:
        ModelError: a level used is finer than the backbone's finest.
    """

    def __init__(
        self,
        in_levels: Sequence[int],
        in_channels: Sequence[int],
        *,
        levels: Sequence[int],
        channels: int,
        extra_from: Literal["c5", "p5"],
        norm: Literal["none", "batch"],
    ) -> None:
        super().__init__()
        self.in_levels = tuple(in_levels)
        self.levels = tuple(levels)
        self.channels = channels
        self.extra_from = extra_from
        if self.levels[0] < self.in_levels[0]:
            raise ModelError(
                f"the pyramid's level {self.levels[0]} is finer than the backbone's finest, "
                f"{self.in_levels[0]}; ask for levels from {self.in_levels[0]} on"
            )
        top = self.in_levels[-1]
        above = list(range(top + 1, self.levels[-1] + 1))
        pyramid_levels = {level for level in self.levels if level <= top}
        # P6 made of P5 needs P5 smoothed even where nobody else wants it.
        smoothed = pyramid_levels | ({top} if above and extra_from == "p5" else set())
        width = dict(zip(self.in_levels, in_channels, strict=True))
        descended = range(min([*smoothed, top]), top + 1) if smoothed else ()
        self.lateral = nn.ModuleDict(
            {f"c{level}": _conv(width[level], channels, 1, norm) for level in descended}
        )
        self.smooth = nn.ModuleDict(
            {f"p{level}": _conv(channels, channels, 3, norm) for level in sorted(smoothed)}
        )
        first = width[top] if extra_from == "c5" else channels
        self.extra = nn.ModuleDict(
            {
                f"p{level}": _initialised(
                    nn.Conv2d(first if level == top + 1 else channels, channels, 3, 2, 1)
                )
                for level in above
            }
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Combine backbone features.

        Args:
            features: (N, C_l, H_l, W_l) for each of ``in_levels``; sizes halve from level to
                level, rounded up.

        Returns:
            (N, channels, H_l, W_l) for each of ``levels``.
        """
        by_level = dict(zip(self.in_levels, features, strict=True))
        pyramid: dict[int, Tensor] = {}
        upper: Tensor | None = None
        for level in reversed(self.in_levels):
            if f"c{level}" not in self.lateral:
                continue
            merged = self.lateral[f"c{level}"](by_level[level])
            if upper is not None:
                merged = merged + _double(upper, merged)
            if f"p{level}" in self.smooth:
                pyramid[level] = self.smooth[f"p{level}"](merged)
            upper = merged
        top = self.in_levels[-1]
        if self.extra:
            last = by_level[top] if self.extra_from == "c5" else pyramid[top]
            for level in range(top + 1, self.levels[-1] + 1):
                last = self.extra[f"p{level}"](last if level == top + 1 else functional.relu(last))
                pyramid[level] = last
        return [pyramid[level] for level in self.levels]


def _double(upper: Tensor, like: Tensor) -> Tensor:
    """Repeat each cell as 2 x 2 cells, cut to the size of ``like``, which odd sizes need."""
    doubled = functional.interpolate(upper, scale_factor=2.0, mode="nearest")
    return doubled[..., : like.shape[-2], : like.shape[-1]]


def _conv(in_channels: int, channels: int, kernel: int, norm: str) -> nn.Module:
    conv = _initialised(
        nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=norm == "none")
    )
    return conv if norm == "none" else nn.Sequential(conv, nn.BatchNorm2d(channels))


def _initialised(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
