"""Keep a moving average of the weights, which is what is validated and saved."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from geo_retina.nn.retinanet import RetinaNet
from geo_retina.training.lightning_module import RetinaNetTask


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
        """Follow the trained network to its device.

        Processes that share batches begin with tensors in memory that is one for all, where
        each would move the average again; a copy is this one's own.
        """
        self.network = copy.deepcopy(self.network).to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Move the average towards the weights, where they have moved."""
        assert isinstance(pl_module, RetinaNetTask)
        if trainer.global_step == self._steps:  # gradients are still being gathered
            return
        self._steps = trainer.global_step
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        own = list(self.network.state_dict().values())
        new = list(pl_module.network.state_dict().values())
        floats = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        torch._foreach_lerp_([own[i] for i in floats], [new[i] for i in floats], 1 - decay)
        for i in set(range(len(own))) - set(floats):
            own[i].copy_(new[i])

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint."""
        return {"steps": self._steps, "network": self.network.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self._steps = state_dict["steps"]
        self.network.load_state_dict(state_dict["network"])
