"""What is done with the model of the best epoch: suppression, the test's score, integers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from geo_retina.dataset.samples import TrainSamples
from geo_retina.errors import ModelError
from geo_retina.model import Card, Model
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.quantizing import measure
from geo_retina.options import RunOptions
from geo_retina.options.training_parts import LoopOptions
from geo_retina.training.setup import Preparation
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.integer_cost import (
    FEWEST_LABELS,
    find_cost,
    with_quantization,
)
from geo_retina.training.validation.nms_search import search_nms_iou
from geo_retina.training.validation.scoring import validate

log = logging.getLogger(__name__)

_WINDOWS = 64


def finish(
    model: Model,
    prepared: Preparation,
    samples: TrainSamples,
    options: LoopOptions,
    run: RunOptions,
) -> Model:
    """Settle what the loop left open.

    Args:
        model: of the best epoch.
        prepared: with validation and test ground.
        samples: of training ground, which ranges of integers are measured on.
        options: whether suppression is searched for, and ranges measured.
        run: how detections are carried out.
    """
    if options.nms_iou is None:
        model = search_nms_iou(model, prepared.val_ground, run)
    # In floating point, whatever is installed: scores of trainings are compared.
    model = score_test_ground(model, prepared, run)
    return quantize_trained(model, samples, prepared.val_ground, run) if options.quantize else model


def score_test_ground(model: Model, prepared: Preparation, run: RunOptions) -> Model:
    """Score the finished model on the test ground, if there is any; it selects nothing."""
    if prepared.test is None:
        return model
    scores = validate(model, prepared.test, run, model.card.thresholds)
    metrics = {
        **model.card.metrics,
        "test": scores.to_dict(),
        "test_measured_on": prepared.test.measured_on,
    }
    card = replace(model.card, metrics=metrics)
    return replace(model, card=Card.from_json(card.to_json()))


def quantize_trained(
    model: Model, samples: TrainSamples, ground: ValidationGround, run: RunOptions
) -> Model:
    """Measure ranges of integers on training windows, and their cost on validation ground.

    A network whose layers cannot be folded stays as it is, with a warning.
    """
    try:
        folded = fold_batch_norms(model.network).eval()
    except ModelError as error:
        log.warning("no ranges of 8-bit integers were measured: %s", error)
        return model
    quantized = replace(model, quantization=measure(folded, _Windows(samples)))
    about: dict[str, Any] = {"tiles": _WINDOWS, "tiles_from": "training windows"}
    if ground.objects < FEWEST_LABELS:
        about |= {"labels": ground.objects, "cost": "not measurable"}
        return with_quantization(quantized, about, None)
    try:
        cost = find_cost(quantized, ground, run)
    except ModelError as error:  # a training is not lost because a runtime cannot compute it
        log.warning("what 8-bit integers cost was not measured: %s", error)
        return with_quantization(quantized, about, None)
    log.info("8-bit integers: %s", cost.text())
    if cost.is_high:
        log.warning("integers cost this model much, so auto stays in floating point")
    return with_quantization(quantized, about, cost)


@dataclass(frozen=True, eq=False)
class _Windows:
    """Windows of training ground as the network sees them, one half around objects."""

    samples: TrainSamples

    def __iter__(self) -> Iterator[Tensor]:
        for number in range(_WINDOWS):
            scene, window = self.samples.window(number, balanced=number % 2 == 0)
            yield self.samples.read(self.samples.scenes[scene], window).image_CHW[None]
