"""Hard negatives: what the model itself finds, on training ground, where nothing is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchvision.ops import box_iou

from geo_retina.dataset.augment import Sample
from geo_retina.dataset.samples import EpochSampler, TrainSamples
from geo_retina.dataset.windows import Spot
from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.rotated_overlap import pair_iou
from geo_retina.options import SampleOptions
from geo_retina.training.ema import AverageWeights

log = logging.getLogger(__name__)

_SCORE = 0.3  # a find from this score on is worth learning from
_FAR_IOU = 0.1  # a find that overlaps an object of its class by less is false
_MOST = 1000  # false positives kept, the best-scored ones
_EPOCH_SHARE = 4  # as many windows are looked at as an epoch has samples, over this
_SETTINGS = DecodeSettings(thresholds=_SCORE, candidates=1000, nms_iou=0.5, max_per_image=300)


@torch.no_grad()
def mine(
    network: RetinaNet, samples: TrainSamples, numbers: Sequence[int], batch: int
) -> list[Spot]:
    """Detect in windows of the training ground, and list what is found where nothing is.

    The windows are those of samples before augmentation, so no other ground is looked at. A
    find is false when it overlaps no object of its class, touches no ignored box, and its centre
    lies on labelled ground.

    Args:
        network: in evaluation mode; on whatever device it is.
        samples: the training ground.
        numbers: of the windows, which are drawn by number.
        batch: windows through the network at once.

    Returns:
        The centres of the false positives, the best-scored first, 1000 at the most.
    """
    device = next(network.parameters()).device
    found: list[tuple[float, Spot]] = []
    remaining = iter(numbers)
    while chosen := [samples.window(number) for number in islice(remaining, batch)]:
        shown = [samples.read(samples.scenes[scene], window) for scene, window in chosen]
        images = torch.stack([sample.image_CHW for sample in shown]).to(device)
        shape = (images.shape[2], images.shape[3])
        outputs = network(images.to(memory_format=torch.channels_last))
        decoded = decode(outputs, network.anchors(shape, device), shape, _SETTINGS)
        for i, ((scene, window), sample) in enumerate(zip(chosen, shown, strict=True)):
            own = decoded.image_M == i
            boxes, scores = decoded.boxes_M4[own].cpu().float(), decoded.scores_M[own].cpu()
            rotated = decoded.rotated_M5
            angles = None if rotated is None else rotated[own].cpu().float()
            false = is_false(boxes, decoded.labels_M[own].cpu(), sample, angles)
            centres = ((boxes[:, :2] + boxes[:, 2:]) / 2)[false].tolist()
            for (x, y), score in zip(centres, scores[false].tolist(), strict=True):
                found.append((score, Spot(scene, window.col + x, window.row + y)))
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    return [spot for _, spot in found[:_MOST]]


def is_false(
    boxes_P4: Tensor, labels_P: Tensor, sample: Sample, rotated_P5: Tensor | None = None
) -> Tensor:
    """Find (P,) detections in a sample's pixels where nothing of their class is.

    Oriented boxes are compared with the oriented ones of the sample, whose hulls overlap others
    that lie beside them.
    """
    far = torch.ones(len(boxes_P4), dtype=torch.bool)
    if len(sample.boxes_M4):
        same = labels_P[:, None] == sample.labels_M[None]
        if rotated_P5 is None or sample.rotated_M5 is None:
            iou = box_iou(boxes_P4, sample.boxes_M4)
        else:
            iou = _rotated_iou(rotated_P5, sample.rotated_M5)
        far = (iou * same).amax(dim=1) < _FAR_IOU
    if len(sample.ignore_I4):
        far &= box_iou(boxes_P4, sample.ignore_I4).amax(dim=1) == 0  # touching is in doubt
    centre = ((boxes_P4[:, :2] + boxes_P4[:, 2:]) / 2).floor().long()
    height, width = sample.ground_HW.shape
    x, y = centre[:, 0].clamp(0, width - 1), centre[:, 1].clamp(0, height - 1)
    return far & sample.ground_HW[y, x]


def _rotated_iou(found_P5: Tensor, objects_M5: Tensor) -> Tensor:
    """Compute (P, M) IoU of the oriented boxes of one window, which are few."""
    shape = (len(found_P5), len(objects_M5), 5)
    one, other = found_P5[:, None].expand(shape), objects_M5[None].expand(shape)
    return pair_iou(one.reshape(-1, 5), other.reshape(-1, 5)).view(shape[:2]).float()


class MineHardNegatives(Callback):
    """After every epoch from one on, looks for false positives, and has samples drawn around them.

    It looks at a quarter as many windows as an epoch has samples, without gradients, which
    costs about a tenth of the epoch's time.

    Args:
        average: the weights that look.
        samples: the training ground.
        sampler: that draws samples around what was found.
        options: from which epoch on.
        batch: windows through the network at once.
    """

    def __init__(
        self,
        average: AverageWeights,
        samples: TrainSamples,
        sampler: EpochSampler,
        options: SampleOptions,
        *,
        batch: int,
    ) -> None:
        self._average = average
        self._samples = samples
        self._sampler = sampler
        self._from = options.hard_from_epoch
        self._batch = batch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for false positives; one process does it for all."""
        epoch = trainer.current_epoch + 1
        if self._from is None or epoch < self._from or epoch == trainer.max_epochs:
            return
        found: list[Any] = [None]
        if trainer.is_global_zero:
            windows = max(self._batch, len(self._sampler) // _EPOCH_SHARE)
            numbers = range(epoch * windows, (epoch + 1) * windows)
            found = [mine(self._average.network, self._samples, numbers, self._batch)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(found)
        self._sampler.hard = tuple(found[0])
        log.info("%d false positives to draw samples around", len(self._sampler.hard))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint."""
        rows = np.array(self._sampler.hard, dtype=np.float64).reshape(-1, 3)
        return {"hard": torch.from_numpy(rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state from a checkpoint, before the first sample is drawn."""
        rows = state_dict["hard"].tolist()
        self._sampler.hard = tuple(Spot(int(scene), x, y) for scene, x, y in rows)
