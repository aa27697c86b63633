from __future__ import annotations

import pytest
import torch
from support.small_networks import small_network
from torch import nn

from geo_retina.errors import ModelError
from geo_retina.nn import folding
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.retinanet import RetinaNet


def trained(backbone: str) -> RetinaNet:
    """A network whose norms have statistics and weights of their own."""
    torch.manual_seed(0)
    network = small_network(backbone=backbone, pyramid_norm="batch", levels=(2, 3))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.momentum = 1.0
    network(torch.randn(4, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_folded_network_gives_the_same_without_norms(backbone: str) -> None:
    network = trained(backbone)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    image = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        for found, expected in zip(folded(image), network(image), strict=True):
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


def test_group_norm_and_none_stay_as_they_are() -> None:
    network = small_network(norm="group")
    folded = fold_batch_norms(network)
    assert any(isinstance(m, nn.GroupNorm) for m in folded.modules())


def test_change_of_the_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_merge", lambda conv, norm: None)
    with pytest.raises(ModelError, match="changes its outputs"):
        fold_batch_norms(trained("test_resnet"))


def test_trial_is_precise_whatever_the_networks_arithmetic() -> None:
    """In bfloat16 rounding alone changes the outputs by more than is allowed."""
    network = trained("resnet18").bfloat16()
    folded = fold_batch_norms(network)
    assert {p.dtype for p in folded.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    single = fold_batch_norms(network.float())
    for a, b in zip(folded.parameters(), single.parameters(), strict=True):
        assert torch.equal(a, b.bfloat16())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_folding_on_a_gpu_with_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    network = trained("tf_efficientnet_lite0")
    expected = fold_batch_norms(network)
    folded = fold_batch_norms(network.cuda())
    assert {p.device.type for p in folded.parameters()} == {"cuda"}
    assert {p.device.type for p in network.parameters()} == {"cuda"}
    for a, b in zip(folded.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a.cpu(), b)
