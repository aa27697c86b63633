"""Batches through a predictor: as many and as large at once as the device's memory allows.

Shapes: N tiles of a batch, C bands, H W size of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_retina.boxes import oriented as oriented_boxes
from geo_retina.engine.compute_slots import ComputeSlots
from geo_retina.engine.pixels import TileBoxes
from geo_retina.errors import ModelError
from geo_retina.nn.predictor import Decoded, Numbers, NumbersPredictor, Predictor

_T = TypeVar("_T")


class Batching:
    """Gives batches to a predictor, fewer at once and then smaller ones where memory is short.

    Args:
        predictor: what computes.
        classes: number of classes that it may name.
        oriented: whether its boxes are to have angles.
        slots: shared with others that compute on the device; None for some of its own.
    """

    def __init__(
        self,
        predictor: Predictor,
        classes: int,
        *,
        oriented: bool = False,
        slots: ComputeSlots | None = None,
    ) -> None:
        self.slots = slots or ComputeSlots(predictor.device, predictor.batches_at_once)
        self.reduced: int | None = None
        """Tiles in a batch, where memory made that fewer than planned."""
        self._predictor = predictor
        self._classes = classes
        self._oriented = oriented

    def size(self, tile_px: int) -> int:
        """Count the tiles of a size that go into a batch now."""
        size = self._predictor.batch_size(tile_px)
        return min(size, self.reduced or size)

    def predict(
        self, batch: Sequence[_T], tiles_of: Callable[[Sequence[_T]], Tensor | Numbers]
    ) -> list[TileBoxes]:
        """Find the boxes in a batch; where memory is short, in its halves, and so from then on.

        Args:
            batch: names of tiles.
            tiles_of: cuts (N, C, H, W) tiles on the device, which takes memory too: normalised
                ones, or numbers where ``takes_numbers``.

        Returns:
            What was found, in the batch's order.

        Raises:
            RuntimeError: a single tile alone on the device does not fit.
            ModelError: the predictor's answer is not what was asked for.
        """
        half = len(batch) // 2
        if self.reduced is not None and len(batch) > self.reduced:
            parts = batch[:half], batch[half:]
            return [found for part in parts for found in self.predict(part, tiles_of)]
        alone = self.slots.left == 1  # another thread may give up its turn meanwhile
        try:
            return self._predict(batch, tiles_of)
        except RuntimeError as error:
            if not is_out_of_memory(error) or (len(batch) == 1 and alone):
                raise
        # Outside the handler: its traceback would keep alive what has to be freed.
        if self._predictor.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.slots.withdraw() or not alone:
            return self.predict(batch, tiles_of)
        self.reduced = min(half, self.reduced or half)
        return self.predict(batch, tiles_of)

    def _predict(
        self, batch: Sequence[_T], tiles_of: Callable[[Sequence[_T]], Tensor | Numbers]
    ) -> list[TileBoxes]:
        tiles = tiles_of(batch)
        self.slots.share()
        found = _Arrays.of(predict(self._predictor, tiles))
        fault = found.fault(len(batch), self._classes, oriented=self._oriented)
        if fault:
            raise ModelError(
                f"predictor {type(self._predictor).__name__} returned {fault} for "
                f"{len(batch)} tiles and {self._classes} classes; see Predictor.predict for what "
                "is expected"
            )
        return found.by_tile()


def predict(predictor: Predictor, tiles: Tensor | Numbers, *, all_boxes: bool = False) -> Decoded:
    """Give tiles to a predictor, as normalised ones or as numbers."""
    if isinstance(tiles, Numbers):
        assert isinstance(predictor, NumbersPredictor)  # whoever gives it numbers has asked
        return predictor.predict_numbers(tiles, all_boxes=all_boxes)
    return predictor.predict(tiles, all_boxes=all_boxes)


class _Arrays(NamedTuple):
    """What a predictor returned, on this machine."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    tile: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    rotated: NDArray[np.float64] | None
    out_of_range: NDArray[np.bool_]

    @classmethod
    def of(cls, decoded: Decoded) -> _Arrays:
        rotated = decoded.rotated_M5
        return cls(
            decoded.boxes_M4.double().cpu().numpy(),
            decoded.scores_M.float().cpu().numpy(),
            decoded.labels_M.cpu().numpy(),
            decoded.image_M.cpu().numpy(),
            decoded.truncated_N.cpu().numpy(),
            None if rotated is None else rotated.double().cpu().numpy(),
            (
                torch.zeros_like(decoded.truncated_N)
                if decoded.out_of_range_N is None
                else decoded.out_of_range_N
            ).numpy(force=True),
        )

    def fault(self, tiles: int, classes: int, *, oriented: bool) -> str | None:
        """Say what would be lost or put in a wrong place."""
        count = len(self.tile)
        if self.boxes.shape != (count, 4) or {len(self.scores), len(self.labels)} != {count}:
            return (
                f"{count} positions, boxes of shape {self.boxes.shape}, {len(self.scores)} scores "
                f"and {len(self.labels)} labels"
            )
        for marks in (self.truncated, self.out_of_range):
            if marks.shape != (tiles,):
                return f"marks of tiles of shape {marks.shape}"
        if count and (self.rotated is not None) != oriented:
            return (
                "upright boxes, though the card's are oriented," if oriented else "angles of boxes"
            )
        if self.rotated is not None and self.rotated.shape != (count, 5):
            return f"oriented boxes of shape {self.rotated.shape}"
        if not count:
            return None
        if (np.diff(self.tile) < 0).any() or self.tile[0] < 0 or self.tile[-1] >= tiles:
            return "positions that are not ascending or lie outside the batch"
        if self.labels.min() < 0 or self.labels.max() >= classes:
            return f"labels of {self.labels.min()} to {self.labels.max()}"
        if not (np.isfinite(self.scores).all() and np.isfinite(self.boxes).all()):
            return "boxes or scores that are not finite"
        if not (self.boxes[:, 2:] > self.boxes[:, :2]).all():
            return "boxes without an area"
        if self.rotated is not None and not (
            np.isfinite(self.rotated).all() and (self.rotated[:, 2:4] > 0).all()
        ):
            return "oriented boxes that are not finite or have no area"
        return None

    def by_tile(self) -> list[TileBoxes]:
        ends = np.searchsorted(self.tile, np.arange(1, len(self.truncated)))
        columns = (np.split(column, ends) for column in (self.boxes, self.scores, self.labels))
        rotated: Sequence[NDArray[np.float64] | None] = [None] * len(self.truncated)
        if self.rotated is not None:
            rotated = np.split(oriented_boxes.normalise(self.rotated), ends)
        return [
            TileBoxes(boxes, scores, labels, bool(truncated), angles, bool(out_of_range))
            for boxes, scores, labels, truncated, angles, out_of_range in zip(
                *columns, self.truncated, rotated, self.out_of_range, strict=True
            )
        ]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device had too little memory; only CUDA has an exception of its own for it."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )
