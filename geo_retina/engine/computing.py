"""The engine: a network on one device, fed with batches of tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_retina.detections import Detections
from geo_retina.engine.compute_slots import ComputeSlots
from geo_retina.engine.devices import BATCH_PX, choose_device, choose_dtype
from geo_retina.engine.mirroring import Mirrored, fill, mirror
from geo_retina.engine.pixels import BlockDetections, BlockPixels, Stopped, inside
from geo_retina.engine.to_grid import move_to_grid
from geo_retina.grid import Tile
from geo_retina.model import Card, Model
from geo_retina.nn.decoding import Decoded, DecodeSettings, boxes_wanted, decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.fusing import fuse_layers
from geo_retina.nn.tta import average_views
from geo_retina.options import DetectOptions
from geo_retina.scene import ValueMap

_Found = tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.int64]]
"""Boxes, scores and labels of one image."""

_Owned = tuple[int, Tile]
"""A tile, and the position of its block."""


class _Staged(NamedTuple):
    """A block on its way to the device, or there.

    Attributes:
        raw: (bands, height, width) pixels.
        valid: (height, width) bool.
        mirrored: what tiles with invalid pixels or padding are filled with, by index; on this
            machine.
    """

    raw: Tensor
    valid: Tensor
    mirrored: dict[int, Mirrored]


_PEAK_BYTES_PER_PX = 400
"""Activations alive at once per input pixel: 64 channels at stride 2 in 4 bytes, and copies."""


class Engine:
    """A model made ready on one device; safe to share between threads.

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
        self.card: Card = model.card
        self._batch = batch
        self._reduced_batch: int | None = None
        self._edge_px = options.merge.edge_px
        self._tta = options.tta
        self._network = (
            fold_batch_norms(model.network)
            .to(self.device, self.dtype)
            .to(memory_format=torch.channels_last)
        )
        if self.device.type == "cpu":
            self._network = fuse_layers(self._network)
        thresholds = (
            self.card.thresholds
            if options.floor is None
            else (options.floor,) * len(self.card.classes)
        )
        self._decode = DecodeSettings(
            thresholds=torch.tensor(thresholds, device=self.device),
            candidates=options.candidates,
            nms_iou=self.card.nms_iou if options.nms_iou is None else options.nms_iou,
            max_per_image=options.max_per_tile,
        )
        radiometry = self.card.radiometry
        self._offset, self._scale = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (radiometry.offset, radiometry.scale)
        )
        self._slots = ComputeSlots(self.device, self.dtype)

    def detect(
        self, blocks: Sequence[BlockPixels], *, stopped: Callable[[], bool] | None = None
    ) -> list[BlockDetections]:
        """Find objects in blocks of one tile size; small blocks share batches.

        Where the device has too little memory for a batch, it is halved, and stays so.

        Args:
            blocks: pixels and tiles.
            stopped: asked before every batch whether the result is still wanted.

        Returns:
            One result per block, in the order given.

        Raises:
            Stopped: it is not.
        """
        found: list[list[Detections]] = [[] for _ in blocks]
        counts = np.zeros((len(blocks), 2), np.int64)  # tiles run, tiles truncated
        staged = [self._stage(block) for block in blocks]  # while another thread computes
        with self._slots.taken():
            uploaded = [self._upload(each) for each in staged]
            for batch in self._batches(blocks):
                if stopped is not None and stopped():
                    raise Stopped
                parts, truncated = self._forward_in_memory(
                    batch, lambda tiles: self._images(tiles, blocks, uploaded)
                )
                owners = [owner for owner, _ in batch]
                for (owner, tile), (boxes_tile, scores, labels) in zip(batch, parts, strict=True):
                    block = blocks[owner]
                    found[owner].append(
                        move_to_grid(boxes_tile, scores, labels, tile, block, self._edge_px)
                    )
                np.add.at(counts, owners, np.stack([np.ones_like(truncated), truncated], axis=1))
        return [
            BlockDetections(
                Detections.concat(parts),
                int(ran),
                len(block.tiles) - int(ran),
                int(truncated),
                self._reduced_batch,
            )
            for block, parts, (ran, truncated) in zip(blocks, found, counts, strict=True)
        ]

    @property
    def weight_bytes(self) -> int:
        """Memory of the network's weights on the device."""
        return sum(t.numel() * t.element_size() for t in self._network.state_dict().values())

    def staged_bytes(self, dtype: np.dtype[Any]) -> int:
        """Count bytes of host memory that a number of a file takes on its way to the device."""
        ready = _torch_ready(np.empty(0, dtype)).dtype
        copies = (ready != dtype) + (self.device.type == "cuda")
        return copies * ready.itemsize

    @property
    def slots(self) -> int:
        """How many batches may be computed at once."""
        return self._slots.left

    def measure(self, tile_px: int, *, threads: int = 1, repeats: int = 3) -> tuple[float, int]:
        """Time the network and the decoding on noise, with boxes everywhere.

        Args:
            tile_px: side of the tiles.
            threads: that would come with blocks; no more compute at once than have a turn.
            repeats: batches of each.

        Returns:
            Pixels through the network in a second, and bytes that batches take at their peak,
            estimated from the finest feature maps.
        """
        slots, batch = min(self.slots, threads), self.batch_size(tile_px)
        noise = torch.randn(batch, len(self.card.bands), tile_px, tile_px, device=self.device)

        def forward(times: int) -> None:
            with self._slots.taken():
                for _ in range(times):
                    self._forward(noise, all_boxes=True).truncated_N.cpu()

        try:
            with ThreadPoolExecutor(slots) as pool:
                list(pool.map(forward, [1] * slots))
                start = time.perf_counter()
                list(pool.map(forward, [repeats] * slots))
                seconds = time.perf_counter() - start
        except RuntimeError as error:
            if not _is_out_of_memory(error) or not self._slots.withdraw():
                raise
            return self.measure(tile_px, threads=threads, repeats=repeats)
        pixels = slots * batch * tile_px**2
        return repeats * pixels / seconds, pixels * _PEAK_BYTES_PER_PX

    def batch_size(self, tile_px: int) -> int:
        """Choose how many tiles of a size go through the network at once."""
        size = self._batch or max(1, BATCH_PX[self.device.type] // tile_px**2)
        return min(size, self._reduced_batch or size)

    def _batches(self, blocks: Sequence[BlockPixels]) -> Iterator[list[_Owned]]:
        """Group tiles that have a valid pixel, with the block they belong to, into batches."""
        batch: list[_Owned] = []
        for owner, block in enumerate(blocks):
            if not block.valid.any():
                continue
            for tile in block.tiles:
                if not block.valid[inside(tile, block)].any():
                    continue
                batch.append((owner, tile))
                if len(batch) >= self.batch_size(block.plan.tile_px):
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _stage(self, block: BlockPixels) -> _Staged:
        """Put a block's pixels and validity where the device can fetch them by itself."""
        raw, valid = torch.from_numpy(_torch_ready(block.pixels)), torch.from_numpy(block.valid)
        if self.device.type == "cuda":
            raw, valid = raw.pin_memory(), valid.pin_memory()
        return _Staged(raw, valid, self._mirrored(block))

    def _mirrored(self, block: BlockPixels) -> dict[int, Mirrored]:
        """Mirror valid ground into each tile that shows invalid pixels too, by the tile's index."""
        if self.card.padding == "constant":
            return {}
        side = block.plan.tile_px
        found = {}
        for tile in block.tiles:
            valid = block.valid[inside(tile, block)]
            if valid.shape == (side, side) and valid.all():
                continue
            padded = np.zeros((side, side), np.bool_)
            padded[: valid.shape[0], : valid.shape[1]] = valid
            found[tile.index] = mirror(padded)
        return found

    def _upload(self, staged: _Staged) -> _Staged:
        """Copy a staged block to the device, without waiting for the copy."""
        raw, valid = (
            each.to(self.device, non_blocking=True) for each in (staged.raw, staged.valid)
        )
        return staged._replace(raw=raw, valid=valid)

    def _images(
        self,
        batch: Sequence[_Owned],
        blocks: Sequence[BlockPixels],
        uploaded: Sequence[_Staged],
    ) -> Tensor:
        """Cut out (N, C, tile, tile) normalised tiles, in the order given."""
        parts = []
        for owner, tiles in groupby(batch, itemgetter(0)):
            parts.append(self._cut(uploaded[owner], blocks[owner], [tile for _, tile in tiles]))
        return torch.cat(parts)

    def _cut(self, uploaded: _Staged, block: BlockPixels, tiles: Sequence[Tile]) -> Tensor:
        """Cut tiles of a block, padded to the network's size, and normalise them together."""
        raw, valid, mirrored = uploaded
        side = block.plan.tile_px
        cut = raw.new_zeros((len(tiles), raw.shape[0], side, side))
        shown = valid.new_zeros((len(tiles), 1, side, side))
        for i, tile in enumerate(tiles):
            here = inside(tile, block)
            cut[i, :, : tile.window.height, : tile.window.width] = raw[:, *here]
            shown[i, 0, : tile.window.height, : tile.window.width] = valid[here]
            if tile.index in mirrored:
                fill(mirrored[tile.index], cut[i], shown[i])
        pixels = _values(cut, block.values)  # nobody else's: what follows is in place
        return pixels.sub_(self._offset).div_(self._scale).masked_fill_(~shown, 0.0)

    def _forward_in_memory(
        self, batch: Sequence[_Owned], images_of: Callable[[Sequence[_Owned]], Tensor]
    ) -> tuple[list[_Found], NDArray[np.bool_]]:
        """Detect boxes, scores and labels of each tile, and find which tiles reached a limit."""
        alone = self._slots.left == 1  # another thread may give up its turn meanwhile
        try:
            decoded = self._forward(images_of(batch))
            return _split(decoded, len(batch)), decoded.truncated_N.cpu().numpy()
        except RuntimeError as error:
            if not _is_out_of_memory(error) or (len(batch) == 1 and alone):
                raise
        # Outside the handler: its traceback would keep alive what has to be freed.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._slots.withdraw() or not alone:
            return self._forward_in_memory(batch, images_of)
        half = len(batch) // 2
        self._reduced_batch = min(half, self._reduced_batch or half)
        halves = [self._forward_in_memory(part, images_of) for part in (batch[:half], batch[half:])]
        return (
            [found for parts, _ in halves for found in parts],
            np.concatenate([truncated for _, truncated in halves]),
        )

    def _forward(self, images_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        self._slots.share()
        images_NCHW = images_NCHW.to(dtype=self.dtype, memory_format=torch.channels_last)
        shape = (images_NCHW.shape[2], images_NCHW.shape[3])
        if self._tta > 1:
            outputs = average_views(self._network, images_NCHW, self._tta)
        elif self.device.type == "cpu" and not all_boxes:
            wanted = partial(boxes_wanted, settings=self._decode)
            outputs = self._network.forward_at(images_NCHW, wanted)
        else:  # a GPU would wait to hear where
            outputs = self._network(images_NCHW)
        anchors = self._network.anchors(shape, self.device)
        return decode(outputs, anchors, shape, self._limited(shape))

    def _limited(self, shape: tuple[int, int]) -> DecodeSettings:
        """Scale the limits of decoding to tiles of a size: as many boxes to an area as usual."""
        times = max(1.0, shape[0] * shape[1] / self.card.tile_px**2)
        return replace(
            self._decode,
            candidates=math.ceil(self._decode.candidates * times),
            max_per_image=math.ceil(self._decode.max_per_image * times),
        )


def _values(raw: Tensor, values: ValueMap | None) -> Tensor:
    """Convert (..., bands, height, width) numbers of a file to the values that they stand for."""
    if values is None:
        return raw.float()
    # In double precision where there is one: a wide type's number and offset may nearly cancel.
    exact = torch.float32 if raw.device.type == "mps" else torch.float64
    scale, offset = (
        torch.tensor(v, dtype=exact, device=raw.device).view(-1, 1, 1)
        for v in (values.scale, values.offset)
    )
    scaled = raw * scale + offset
    if values.low is not None or values.high is not None:
        scaled = scaled.clamp(values.low, values.high)
    return scaled.float()


def _torch_ready(pixels: NDArray[Any]) -> NDArray[Any]:
    """Widen unsigned types that torch computes with poorly to the next signed one."""
    wider = {"uint16": np.int32, "uint32": np.int64}.get(pixels.dtype.name)
    return pixels.astype(wider) if wider else np.ascontiguousarray(pixels)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Check whether a device had too little memory; only CUDA has an exception for that."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _split(decoded: Decoded, images: int) -> list[_Found]:
    """Split boxes, scores and labels by image of a batch."""
    ends = np.searchsorted(decoded.image_M.cpu().numpy(), np.arange(1, images))
    columns = (
        decoded.boxes_M4.double().cpu().numpy(),
        decoded.scores_M.float().cpu().numpy(),
        decoded.labels_M.cpu().numpy(),
    )
    return list(zip(*(np.split(column, ends) for column in columns), strict=True))
