"""Detections: the one value that the stages hand on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


class Cut(IntFlag):
    """Sides at which a box meets the end of what its tile could see.

    The lower four bits are inner tile sides, beyond which the object may go on; the upper
    four are the scene's own borders.
    """

    LEFT = 1
    TOP = 2
    RIGHT = 4
    BOTTOM = 8
    SCENE_LEFT = 16
    SCENE_TOP = 32
    SCENE_RIGHT = 64
    SCENE_BOTTOM = 128


INNER_SIDES = 0b1111
"""Mask of the bits of ``cut`` that stand for inner tile sides."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one scene, as columns of one length.

    Attributes:
        boxes_px: (N, 4) float64, grid pixels, x_min y_min x_max y_max at pixel edges.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int32, positions in the model's classes.
        tile: (N,) int64, index of the tile that found it.
        cut: (N,) uint8, bits of ``Cut``.
        joined: (N,) bool, made of fragments by the merge.

    Examples:
        >>> from geo_retina import Detections
        >>> len(Detections.empty())
        0
    """

    boxes_px: NDArray[np.float64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    tile: NDArray[np.int64]
    cut: NDArray[np.uint8]
    joined: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if self.boxes_px.ndim != 2 or self.boxes_px.shape[1] != 4:
            raise ValueError(f"boxes_px has shape {self.boxes_px.shape}, expected (N, 4)")
        for name in list(_DTYPES)[1:]:
            if getattr(self, name).shape != (len(self.boxes_px),):
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, expected "
                    f"({len(self.boxes_px)},)"
                )
        if not (np.isfinite(self.boxes_px).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores must be finite")

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __eq__(self, other: object) -> bool:
        """Compare every column, in order."""
        return isinstance(other, Detections) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls) -> Detections:
        """Make a value without detections."""
        return cls(np.empty((0, 4)), *(np.empty(0, dtype) for dtype in list(_DTYPES.values())[1:]))

    @classmethod
    def concat(cls, parts: Iterable[Detections]) -> Detections:
        """Join all parts in the order given; empty for none."""
        parts = [cls.empty(), *parts]
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """Select the rows at integer positions, in that order, or where a mask is true."""
        return Detections(*(getattr(self, f.name)[index] for f in fields(self)))

    def part(self, start: int, stop: int) -> Detections:
        """Select the rows from one position to another, without copying them."""
        return Detections(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    def to_arrow(self) -> pa.Table:
        """Convert to an Arrow table with the box in four columns; ``from_arrow`` reads it."""
        import pyarrow as pa

        boxes = {name: self.boxes_px[:, i] for i, name in enumerate(_BOX_COLUMNS)}
        rest = {name: getattr(self, name) for name in list(_DTYPES)[1:]}
        return pa.table({**boxes, **rest})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Detections:
        """Read a table with at least the columns of ``to_arrow``."""
        boxes = np.stack([table[name].to_numpy() for name in _BOX_COLUMNS], axis=1)
        return cls(boxes, *(table[name].to_numpy() for name in list(_DTYPES)[1:]))


_BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
_DTYPES = {
    "boxes_px": np.float64,
    "scores": np.float32,
    "labels": np.int32,
    "tile": np.int64,
    "cut": np.uint8,
    "joined": np.bool_,
}
