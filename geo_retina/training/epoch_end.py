"""What happens after every epoch: it is recorded, scored, compared with the best, and drawn."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from geo_retina.errors import TrainingError
from geo_retina.model import Card, Model, build_network
from geo_retina.options import RunOptions
from geo_retina.options.training_parts import ScheduleOptions
from geo_retina.plots import draw_training_curves
from geo_retina.training.ema import AverageWeights
from geo_retina.training.lightning_module import RetinaNetTask
from geo_retina.training.run_folder import RunFolder
from geo_retina.training.validation.epoch_measure import Measure, choose_measure
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.nms_search import scored
from geo_retina.training.validation.pictures import choose_places, draw_places
from geo_retina.training.validation.scoring import validate

log = logging.getLogger(__name__)

_CURVES_EVERY_S = 10.0
"""Drawing takes longer than a short epoch does."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far.

    Attributes:
        epoch: its number, from 1.
        value: what it was chosen by.
        weights: the averaged weights after it.
        card: with its thresholds and scores.
    """

    epoch: int
    value: float
    weights: Mapping[str, Tensor]
    card: Card


@dataclass(eq=False)
class Validation(Callback):
    """Scores the averaged weights on the validation ground, and keeps the best.

    Attributes:
        card: of the model, without scores.
        average: the weights that are scored.
        ground: what they are scored on.
        schedule: after which epoch to do what.
        device: where to detect; left out, where they are trained.
        folder: where the record and pictures go.
        seed: of the run.
        history: one record per epoch: losses, and scores where it was validated.
        best: the best epoch; None before the first validation.
    """

    card: Card
    average: AverageWeights
    ground: ValidationGround
    schedule: ScheduleOptions
    device: torch.device
    folder: RunFolder
    seed: int
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    _curves_drawn_s: float = -math.inf

    @property
    def exhausted(self) -> bool:
        """Whether so many validations in a row were no better that training should end."""
        values = [value for _, value in self._validated()]
        if self.schedule.patience is None or not values:
            return False
        # An epoch that only equals the best is kept, but is no better.
        return len(values) - 1 - values.index(max(values)) >= self.schedule.patience

    @property
    def measure(self) -> Measure:
        """What epochs are compared by; also the name of its value in the history."""
        by_radius = self.ground.options.radius_m is not None
        return choose_measure(self.schedule.best_by, by_radius=by_radius)

    def _validated(self) -> list[tuple[int, float]]:
        """List the epochs that were validated, each with what it is compared by."""
        name = self.measure
        return [(each["epoch"], each[name]) for each in self.history if name in each]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a run again that had ended early when it was killed."""
        trainer.should_stop = trainer.should_stop or self.exhausted

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch, and score it where it is due; one process does it for all."""
        assert isinstance(pl_module, RetinaNetTask)
        epoch = trainer.current_epoch + 1
        losses = pl_module.epoch_losses()
        due = epoch % self.schedule.validate_every == 0 or epoch == self.schedule.epochs
        if trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            record: dict[str, Any] = {"epoch": epoch, **losses, "lr": float(rate)}
            if due:
                record |= self._score(epoch)
            self.history.append(record)
            self.folder.write_epochs(self.history)
            if time.monotonic() >= self._curves_drawn_s + _CURVES_EVERY_S:
                self._draw_curves()
            self._tell_loggers(trainer, record)
            log.info("%s", record)
        trainer.should_stop = bool(
            trainer.strategy.broadcast(trainer.should_stop or self.exhausted)
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the curves with the last epochs, which may have been short."""
        if trainer.is_global_zero:
            self._draw_curves()

    def _draw_curves(self) -> None:
        draw_training_curves(self.history, self.folder.path / "training.png")
        self._curves_drawn_s = time.monotonic()

    def _tell_loggers(self, trainer: pl.Trainer, record: Mapping[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({f"epoch_{k}": v for k, v in record.items()}, trainer.global_step)
            logger.save()

    def _score(self, epoch: int) -> dict[str, float]:
        # Serves the caller's thread count and random state only by accident, so that is restored.
        with torch.random.fork_rng(devices=[]):
            model = Model(self.average.network, self.card)
            scores = validate(model, self.ground, RunOptions(device=str(self.device)))
        value = scores.measure(self.measure)
        if self.best is None or value >= self.best.value:
            state = self.average.network.state_dict()
            weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
            self.best = Best(epoch, value, weights, scored(self.card, scores, self.ground))
        validations = 1 + len(self._validated())
        if self.schedule.picture_every and (validations - 1) % self.schedule.picture_every == 0:
            out = self.folder.path / "pictures" / f"epoch-{epoch:04d}.png"
            out.parent.mkdir(exist_ok=True)
            draw_places(self._places, self.ground, scores.found, out)
        return {**scores.numbers(), self.measure: value}

    @cached_property
    def _places(self) -> Any:
        """The same in every picture, so that they show what has changed."""
        return choose_places(self.ground, seed=self.seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint: plain values and tensors only."""
        best = None
        if self.best is not None:
            card = self.best.card.to_json()
            best = {"epoch": self.best.epoch, "value": self.best.value, "card": card}
            best["weights"] = dict(self.best.weights)
        return {"history": json.dumps(self.history), "best": best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self.history[:] = json.loads(state_dict["history"])
        best = state_dict["best"]
        self.best = best and Best(
            best["epoch"], best["value"], best["weights"], Card.from_json(best["card"])
        )

    def _decision(self, best: Best) -> dict[str, Any]:
        """Tell for the card which epoch was kept, by what, and how far it was ahead."""
        others = [each for each in self._validated() if each[0] != best.epoch]
        saved = {"best_epoch": best.epoch, "best_by": self.measure, "best_value": best.value}
        if not others:
            return saved
        epoch, value = max(others, key=lambda each: (each[1], each[0]))
        return {**saved, "next_epoch": epoch, "best_lead": best.value - value}

    def best_model(self, facts: Mapping[str, Any]) -> Model:
        """Build the network of the best epoch on the CPU; ``facts`` go into its training record.

        Raises:
            TrainingError: no epoch was validated.
        """
        if self.best is None:
            raise TrainingError(
                "training was stopped before its first validation, so there is no model"
            )
        record = {**facts, **self._decision(self.best), "history": self.history}
        card = self.best.card
        card = replace(card, training={**card.training, **record})
        card = Card.from_json(card.to_json())  # equal to what a reader of the file gets
        network = build_network(
            card.network, in_channels=len(card.bands), classes=len(card.classes)
        )
        network.load_state_dict(self.best.weights)
        return Model(network.eval(), card)
