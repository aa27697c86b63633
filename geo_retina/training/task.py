"""What Lightning trains: the step, the optimiser and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from geo_retina.nn.losses import LossSettings, Target, inverse_frequency, retinanet_loss
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import TrainOptions

_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_LAST = 1e-3  # share of the peak rate at the end


def loss_settings(options: TrainOptions, counts: Mapping[str, int]) -> LossSettings:
    """The options as the loss takes them.

    Args:
        options: of the run.
        counts: labels per class, in the order of the classes.
    """
    weights = None
    if options.loss.class_weights == "inverse":
        weights = inverse_frequency(torch.tensor(list(counts.values())))
    return LossSettings(
        classification=options.loss.classification,
        alpha=options.loss.alpha,
        gamma=options.loss.gamma,
        box=options.loss.box,
        beta=options.loss.beta,
        box_weight=options.loss.box_weight,
        class_weights=weights,
        assign=options.assign.method,
        foreground_iou=options.assign.foreground_iou,
        background_iou=options.assign.background_iou,
        atss_candidates=options.assign.atss_candidates,
    )


class RetinaNetTask(pl.LightningModule):
    """A RetinaNet on the way to a minimum of its loss.

    Args:
        network: trained in place.
        settings: the loss.
        lr: peak of the one-cycle schedule.
        weight_decay: of AdamW, on kernels only.

    Attributes:
        losses: sums of the losses over the steps of this epoch, and their number.
    """

    def __init__(
        self, network: RetinaNet, settings: LossSettings, *, lr: float, weight_decay: float
    ) -> None:
        super().__init__()
        self.network = network
        self._settings = settings
        self._lr = lr
        self._weight_decay = weight_decay
        self.losses: dict[str, Tensor] = {}

    def on_train_epoch_start(self) -> None:
        """Start the epoch's tally."""
        self.losses = {}

    def training_step(self, batch: tuple[Tensor, list[Target]], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        images_NCHW, targets = batch
        images_NCHW = images_NCHW.to(memory_format=torch.channels_last)
        outputs = self.network(images_NCHW)
        shape = (images_NCHW.shape[2], images_NCHW.shape[3])
        anchors = self.network.anchors(shape, images_NCHW.device)
        losses = retinanet_loss(outputs, anchors, targets, self._settings)
        # Summed on the device: reading a number would wait for it at every step.
        tally = {**{k: v.detach() for k, v in losses.items()}, "steps": torch.ones(())}
        self.losses = {k: self.losses.get(k, 0) + v for k, v in tally.items()}
        total = torch.stack(list(losses.values())).sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(images_NCHW))
        return total

    def epoch_losses(self) -> dict[str, float]:
        """Mean losses over the steps of this epoch so far."""
        steps = float(self.losses["steps"])
        return {k: float(v) / steps for k, v in self.losses.items() if k != "steps"}

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule; norms and biases do not decay."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self._weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._lr)
        shape = partial(one_cycle, steps=int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def one_cycle(step: int, *, steps: int) -> float:
    """Share of the peak learning rate at a step: a short linear rise, then half a cosine.

    Smith and Topin 2017 (arXiv:1708.07120), in a form that also serves a handful of steps.

    Args:
        step: from 0.
        steps: of the whole training, 1 or more.

    Returns:
        Above 0, and 1 at the end of the rise.
    """
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    fall = min(1.0, (step - rise + 1) / max(1, steps - rise))
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * fall)) / 2


class AverageWeights(Callback):
    """Keeps an exponential moving average of the weights, which scores better than the last.

    Early in training, when the weights still move fast, the average forgets faster: its decay
    after n steps is at most (1 + n) / (10 + n).

    Args:
        network: the network that is trained.
        decay: share that the average keeps at each step; 0 makes it the network itself.

    Attributes:
        network: the averaged network, in evaluation mode.
    """

    def __init__(self, network: RetinaNet, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._steps = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Follow the trained network to its device."""
        self.network.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Move the average towards the weights."""
        assert isinstance(pl_module, RetinaNetTask)
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        own = list(self.network.state_dict().values())
        new = list(pl_module.network.state_dict().values())
        floats = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        torch._foreach_lerp_([own[i] for i in floats], [new[i] for i in floats], 1 - decay)
        for i in set(range(len(own))) - set(floats):
            own[i].copy_(new[i])

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"steps": self._steps, "network": self.network.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._steps = state_dict["steps"]
        self.network.load_state_dict(state_dict["network"])
