"""Pairs of a convolution and the layer that has its outputs, and nothing else, as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geo_retina.nn.followers import find_followers


class Parts(nn.Module):
    """Two convolutions and two layers, used as the test says."""

    def __init__(self, use: Callable[[Parts, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.other_conv = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.act, self.other_act = nn.ReLU(), nn.ReLU()
        self.use = use

    def forward(self, images: Tensor) -> Tensor:
        return self.use(self, images)


def in_place(parts: Parts, x: Tensor) -> Tensor:
    made = parts.conv(x)
    made += x
    return parts.act(made)


def once_without(parts: Parts, x: Tensor) -> Tensor:
    return parts.act(parts.conv(x)) + parts.conv(2 * x)


FOLLOWED = {
    "directly": lambda parts, x: parts.act(parts.conv(x)),
    "on two levels": lambda parts, x: parts.act(parts.conv(x)) + parts.act(parts.conv(2 * x)),
}
NOT_FOLLOWED = {
    "a sum between": lambda parts, x: parts.act(parts.conv(x) + x),
    "a sum in place between": in_place,
    "two layers take it": lambda parts, x: (lambda made: parts.act(made) + parts.other_act(made))(
        parts.conv(x)
    ),
    "a layer of its own on each level": lambda parts, x: (
        parts.act(parts.conv(x)) + parts.other_act(parts.conv(2 * x))
    ),
    "the layer takes others too": lambda parts, x: (
        parts.act(parts.conv(x)) + parts.act(parts.other_conv(x))
    ),
    "the layer takes the image too": lambda parts, x: parts.act(parts.conv(x)) + parts.act(x),
    "once without the layer": once_without,
}


def followers(network: nn.Module) -> dict[nn.Conv2d, nn.Module]:
    found, outputs = find_followers(
        network,
        torch.randn(1, 2, 4, 4),
        leads=lambda conv: True,
        follows=lambda layer: isinstance(layer, nn.ReLU),
    )
    assert isinstance(outputs, Tensor)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    return found


@pytest.mark.parametrize("how", FOLLOWED)
def test_layer_follows(how: str) -> None:
    network = Parts(FOLLOWED[how])
    assert followers(network) == {network.conv: network.act}


@pytest.mark.parametrize("how", NOT_FOLLOWED)
def test_layer_does_not_follow(how: str) -> None:
    assert followers(Parts(NOT_FOLLOWED[how])) == {}
