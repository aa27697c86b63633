"""Losses of classes and boxes, computed from logits in float32.

Shapes: N batch, A anchors of all levels, K classes, M objects, P positive anchors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from geo_retina.nn.assignment import BACKGROUND, IGNORE, assign_atss, assign_iou, mask_ignored
from geo_retina.nn.heads import Outputs
from geo_retina.nn.rotated_coding import are_oriented, decode_rotated, encode_rotated, have_angle
from geo_retina.nn.rotated_overlap import pair_iou

_GREATEST_LOG_SCALE = math.log(1000 / 16)
_LEAST_SIDE_PX = 1e-3


class Target(NamedTuple):
    """The labels of one image, in its pixels."""

    boxes_M4: Tensor
    """float32 x_min y_min x_max y_max; M may be 0."""

    labels_M: Tensor
    """int64 classes, from 0."""

    ignore_I4: Tensor
    """Regions that are neither object nor background; I may be 0."""

    ground_HW: Tensor | None
    """bool, True where the image was labelled; None means everywhere."""

    rotated_M5: Tensor | None = None
    """float32 oriented boxes of the objects, whose hulls ``boxes_M4`` are; None if upright."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LossSettings:
    """What training minimises, and which anchors stand for objects.

    Attributes:
        classification: ``focal``, ``balanced`` (focal at gamma 0) or ``ce``.
        alpha: weight of objects; background weighs 1 - alpha. Not used by ``ce``.
        gamma: focusing exponent of ``focal``.
        box: ``smooth_l1`` or ``l1`` on the offsets, with 1 - IoU beside it of oriented boxes;
            ``giou`` on the boxes.
        beta: where smooth L1 turns from square to linear.
        box_weight: factor on the box loss.
        class_weights: (K,) factors on the class loss, or None.
        assign: ``iou`` or ``atss``.
        foreground_iou: see ``assign_iou``.
        background_iou: see ``assign_iou``.
        atss_candidates: see ``assign_atss``.
    """

    classification: Literal["focal", "balanced", "ce"]
    alpha: float
    gamma: float
    box: Literal["smooth_l1", "l1", "giou"]
    beta: float
    box_weight: float
    class_weights: Tensor | None
    assign: Literal["iou", "atss"]
    foreground_iou: float
    background_iou: float
    atss_candidates: int


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute -log q elementwise, q the probability of the true side; targets are 0 or 1."""
    return functional.softplus(_wrong_way(logits, targets))


def balanced_cross_entropy(logits: Tensor, targets: Tensor, *, alpha: float) -> Tensor:
    """Compute -alpha log q elementwise where the target is 1, -(1 - alpha) log q where 0."""
    return _balance(targets, alpha) * cross_entropy(logits, targets)


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Compute the focal loss of Lin et al. 2017 (arXiv:1708.02002, equation 5), elementwise.

    FL(q) = -alpha_t (1 - q)^gamma log q, with q the probability of the true side. Both factors
    come from the logits through softplus, so that values and gradients stay finite however
    sure or wrong the network is.

    Args:
        logits: any shape.
        targets: 0 or 1, of that shape.
        alpha: weight of targets 1; targets 0 weigh 1 - alpha.
        gamma: focusing exponent, 0 or more.

    Returns:
        The loss of every element, float32.
    """
    wrong = _wrong_way(logits, targets)
    modulation = torch.exp(-gamma * functional.softplus(-wrong))
    return _balance(targets, alpha) * modulation * functional.softplus(wrong)


def inverse_frequency(counts_K: Tensor) -> Tensor:
    """Compute (K,) float32 class weights 1 / (f + eps), f a class's share of labels; mean 1.

    A class without labels, which would outweigh all others, weighs as the rarest that has some.
    """
    share = counts_K.double() / counts_K.sum().clamp(min=1)
    if bool((share > 0).any()):
        share = share.clamp(min=share[share > 0].min())
    weights = 1 / (share + 1e-3)
    return (weights / weights.mean()).float()


def smooth_l1(found: Tensor, expected: Tensor, *, beta: float) -> Tensor:
    """Compute 0.5 d^2 / beta elementwise for differences d below beta, |d| - beta / 2 above."""
    return functional.smooth_l1_loss(found, expected, reduction="none", beta=beta)


def l1(found: Tensor, expected: Tensor) -> Tensor:
    """Compute |d| elementwise."""
    return (found - expected).abs()


def giou(found_P4: Tensor, wanted_P4: Tensor) -> Tensor:
    """Compute (P,) 1 - GIoU of boxes (Rezatofighi et al. 2019, arXiv:1902.09630), from 0 to 2."""
    inner = torch.minimum(found_P4[:, 2:], wanted_P4[:, 2:]) - torch.maximum(
        found_P4[:, :2], wanted_P4[:, :2]
    )
    outer = torch.maximum(found_P4[:, 2:], wanted_P4[:, 2:]) - torch.minimum(
        found_P4[:, :2], wanted_P4[:, :2]
    )
    overlap, hull = inner.clamp(min=0).prod(dim=1), outer.prod(dim=1)
    areas = (found_P4[:, 2:] - found_P4[:, :2]).prod(dim=1)
    union = areas + (wanted_P4[:, 2:] - wanted_P4[:, :2]).prod(dim=1) - overlap
    least = _LEAST_SIDE_PX**2
    return 1 - overlap / union.clamp(min=least) + (hull - union) / hull.clamp(min=least)


def encode_boxes(anchors_P4: Tensor, boxes_P4: Tensor) -> Tensor:
    """Encode (P, 4) offsets dx, dy, dw, dh that lead from each anchor to its box.

    Shifts are in anchor sides, scales are logarithms. Sides of boxes under 0.001 px count as
    0.001 px, so that the result is finite.
    """
    side = anchors_P4[:, 2:] - anchors_P4[:, :2]
    shift = (boxes_P4[:, :2] + boxes_P4[:, 2:] - anchors_P4[:, :2] - anchors_P4[:, 2:]) / 2
    scale = (boxes_P4[:, 2:] - boxes_P4[:, :2]).clamp(min=_LEAST_SIDE_PX)
    return torch.cat([shift / side, (scale / side).log()], dim=1)


def decode_deltas(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Decode boxes (..., 4) that the offsets lead to; the inverse of ``encode_boxes``.

    A box grows to at most 62.5 times its anchor's side, as in torchvision.
    """
    side = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * side + deltas[..., :2] * side
    half = 0.5 * deltas[..., 2:].clamp(max=_GREATEST_LOG_SCALE).exp() * side
    return torch.cat([centre - half, centre + half], dim=-1)


def at_least_one(positives: int) -> float:
    """Divide a batch on one device by its number of positive anchors, or by 1."""
    return float(max(positives, 1))


def retinanet_loss(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    targets: Sequence[Target],
    settings: LossSettings,
    divisor: Callable[[int], float] = at_least_one,
) -> dict[str, Tensor]:
    """Compute the losses of a batch.

    Args:
        outputs: the network's, in any floating dtype.
        anchors: (A_l, 4) per level.
        targets: one per image, on the outputs' device.
        settings: what to minimise.
        divisor: from the number of positive anchors to what the sums are divided by; where
            several processes share a batch, it asks the others.

    Returns:
        ``class_loss`` and ``box_loss``, float32 scalars; their sum is to be minimised
        (``box_weight`` is in). Both are sums over the batch divided by its number of positive
        anchors, at least 1, or by what ``divisor`` says. Ignored anchors have no part in either.
    """
    logits_NAK = torch.cat(outputs.logits, dim=1).float()
    deltas_NAD = torch.cat(outputs.deltas, dim=1)
    oriented = are_oriented(deltas_NAD)
    if not oriented:
        targets = [target._replace(rotated_M5=None) for target in targets]
    anchors_A4 = torch.cat(list(anchors))
    with torch.no_grad():
        assigned_NA = torch.stack([assign(anchors, target, settings) for target in targets])
        image, anchor = (assigned_NA >= 0).nonzero(as_tuple=True)
        counts = torch.tensor([len(t.labels_M) for t in targets], device=assigned_NA.device)
        target = assigned_NA[image, anchor] + (counts.cumsum(0) - counts)[image]
        boxes_PB = torch.cat([_boxes_of(t) for t in targets])[target]
        labels_P = torch.cat([t.labels_M for t in targets])[target]
        wanted_NAK = torch.zeros_like(logits_NAK)
        wanted_NAK[image, anchor, labels_P] = 1.0
    positives = divisor(len(image))
    class_NAK = _class_loss(logits_NAK, wanted_NAK, settings)
    class_NAK = class_NAK.masked_fill((assigned_NA == IGNORE)[..., None], 0.0)
    box = _box_loss(deltas_NAD[image, anchor].float(), anchors_A4[anchor], boxes_PB, settings)
    return {
        "class_loss": class_NAK.sum() / positives,
        "box_loss": settings.box_weight * box.sum() / positives,
    }


def assign(anchors: Sequence[Tensor], target: Target, settings: LossSettings) -> Tensor:
    """Assign (A,) an object to each anchor of an image, by the settings' method.

    Anchors that would stand for an ignored box, or for nothing because of it, are no background
    either: one may be much larger than the box, and yet be its best.
    """
    anchors_A4 = torch.cat(list(anchors))
    found = _assign(anchors, anchors_A4, target.boxes_M4, settings, target.rotated_M5)
    if len(target.ignore_I4):
        touched = _assign(anchors, anchors_A4, target.ignore_I4, settings) != BACKGROUND
        found = found.masked_fill(touched & (found == BACKGROUND), IGNORE)
    return mask_ignored(found, anchors_A4, target.ignore_I4, target.ground_HW)


def _assign(
    anchors: Sequence[Tensor],
    anchors_A4: Tensor,
    boxes_M4: Tensor,
    settings: LossSettings,
    rotated_M5: Tensor | None = None,
) -> Tensor:
    if settings.assign == "atss":
        return assign_atss(
            anchors, boxes_M4, candidates=settings.atss_candidates, rotated_M5=rotated_M5
        )
    return assign_iou(
        anchors_A4,
        boxes_M4,
        foreground_iou=settings.foreground_iou,
        background_iou=settings.background_iou,
        rotated_M5=rotated_M5,
    )


def _boxes_of(target: Target) -> Tensor:
    """Take what a network is to find: (M, 4), or (M, 5) of oriented boxes."""
    return target.boxes_M4 if target.rotated_M5 is None else target.rotated_M5


def _wrong_way(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the logit of the wrong side: log((1 - q) / q)."""
    return logits.float() * (1 - 2 * targets.float())


def _balance(targets: Tensor, alpha: float) -> Tensor:
    return (1 - alpha) + (2 * alpha - 1) * targets.float()


def _class_loss(logits_NAK: Tensor, wanted_NAK: Tensor, settings: LossSettings) -> Tensor:
    if settings.classification == "ce":
        loss = cross_entropy(logits_NAK, wanted_NAK)
    elif settings.classification == "balanced":
        loss = balanced_cross_entropy(logits_NAK, wanted_NAK, alpha=settings.alpha)
    else:
        loss = focal_loss(logits_NAK, wanted_NAK, alpha=settings.alpha, gamma=settings.gamma)
    return loss if settings.class_weights is None else loss * settings.class_weights.to(loss)


def _box_loss(
    deltas_PD: Tensor, anchors_P4: Tensor, boxes_PB: Tensor, settings: LossSettings
) -> Tensor:
    if settings.box == "giou":
        return giou(decode_deltas(anchors_P4, deltas_PD), boxes_PB)
    oriented = are_oriented(deltas_PD)
    encode = encode_rotated if oriented else encode_boxes
    wanted_PD = encode(anchors_P4, boxes_PB)
    if settings.box == "l1":
        loss_PD = l1(deltas_PD, wanted_PD)
    else:
        loss_PD = smooth_l1(deltas_PD, wanted_PD, beta=settings.beta)
    if not oriented:
        return loss_PD
    # An error of the centre or the angle costs a long, thin box most of its overlap.
    found_P5, told_P8 = decode_rotated(anchors_P4, deltas_PD), have_angle(boxes_PB)
    angle_P = found_P5[:, 4].where(told_P8[:, -1], boxes_PB[:, 4])
    found_P5 = torch.cat([found_P5[:, :4], angle_P[:, None]], dim=1)
    iou_P = pair_iou(found_P5, boxes_PB).to(loss_PD)
    return torch.cat([loss_PD.where(told_P8, 0.0), 1 - iou_P[:, None]], dim=1)
