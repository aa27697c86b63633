"""Averages over mirror images are the same for an image and its mirror images."""

from __future__ import annotations

import pytest
import torch
from support.small_networks import small_network
from torch import Tensor, nn

from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.tta import average_views, has_tta

RATIOS = (0.5, 1.0, 2.0)
SHAPE = (64, 96)
SETTINGS = DecodeSettings(thresholds=0.3, candidates=10_000, nms_iou=1.0, max_per_image=10_000)


@pytest.fixture(scope="module")
def network() -> RetinaNet:
    """Two levels, two classes, and six anchors of three forms and two sizes."""
    torch.manual_seed(0)
    network = small_network(norm="none").eval()
    network.anchor_grid = AnchorGrid([4, 8], [(9.0, 14.0), (20.0, 31.0)], RATIOS, False)
    for subnet in (network.class_subnet, network.box_subnet):
        output = nn.Conv2d(32, 6 * subnet.outputs_per_anchor, 3, padding=1)
        subnet.output = output
        for parameter in subnet.parameters():
            nn.init.normal_(parameter, std=0.08)
    return network


def found(network: RetinaNet, images: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Boxes and (score, class, image), by score."""
    shape = (images.shape[2], images.shape[3])
    with torch.no_grad():
        outputs = average_views(network, network.anchor_grid, images, views)
    boxes, scores, labels, image, *_ = decode(
        outputs, network.anchors(shape, "cpu"), shape, SETTINGS
    )
    order = scores.argsort(descending=True)
    return boxes[order], torch.stack([scores, labels.float(), image.float()], dim=1)[order]


def mirrored(boxes: Tensor, how: str, shape: tuple[int, int]) -> Tensor:
    """Boxes of a mirror image, for the image itself."""
    x0, y0, x1, y1 = boxes.T
    height, width = shape
    if how == "left-right":
        return torch.stack([width - x1, y0, width - x0, y1], dim=1)
    if how == "upside-down":
        return torch.stack([x0, height - y1, x1, height - y0], dim=1)
    return torch.stack([y0, x0, y1, x1], dim=1)


@pytest.mark.parametrize(
    ("views", "how"),
    [
        (2, "left-right"),
        (4, "left-right"),
        (4, "upside-down"),
        (8, "left-right"),
        (8, "upside-down"),
        (8, "exchanged"),
    ],
)
def test_mirror_images_give_mirrored_boxes(network: RetinaNet, views: int, how: str) -> None:
    torch.manual_seed(1)
    images = torch.randn(2, 3, *SHAPE)
    seen = {
        "left-right": lambda: images.flip(3),
        "upside-down": lambda: images.flip(2),
        "exchanged": lambda: images.transpose(2, 3),
    }[how]()
    boxes, about = found(network, images, views)
    other_boxes, other_about = found(network, seen, views)
    assert len(boxes) > 500
    # Near ties change places, so that each of the best is looked for among some more.
    one = torch.cat([boxes, 100 * about], dim=1)[:200]
    other = torch.cat([mirrored(other_boxes, how, SHAPE), 100 * other_about], dim=1)[:250]
    assert float(torch.cdist(one.double(), other.double()).min(dim=1).values.max()) < 0.05


@pytest.mark.parametrize(
    ("views", "how"), [(2, "left-right"), (4, "upside-down"), (8, "exchanged")]
)
def test_angles_of_mirror_images_turn_back(views: int, how: str) -> None:
    torch.manual_seed(0)
    network = small_network(norm="none", boxes="oriented").eval()
    for parameter in (*network.class_subnet.parameters(), *network.box_subnet.parameters()):
        nn.init.normal_(parameter, std=0.08)
    torch.manual_seed(1)
    images = torch.randn(1, 3, *SHAPE)
    seen = {"left-right": images.flip(3), "upside-down": images.flip(2)}.get(
        how, images.transpose(2, 3)
    )

    def rotated(shown: Tensor) -> Tensor:
        shape = (shown.shape[2], shown.shape[3])
        with torch.no_grad():
            outputs = average_views(network, network.anchor_grid, shown, views)
        found = decode(outputs, network.anchors(shape, "cpu"), shape, SETTINGS)
        assert found.rotated_M5 is not None
        return found.rotated_M5

    x, y, length, width, angle = rotated(seen).T
    if how == "exchanged":
        x, y, angle = y, x, 90 - angle
    else:
        x, y = (SHAPE[1] - x, y) if how == "left-right" else (x, SHAPE[0] - y)
        angle = -angle
    double = torch.deg2rad(2 * angle)
    back = torch.stack([x, y, length, width, 9 * double.cos(), 9 * double.sin()], dim=1)
    own = rotated(images)
    double = torch.deg2rad(2 * own[:, 4:])
    own = torch.cat([own[:, :4], 9 * double.cos(), 9 * double.sin()], dim=1)
    assert len(own) > 200
    apart = torch.cdist(own.double(), back.double()).min(dim=1).values
    assert float(apart.quantile(0.98)) < 0.05  # nearly: where phases disagree, rounding decides


def test_a_network_does_not_see_mirror_images_alike(network: RetinaNet) -> None:
    torch.manual_seed(1)
    images = torch.randn(2, 3, *SHAPE)
    _, about = found(network, images, 1)
    _, other = found(network, images.flip(3), 1)
    assert not torch.allclose(about[:200, 0], other[:200, 0], atol=1e-3)


def test_one_view_is_the_network_itself(network: RetinaNet) -> None:
    images = torch.randn(1, 3, *SHAPE)
    with torch.no_grad():
        one, plain = average_views(network, network.anchor_grid, images, 1), network(images)
    for a, b in zip((*one.logits, *one.deltas), (*plain.logits, *plain.deltas), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_anchors_decide_which_views_there_are() -> None:
    def allowed(ratios: tuple[float, ...], round_corners: bool) -> list[int]:
        grid = AnchorGrid([8], [(20.0,)], ratios, round_corners)
        return [views for views in (1, 2, 4, 8) if has_tta(grid, views)]

    assert allowed((0.5, 1.0, 2.0), False) == [1, 2, 4, 8]
    assert allowed((0.5, 1.0), False) == [1, 2, 4]
    assert allowed((1.0,), True) == [1]
