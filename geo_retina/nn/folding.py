"""Folding batch norms into the convolutions before them, for inference.

Shapes: N batch, C channels, H W size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from geo_retina.errors import ModelError
from geo_retina.nn.followers import find_followers
from geo_retina.nn.retinanet import RetinaNet

_TOLERANCE = 1e-3


def fold_batch_norms(network: RetinaNet) -> RetinaNet:
    """Copy a network for inference, its batch norms merged into their convolutions.

    A trained batch norm is a factor and a summand per channel, which its convolution can take
    over. It saves passes over memory, and keeps the statistics from being rounded where the
    network goes on to half precision. Which norm follows which convolution is seen in a trial
    run; norms that follow none stay. The trial is on the CPU in float32: a GPU may round
    products of float32 to ten bits (TF32), by more than the outputs may differ.

    Args:
        network: on any device, in any floating dtype; not changed.

    Returns:
        A copy in evaluation mode, on the network's device in its dtype, whose outputs differ
        by rounding only.

    Raises:
        ModelError: the copy's outputs differ by more.
    """
    weight = next(network.parameters())
    folded = copy.deepcopy(network).eval().to("cpu", torch.float32)
    side = 2 * folded.stride_px
    generator = torch.Generator().manual_seed(0)
    trial_NCHW = torch.randn(1, folded.backbone.in_channels, side, side, generator=generator)
    with torch.no_grad():
        norms, outputs = find_followers(
            folded,
            trial_NCHW,
            leads=lambda conv: True,
            follows=lambda layer: isinstance(layer, nn.BatchNorm2d),
        )
        before = _flat(outputs)
        names = {module: name for name, module in folded.named_modules()}
        for conv, norm in norms.items():
            assert isinstance(norm, nn.BatchNorm2d)
            _merge(conv, norm)
            folded.set_submodule(names[norm], _remainder(norm))
        after = _flat(folded(trial_NCHW))
    if not torch.allclose(before, after, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"folding the batch norms of {folded.backbone.name} changes its outputs by "
            f"{float((before - after).abs().max()):g}, expected rounding only; run it unfolded"
        )
    return folded.to(weight.device, weight.dtype)


def _merge(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what is left of a norm: nothing, or the activation that timm puts into it."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def _flat(outputs: tuple[list[Tensor], list[Tensor]]) -> Tensor:
    return torch.cat([t.flatten() for tensors in outputs for t in tensors])
