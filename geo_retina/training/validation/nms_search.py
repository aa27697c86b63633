"""Which detections suppress each other: chosen on the validation ground, once for a model."""

from __future__ import annotations

from dataclasses import replace

from geo_retina.model import Card, Model
from geo_retina.options import RunOptions
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import ValidationScores, validate

_NMS_IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""What is tried when a model's suppression is chosen."""

_POINTS_NMS_IOU = 0.3
"""Where it begins for points: boxes of one size around the same object overlap less than boxes
that show its extent."""


def search_nms_iou(model: Model, ground: ValidationGround, run: RunOptions) -> Model:
    """Choose the IoU of suppression with the best F1 on validation ground, and its thresholds.

    From where validation stood, lower and higher ones are tried as long as they are better.

    Args:
        model: with the scores of that ground on its card.
        ground: where.
        run: how detections are carried out.

    Returns:
        The same network; the card has the better suppression, its thresholds and its scores.
    """
    best, best_f1 = model.card, model.card.metrics["val"]["overall"]["f1"] or 0.0
    start = best.nms_iou
    for tried in (
        [value for value in reversed(_NMS_IOUS) if value < start],
        [value for value in _NMS_IOUS if value > start],
    ):
        for nms_iou in tried:
            card = replace(model.card, nms_iou=nms_iou)
            scores = validate(replace(model, card=card), ground, run)
            if scores.f1 <= best_f1:
                break
            best, best_f1 = scored(card, scores, ground), scores.f1
        if best.nms_iou != start:
            break
    return replace(model, card=best)


def scored(card: Card, scores: ValidationScores, ground: ValidationGround) -> Card:
    """Write thresholds and scores on the validation ground to the card."""
    metrics = {**card.metrics, "val": scores.to_dict(), "measured_on": ground.measured_on}
    return replace(card, thresholds=scores.thresholds, metrics=metrics)


def first_nms_iou(ground: ValidationGround, given: float | None) -> float:
    """Choose the IoU of suppression in validations, before the best one is searched."""
    if given is not None:
        return given
    return Card.nms_iou if ground.options.radius_m is None else _POINTS_NMS_IOU
