"""Offsets of oriented boxes: there and back, without a jump."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geo_retina.boxes import oriented
from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.losses import Target, assign, retinanet_loss
from geo_retina.nn.rotated_coding import (
    OFFSETS,
    decode_rotated,
    encode_rotated,
    have_angle,
    hull,
    turn_phases,
)
from geo_retina.nn.rotated_overlap import pair_iou


def some(count: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 50, (count, 2))
    anchors = np.hstack([low, low + rng.uniform(5, 60, (count, 2))])
    boxes = oriented.normalise(
        np.column_stack(
            [
                rng.uniform(0, 80, (count, 2)),
                rng.uniform(2, 90, (count, 2)),
                rng.uniform(-90, 90, count),
            ]
        )
    )
    boxes[:9, 4] = [-90, -89.999, 89.999, 0, 45, -45, 44.999, 22.5, -22.5]
    return torch.from_numpy(anchors).float(), torch.from_numpy(boxes).float()


def test_boxes_go_to_offsets_and_back():
    anchors, boxes = some()
    offsets = encode_rotated(anchors, boxes)
    assert offsets.shape == (len(boxes), OFFSETS)
    back = decode_rotated(anchors, offsets)
    torch.testing.assert_close(back[:, :4], boxes[:, :4], rtol=1e-4, atol=1e-3)
    apart = (back[:, 4] - boxes[:, 4] + 90) % 180 - 90
    assert float(apart.abs().max()) < 1e-3
    assert ((back[:, 4] >= -90) & (back[:, 4] < 90)).all()


def test_the_same_rectangle_by_its_other_name_has_offsets_as_near():
    """Just beyond 90 degrees an angle begins again at -90: its offsets do not."""
    anchors, boxes = some(100)
    boxes[:, 4] = 89.99
    beyond = boxes.clone()
    beyond[:, 4] = -89.99
    torch.testing.assert_close(
        encode_rotated(anchors, boxes), encode_rotated(anchors, beyond), atol=2e-3, rtol=0
    )


def test_a_wrong_quarter_is_mended_by_the_finer_phase():
    anchors, boxes = some()
    offsets = encode_rotated(anchors, boxes)
    shaken = torch.deg2rad(torch.tensor(40.0))  # of the double: 20 degrees
    cos, sin = offsets[:, 4].clone(), offsets[:, 5].clone()
    offsets[:, 4], offsets[:, 5] = (
        0.3 * (cos * shaken.cos() - sin * shaken.sin()),
        0.3 * (sin * shaken.cos() + cos * shaken.sin()),
    )
    assert float(pair_iou(decode_rotated(anchors, offsets), boxes).min()) > 0.999


def test_the_longer_side_comes_first_whichever_was_meant():
    anchors, boxes = some()
    swapped = boxes[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, 90.0])
    back = decode_rotated(anchors, encode_rotated(anchors, swapped))
    assert (back[:, 2] >= back[:, 3]).all()
    assert float(pair_iou(back, boxes).min()) > 0.999


def test_hulls_are_those_of_arrays():
    _, boxes = some()
    np.testing.assert_allclose(
        hull(boxes.double()), oriented.hull(boxes.double().numpy()), atol=1e-9
    )


def test_near_squares_tell_no_half_turn():
    boxes = torch.tensor([[5.0, 5, 10, 8, 30], [5, 5, 10, 9.5, 30], [5, 5, 10, 9, 30]])
    assert have_angle(boxes).all(dim=1).tolist() == [True, False, True]
    assert have_angle(boxes)[1].tolist() == [True] * 4 + [False] * 2 + [True] * 2


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_phases_of_a_view_turn_back(mirrored, turned):
    anchors, boxes = some()
    seen = boxes.clone()
    seen[:, 4] = 90 - boxes[:, 4] if turned else boxes[:, 4]  # rows and columns change places
    seen[:, 4] = -seen[:, 4] if mirrored else seen[:, 4]  # then one of them runs backwards
    phases = encode_rotated(anchors, seen)[:, 4:]
    back = turn_phases(phases, mirrored=mirrored, turned=turned)
    torch.testing.assert_close(back, encode_rotated(anchors, boxes)[:, 4:], atol=1e-4, rtol=0)


def test_tiny_boxes_carry_no_loss_of_their_angle():
    from support.small_networks import loss_settings

    from geo_retina.nn.losses import _box_loss

    boxes = torch.tensor([[5.0, 5, 1.9, 0.6, 30], [5, 5, 2.1, 0.6, 30]])
    assert have_angle(boxes).sum(dim=1).tolist() == [4, 8]
    anchors = torch.tensor([[3.0, 3, 7, 7]]).expand(2, 4)
    turned = boxes + torch.tensor([0, 0, 0, 0, 25.0])
    deltas = encode_rotated(anchors, turned).requires_grad_()
    loss = _box_loss(deltas, anchors, boxes, loss_settings()).sum(dim=1)
    assert float(loss[0].detach()) < 1e-5
    assert float(loss[1].detach()) > 0.1
    loss.sum().backward()
    assert not deltas.grad[0, 4:].any()
    assert float(deltas.grad[1, 4:].abs().max()) > 0


def target(boxes: Tensor) -> Target:
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Target(hull(boxes), labels, torch.zeros(0, 4), None, boxes)


GRID = AnchorGrid([8], [(16.0,)], (1.0,), False)


@pytest.mark.parametrize("method", ["iou", "atss"])
def test_anchors_stand_for_the_box_and_not_for_its_hull(method):
    """A long box on the diagonal: anchors in the empty corners of its hull are background."""
    from support.small_networks import loss_settings

    settings = loss_settings(assign=method)
    boxes = torch.tensor([[64.0, 64, 100, 16, 45]])
    anchors = GRID((128, 128), "cpu")
    chosen = (assign(anchors, target(boxes), settings) == 0).nonzero()[:, 0]
    assert len(chosen)
    centres = (anchors[0][chosen, :2] + anchors[0][chosen, 2:]) / 2
    off_axis = (centres[:, 0] - centres[:, 1]).abs() / 2**0.5
    assert float(off_axis.max()) < 8 + 1e-6


def test_ious_of_assignment_are_with_oriented_boxes():
    from geo_retina.nn.assignment import assign_iou

    _, boxes = some(30)
    anchors = torch.cat(GRID((96, 96), "cpu"))
    found = assign_iou(
        anchors, hull(boxes), foreground_iou=0.3, background_iou=0.2, rotated_M5=boxes
    )
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    upright = torch.cat([centre, side, torch.zeros(len(anchors), 1)], dim=1)
    a, b = torch.cartesian_prod(torch.arange(len(anchors)), torch.arange(len(boxes))).T
    iou = pair_iou(upright[a], boxes[b]).view(len(anchors), -1).float()
    sure = iou.amax(dim=1) >= 0.3
    assert torch.equal(found[sure], iou.argmax(dim=1)[sure])
    assert ((found >= 0) >= sure).all()
    best = (iou == iou.amax(dim=0)) & (iou > 0)
    assert (found[best.any(dim=1)] >= 0).all()


def test_the_loss_is_nothing_for_the_truth_and_more_for_a_turn():
    from support.small_networks import loss_settings

    from geo_retina.nn.heads import Outputs

    settings = loss_settings(assign="atss")
    boxes = torch.tensor([[40.0, 40, 30, 10, 30], [90, 80, 12, 11.8, 10]])
    anchors = GRID((128, 128), "cpu")
    assigned = assign(anchors, target(boxes), settings).clamp(min=0)

    def loss(shown: Tensor) -> float:
        deltas = encode_rotated(anchors[0], shown[assigned])[None]
        outputs = Outputs([torch.zeros(1, len(anchors[0]), 1)], [deltas])
        return float(retinanet_loss(outputs, anchors, [target(boxes)], settings)["box_loss"])

    def turned(row: int, degrees: float) -> Tensor:
        shown = boxes.clone()
        shown[row, 4] += degrees
        return shown

    assert loss(boxes) < 1e-5
    assert loss(turned(0, 180)) < 1e-5
    assert loss(turned(0, 10)) > 0.01
    assert loss(turned(0, 90)) > loss(turned(0, 10))
    assert loss(turned(1, 90)) < 0.03  # a square looks the same
    assert loss(turned(1, 45)) > 0.01


def test_gradients_are_finite_and_point_to_the_box():
    """Of boxes that coincide, lie apart and are squares; a few steps bring them together."""
    from support.small_networks import loss_settings

    from geo_retina.nn.losses import _box_loss

    anchors, boxes = some(200)
    start = encode_rotated(anchors, boxes)
    start[50:, :4] += 0.3
    start[100:, 4:] = start[100:, 4:].roll(1, dims=0)
    deltas = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([deltas], lr=0.02)
    before = after = 0.0
    for step in range(60):
        loss = _box_loss(deltas, anchors, boxes, loss_settings()).sum()
        optimizer.zero_grad()
        loss.backward()
        assert bool(torch.isfinite(deltas.grad).all())
        optimizer.step()
        after = float(loss.detach())
        before = after if step == 0 else before
    assert after < 0.2 * before
