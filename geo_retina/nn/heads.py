"""The class and box subnets, each shared over the levels of the pyramid.

Shapes: N batch, C channels, H W size of a level, A anchors per cell, K classes.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

_GROUPS = 32


class Outputs(NamedTuple):
    """Raw output of the network, one tensor per level; rows in order of (h, w, a)."""

    logits: list[Tensor]
    """(N, H*W*A, K) class logits."""

    deltas: list[Tensor]
    """(N, H*W*A, 4) box offsets from the anchors: dx, dy, dw, dh; (N, H*W*A, 8) those of oriented
    boxes, as ``rotated_coding`` has them."""


class Subnet(nn.Module):
    """Some 3 x 3 convolutions with ReLU, then one to the outputs.

    Batch norm sees the cells of all levels at once in training, so that the statistics it uses
    then are those it uses, or folds into the shared convolution, afterwards.

    Args:
        channels: channels of the pyramid and of the hidden convolutions.
        convs: hidden convolutions.
        outputs_per_anchor: K for classes, 4 for boxes, 8 for oriented ones.
        anchors: anchors per cell.
        norm: after every hidden convolution; ``group`` has 32 groups.
        prior: probability that the outputs start from through their bias; None starts at 0.
    """

    def __init__(
        self,
        channels: int,
        convs: int,
        outputs_per_anchor: int,
        anchors: int,
        *,
        norm: Literal["none", "batch", "group"],
        prior: float | None,
    ) -> None:
        super().__init__()
        self.outputs_per_anchor = outputs_per_anchor
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none") for _ in range(convs)
        )
        self.norms = nn.ModuleList(_norm(norm, channels) for _ in range(convs))
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(convs))
        self.output = nn.Conv2d(channels, anchors * outputs_per_anchor, 3, padding=1)
        start = 0.0 if prior is None else -math.log((1 - prior) / prior)
        for conv in (*self.convs, self.output):
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.constant_(conv.bias, start if conv is self.output else 0.0)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Apply the subnet to every level.

        Args:
            features: (N, C, H_l, W_l) per level.

        Returns:
            (N, H_l*W_l*A, outputs) per level, rows in order of (h, w, a).
        """
        for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=True):
            features = _normalise(norm, [conv(level) for level in features])
            features = [activation(level) for level in features]
        return [self._rows(self.output(level)) for level in features]

    def forward_at(self, features: list[Tensor], selected: list[Tensor]) -> list[Tensor]:
        """Apply the subnet around the cells whose outputs are used.

        Every convolution looks one cell far, so that the chosen rows come out as ``forward``
        has it from the rectangle around it, wider by a cell for each convolution. Waits for the
        device to tell where that is.

        Args:
            features: (N, C, H_l, W_l) per level.
            selected: (N, H_l*W_l*A) bool per level, rows in order of (h, w, a).

        Returns:
            (N, H_l*W_l*A, outputs) per level, in the features' dtype. Rows that were not chosen
            mean nothing: they are 0, or spoilt by the rectangle's edge.
        """
        if any(isinstance(norm, nn.GroupNorm) for norm in self.norms):  # looks at all cells
            return self(features)
        reach = len(self.convs) + 1
        outputs = []
        for level, rows in zip(features, selected, strict=True):
            images, _, height, width = level.shape
            cells = rows.reshape(images, height, width, -1)
            output = level.new_zeros(*cells.shape, self.outputs_per_anchor)
            for image, here in enumerate(cells.any(dim=-1)):
                found = here.nonzero()
                if not len(found):
                    continue
                top, left = (found.amin(dim=0) - reach).clamp(min=0).tolist()
                bottom, right = (found.amax(dim=0) + reach + 1).tolist()
                window = slice(top, bottom), slice(left, right)
                part = level[image : image + 1, :, *window]
                output[image, *window] = self([part])[0].reshape(*cells[image, *window].shape, -1)
            outputs.append(output.flatten(1, 3))
        return outputs

    def _rows(self, output_NCHW: Tensor) -> Tensor:
        # A view, not a copy, where the convolution ran in channels_last.
        rows = output_NCHW.permute(0, 2, 3, 1)
        # Not len(rows), which is a constant to torch.export.
        return rows.reshape(rows.shape[0], -1, self.outputs_per_anchor)


def _normalise(norm: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """Apply a norm to all levels; batch norm in training to all of them as one."""
    joint = isinstance(norm, nn.BatchNorm2d) and norm.training and len(features) > 1
    if not joint:
        return [norm(level) for level in features]
    channels = features[0].shape[1]
    # Channels last, so that flattening and splitting move no memory but the one copy of cat.
    flat = [level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features]
    merged = norm(torch.cat(flat)[:, :, None, None])[:, :, 0, 0]
    return [
        part.reshape(level.shape[0], *level.shape[2:], channels).permute(0, 3, 1, 2)
        for part, level in zip(merged.split([len(f) for f in flat]), features, strict=True)
    ]


def _norm(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(_GROUPS, channels) if norm == "group" else nn.Identity()
