"""Finding a learning rate by trying many on a copy of the network.

The range test of Smith 2017 (arXiv:1506.01186): the rate grows from step to step, and the one
is taken at which the smoothed loss falls most steeply.
"""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geo_retina.errors import TrainingError
from geo_retina.files import new_file
from geo_retina.nn.losses import LossSettings, Target
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options.training_parts import UpdateOptions
from geo_retina.training.depthwise import fast_depthwise
from geo_retina.training.lightning_module import batch_losses, build_optimizer
from geo_retina.training.precision import TrainingPrecision

_LOWEST, _HIGHEST = 1e-6, 1.0
_STEPS = 60
_SMOOTHING = 0.8
_DIVERGED = 4.0  # times the least smoothed loss
_LEAST_STEPS = 10


@dataclass(frozen=True)
class RateTrial:
    """What was seen while the rate grew.

    Attributes:
        rates: tried, ascending.
        losses: smoothed, one for each rate.
        best: where the loss fell most steeply.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float

    def write(self, path: Path) -> None:
        """Write rates and losses as a CSV file."""
        with new_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["lr", "smoothed_loss"])
            writer.writerows(zip(self.rates, self.losses, strict=True))


def find_rate(
    network: RetinaNet,
    batches: Iterable[tuple[Tensor, list[Target]]],
    settings: LossSettings,
    updates: UpdateOptions,
    *,
    device: torch.device,
    precision: TrainingPrecision,
) -> RateTrial:
    """Try rates from 1e-6 to 1 for a step each, on a copy of the network.

    Args:
        network: not changed.
        batches: of samples; begun again where they end.
        settings: the loss.
        updates: how a gradient moves the weights.
        device: where to try.
        precision: of the passes through the network.

    Raises:
        TrainingError: the loss is not finite from the start, or never falls.
    """
    trial = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(trial, updates, _LOWEST)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with fast_depthwise(trial) if device.type == "cpu" else nullcontext():
        for step, batch in zip(range(_STEPS), _endless(batches), strict=False):
            rate = _LOWEST * (_HIGHEST / _LOWEST) ** (step / (_STEPS - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                parts = batch_losses(trial, _to(batch, device), settings)
            loss = _step(parts, optimizer, updates.clip_norm)
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smoothed = average / (1 - _SMOOTHING ** (step + 1))
            if not math.isfinite(smoothed) or smoothed > _DIVERGED * min([*losses, smoothed]):
                break
            rates.append(rate)
            losses.append(smoothed)
    return RateTrial(tuple(rates), tuple(losses), steepest(rates, losses))


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Find the rate at which the loss falls most steeply over the logarithm of the rate.

    Raises:
        TrainingError: there are few rates, or the loss never falls.
    """
    slope = np.gradient(np.asarray(losses), np.log(rates)) if len(rates) >= _LEAST_STEPS else None
    if slope is None or slope.min() >= 0:
        raise TrainingError(
            f"no learning rate could be found: of {len(rates)} rates tried from {_LOWEST:g} on "
            "none made the loss fall; give lr as a number, such as 1e-3"
        )
    return float(rates[int(slope.argmin())])


def _step(
    losses: dict[str, Tensor], optimizer: torch.optim.Optimizer, clip_norm: float | None
) -> float:
    """Move the weights once; the loss before it."""
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    loss.backward()
    if clip_norm is not None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, clip_norm)
    optimizer.step()
    return float(loss.detach())


def _to(batch: tuple[Tensor, list[Target]], device: torch.device) -> tuple[Tensor, list[Target]]:
    images, targets = batch
    moved = [Target(*(None if part is None else part.to(device) for part in t)) for t in targets]  # type: ignore[arg-type]
    return images.to(device), moved


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches
