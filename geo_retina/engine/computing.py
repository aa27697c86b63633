"""The engine: a predictor on one device, fed with batches of tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_retina.detections import Detections
from geo_retina.engine.batching import Batching, is_out_of_memory, predict
from geo_retina.engine.compute_slots import ComputeSlots
from geo_retina.engine.limits import first_look_options
from geo_retina.engine.mirroring import Mirrored, fill, mirror
from geo_retina.engine.pixels import BlockDetections, BlockPixels, Stopped, inside
from geo_retina.engine.runtimes import predictor_of
from geo_retina.engine.to_grid import move_to_grid
from geo_retina.grid import Tile
from geo_retina.model import Card, Model
from geo_retina.nn.predictor import Numbers, NumbersPredictor, Predictor
from geo_retina.options import DetectOptions
from geo_retina.resampling import Rescaling
from geo_retina.scene import ValueMap

_Owned = tuple[int, Tile]
"""A tile, and the position of its block."""


class _Staged(NamedTuple):
    """A block on its way to the device, or there.

    Attributes:
        raw: (bands, height, width) pixels of the block; with ``resampling``, what they are
            computed from on the device.
        valid: (height, width) bool, of the block.
        mirrored: what tiles with invalid pixels or padding are filled with, by index; on this
            machine.
        resampling: how the block's pixels come of ``raw``; None where they are ``raw``.
    """

    raw: Tensor
    valid: Tensor
    mirrored: dict[int, Mirrored]
    resampling: Rescaling | None


_PEAK_BYTES_PER_PX = 400
"""Activations alive at once per input pixel: 64 channels at stride 2 in 4 bytes, and copies."""


class Engine:
    """A model made ready on one device; safe to share between threads.

    Args:
        model: network and card, and its own predictor where it has one; not changed.
        options: what changes the result.
        device: name of a device, or auto.
        batch: tiles through the network at once; None for a number that suits the device.
        slots: shared with another engine on the device; None for some of its own.

    Attributes:
        first_look: what looks at coarser pixels first, where the options ask for it.
    """

    def __init__(
        self,
        model: Model,
        options: DetectOptions,
        *,
        device: str = "auto",
        batch: int | None = None,
        slots: ComputeSlots | None = None,
    ) -> None:
        make = predictor_of(model, options)
        self.predictor: Predictor = make(model, options, device=device, batch=batch)
        self.device = self.predictor.device
        self._takes_numbers = (
            isinstance(self.predictor, NumbersPredictor) and self.predictor.takes_numbers
        )
        self.card: Card = model.card
        self._batching = Batching(
            self.predictor,
            len(self.card.classes),
            oriented=self.card.network.boxes == "oriented",
            slots=slots,
        )
        self.first_look: Engine | None = None
        if options.prescreen:
            coarse = first_look_options(options, self.card)
            shared = self._batching.slots
            self.first_look = Engine(model, coarse, device=device, batch=batch, slots=shared)
        self._edge_px = options.merge.edge_px
        radiometry = self.card.radiometry
        self._offset, self._scale = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (radiometry.offset, radiometry.scale)
        )

    def detect(
        self, blocks: Sequence[BlockPixels], *, stopped: Callable[[], bool] | None = None
    ) -> list[BlockDetections]:
        """Find objects in blocks of one tile size; small blocks share batches.

        Where the device has too little memory for a batch, it is halved, and stays so.

        Args:
            blocks: pixels and tiles.
            stopped: asked before every batch whether the result is still needed.

        Returns:
            One result per block, in the order given.

        Raises:
            Stopped: it is not.
        """
        found: list[list[Detections]] = [[] for _ in blocks]
        truncated, out_of_range = [0 for _ in blocks], [0 for _ in blocks]
        staged = [self._stage(block) for block in blocks]  # while another thread computes
        asked = time.perf_counter()
        with self._batching.slots.taken() as turn:
            turn_s = time.perf_counter() - asked
            uploaded = [self._upload(each) for each in staged]

            def compute(batch: list[_Owned]) -> list[tuple[int, Detections, bool, bool]]:
                if stopped is not None and stopped():
                    raise Stopped
                parts = self._batching.predict(
                    batch, lambda tiles: self._images(tiles, blocks, uploaded)
                )
                moved = [
                    move_to_grid(part, tile, blocks[owner], self._edge_px)
                    for (owner, tile), part in zip(batch, parts, strict=True)
                ]
                return [
                    (owner, here, part.truncated, part.out_of_range)
                    for (owner, _), here, part in zip(batch, moved, parts, strict=True)
                ]

            batches = self._batching.slots.spread(compute, self._batches(blocks), turn)
        for owner, here, is_truncated, is_outlying in chain.from_iterable(batches):
            found[owner].append(here)
            truncated[owner] += is_truncated
            out_of_range[owner] += is_outlying
        return [
            BlockDetections(
                Detections.concat(parts),
                len(parts),
                len(block.tiles) - len(parts),
                limited,
                outlying,
                self._batching.reduced,
                turn_s,
            )
            for block, parts, limited, outlying in zip(
                blocks, found, truncated, out_of_range, strict=True
            )
        ]

    def staged_bytes(self, dtype: np.dtype[Any]) -> int:
        """Count bytes of host memory that a number of a file takes on its way to the device."""
        ready = _torch_ready(np.empty(0, dtype)).dtype
        copies = (ready != dtype) + (self.device.type == "cuda")
        return copies * ready.itemsize

    @property
    def slots(self) -> int:
        """How many batches may be computed at once."""
        return self._batching.slots.left

    def slots_for(self, threads: int) -> int:
        """Count the batches that are computed at once where so many threads come with blocks.

        No more than have a turn; on a CPU one block takes all turns.
        """
        return self.slots if self.device.type == "cpu" else min(self.slots, threads)

    def measure(self, tile_px: int, *, threads: int = 1, repeats: int = 3) -> tuple[float, int]:
        """Time the network and the decoding on noise, with boxes everywhere.

        Args:
            tile_px: side of the tiles.
            threads: that would come with blocks.
            repeats: batches of each.

        Returns:
            Pixels through the network in a second, and bytes that batches take at their peak,
            estimated from the finest feature maps.
        """
        slots, batch = self.slots_for(threads), self.batch_size(tile_px)
        noise = self._noise(batch, tile_px)

        def forward(times: int) -> None:
            with self._batching.slots.taken():
                for _ in range(times):
                    self._batching.slots.share()
                    predict(self.predictor, noise, all_boxes=True).truncated_N.cpu()

        try:
            with ThreadPoolExecutor(slots) as pool:
                list(pool.map(forward, [1] * slots))
                start = time.perf_counter()
                list(pool.map(forward, [repeats] * slots))
                seconds = time.perf_counter() - start
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._batching.slots.withdraw():
                raise
            return self.measure(tile_px, threads=threads, repeats=repeats)
        pixels = slots * batch * tile_px**2
        return repeats * pixels / seconds, pixels * _PEAK_BYTES_PER_PX

    def batch_size(self, tile_px: int) -> int:
        """Count the tiles of a size that go into a batch now."""
        return self._batching.size(tile_px)

    def _batches(self, blocks: Sequence[BlockPixels]) -> Iterator[list[_Owned]]:
        """Group tiles that have a valid pixel, with the block they belong to, into batches.

        Numbers and normalised tiles do not share one, so that a tile is computed alike in any.
        """
        batch: list[_Owned] = []
        for owner, block in enumerate(blocks):
            if not block.valid.any():
                continue
            if batch and self._gives_numbers(blocks[batch[-1][0]]) != self._gives_numbers(block):
                yield batch
                batch = []
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
        pixels, resampling = block.pixels, block.resampling
        if resampling is not None and self.device.type != "cuda":
            # numpy picks pixels several times as fast as torch does on a CPU.
            pixels, resampling = resampling.on_host(pixels), None
        raw, valid = torch.from_numpy(_torch_ready(pixels)), torch.from_numpy(block.valid)
        if self.device.type == "cuda":
            raw, valid = raw.pin_memory(), valid.pin_memory()
        return _Staged(raw, valid, self._mirrored(block), resampling)

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
        """Copy a staged block to the device, without waiting, and resample it there."""
        raw, valid = (
            each.to(self.device, non_blocking=True) for each in (staged.raw, staged.valid)
        )
        if staged.resampling is not None:
            raw = staged.resampling.on_device(raw)
        return staged._replace(raw=raw, valid=valid, resampling=None)

    def _images(
        self,
        batch: Sequence[_Owned],
        blocks: Sequence[BlockPixels],
        uploaded: Sequence[_Staged],
    ) -> Tensor | Numbers:
        """Cut out (N, C, tile, tile) tiles, in the order given, as the predictor takes them."""
        parts = [
            (blocks[owner], self._cut(uploaded[owner], blocks[owner], [tile for _, tile in tiles]))
            for owner, tiles in groupby(batch, itemgetter(0))
        ]
        if self._gives_numbers(parts[0][0]):  # then all do
            return Numbers(*map(torch.cat, zip(*(cut for _, cut in parts), strict=True)))
        images = []
        for block, (pixels, shown) in parts:
            values = _values(pixels, block.values)  # nobody else's: what follows is in place
            values.sub_(self._offset).div_(self._scale).masked_fill_(~shown, 0.0)
            images.append(values)
        return torch.cat(images)

    def _gives_numbers(self, block: BlockPixels) -> bool:
        """Tell whether a block's tiles go to the predictor as the file has them."""
        return self._takes_numbers and block.pixels.dtype == np.uint8 and block.values is None

    def _noise(self, batch: int, tile_px: int) -> Tensor | Numbers:
        """Make a batch to time the network with."""
        shape = (batch, len(self.card.bands), tile_px, tile_px)
        if not self._takes_numbers or self.card.radiometry.dtype != "uint8":
            return torch.randn(shape, device=self.device)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        return Numbers(pixels, torch.ones_like(pixels[:, :1], dtype=torch.bool))

    def _cut(
        self, uploaded: _Staged, block: BlockPixels, tiles: Sequence[Tile]
    ) -> tuple[Tensor, Tensor]:
        """Cut tiles of a block, padded to the network's size, and which pixels are shown."""
        raw, valid, mirrored, _ = uploaded
        side = block.plan.tile_px
        cut = raw.new_zeros((len(tiles), raw.shape[0], side, side))
        shown = valid.new_zeros((len(tiles), 1, side, side))
        for i, tile in enumerate(tiles):
            here = inside(tile, block)
            cut[i, :, : tile.window.height, : tile.window.width] = raw[:, *here]
            shown[i, 0, : tile.window.height, : tile.window.width] = valid[here]
            if tile.index in mirrored:
                fill(mirrored[tile.index], cut[i], shown[i])
        return cut, shown


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
