from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.networks import shaken
from support.small_networks import loss_settings, random_boxes, small_network
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList

from geo_retina.errors import ModelError
from geo_retina.model import build_network
from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.losses import Target, retinanet_loss
from geo_retina.nn.retinanet import RetinaNet, torchvision_state_dict
from geo_retina.options import PRESETS, NetworkOptions

SIDES = tuple(
    (float(x), float(int(x * 2 ** (1 / 3))), float(int(x * 2 ** (2 / 3))))
    for x in (32, 64, 128, 256, 512)
)
TORCHVISION = dataclasses.replace(
    PRESETS["paper"],
    anchor_sides_px=SIDES,
    round_anchors=True,
    extra_levels_from="p5",
    bn_eps=1e-5,
)
CLASSES = 5


def compare(theirs: Any, options: NetworkOptions, state: dict[str, Tensor]) -> None:
    ours = build_network(options, in_channels=3, classes=CLASSES).eval()
    ours.load_state_dict(torchvision_state_dict(state))
    image = torch.randn(2, 3, 128, 256)
    with torch.no_grad():
        maps = list(theirs.backbone(image).values())
        expected = theirs.head(maps)
        anchors = theirs.anchor_generator(ImageList(image, [(128, 256)] * 2), maps)[0]
        found = ours(image)
    for name, part in (("cls_logits", found.logits), ("bbox_regression", found.deltas)):
        size = float(expected[name].abs().max())
        assert size > 0.1
        torch.testing.assert_close(torch.cat(part, 1), expected[name], rtol=1e-5, atol=1e-5 * size)
    assert torch.equal(torch.cat(ours.anchors((128, 256), "cpu")), anchors)


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision wrote them before 0.13, in the form that DeepForest saves."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if "_blocks" in key and "extra" not in key:
            parts.pop(4)
        if parts[0] == "head" and parts[2] == "conv":
            parts[3:5] = [str(2 * int(parts[3]))]
        if parts[-1] != "num_batches_tracked":
            renamed["model." + ".".join(parts)] = value
    return renamed


def test_equals_torchvisions_retinanet() -> None:
    theirs = shaken(
        retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    )
    compare(theirs, TORCHVISION, theirs.state_dict())
    old = old_names(theirs.state_dict())
    assert "model.head.regression_head.conv.6.weight" in old
    assert "model.backbone.fpn.inner_blocks.2.bias" in old
    new = torchvision_state_dict(theirs.state_dict())
    for key, value in torchvision_state_dict(old).items():
        assert torch.equal(value, new[key])


def test_equals_torchvisions_second_version() -> None:
    theirs = shaken(
        retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=CLASSES)
    )
    options = dataclasses.replace(TORCHVISION, norm="group", extra_levels_from="c5")
    compare(theirs, options, theirs.state_dict())


def test_foreign_weights_are_refused() -> None:
    with pytest.raises(ModelError, match=r"roi_heads\.box\.weight belongs to no RetinaNet"):
        torchvision_state_dict({"roi_heads.box.weight": torch.zeros(1)})


def scene(size: int, sides: tuple[float, float]) -> tuple[Tensor, list[Target]]:
    """Bright squares of two kinds on dark noise, and their boxes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator) * 0.1
    targets = []
    for image in images:
        boxes = random_boxes(5, size, sides, generator).round()
        labels = torch.randint(0, 2, (5,), generator=generator)
        for (x0, y0, x1, y1), label in zip(boxes.long().tolist(), labels.tolist(), strict=True):
            image[label, y0:y1, x0:x1] += 2
        targets.append(Target(boxes, labels, torch.zeros(0, 4), None))
    return images, targets


def train(
    network: RetinaNet, size: int, sides: tuple[float, float], steps: int, lr: float
) -> list[float]:
    images, targets = scene(size, sides)
    images = images.to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        outputs = network(images)
        loss = sum(
            retinanet_loss(
                outputs, network.anchors((size, size), "cpu"), targets, loss_settings()
            ).values()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    return losses


@pytest.mark.parametrize(
    ("preset", "size", "sides", "lr"),
    [("small", 128, (10.0, 16.0), 2e-3), ("paper", 96, (28.0, 60.0), 2e-4)],
)
def test_presets_train(preset: str, size: int, sides: tuple[float, float], lr: float) -> None:
    torch.manual_seed(0)
    options = PRESETS[preset]
    if options.levels is None:
        options = dataclasses.replace(options, levels=(2,), anchor_sides_px=((13.0,),))
    network = build_network(options, in_channels=3, classes=2)
    losses = train(network, size, sides, 4, lr)
    assert losses[-1] < 0.9 * losses[0]


def test_learns_to_find_what_it_is_shown() -> None:
    torch.manual_seed(0)
    network = small_network(levels=(2,))
    losses = train(network, 64, (10, 15), 40, 3e-3)
    assert losses[-1] < 0.1 * losses[0]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over the steps that follow
            module.reset_running_stats()
    images, targets = scene(64, (10, 15))
    with torch.no_grad():
        network.train()(images)
        outputs = network.eval()(images)
    settings = DecodeSettings(thresholds=0.3, candidates=500, nms_iou=0.5, max_per_image=100)
    found = decode(outputs, network.anchors((64, 64), "cpu"), (64, 64), settings)
    for n, target in enumerate(targets):
        for box, label in zip(target.boxes_M4, target.labels_M, strict=True):
            near = (found.boxes_M4 - box).abs().amax(dim=1) < 3
            assert (near & (found.image_M == n) & (found.labels_M == label)).any()


@pytest.mark.parametrize("bands", [1, 4])
def test_network_for_other_bands_under_autocast(bands: int) -> None:
    network = small_network(bands=bands, levels=(2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(torch.randn(2, bands, 64, 64))
    assert [tuple(o.shape) for o in outputs.logits] == [(2, 256, 2), (2, 64, 2)]
    assert [tuple(o.shape) for o in outputs.deltas] == [(2, 256, 4), (2, 64, 4)]
    assert outputs.logits[0].dtype == torch.bfloat16


@pytest.mark.parametrize(("levels", "stride"), [((2,), 32), ((2, 3), 32), ((3, 4, 5, 6, 7), 128)])
def test_stride_is_the_coarsest(levels: tuple[int, ...], stride: int) -> None:
    assert small_network(levels=levels).stride_px == stride


def test_shift_by_the_stride_shifts_the_output() -> None:
    """Why tiles lie on the stride's grid; away from borders, nothing else changes."""
    torch.manual_seed(0)
    network = small_network(levels=(2,)).eval()
    network.class_subnet.output.weight.data.mul_(100)
    image = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        whole = network(image).logits[0].view(128, 128, 2)[56:72, 64:80]
        on_stride = network(image[:, :, :, 32:]).logits[0].view(128, 120, 2)[56:72, 56:72]
        off_stride = network(image[:, :, :, 16:]).logits[0].view(128, 124, 2)[56:72, 60:76]
    assert float((whole - on_stride).abs().max()) < 1e-4
    assert float((whole - off_stride).abs().max()) > 1e-2
