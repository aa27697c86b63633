from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from support.small_networks import loss_settings, random_boxes
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.assignment import BACKGROUND, IGNORE
from geo_retina.nn.heads import Outputs
from geo_retina.nn.losses import (
    Target,
    assign,
    balanced_cross_entropy,
    cross_entropy,
    decode_deltas,
    encode_boxes,
    focal_loss,
    giou,
    inverse_frequency,
    l1,
    retinanet_loss,
    smooth_l1,
)


def sample() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(200, 5) * 4, (torch.rand(200, 5) < 0.3).float()


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 5.0), (0.25, 0.5)])
def test_focal_loss_equals_torchvision(alpha: float, gamma: float) -> None:
    logits, targets = sample()
    found = focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    expected = sigmoid_focal_loss(logits.double(), targets.double(), alpha=alpha, gamma=gamma)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-12)


def of_probability(q: float) -> Tensor:
    """The logit of a probability."""
    return torch.tensor([math.log(q / (1 - q))])


@pytest.mark.parametrize("q", [0.001, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_focal_loss_follows_the_formula(q: float, gamma: float, target: float) -> None:
    logit = of_probability(q if target else 1 - q)
    alpha = 0.25 if target else 0.75
    found = focal_loss(logit, torch.tensor([target]), alpha=0.25, gamma=gamma)
    assert float(found) == pytest.approx(-alpha * (1 - q) ** gamma * math.log(q), rel=1e-4)


@pytest.mark.parametrize("q", [0.001, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_gradient_follows_the_formula(q: float, gamma: float, target: float) -> None:
    """dFL/dq = alpha (1-q)^gamma [gamma log q / (1-q) - 1/q]; dq/dlogit = +-q (1-q)."""
    logit = of_probability(q if target else 1 - q).requires_grad_()
    alpha = 0.25 if target else 0.75
    focal_loss(logit, torch.tensor([target]), alpha=0.25, gamma=gamma).sum().backward()
    by_q = alpha * (1 - q) ** gamma * (gamma * math.log(q) / (1 - q) - 1 / q)
    by_logit = by_q * q * (1 - q) * (1 if target else -1)
    assert float(logit.grad) == pytest.approx(by_logit, rel=1e-3)


def test_easy_example_counts_a_hundredth_of_its_cross_entropy() -> None:
    logit, target = of_probability(0.9), torch.ones(1)
    focal = focal_loss(logit, target, alpha=1.0, gamma=2.0)
    assert float(focal / cross_entropy(logit, target)) == pytest.approx(0.01, rel=1e-5)


def test_easy_examples_outweigh_hard_ones_only_without_focus() -> None:
    """100,000 at cross entropy 0.1 against 100 at 2.3: 43 to 1, about 6 to 1 by focal loss."""
    easy, hard = (of_probability(math.exp(-loss)) for loss in (0.1, 2.3))
    one = torch.ones(1)

    def ratio(loss: Tensor, other: Tensor) -> float:
        return 100_000 * float(loss) / (100 * float(other))

    assert ratio(cross_entropy(easy, one), cross_entropy(hard, one)) == pytest.approx(
        43.5, rel=1e-2
    )
    plain = ratio(*(balanced_cross_entropy(x, one, alpha=0.25) for x in (easy, hard)))
    assert round(plain) == 43
    focused = ratio(*(focal_loss(x, one, alpha=0.25, gamma=2.0) for x in (easy, hard)))
    expected = 43.478 * ((1 - math.exp(-0.1)) / (1 - math.exp(-2.3))) ** 2
    assert focused == pytest.approx(expected, rel=1e-3)
    assert focused < 1


def test_balanced_is_focal_without_focus_and_ce_without_balance() -> None:
    logits, targets = sample()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets), bce)
    balanced = balanced_cross_entropy(logits, targets, alpha=0.3)
    torch.testing.assert_close(balanced, focal_loss(logits, targets, alpha=0.3, gamma=0.0))
    torch.testing.assert_close(balanced, torch.where(targets > 0, 0.3, 0.7) * bce)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite(gamma: float, dtype: torch.dtype) -> None:
    extremes = [-1e4, -200.0, -100.0, 0.0, 100.0, 200.0, 1e4]
    logits = torch.tensor(extremes * 2, dtype=dtype, requires_grad=True)
    targets = torch.tensor([0.0] * 7 + [1.0] * 7)
    loss = focal_loss(logits, targets, alpha=0.25, gamma=gamma)
    loss.sum().backward()
    loss = loss.detach()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    # Wrong by 100 costs 100 and still pulls; right by 100 costs nothing.
    assert float(loss[4]) == pytest.approx(75.0, rel=1e-3)
    assert float(logits.grad[4]) == pytest.approx(0.75, rel=1e-2)
    assert float(loss[2]) < 1e-30
    assert float(logits.grad[2]) == pytest.approx(0, abs=1e-30)


def test_a_class_without_labels_weighs_as_the_rarest() -> None:
    weights = inverse_frequency(torch.tensor([90, 0, 10]))
    assert weights[1] == weights[2]
    assert float(weights[2] / weights[0]) == pytest.approx(9, rel=0.02)
    assert torch.equal(inverse_frequency(torch.tensor([0, 0])), torch.ones(2))


def test_class_weights_by_inverse_frequency() -> None:
    weights = inverse_frequency(torch.tensor([900, 90, 10]))
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[1] / weights[0]) == pytest.approx(0.901 / 0.091, rel=1e-4)
    assert float(weights[2] / weights[0]) == pytest.approx(0.901 / 0.011, rel=1e-4)
    assert inverse_frequency(torch.tensor([5, 0])).isfinite().all()


def paired_boxes(count: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    anchors = random_boxes(count, 100, (10, 40), generator)
    return anchors, random_boxes(count, 100, (5, 60), generator)


def test_offsets_equal_torchvisions_coder() -> None:
    anchors, boxes = paired_boxes()
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(encode_boxes(anchors, boxes), coder.encode_single(boxes, anchors))
    deltas = torch.randn(50, 4) * 3
    expected = coder.decode_single(deltas, anchors)
    torch.testing.assert_close(decode_deltas(anchors, deltas), expected)
    assert (deltas[:, 2:] > math.log(1000 / 16)).any()


def test_decoding_inverts_encoding() -> None:
    anchors, boxes = paired_boxes()
    again = decode_deltas(anchors, encode_boxes(anchors, boxes))
    torch.testing.assert_close(again, boxes, rtol=1e-5, atol=1e-4)


def test_box_without_extent_encodes_finitely() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    assert encode_boxes(anchors, torch.tensor([[3.0, 3, 3, 7]])).isfinite().all()


def test_giou_equals_torchvision() -> None:
    found, wanted = paired_boxes()
    expected = generalized_box_iou_loss(found, wanted, reduction="none")
    torch.testing.assert_close(giou(found, wanted), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(giou(wanted, wanted), torch.zeros(50), rtol=0, atol=1e-6)


def test_smooth_l1_and_l1() -> None:
    found = torch.tensor([0.0, 0.05, 0.1, 1.0, -2.0])
    zero = torch.zeros(5)
    expected = torch.tensor([0.0, 0.0125, 0.05, 0.95, 1.95])
    torch.testing.assert_close(smooth_l1(found, zero, beta=0.1), expected)
    torch.testing.assert_close(l1(found, zero), found.abs())
    torch.testing.assert_close(smooth_l1(found, zero, beta=0.0), found.abs())


GRID = AnchorGrid((8, 16), ((16.0,), (32.0,)), (1.0, 2.0), False)
SIZE = 64


def batch(classes: int = 3) -> tuple[Outputs, list[Tensor], list[Target]]:
    torch.manual_seed(0)
    anchors = GRID((SIZE, SIZE), "cpu")
    generator = torch.Generator().manual_seed(1)
    targets = [
        Target(
            random_boxes(count, SIZE, (8, 40), generator),
            torch.randint(0, classes, (count,), generator=generator),
            torch.zeros(0, 4),
            None,
        )
        for count in (4, 0, 2)
    ]
    outputs = Outputs(
        [torch.randn(3, len(a), classes, requires_grad=True) for a in anchors],
        [(torch.randn(3, len(a), 4) * 0.3).requires_grad_() for a in anchors],
    )
    return outputs, anchors, targets


@pytest.mark.parametrize("box", ["smooth_l1", "l1", "giou"])
@pytest.mark.parametrize("classification", ["focal", "balanced", "ce"])
def test_batch_loss_equals_one_written_out_anchor_by_anchor(
    classification: Literal["focal", "balanced", "ce"], box: Literal["smooth_l1", "l1", "giou"]
) -> None:
    outputs, anchors, targets = batch()
    weights = torch.tensor([0.5, 1.0, 1.5])
    settings = loss_settings(
        classification=classification, box=box, class_weights=weights, box_weight=2.0
    )
    logits, deltas, every = (
        torch.cat(outputs.logits, 1),
        torch.cat(outputs.deltas, 1),
        torch.cat(anchors),
    )
    gamma, alpha = {"focal": (2, 0.25), "balanced": (0, 0.25), "ce": (0, -1)}[classification]
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    class_sum, box_sum, positives = 0.0, 0.0, 0
    for n, target in enumerate(targets):
        for a, m in enumerate(assign(anchors, target, settings).tolist()):
            if m == IGNORE:
                continue
            truth = torch.zeros(3)
            if m >= 0:
                positives += 1
                truth[target.labels_M[m]] = 1
                wanted = coder.encode_single(target.boxes_M4[m][None], every[a][None])
                if box == "giou":
                    moved = coder.decode_single(deltas[n, a][None], every[a][None])
                    box_sum += generalized_box_iou_loss(moved, target.boxes_M4[m][None]).sum()
                else:
                    beta = 1 / 9 if box == "smooth_l1" else 0.0
                    box_sum += torch.nn.functional.smooth_l1_loss(
                        deltas[n, a], wanted[0], reduction="sum", beta=beta
                    )
            loss = sigmoid_focal_loss(logits[n, a], truth, alpha=alpha, gamma=gamma)
            class_sum += (loss * weights).sum()
    found = retinanet_loss(outputs, anchors, targets, settings)
    assert positives >= 8
    torch.testing.assert_close(found["class_loss"], class_sum / positives)
    torch.testing.assert_close(found["box_loss"], 2 * box_sum / positives)


def test_ignored_ground_and_regions_carry_no_gradient() -> None:
    outputs, anchors, targets = batch()
    ground = torch.ones(SIZE, SIZE, dtype=torch.bool)
    ground[:, : SIZE // 2] = False
    region = torch.tensor([[0.0, 32, 64, 64]])
    targets = [target._replace(ground_HW=ground, ignore_I4=region) for target in targets]
    settings = loss_settings()
    sum(retinanet_loss(outputs, anchors, targets, settings).values()).backward()
    grad = torch.cat([level.grad for level in outputs.logits], dim=1)
    assigned = torch.stack([assign(anchors, target, settings) for target in targets])
    centre = torch.cat(anchors).view(-1, 2, 2).mean(dim=1)
    unlabelled = (centre[:, 0] < SIZE // 2) & (assigned == BACKGROUND)
    assert not unlabelled.any()
    assert (assigned == IGNORE).any()
    assert (grad[assigned == IGNORE] == 0).all()
    assert (grad[assigned != IGNORE] != 0).all()
    box_grad = torch.cat([level.grad for level in outputs.deltas], dim=1)
    assert (box_grad[assigned < 0] == 0).all()


@pytest.mark.parametrize("method", ["iou", "atss"])
def test_batch_without_objects_is_finite_and_has_gradients(
    method: Literal["iou", "atss"],
) -> None:
    outputs, anchors, targets = batch()
    empty = [
        Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), t.ignore_I4, None)
        for t in targets
    ]
    losses = retinanet_loss(outputs, anchors, empty, loss_settings(assign=method))
    sum(losses.values()).backward()
    assert losses["box_loss"] == 0
    assert losses["class_loss"] > 0
    assert all(level.grad.isfinite().all() for level in (*outputs.logits, *outputs.deltas))


def test_half_precision_outputs_give_float32_losses() -> None:
    outputs, anchors, targets = batch()
    half = Outputs(*([level.bfloat16() for level in part] for part in outputs))
    with torch.autocast("cpu", torch.bfloat16):
        found = retinanet_loss(half, anchors, targets, loss_settings(box="giou"))
    expected = retinanet_loss(outputs, anchors, targets, loss_settings(box="giou"))
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=2e-2, atol=1e-3)


def test_atss_is_an_option_of_the_loss() -> None:
    outputs, anchors, targets = batch()
    by_iou, by_atss = (
        retinanet_loss(outputs, anchors, targets, loss_settings(assign=method))
        for method in ("iou", "atss")
    )
    assert by_iou["class_loss"] != by_atss["class_loss"]
