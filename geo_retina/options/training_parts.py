"""Parts of TrainOptions: each room of training takes the one that it needs.

They have no defaults, since TrainOptions has them, and no checks, since it makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geo_retina.options.data import SampleOptions
from geo_retina.options.detection import Precision

BestBy = Literal["auto", "f1", "f1_and_ap", "f1_band"]
"""What epochs are compared by."""


@dataclass(frozen=True, kw_only=True)
class CardTexts:
    """What people read on a model's card."""

    name: str
    description: str
    licence: str
    attribution: str


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What the weights are before training, and which of them stay."""

    weights: str | None
    pretrained: bool
    freeze: int | Literal["auto"]
    freeze_norms: bool


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How scenes are read and detections matched where a model is scored."""

    bands: tuple[int, ...] | None
    gsd_m: float | None
    radius_m: float | None
    precision: Precision
    oriented: bool = False
    """Labels count as oriented boxes."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How many samples are read, and by how many processes."""

    samples_per_epoch: int | None
    batch: int
    devices: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class UpdateOptions:
    """How a gradient moves the weights."""

    optimizer: Literal["adamw", "sgd"]
    momentum: float
    weight_decay: float
    warm_up: float
    clip_norm: float | None
    accumulate: int


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How long training lasts, and what is done after which epoch."""

    epochs: int
    patience: int | None
    validate_every: int
    picture_every: int
    best_by: BestBy


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the loop needs once data, network and loss are prepared."""

    samples: SampleOptions
    batches: BatchOptions
    updates: UpdateOptions
    schedule: ScheduleOptions
    lr: float | Literal["find"]
    ema: float
    precision: Precision
    nms_iou: float | None
    quantize: bool
    tensorboard: bool
    seed: int
