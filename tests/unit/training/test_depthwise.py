"""Fast gradients of depthwise convolutions are those that PyTorch computes itself."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geo_retina.training.depthwise import fast_depthwise


def conv(channels=6, kernel=3, *, kind=nn.Conv2d, **options):
    torch.manual_seed(0)
    options = {"groups": channels, "bias": False, "padding": kernel // 2, **options}
    outputs = options.pop("outputs", channels)
    layer = kind(channels, outputs, kernel, **options)
    return layer.to(memory_format=torch.channels_last)


LAYERS = {
    "three columns": {},
    "five columns": {"kernel": 5},
    "seven columns": {"kernel": 7, "padding": 3},
    "stride 2": {"stride": 2},
    "five columns at stride 2": {"kernel": 5, "stride": 2},
    "rows unlike columns": {"kernel": 5, "padding": (1, 0), "stride": (2, 1)},
    "TensorFlow's padding": {"kernel": 5, "kind": Conv2dSame, "stride": 2, "padding": 0},
    "dilated": {"kernel": 5, "dilation": 2},
    "two outputs a channel": {"kernel": 5, "outputs": 12},
    "with a bias": {"kernel": 5, "bias": True},
}


def step(layer, images, *, bf16=False):
    """Compute an output, and the gradients of the input, the kernel and the bias."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = layer(images)
    (output.float() ** 2).sum().backward()
    bias = None if layer.bias is None else layer.bias.grad
    return output.detach(), images.grad, layer.weight.grad, bias


def both_ways(options, *, bf16=False):
    """Give a layer, and its step in single precision and fast."""
    layer = conv(**options)
    images = torch.randn(2, 6, 13, 16).to(memory_format=torch.channels_last)
    expected = step(layer, images)
    with fast_depthwise(layer):
        assert "forward" in vars(layer)
        found = step(layer, images, bf16=bf16)
    return layer, expected, found


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_outputs_and_gradients_are_those_of_pytorch(options):
    layer, expected, found = both_ways(options)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_in_bf16_gradients_are_off_by_its_rounding_alone(options):
    layer, expected, found = both_ways(options, bf16=True)
    is_dilated = layer.dilation != (1, 1)
    assert found[0].dtype is (torch.float32 if is_dilated else torch.bfloat16)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            assert (one.float() - other).norm() < 0.01 * other.norm()


class Widths(TorchDispatchMode):
    """Notes the columns of each kernel whose gradient is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default and args[-1][1]:
            self.seen.append(args[2].shape[-1])
        return func(*args, **(kwargs or {}))


def test_a_kernel_has_its_gradient_in_parts_of_three_columns():
    layer, images = conv(kernel=7), torch.randn(1, 6, 13, 16)
    with Widths() as widths, fast_depthwise(layer):
        step(layer, images)
    assert widths.seen == [3, 3, 1]
    with Widths() as widths:
        step(layer, images)
    assert widths.seen == [7]


def test_a_copy_of_a_changed_network_has_weights_of_its_own():
    layer, images = conv(bias=True), torch.randn(1, 6, 8, 8)
    with fast_depthwise(layer), torch.no_grad():
        copied = copy.deepcopy(layer)
        copied.weight.zero_()
        copied.bias.zero_()
        assert copied(images).abs().sum() == 0
        assert layer(images).abs().sum() > 0


def test_other_convolutions_are_left_alone():
    layers = [conv(groups=1), conv(groups=2)]
    with fast_depthwise(nn.ModuleList(layers)):
        assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_otherwise_padded_ones_stay_in_single_precision(options):
    _, expected, found = both_ways({"dilation": 2, "kernel": 5, **options}, bf16=True)
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other)


def test_layers_are_restored_after_an_error():
    layer = conv()
    with pytest.raises(RuntimeError, match="weight"), fast_depthwise(layer):
        layer(torch.zeros(1, 5, 8, 8))
    assert "forward" not in vars(layer)
