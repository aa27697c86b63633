"""Ranges hold what was seen, shifts take back what rounding adds, and misfits are refused."""

import pytest
import torch
from support.small_networks import small_network

from geo_retina.errors import ModelError
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.quantizing import Quantization, Rounding, _RoundedKernel, measure, quantize


@pytest.fixture(scope="module")
def folded():
    torch.manual_seed(0)
    return fold_batch_norms(small_network().eval())


@pytest.fixture(scope="module")
def images():
    return [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(4)]


@pytest.fixture(scope="module")
def measured(folded, images):
    return measure(folded, images)


def test_ranges_are_those_of_what_goes_into_a_layer(folded, images, measured):
    name, conv = next((n, m) for n, m in folded.named_modules() if isinstance(m, torch.nn.Conv2d))
    low, high = measured.ranges[name]
    every = torch.cat([each.flatten() for each in images])
    inside = ((every >= low) & (every <= high)).float().mean()
    assert 0.9995 < inside <= 1
    assert low == min(
        float(each.sort().values[0 + each.numel() // 10_000 - 1])
        for each in [image.flatten() for image in images]
    )
    assert len(measured.shifts[name]) == conv.out_channels


def test_rounding_changes_outputs_little_and_without_a_bias(folded, images, measured):
    rounded = quantize(folded, measured)
    without = quantize(folded, Quantization(measured.ranges, {}))
    name = "class_subnet.convs.0"
    errors = {}
    with torch.inference_mode():
        for network in (rounded, without):
            sums = 0.0
            for image in images:
                level = folded.pyramid(folded.backbone(image))[0]
                exact = folded.get_submodule(name)(level)
                sums = sums + (network.get_submodule(name)(level) - exact).mean(dim=(0, 2, 3))
            errors[network] = float((sums / len(images)).abs().mean())
        wanted, got = folded(images[0]).logits[0], rounded(images[0]).logits[0]
    assert errors[rounded] < errors[without] / 2
    assert not torch.equal(wanted, got)
    assert float((wanted - got).std()) < 0.1 * float(wanted.std())


@pytest.mark.parametrize(("channels", "groups"), [(1, 5), (2, 1), (3, 1), (8, 1), (3, 5)])
def test_two_neighbouring_weights_fit_into_16_bits(channels, groups):
    kernel = torch.randn(5, channels, 3, 3, generator=torch.Generator().manual_seed(channels))
    kernel[0] = 1.0  # as bad as can be
    kernel[1, :, 0, 0] = -7.0
    rounding = _RoundedKernel(kernel, groups)
    integers = (rounding(kernel) / rounding.scale.view(-1, 1, 1, 1)).round()
    pairs = integers.split(2, dim=1)
    if groups > 1 and channels == 3:  # the third and the first of the next position
        pairs = (*pairs, integers[:, [2, 0]])
    assert max(float(pair.sum(1).abs().max()) for pair in pairs) * 255 < 1 << 15
    assert float((rounding(kernel) - kernel).abs().amax()) <= float(rounding.scale.max()) / 2 + 1e-6


def test_tensors_hold_all_of_it(measured):
    again = Quantization.from_tensors(measured.tensors())
    assert again.ranges.keys() == measured.ranges.keys()
    assert all(again.ranges[n] == pytest.approx(measured.ranges[n]) for n in again.ranges)
    assert all(torch.equal(again.shifts[n], measured.shifts[n]) for n in measured.shifts)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a.range", torch.tensor([0.0, float("nan")])),
        ("a.range", torch.zeros(3)),
        ("a.range", torch.zeros(2, dtype=torch.int64)),
        ("a.shift", torch.zeros(2, 2)),
        ("a.other", torch.zeros(2)),
    ],
)
def test_damaged_tensors_are_refused(name, tensor):
    with pytest.raises(ModelError, match=f"{name} is not usable"):
        Quantization.from_tensors({name: tensor})


def test_another_networks_quantization_is_refused(folded, measured):
    other = fold_batch_norms(small_network(levels=(3,), classes=3).eval())
    with pytest.raises(ModelError, match="does not fit the network"):
        quantize(other, measured)
    with pytest.raises(ModelError, match="no image was given"):
        measure(folded, [])


@pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (-0.001, 5.0), (0.0, 2.0), (-4.0, 0.0)])
def test_integers_stand_for_their_values_and_tell_what_lies_outside(low, high):
    rounding = Rounding.of(low, high)
    inside = torch.linspace(low, high, 10_000)
    integers = rounding.integers(inside)
    assert integers.dtype is (torch.int8 if low < 0 else torch.uint8)
    torch.testing.assert_close(rounding.values(integers), rounding.rounded(inside))
    torch.testing.assert_close(
        rounding.values(integers), inside, atol=0.51 * rounding.scale, rtol=0
    )
    assert not rounding.is_left_by(integers)
    assert not rounding.is_left(inside)
    end = max(high, -low)
    far = torch.where(torch.arange(10_000) % 50 == 0, end if end == high else -end, inside) * 1.2
    assert rounding.is_left(far)
    assert rounding.is_left_by(rounding.integers(far))
