"""The network as OpenVINO computes it, on a CPU, in 8-bit integers or in floating point.

Shapes: N tiles of a batch, C bands or channels, H W size, A anchors per cell, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import product

import torch
from torch import Tensor, nn

from geo_retina.engine.compute_slots import slots_of
from geo_retina.engine.devices import BATCH_PX
from geo_retina.engine.limits import Limits
from geo_retina.engine.openvino_graphs import Arithmetic, Graph, GraphMaker
from geo_retina.errors import ModelError
from geo_retina.model import Model
from geo_retina.nn.decoding import Decoded, boxes_wanted, decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.heads import Outputs, Subnet
from geo_retina.nn.quantizing import OuterRanges, quantize
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.tta import average_views
from geo_retina.options import DetectOptions

_PATCH_CELLS = 32
"""Side of the squares that boxes are computed in where objects are few."""


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
        self._quantized = options.precision == "int8"
        self._ranges = (
            OuterRanges.of(model.network, model.quantization)
            if self._quantized and model.quantization is not None
            else None
        )
        self._limits = Limits.of(model.card, options, self.device)
        arithmetic = Arithmetic(options.precision, torch.get_num_threads(), self.batches_at_once)
        self._graphs = GraphMaker(model.fingerprint, arithmetic)

    def batch_size(self, tile_px: int) -> int:
        """Count the tiles of a size that are handed over at once."""
        return self._batch or max(1, BATCH_PX["cpu"] // tile_px**2)

    def predict(self, tiles_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        """Find the boxes in a batch, as ``Predictor`` says."""
        shape = (tiles_NCHW.shape[2], tiles_NCHW.shape[3])
        network = self._model.network
        parts: list[Outputs] = []
        left: list[list[bool]] = []
        for tile_NCHW in tiles_NCHW.split(1):
            left.append([])  # one mark a view
            compute = partial(self._outputs, left=left[-1], all_boxes=all_boxes or self._tta > 1)
            parts.append(
                average_views(compute, network.anchor_grid, tile_NCHW, self._tta)
                if self._tta > 1
                else compute(tile_NCHW)
            )
        outputs = Outputs(
            *(
                [torch.cat(level) for level in zip(*each, strict=True)]
                for each in zip(*parts, strict=True)
            )
        )
        anchors = network.anchors(shape, self.device)
        decoded = decode(outputs, anchors, shape, self._limits.for_shape(shape))
        if self._ranges is None:
            return decoded
        return decoded._replace(out_of_range_N=torch.tensor([any(marks) for marks in left]))

    def _outputs(self, tile_NCHW: Tensor, *, left: list[bool], all_boxes: bool) -> Outputs:
        """Compute a tile's logits, and its box offsets where they may be asked for.

        Args:
            tile_NCHW: one tile.
            left: is told whether ranges of integers are left.
            all_boxes: compute offsets everywhere.
        """
        graph = self._graphs.graph(
            "classes", lambda: _Classes(self._network), tuple(tile_NCHW.shape)
        )
        found = graph(tile_NCHW)
        levels, logits = found[: len(found) // 2], found[len(found) // 2 :]
        if self._ranges is not None:
            left.append(self._ranges.are_left(tile_NCHW, levels))
        if all_boxes:
            wanted = [torch.ones(each.shape[:2], dtype=torch.bool) for each in logits]
        else:
            wanted = boxes_wanted(logits, self._limits.settings)
        return Outputs(logits, [self._boxes(*each) for each in zip(levels, wanted, strict=True)])

    def _boxes(self, level_NCHW: Tensor, wanted: Tensor) -> Tensor:
        """Compute the box offsets of a level around the cells where they are wanted."""
        _, _, height, width = level_NCHW.shape
        subnet = self._model.network.box_subnet
        cells = wanted.reshape(height, width, -1)
        deltas = level_NCHW.new_zeros(*cells.shape, subnet.outputs_per_anchor)
        here = cells.any(dim=-1)
        for rows, cols, core in _patches(here, reach_of(subnet)):
            part_NCHW = level_NCHW[:, :, rows, cols]
            found = self._box_graph(tuple(part_NCHW.shape))(part_NCHW)[0]
            found = found.reshape(*cells[rows, cols].shape, -1)
            deltas[rows, cols][core] = found[core]
        return deltas.flatten(0, 2)[None]

    def _box_graph(self, shape: tuple[int, ...]) -> Graph:
        return self._graphs.graph("boxes", lambda: _Boxes(self._network), shape)

    @cached_property
    def _network(self) -> RetinaNet:
        """The network that graphs are made from: batch norms folded, rounding as it is computed."""
        folded = fold_batch_norms(copy.deepcopy(self._model.network)).eval()
        if not self._quantized:
            return folded
        if self._model.quantization is None:
            raise ModelError(
                f"model {self._model.card.name} has no quantization; make one with "
                "geo-retina quantize"
            )
        return quantize(folded, self._model.quantization)


class _Classes(nn.Module):
    """The pyramid's levels, and the logits of each."""

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Compute them in one tuple."""
        levels = self.network.pyramid(self.network.backbone(images_NCHW))
        return (*levels, *self.network.class_subnet(levels))


class _Boxes(nn.Module):
    """The box offsets of one level."""

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.subnet = network.box_subnet

    def forward(self, level_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Compute them."""
        return tuple(self.subnet([level_NCHW]))


_Core = tuple[slice, slice]


def reach_of(subnet: Subnet) -> int | None:
    """Count cells that a subnet's output depends on to each side; None for all of the level."""
    if any(isinstance(norm, nn.GroupNorm) for norm in subnet.norms):
        return None
    return len(subnet.convs) + 1


def _patches(wanted: Tensor, reach: int | None) -> Iterator[tuple[slice, slice, _Core]]:
    """Cover the wanted cells of a level with squares, or with the whole level where that is less.

    Args:
        wanted: (H, W) bool.
        reach: cells that an output depends on to each side.

    Yields:
        Rows and columns of a part, and within it the cells that come out as from the whole.
    """
    height, width = wanted.shape
    whole = slice(0, height), slice(0, width), (slice(None), slice(None))
    if not wanted.any():
        return
    if reach is None:
        yield whole
        return
    parts = [
        (rows, cols, (row_core, col_core))
        for (rows, row_core), (cols, col_core) in product(
            _strips(height, reach), _strips(width, reach)
        )
        if wanted[rows, cols][row_core, col_core].any()
    ]
    areas = sum((r.stop - r.start) * (c.stop - c.start) for r, c, _ in parts)
    yield from parts if areas < height * width else [whole]


def _strips(side: int, reach: int) -> list[tuple[slice, slice]]:
    """Cut a side into strips that overlap, all equally long, and name what is right in each."""
    long = max(_PATCH_CELLS, 4 * reach)
    if side <= long:
        return [(slice(0, side), slice(0, side))]
    starts = [*range(0, side - long, long - 2 * reach), side - long]
    return [
        (
            slice(start, start + long),
            slice(reach if start else 0, long - (reach if start + long < side else 0)),
        )
        for start in starts
    ]
