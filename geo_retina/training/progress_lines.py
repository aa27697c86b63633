"""How far a training is, for whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from geo_retina.training.epoch_end import Validation

_SCORES = ("f1", "precision", "recall", "ap50", "ap", "f1_and_ap", "f1_band")
_NO_LOSS = (*_SCORES, "epoch", "lr")


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        epoch: the epoch that runs or has just ended, from 1.
        epochs: of the whole training; it may end earlier.
        step: batches done of this epoch.
        steps: batches of an epoch.
        losses: means over the last epoch that ended; empty before.
        scores: of the validation that has just ended; empty where there was none.
        seconds_left: at the rate since training began or was resumed, validations included.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Mapping[str, float]
    scores: Mapping[str, float]
    seconds_left: float | None


class Telling(Callback):
    """Tells how far a training is.

    Args:
        tell: called with it, on the process that validates.
        validation: has the record of the epochs; its hooks run before this one's.
    """

    def __init__(self, tell: Callable[[TrainProgress], None], validation: Validation) -> None:
        self._tell = tell
        self._validation = validation
        self._start = 0.0
        self._first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time, from the epoch that a resumed run goes on with."""
        self._start = time.monotonic()
        self._first = trainer.current_epoch
        self._say(trainer, 0)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report a step; the last one of an epoch is reported with the epoch."""
        if batch_idx + 1 < trainer.num_training_batches:
            self._say(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report an epoch, with its losses and scores."""
        self._say(trainer, int(trainer.num_training_batches))

    def _say(self, trainer: pl.Trainer, step: int) -> None:
        if not trainer.is_global_zero:
            return
        epoch, steps = trainer.current_epoch, int(trainer.num_training_batches)
        done = epoch - self._first + step / max(1, steps)
        epochs = trainer.max_epochs or 0
        spent = time.monotonic() - self._start
        left = spent / done * (epochs - self._first - done) if done else None
        record = self._validation.history[-1] if self._validation.history else {}
        is_new = record.get("epoch") == epoch + 1
        losses = {k: v for k, v in record.items() if k not in _NO_LOSS}
        scores = {k: record[k] for k in _SCORES if is_new and k in record}
        self._tell(TrainProgress(epoch + 1, epochs, step, steps, losses, scores, left))
