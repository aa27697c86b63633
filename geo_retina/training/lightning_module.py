"""What Lightning trains: the step, the optimiser and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from geo_retina.nn.losses import (
    LossSettings,
    Target,
    at_least_one,
    inverse_frequency,
    retinanet_loss,
)
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import AssignOptions, LossOptions
from geo_retina.options.network import Boxes
from geo_retina.options.training_parts import UpdateOptions
from geo_retina.training.depthwise import fast_depthwise

_LAST = 1e-3  # share of the peak rate at the end
_EPOCH_SEED = 0x5EED  # keeps the random state of epochs apart from others of one seed


def loss_settings(
    loss: LossOptions,
    assign: AssignOptions,
    counts: Mapping[str, int],
    boxes: Boxes = "upright",
) -> LossSettings:
    """Convert the options to what the loss takes.

    Args:
        loss: what is minimised.
        assign: which anchors stand for which objects.
        counts: labels per class, in the order of the classes.
        boxes: kind of boxes that are found.
    """
    weights = None
    if loss.class_weights == "inverse":
        weights = inverse_frequency(torch.tensor(list(counts.values())))
    return LossSettings(
        classification=loss.classification,
        alpha=loss.alpha,
        gamma=loss.gamma,
        box=loss.box,
        beta=loss.beta,
        box_weight=loss.box_weight,
        class_weights=weights,
        assign=assign.chosen_for(boxes),
        foreground_iou=assign.foreground_iou,
        background_iou=assign.background_iou,
        atss_candidates=assign.atss_candidates,
    )


def batch_losses(
    network: RetinaNet, batch: tuple[Tensor, list[Target]], settings: LossSettings
) -> dict[str, Tensor]:
    """Compute the losses of a batch; where several processes share it, of this one's part."""
    images_NCHW, targets = batch
    images_NCHW = images_NCHW.to(memory_format=torch.channels_last)
    outputs = network(images_NCHW)
    anchors = network.anchors((images_NCHW.shape[2], images_NCHW.shape[3]), images_NCHW.device)
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    divisor = partial(_share_of_positives, device=images_NCHW.device) if together else at_least_one
    return retinanet_loss(outputs, anchors, targets, settings, divisor)


def _share_of_positives(positives: int, *, device: torch.device) -> float:
    """Average the positive anchors of all processes.

    The processes' gradients are averaged, so that the sum of all parts is divided by the
    positives of the whole batch, as it is on one device.
    """
    total = torch.tensor(float(positives), device=device)
    torch.distributed.all_reduce(total)
    return max(float(total), 1.0) / torch.distributed.get_world_size()


def build_optimizer(network: nn.Module, updates: UpdateOptions, lr: float) -> Optimizer:
    """Build AdamW or SGD over what is trained; norms and biases do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": updates.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if updates.optimizer == "sgd":
        momentum = updates.momentum
        return SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    return AdamW(groups, lr=lr)


class RetinaNetTask(pl.LightningModule):
    """A RetinaNet on the way to a minimum of its loss.

    Args:
        network: trained in place.
        settings: the loss.
        updates: how a gradient moves the weights.
        lr: peak of the schedule.
        seed: of the run.

    Attributes:
        losses: sums of the losses over the steps of this epoch, and their number.
    """

    def __init__(
        self,
        network: RetinaNet,
        settings: LossSettings,
        updates: UpdateOptions,
        *,
        lr: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._settings = settings
        self._updates = updates
        self._lr = lr
        self._seed = seed
        self._patches = ExitStack()
        self.losses: dict[str, Tensor] = {}

    def on_fit_start(self) -> None:
        """Compute depthwise convolutions on a CPU as is fast there."""
        if self.device.type == "cpu":
            self._patches.enter_context(fast_depthwise(self.network))

    def on_fit_end(self) -> None:
        """Undo what ``on_fit_start`` did."""
        self._patches.close()

    def on_train_epoch_start(self) -> None:
        """Start the epoch's tally."""
        self.losses = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Give the epoch its random state, which depends on seed and epoch alone.

        A resumed training so has the random state of an unbroken one. The loader, which draws from
        it in its own ways when it begins, has begun by now.
        """
        if batch_idx == 0:
            place = [self._seed, _EPOCH_SEED, self.current_epoch, self.global_rank]
            random = np.random.SeedSequence(place).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(random >> 1))

    def training_step(self, batch: tuple[Tensor, list[Target]], batch_idx: int) -> Tensor:
        """Compute the loss of a batch."""
        losses = batch_losses(self.network, batch, self._settings)
        # Summed on the device: reading a number would wait for it at every step.
        tally = {**{k: v.detach() for k, v in losses.items()}, "steps": torch.ones(())}
        self.losses = {k: self.losses.get(k, 0) + v for k, v in tally.items()}
        total = torch.stack(list(losses.values())).sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(batch[0]))
        return total

    def epoch_losses(self) -> dict[str, float]:
        """Average the losses over the steps of this epoch so far, on all devices."""
        steps = float(self.losses["steps"])
        means = {k: v / steps for k, v in self.losses.items() if k != "steps"}
        reduce = self.trainer.strategy.reduce
        return {k: float(reduce(v, reduce_op="mean")) for k, v in means.items()}

    def configure_optimizers(self) -> dict[str, Any]:
        """Build the optimiser under a schedule that rises to the peak rate and falls from it."""
        optimizer = build_optimizer(self.network, self._updates, self._lr)
        shape = partial(
            rise_and_fall,
            steps=int(self.trainer.estimated_stepping_batches),
            warm_up=self._updates.warm_up,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def rise_and_fall(step: int, *, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine.

    Args:
        step: from 0.
        steps: of the whole training, 1 or more.
        warm_up: share of the steps that rise; one step rises at the least.

    Returns:
        Above 0, and 1 at the end of the rise.
    """
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    fall = min(1.0, (step - rise + 1) / max(1, steps - rise))
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * fall)) / 2
