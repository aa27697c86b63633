"""Depthwise convolutions of a training on a CPU: the same gradients, computed another way.

oneDNN takes many times as long for some of their gradients as for their outputs: for that of a
kernel of more than three columns, and in bf16 also for that of the input at a stride of 2.

Shapes: N batch, C channels, H W size, O outputs, h w size of a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional

_MOST_COLUMNS = 3
"""Of a kernel whose gradient oneDNN computes fast."""


@contextmanager
def fast_depthwise(network: nn.Module) -> Iterator[None]:
    """Compute the gradients of a network's depthwise convolutions fast within this context.

    Outputs and gradients are the same but for rounding, outputs without a bias to the last bit. A
    training step of the small network gets 1.28 times as fast in bf16; see docs/performance.md.
    Those of other classes, or padded otherwise than by zeros, stay in single precision.

    Args:
        network: on a CPU; not inside another such context.
    """
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    changed = [conv for conv in convs if conv.groups == conv.in_channels > 1]
    for conv in changed:
        forward = _forward if _is_plain(conv) else _in_single_precision
        conv.forward = MethodType(forward, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in changed:
            del conv.forward  # the class's own is there again


def _is_plain(conv: nn.Conv2d) -> bool:
    return (
        type(conv) in (nn.Conv2d, Conv2dSame)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def _in_single_precision(conv: nn.Conv2d, images_NCHW: Tensor) -> Tensor:
    """Compute a depthwise convolution as its class does, whatever autocast says."""
    with torch.autocast("cpu", enabled=False):
        convolved: Tensor = type(conv).forward(conv, images_NCHW.float())
    return convolved


class _Steps(NamedTuple):
    """How a kernel moves, by rows and columns."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def _forward(conv: nn.Conv2d, images_NCHW: Tensor) -> Tensor:
    """Compute a depthwise convolution in place of its own ``forward``."""
    weight, padding = conv.weight, conv.padding
    if torch.is_autocast_enabled("cpu"):
        # The gradient of a dilated kernel is wrong in bf16 (oneDNN, seen with torch 2.15).
        is_dilated = max(conv.dilation) > 1
        dtype = torch.float32 if is_dilated else torch.get_autocast_dtype("cpu")
        images_NCHW, weight = images_NCHW.to(dtype), weight.to(dtype)
    if isinstance(conv, Conv2dSame):
        images_NCHW = pad_same(images_NCHW, conv.kernel_size, conv.stride, conv.dilation)
        padding = (0, 0)
    steps = _Steps(conv.stride, padding, conv.dilation)  # type: ignore[arg-type]
    convolved: Tensor = _Depthwise.apply(images_NCHW, weight, steps)
    if conv.bias is None:
        return convolved
    return convolved + conv.bias.to(convolved.dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution without a bias."""

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_O1hw: Tensor, steps: _Steps) -> Tensor:
        ctx.save_for_backward(images_NCHW, weight_O1hw)
        ctx.steps = steps
        with torch.autocast("cpu", enabled=False):
            return functional.conv2d(
                images_NCHW, weight_O1hw, None, *steps, groups=images_NCHW.shape[1]
            )

    @staticmethod
    def backward(ctx: Any, slope_NOHW: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        given = images, weight, slope_NOHW, ctx.steps
        of_images, of_weight, _ = ctx.needs_input_grad
        return (
            _slope_of_images(*given) if of_images else None,
            _slope_of_weight(*given) if of_weight else None,
            None,
        )


def _slope_of_images(images: Tensor, weight: Tensor, slope: Tensor, steps: _Steps) -> Tensor:
    """Compute the gradient of the input, of which only the shape counts."""
    dtype = torch.float32 if max(steps.stride) > 1 else images.dtype
    like = torch.empty_like(images, dtype=dtype)
    found = _slopes(like, weight.to(dtype), slope.to(dtype), steps, of_images=True)
    return found.to(images.dtype)


def _slope_of_weight(images: Tensor, weight: Tensor, slope: Tensor, steps: _Steps) -> Tensor:
    """Compute the gradient of a kernel, few of its columns at a time."""
    columns = weight.shape[-1]
    if columns <= _MOST_COLUMNS:
        return _slopes(images, weight, slope, steps, of_images=False)
    stride, padding, dilation = (across for _, across in steps)
    images = functional.pad(images, (padding, padding))
    steps = steps._replace(padding=(steps.padding[0], 0))
    found = torch.empty_like(weight)
    for start in range(0, columns, _MOST_COLUMNS):
        part = weight[..., start : start + _MOST_COLUMNS]
        width = (slope.shape[-1] - 1) * stride + (part.shape[-1] - 1) * dilation + 1
        seen = images[..., start * dilation : start * dilation + width]
        found[..., start : start + _MOST_COLUMNS] = _slopes(
            seen, part, slope, steps, of_images=False
        )
    return found


def _slopes(
    images: Tensor, weight: Tensor, slope: Tensor, steps: _Steps, *, of_images: bool
) -> Tensor:
    """Compute the gradient of the input or of the kernel as PyTorch does."""
    wanted = (of_images, not of_images, False)
    shape = False, (0, 0), images.shape[1]  # not transposed, groups
    found = torch.ops.aten.convolution_backward(slope, images, weight, None, *steps, *shape, wanted)
    gradient: Tensor = found[0] if of_images else found[1]
    return gradient
