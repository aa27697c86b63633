"""The network as PyTorch computes it, on a CPU or a GPU.

Shapes: N tiles of a batch, C bands, H W size of a tile.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from geo_retina.engine.compute_slots import slots_of
from geo_retina.engine.devices import BATCH_PX, choose_device, choose_dtype
from geo_retina.engine.limits import Limits
from geo_retina.model import Model
from geo_retina.nn.decoding import Decoded, DecodeSettings, boxes_wanted, decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.fusing import fuse_layers
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.tta import average_views
from geo_retina.options import DetectOptions


class TorchPredictor:
    """Predicts with a model's own network; a ``Predictor``.

    Args:
        model: network and card; the network is copied, not changed.
        options: what changes the result.
        device: name of a device, or auto.
        batch: tiles through the network at once; None for a number that suits the device.
    """

    def __init__(
        self,
        model: Model,
        options: DetectOptions,
        *,
        device: str = "auto",
        batch: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(options.precision, self.device)
        self.batches_at_once = slots_of(self.device, self.dtype)
        self._batch = batch
        self._tta = options.tta
        self._network = _inference_copy(model.network, self.device, self.dtype)
        self._limits = Limits.of(model.card, options, self.device)

    def batch_size(self, tile_px: int) -> int:
        """Count the tiles of a size that go through the network at once."""
        return self._batch or max(1, BATCH_PX[self.device.type] // tile_px**2)

    def predict(self, tiles_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch, as ``Predictor`` says."""
        tiles_NCHW = tiles_NCHW.to(dtype=self.dtype, memory_format=torch.channels_last)
        shape = (tiles_NCHW.shape[2], tiles_NCHW.shape[3])
        if self._tta > 1:
            outputs = average_views(self._network, self._network.anchor_grid, tiles_NCHW, self._tta)
        elif self.device.type == "cpu" and not all_boxes:
            select = partial(boxes_wanted, settings=self._limits.settings)
            outputs = self._network.forward_at(tiles_NCHW, select)
        else:  # a GPU would wait to hear where
            outputs = self._network(tiles_NCHW)
        anchors = self._network.anchors(shape, self.device)
        return decode(outputs, anchors, shape, self.settings_for(shape))

    def settings_for(self, shape: tuple[int, int]) -> DecodeSettings:
        """Choose what becomes a detection in tiles of a size."""
        return self._limits.for_shape(shape)


def _inference_copy(network: RetinaNet, device: torch.device, dtype: torch.dtype) -> RetinaNet:
    """Copy a network to a device, with what inference does not need to do apart merged."""
    copied = fold_batch_norms(network).to(device, dtype).to(memory_format=torch.channels_last)
    return fuse_layers(copied) if device.type == "cpu" else copied
