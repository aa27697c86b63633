"""The network as OpenVINO computes it, on a CPU, in 8-bit integers or in floating point.

Shapes: N tiles of a batch, C bands or channels, H W size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from geo_retina.engine.compute_slots import slots_of
from geo_retina.engine.devices import BATCH_PX
from geo_retina.engine.limits import Limits
from geo_retina.engine.openvino_graphs import Arithmetic, GraphMaker
from geo_retina.engine.windows import windows_around
from geo_retina.errors import ModelError
from geo_retina.model import Model
from geo_retina.nn.decoding import Decoded, boxes_wanted, decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.heads import Outputs, Subnet
from geo_retina.nn.predictor import Numbers
from geo_retina.nn.quantizing import Rounding, outer_roundings, quantize, sparse
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.tta import average_views
from geo_retina.options import DetectOptions


class OpenVinoPredictor:
    """Predicts with a model's own network; a ``Predictor``.

    Graphs have fixed shapes and take one tile each, so that a tile's boxes do not depend on what
    it is in a batch with.

    Args:
        model: network and card, for integers with its quantization; not changed.
        options: what changes the result, its precision resolved.
        device: cpu.
        batch: tiles that are handed over at once; None for a number that suits a CPU.
    """

    def __init__(
        self, model: Model, options: DetectOptions, *, device: str, batch: int | None
    ) -> None:
        self.device = torch.device("cpu")
        self.batches_at_once = slots_of(self.device, torch.bfloat16)
        self._batch = batch
        self._tta = options.tta
        self._model = model
        self._image: Rounding | None = None
        self._levels: Rounding | None = None
        if options.precision == "int8":
            if model.quantization is None:
                raise ModelError(
                    f"model {model.card.name} has no quantization; make one with "
                    "geo-retina quantize"
                )
            self._image, self._levels = outer_roundings(model.network, model.quantization)
        radiometry = model.card.radiometry
        self._normalise = _Normalise(radiometry.offset, radiometry.scale)
        self._limits = Limits.of(model.card, options, self.device)
        arithmetic = Arithmetic(options.precision, torch.get_num_threads(), self.batches_at_once)
        self._graphs = GraphMaker(model.fingerprint, arithmetic)

    def batch_size(self, tile_px: int) -> int:
        """Count the tiles of a size that are handed over at once."""
        return self._batch or max(1, BATCH_PX["cpu"] // tile_px**2)

    @property
    def takes_numbers(self) -> bool:
        """Whether tiles may come as their file has them: integers need no floating point."""
        return self._image is not None and self._tta == 1

    def predict(self, tiles_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch, as ``Predictor`` says."""
        return self._predict(tiles_NCHW, all_boxes=all_boxes)

    def predict_numbers(self, tiles: Numbers, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch whose tiles the graph normalises."""
        return self._predict(*tiles, all_boxes=all_boxes)

    def _predict(self, *tiles: Tensor, all_boxes: bool) -> Decoded:
        """Compute tile by tile, and decode together.

        Args:
            tiles: (N, ...) normalised, or their numbers and which of them are shown.
            all_boxes: compute offsets everywhere.
        """
        parts: list[Outputs] = []
        left: list[list[bool]] = []
        for tile in zip(*(each.split(1) for each in tiles), strict=True):
            left.append([])  # one mark a view
            compute = partial(self._outputs, left=left[-1], all_boxes=all_boxes or self._tta > 1)
            parts.append(
                average_views(compute, self._model.network.anchor_grid, tile[0], self._tta)
                if self._tta > 1
                else compute(*tile)
            )
        shape = (tiles[0].shape[2], tiles[0].shape[3])
        outputs = Outputs(
            *(
                [torch.cat(level) for level in zip(*each, strict=True)]
                for each in zip(*parts, strict=True)
            )
        )
        anchors = self._model.network.anchors(shape, self.device)
        decoded = decode(outputs, anchors, shape, self._limits.for_shape(shape))
        if self._image is None:
            return decoded
        return decoded._replace(out_of_range_N=torch.tensor([any(marks) for marks in left]))

    def _outputs(self, *tile: Tensor, left: list[bool], all_boxes: bool) -> Outputs:
        """Compute a tile's logits, and its box offsets where they may be asked for.

        Args:
            tile: normalised, or its numbers and which of them are shown.
            left: is told whether ranges of integers are left.
            all_boxes: compute offsets everywhere.
        """
        normalise = self._normalise if len(tile) > 1 else nn.Identity()
        graph = self._graphs.graph(
            "classes", lambda: _Classes(self._network, normalise, self._levels), *tile
        )
        with graph.computed(*tile) as found:
            levels = found[: len(found) // 2]
            logits = [each.clone() for each in found[len(found) // 2 :]]
            if self._image is not None and self._levels is not None:
                image_NCHW = normalise(*(sparse(each, 2) for each in tile))
                left.append(
                    self._image.is_left(image_NCHW)
                    or any(self._levels.is_left_by(sparse(each, 1)) for each in levels)
                )
            if all_boxes:
                wanted = [torch.ones(each.shape[:2], dtype=torch.bool) for each in logits]
            else:
                wanted = boxes_wanted(logits, self._limits.settings)
            deltas = [self._boxes(*each) for each in zip(levels, wanted, strict=True)]
        return Outputs(logits, deltas)

    def _boxes(self, level_NHWC: Tensor, wanted: Tensor) -> Tensor:
        """Compute the box offsets of a level around the cells where they are wanted."""
        _, height, width, _ = level_NHWC.shape
        subnet = self._model.network.box_subnet
        cells = wanted.numpy().reshape(height, width, -1)
        deltas = np.zeros((*cells.shape, subnet.outputs_per_anchor), np.float32)
        windows = windows_around(np.logical_or.reduce(cells, axis=-1), reach_of(subnet))
        if windows is None:
            graph = self._graphs.graph(
                "boxes", lambda: _Boxes(self._network, self._levels), level_NHWC
            )
            with graph.computed(level_NHWC) as (found,):
                deltas[:] = found.numpy().reshape(deltas.shape)
        else:
            level = level_NHWC.numpy()[0]
            for some in windows:
                given = torch.from_numpy(level[some.rows, some.cols]), torch.from_numpy(some.inside)
                graph = self._graphs.graph(
                    "some boxes", lambda: _SomeBoxes(self._network, self._levels), *given
                )
                with graph.computed(*given) as (found,):
                    some.put(found.numpy(), deltas)
        return torch.from_numpy(deltas).flatten(0, 2)[None]

    @cached_property
    def _network(self) -> RetinaNet:
        """The network that graphs are made from: batch norms folded, rounding as it is computed."""
        folded = fold_batch_norms(copy.deepcopy(self._model.network)).eval()
        if self._image is None or self._model.quantization is None:
            return folded
        return quantize(folded, self._model.quantization)


class _Normalise(nn.Module):
    """Pixels of a file to the network's input; 0 where they are not to be shown."""

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset).view(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1))

    def forward(self, pixels_NCHW: Tensor, shown_N1HW: Tensor) -> Tensor:
        """Normalise."""
        return (pixels_NCHW.float() - self.offset) / self.scale * shown_N1HW.float()


class _Classes(nn.Module):
    """The pyramid's levels, channels last and rounded, and the logits of each."""

    def __init__(self, network: RetinaNet, normalise: nn.Module, rounding: Rounding | None) -> None:
        super().__init__()
        self.network, self.normalise, self._rounding = network, normalise, rounding

    def forward(self, *tile: Tensor) -> tuple[Tensor, ...]:
        """Compute them in one tuple."""
        levels = self.network.pyramid(self.network.backbone(self.normalise(*tile)))
        given = levels if self._rounding is None else map(self._rounding.integers, levels)
        return (*(each.permute(0, 2, 3, 1) for each in given), *self.network.class_subnet(levels))


class _Boxes(nn.Module):
    """The box offsets of one level, or a part of it, given as ``_Classes`` has it."""

    def __init__(self, network: RetinaNet, rounding: Rounding | None) -> None:
        super().__init__()
        self.subnet, self._rounding = network.box_subnet, rounding

    def forward(self, level_NHWC: Tensor) -> tuple[Tensor, ...]:
        """Compute them."""
        level_NCHW = level_NHWC.permute(0, 3, 1, 2)
        if self._rounding is not None:
            level_NCHW = self._rounding.values(level_NCHW)
        return tuple(self.subnet([level_NCHW]))


class _SomeBoxes(nn.Module):
    """The box offsets in the middle of windows of a level, given as ``_Classes`` has it.

    Each convolution leaves out the windows' outermost cells. What it would see beyond the level is
    0, as where the whole level is padded.
    """

    def __init__(self, network: RetinaNet, rounding: Rounding | None) -> None:
        super().__init__()
        self.subnet, self._rounding = copy.deepcopy(network.box_subnet), rounding
        for module in self.subnet.modules():
            if isinstance(module, nn.Conv2d):
                module.padding = (0, 0)

    def forward(self, windows_NHWC: Tensor, inside_NHW: Tensor) -> tuple[Tensor, ...]:
        """Compute them, in (N, h, w, outputs)."""
        hidden_NCHW = windows_NHWC.permute(0, 3, 1, 2)
        if self._rounding is not None:
            hidden_NCHW = self._rounding.values(hidden_NCHW)
        inside_N1HW = inside_NHW[:, None].float()
        hidden_NCHW = hidden_NCHW * inside_N1HW
        subnet = self.subnet
        for conv, norm, act in zip(subnet.convs, subnet.norms, subnet.activations, strict=True):
            inside_N1HW = inside_N1HW[:, :, 1:-1, 1:-1]
            hidden_NCHW = act(norm(conv(hidden_NCHW))) * inside_N1HW
        return (subnet.output(hidden_NCHW).permute(0, 2, 3, 1),)


def reach_of(subnet: Subnet) -> int | None:
    """Count cells that a subnet's output depends on to each side; None for all of the level."""
    if any(isinstance(norm, nn.GroupNorm) for norm in subnet.norms):
        return None
    return len(subnet.convs) + 1
