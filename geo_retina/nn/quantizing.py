"""Quantizing a network to 8-bit integers: ranges of activations, and what rounding shifts.

Every convolution takes its input and its kernel as integers of 8 bits. What the integers stand for
is measured once, on images like those that the network will see.

Shapes: N batch, C channels, H W size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from geo_retina.errors import ModelError
from geo_retina.nn.retinanet import RetinaNet

_SHARE = 0.9999
"""Share of an image's values that its range holds; few are larger, and they would cost all others
resolution."""

_FAR_SHARE = 0.01
"""Share of values outside a range that is a hundred times what any measured image has."""

_SPARSE = 4
"""Every so many rows and columns are looked at for values outside a range."""

_SAMPLE = 1 << 18
"""Values of an activation of an image that its range is found among."""

_RANGE, _SHIFT = ".range", ".shift"

_Note = Callable[[str, Tensor, Tensor], None]


@dataclass(frozen=True, eq=False)
class Quantization:
    """What integers stand for in a network whose batch norms are folded.

    Attributes:
        ranges: least and greatest input of each convolution, by its name.
        shifts: (C,) of each convolution, how much rounding raises the mean of its outputs.
    """

    ranges: Mapping[str, tuple[float, float]]
    shifts: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Return all as tensors by name, for a file."""
        ranges = {f"{name}{_RANGE}": torch.tensor(ends) for name, ends in self.ranges.items()}
        return ranges | {f"{name}{_SHIFT}": shift for name, shift in self.shifts.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Quantization:
        """Read what ``tensors`` returned.

        Raises:
            ModelError: a tensor is of another kind or shape, or not finite.
        """
        ranges, shifts = {}, {}
        for name, tensor in tensors.items():
            wanted = (2,) if name.endswith(_RANGE) else (tensor.numel(),)
            fits = tensor.is_floating_point() and tuple(tensor.shape) == wanted
            if not (fits and name.endswith((_RANGE, _SHIFT)) and tensor.isfinite().all()):
                raise ModelError(
                    f"the quantization tensor {name} is not usable, expected finite ranges and "
                    "shifts; quantize the model again"
                )
            if name.endswith(_RANGE):
                low, high = tensor.tolist()
                ranges[name.removesuffix(_RANGE)] = (low, high)
            else:
                shifts[name.removesuffix(_SHIFT)] = tensor.float()
        return cls(ranges, shifts)


def measure(folded: RetinaNet, images: Iterable[Tensor]) -> Quantization:
    """Measure ranges, and then shifts, of a network.

    Args:
        folded: in evaluation mode, its batch norms folded, on the CPU in single precision.
        images: (N, C, H, W) normalised; iterated over twice.

    Raises:
        ModelError: there are no images.
    """
    convs = _convs(folded)
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, image: Tensor, output: Tensor) -> None:
        low, high = _range(image)
        before = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(before[0], low), max(before[1], high))

    _watch(folded, convs, images, widen)
    if not ranges:
        raise ModelError(f"no image was given to measure {folded.backbone.name} on; give some")
    without = Quantization(ranges, {})
    rounding = {name: _quantized(conv, name, without) for name, conv in convs.items()}
    sums: dict[str, _Sum] = {}

    def add(name: str, image: Tensor, output: Tensor) -> None:
        error = (rounding[name](image) - output).double()
        before = sums.get(name, _Sum(torch.zeros(error.shape[1], dtype=torch.float64), 0))
        count = error.numel() // error.shape[1]
        sums[name] = _Sum(before.total + error.sum(dim=(0, 2, 3)), before.values + count)

    _watch(folded, convs, images, add)
    shifts = {name: (each.total / each.values).float() for name, each in sums.items()}
    return Quantization(ranges, shifts)


def quantize(folded: RetinaNet, quantization: Quantization) -> RetinaNet:
    """Copy a network so that it rounds as integers of 8 bits do.

    PyTorch computes the rounding in floating point, which shows what integers give and is no
    faster. Another runtime computes the copy's graph with integers.

    Args:
        folded: as for ``measure``; not changed.
        quantization: of this network.

    Raises:
        ModelError: it is another network's.
    """
    copied = copy.deepcopy(folded)
    convs = _convs(copied)
    odd = convs.keys() ^ quantization.ranges.keys() | (quantization.shifts.keys() - convs.keys())
    odd |= {
        name
        for name, shift in quantization.shifts.items()
        if name in convs and len(shift) != convs[name].out_channels
    }
    if odd:
        raise ModelError(
            f"the quantization does not fit the network: {len(odd)} layers differ, such as "
            f"{min(odd)}; quantize the model again"
        )
    for name, conv in convs.items():
        copied.set_submodule(name, _quantized(conv, name, quantization))
    return copied


class Rounding(NamedTuple):
    """How values of a range become integers of 8 bits: by their factor, from least to most."""

    low: float
    high: float
    scale: float
    least: int
    most: int

    @classmethod
    def of(cls, low: float, high: float) -> Rounding:
        """Choose integers for a range: with a sign where it has negative values."""
        if low < 0:
            return cls(low, high, max(-low / 127, high / 127, 1e-8), -128, 127)
        return cls(low, high, max(high / 255, 1e-8), 0, 255)

    def rounded(self, values: Tensor) -> Tensor:
        """Round to values that integers stand for."""
        return torch.fake_quantize_per_tensor_affine(values, self.scale, 0, self.least, self.most)

    def integers(self, values: Tensor) -> Tensor:
        """Round to these integers themselves."""
        dtype = torch.int8 if self.least < 0 else torch.uint8
        return (self.rounded(values) / self.scale).round().to(dtype)

    def values(self, integers: Tensor) -> Tensor:
        """Convert integers to the values that they stand for."""
        return integers.float() * self.scale

    def is_left(self, values: Tensor) -> bool:
        """Tell whether many of some values lie outside the range."""
        return _are_many((values < self.low) | (values > self.high))

    def is_left_by(self, integers: Tensor) -> bool:
        """Tell whether many of some integers stand for what lies outside, or at an end."""
        high, low = (max(1, math.ceil(end / self.scale - 1e-3)) for end in (self.high, -self.low))
        outside = integers >= high
        return _are_many(outside | (integers <= -low) if self.least < 0 else outside)


def outer_roundings(network: RetinaNet, quantization: Quantization) -> tuple[Rounding, Rounding]:
    """Find how the image, and what the subnets are given, are rounded.

    Raises:
        ModelError: the quantization is another network's.
    """
    names = list(_convs(network))
    first = next(name for name in names if name.startswith("class_subnet."))
    for name in (names[0], first):
        if name not in quantization.ranges:
            raise ModelError(
                f"the quantization does not fit the network: it has no range of {name}; "
                "quantize the model again"
            )
    image, levels = (Rounding.of(*quantization.ranges[name]) for name in (names[0], first))
    return image, levels


def sparse(values: Tensor, rows_dim: int) -> Tensor:
    """Take every so many rows and columns, in which values outside a range are sought.

    Args:
        values: whose columns are the dimension behind its rows.
        rows_dim: the dimension of its rows.
    """
    return values[(slice(None),) * rows_dim + (slice(None, None, _SPARSE),) * 2]


def _are_many(outside: Tensor) -> bool:
    return int(outside.count_nonzero()) > _FAR_SHARE * outside.numel()


class _Sum(NamedTuple):
    total: Tensor
    values: int


class _RoundedKernel(nn.Module):
    """Rounds a kernel to 8 bits, every output channel on its own.

    Processors without VNNI add the products of two neighbouring input channels in 16 bits, so no
    two such weights may sum to more than 128: then the sums are exact on all of them. Where groups
    of channels are odd in number, any two may be neighbours.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, kernel: Tensor, groups: int) -> None:
        super().__init__()
        kernel_OIHW = kernel.detach()
        channels = kernel_OIHW.shape[1]
        if groups > 1 and channels > 1 and channels % 2:
            sums = 2 * kernel_OIHW
        else:
            even, odd = kernel_OIHW[:, ::2], kernel_OIHW[:, 1::2]
            sums = torch.cat([kernel_OIHW, even[:, : odd.shape[1]] + odd], dim=1)
        scale = sums.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, kernel: Tensor) -> Tensor:
        """Round."""
        return torch.fake_quantize_per_channel_affine(kernel, self.scale, self.zero, 0, -127, 127)


class _QuantizedConv(nn.Module):
    """A convolution that takes its input rounded to 8 bits; the kernel is too."""

    def __init__(self, conv: nn.Conv2d, ends: tuple[float, float]) -> None:
        super().__init__()
        self.conv = conv
        self._rounding = Rounding.of(*ends)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Round, and convolve."""
        return self.conv(self._rounding.rounded(images_NCHW))


def _convs(network: RetinaNet) -> dict[str, nn.Conv2d]:
    return {n: each for n, each in network.named_modules() if isinstance(each, nn.Conv2d)}


def _quantized(conv: nn.Conv2d, name: str, quantization: Quantization) -> _QuantizedConv:
    copied = copy.deepcopy(conv)
    shift = quantization.shifts.get(name)
    if shift is not None:
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        copied.bias = nn.Parameter(bias - shift)
    parametrize.register_parametrization(
        copied, "weight", _RoundedKernel(copied.weight, conv.groups)
    )
    return _QuantizedConv(copied, quantization.ranges[name])


def _watch(
    network: RetinaNet, convs: Mapping[str, nn.Conv2d], images: Iterable[Tensor], note: _Note
) -> None:
    """Run a network, and tell each convolution's name, input and output."""
    hooks = [
        conv.register_forward_hook(
            lambda _, inputs, output, name=name: note(name, inputs[0], output)
        )
        for name, conv in convs.items()
    ]
    try:
        with torch.inference_mode():
            for images_NCHW in images:
                network(images_NCHW)
    finally:
        for hook in hooks:
            hook.remove()


def _range(image: Tensor) -> tuple[float, float]:
    """Find the ends between which nearly all values lie, and 0."""
    values = image.flatten()
    values = values[:: max(1, len(values) // _SAMPLE)]
    outside = max(1, round(len(values) * (1 - _SHARE)))
    low = min(0.0, float(values.kthvalue(outside).values))
    return low, max(0.0, float(values.kthvalue(len(values) - outside + 1).values))
