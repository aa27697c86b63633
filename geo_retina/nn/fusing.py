"""Fusing activations and paddings into the convolutions beside them, for inference on a CPU.

Eager PyTorch passes over memory once for a convolution and again for its activation or its padding;
oneDNN does both at once. The arithmetic stays the same to the last bit, but where oneDNN chooses
another order of summing: in bf16 with AMX it does for images of some sizes, which moves outputs by
as much as bf16 rounds them, and no nearer to single precision nor farther from it.

Shapes: N batch, C channels, H W size.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geo_retina.nn.followers import find_followers
from geo_retina.nn.retinanet import RetinaNet

_ATTRIBUTES: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""oneDNN's name of an activation and its parameters."""


def fuse_layers(network: RetinaNet) -> RetinaNet:
    """Copy a network for inference on a CPU, with activations inside its convolutions.

    Which activation follows which convolution is seen in a trial run. TensorFlow's SAME padding,
    which a convolution of stride 2 has one pixel more of at its end than at its start, becomes a
    kernel with a row and a column of zeros in front, padded alike on all sides.

    Args:
        network: in evaluation mode, its batch norms folded, on the CPU in the dtype that it will
            compute in, in channels_last; not changed.

    Returns:
        A copy with the same outputs, but for the order of sums; or the network itself where this
        processor or release of PyTorch lacks the operator, or a trial finds any difference.
    """
    if not _has_operator(next(network.parameters()).dtype):
        return network
    weight = next(network.parameters())
    # The trial's size is odd in units of the stride, as tiles may be.
    shape = (2, network.backbone.in_channels, network.stride_px, 3 * network.stride_px)
    with torch.inference_mode(False), torch.no_grad():
        fused = copy.deepcopy(network)
        generator = torch.Generator().manual_seed(0)
        trial_NCHW = torch.randn(shape, generator=generator)
        trial_NCHW = trial_NCHW.to(weight.dtype, memory_format=torch.channels_last)
        followers, before = find_followers(
            fused, trial_NCHW, leads=_can_fuse, follows=lambda layer: type(layer) in _ATTRIBUTES
        )
        names = {module: name for name, module in fused.named_modules()}
        for conv, activation in followers.items():
            fused.set_submodule(names[conv], _FusedConv(conv, activation))
            fused.set_submodule(names[activation], nn.Identity())
        after = fused(trial_NCHW)
    same = all(
        torch.equal(a, b)
        for one, other in zip(before, after, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    return fused if same else network


class _FusedConv(nn.Module):
    """A convolution and the activation behind it, as one operator of oneDNN."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._attribute = _ATTRIBUTES[type(activation)]
        self._stride, self._dilation = list(conv.stride), list(conv.dilation)
        self._groups = conv.groups
        self._padding = [int(side) for side in conv.padding] if _pads_alike(conv) else None
        if self._padding is None:
            _, more = _same_padding(conv.kernel_size[0], conv.stride[0], conv.stride[0])
            self._padding_of_wider = [more, more]
            wider = functional.pad(conv.weight.detach(), (1, 0, 1, 0))
            wider = wider.contiguous(memory_format=torch.channels_last)
            self.register_buffer("wider", wider, persistent=False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Convolve, pad and activate."""
        if self._padding is not None:
            return self._convolve(images_NCHW, self.weight, self._padding)
        stride = self._stride[0]
        if all(side % stride == 0 for side in images_NCHW.shape[-2:]):
            return self._convolve(images_NCHW, self.wider, self._padding_of_wider)
        kernel = self.weight.shape[-1]
        rows, cols = (_same_padding(kernel, stride, side) for side in images_NCHW.shape[-2:])
        return self._convolve(functional.pad(images_NCHW, (*cols, *rows)), self.weight, [0, 0])

    def _convolve(self, images_NCHW: Tensor, weight: Any, padding: list[int]) -> Tensor:
        name, scalars = self._attribute
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images_NCHW,
            weight,
            self.bias,
            padding,
            self._stride,
            self._dilation,
            self._groups,
            name,
            scalars,
            "",
        )
        return output


def _has_operator(dtype: torch.dtype) -> bool:
    """Check whether this PyTorch and processor have the operator, which is not a public one."""
    image = torch.ones(1, 1, 2, 2, dtype=dtype)
    try:
        output = torch.ops.mkldnn._convolution_pointwise(
            image, image, None, [0, 0], [1, 1], [1, 1], 1, "relu", [], ""
        )
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(output.item() == 4)


def _can_fuse(conv: nn.Conv2d) -> bool:
    """Check whether a convolution pads with zeros, alike on all sides or as TensorFlow does."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    if _pads_alike(conv):
        return True
    (kernel, other_kernel), (stride, other_stride) = conv.kernel_size, conv.stride
    lo, hi = _same_padding(kernel, stride, stride)
    square = kernel == other_kernel and stride == other_stride and set(conv.dilation) == {1}
    return square and hi == lo + 1


def _pads_alike(conv: nn.Conv2d) -> bool:
    return type(conv) is nn.Conv2d


def _same_padding(kernel: int, stride: int, side: int) -> tuple[int, int]:
    """Count zeros before and after a side that give the output a cell for each begun stride."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
