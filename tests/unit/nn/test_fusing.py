"""Fused layers give what the layers gave one by one, bit by bit where sums keep their order."""

from __future__ import annotations

import copy

import pytest
import torch
from support.small_networks import small_network
from torch import Tensor

from geo_retina.model import load_model
from geo_retina.nn import fusing
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.fusing import fuse_layers
from geo_retina.nn.retinanet import RetinaNet

needs_operator = pytest.mark.skipif(
    not fusing._has_operator(torch.bfloat16), reason="needs oneDNN's convolutions in bf16"
)


def ready(network: RetinaNet) -> RetinaNet:
    torch.manual_seed(0)
    return fold_batch_norms(network).to(torch.bfloat16).to(memory_format=torch.channels_last)


def images(network: RetinaNet, height: int, width: int) -> Tensor:
    torch.manual_seed(1)
    shape = (2, network.backbone.in_channels, height, width)
    return torch.randn(shape).to(torch.bfloat16, memory_format=torch.channels_last)


def fused_convs(network: RetinaNet) -> int:
    return sum(isinstance(module, fusing._FusedConv) for module in network.modules())


def assert_same(fused: RetinaNet, plain: RetinaNet, images_NCHW: Tensor) -> None:
    with torch.inference_mode():
        for found, expected in zip(fused(images_NCHW), plain(images_NCHW), strict=True):
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b)


@needs_operator
@pytest.mark.parametrize(
    ("backbone", "least"), [("test_resnet", 4), ("resnet18", 11), ("tf_efficientnet_lite0", 34)]
)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (90, 77)])
def test_outputs_are_equal_bit_by_bit(backbone: str, least: int, height: int, width: int) -> None:
    plain = ready(small_network(backbone=backbone, levels=(2, 3)))
    fused = fuse_layers(plain)
    assert fused_convs(fused) >= least
    assert fused_convs(plain) == 0
    assert_same(fused, plain, images(plain, height, width))


@needs_operator
def test_bundled_network_is_fused() -> None:
    plain = ready(load_model("demo").network)
    fused = fuse_layers(plain)
    assert fused_convs(fused) >= 34
    assert_same(fused, plain, images(plain, 64, 96))


@needs_operator
@pytest.mark.parametrize(("height", "width"), [(128, 192), (320, 320)])
def test_where_sums_are_in_another_order_they_are_as_exact(height: int, width: int) -> None:
    """With AMX oneDNN chooses one for some sizes; elsewhere outputs are equal bit by bit."""
    plain = ready(load_model("demo").network)
    fused, exact = fuse_layers(plain), copy.deepcopy(plain).float()
    tiles = images(plain, height, width)
    with torch.inference_mode():
        outputs = zip(fused(tiles), plain(tiles), exact(tiles.float()), strict=True)
        for levels in outputs:
            for found, other, expected in zip(*levels, strict=True):
                errors = [(each.float() - expected).abs() for each in (found, other)]
                assert errors[0].mean() <= 1.05 * errors[1].mean()
                assert errors[0].max() <= 1.5 * errors[1].max()
                assert errors[1].mean() > 0


@needs_operator
def test_boxes_computed_around_candidates_are_equal() -> None:
    plain = ready(small_network(levels=(2, 3)))
    image = images(plain, 64, 64)

    def half(logits: list[Tensor]) -> list[Tensor]:
        chosen = [torch.zeros(level.shape[:2], dtype=torch.bool) for level in logits]
        for rows in chosen:
            rows[:, : rows.shape[1] // 3] = True
        return chosen

    with torch.inference_mode():
        found = fuse_layers(plain).forward_at(image, half)
        expected = plain.forward_at(image, half)
    assert all(torch.equal(a, b) for a, b in zip(found.deltas, expected.deltas, strict=True))


def test_network_stays_where_the_operator_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "_has_operator", lambda dtype: False)
    plain = ready(small_network())
    assert fuse_layers(plain) is plain


@needs_operator
def test_network_stays_where_a_trial_finds_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {kind: ("hardtanh", [0.0, 0.01]) for kind in fusing._ATTRIBUTES}
    monkeypatch.setattr(fusing, "_ATTRIBUTES", wrong)
    plain = ready(small_network())
    assert fuse_layers(plain) is plain
