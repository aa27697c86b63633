"""Detections: the one value that the stages hand on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import area, corners, oriented

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

NO_DAY = int(np.iinfo(np.int32).max)
"""In the place of a day that is not known; any that is known is earlier."""


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
        rotated_px: (N, 5) float64 of a model of oriented boxes, in grid pixels: centre x, centre y,
            length, width, angle_deg, as in ``geo_retina.boxes.oriented``; ``boxes_px`` are their
            upright hulls then. None where boxes are upright.
        first_seen: (N,) int32, days from 1970-01-01 to that of the earliest scene that shows it;
            ``NO_DAY`` where none of these has a date. None where nobody asks for it.

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
    rotated_px: NDArray[np.float64] | None = None
    first_seen: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if self.rotated_px is not None:
            self._check_rotated(np.ascontiguousarray(self.rotated_px, dtype=np.float64))
        if self.first_seen is not None:
            days = np.ascontiguousarray(self.first_seen, dtype=np.int32)
            object.__setattr__(self, "first_seen", days)
        if self.boxes_px.ndim != 2 or self.boxes_px.shape[1] != 4:
            raise ValueError(f"boxes_px has shape {self.boxes_px.shape}, expected (N, 4)")
        for name in [*list(_DTYPES)[1:], *([] if self.first_seen is None else ["first_seen"])]:
            if getattr(self, name).shape != (len(self.boxes_px),):
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, expected "
                    f"({len(self.boxes_px)},)"
                )
        if not (np.isfinite(self.boxes_px).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores must be finite")

    def _check_rotated(self, rotated_px: NDArray[np.float64]) -> None:
        object.__setattr__(self, "rotated_px", rotated_px)
        if rotated_px.shape != (len(self.boxes_px), 5):
            raise ValueError(
                f"rotated_px has shape {rotated_px.shape}, expected ({len(self.boxes_px)}, 5)"
            )
        length, width, angle = rotated_px[:, 2:].T
        if not (
            np.isfinite(rotated_px).all()
            and ((length >= width) & (width >= 0) & (angle >= -90) & (angle < 90)).all()
        ):
            raise ValueError(
                "rotated_px must be finite, with the length at least the width and the angle in "
                "[-90, 90), as boxes.oriented.normalise makes it"
            )

    def __len__(self) -> int:
        return len(self.boxes_px)

    @property
    def is_oriented(self) -> bool:
        """Whether each box has an angle."""
        return self.rotated_px is not None

    @property
    def corners_px(self) -> NDArray[np.float64]:
        """(N, 4, 2) corners x, y in grid pixels, clockwise as seen; of oriented boxes rotated."""
        return (
            corners(self.boxes_px) if self.rotated_px is None else oriented.corners(self.rotated_px)
        )

    @property
    def areas_px(self) -> NDArray[np.float64]:
        """(N,) areas in square pixels, of oriented boxes those of the rotated rectangles."""
        return area(self.boxes_px) if self.rotated_px is None else oriented.area(self.rotated_px)

    def __eq__(self, other: object) -> bool:
        """Compare every column, in order; without detections there is no kind of box to differ."""
        if not isinstance(other, Detections) or len(self) != len(other):
            return False
        if len(self) and self.is_oriented != other.is_oriented:
            return False
        return not len(self) or all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self._columns()
        )

    def _columns(self) -> list[str]:
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls) -> Detections:
        """Make a value without detections."""
        return cls(np.empty((0, 4)), *(np.empty(0, dtype) for dtype in list(_DTYPES.values())[1:]))

    @classmethod
    def concat(cls, parts: Iterable[Detections]) -> Detections:
        """Join all parts in the order given; empty for none.

        Raises:
            ValueError: some boxes are oriented and others are not; a part without detections
                goes with both.
        """
        given = list(parts)
        parts = [part for part in given if len(part)] or given[:1] or [cls.empty()]
        if len({part.is_oriented for part in parts}) > 1:
            raise ValueError("oriented and upright boxes cannot be joined into one value")
        if len({part.first_seen is None for part in parts}) > 1:
            raise ValueError("detections with and without days cannot be joined into one value")
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in parts[0]._columns()
            }
        )

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """Select the rows at integer positions, in that order, or where a mask is true."""
        return Detections(**{name: getattr(self, name)[index] for name in self._columns()})

    def part(self, start: int, stop: int) -> Detections:
        """Select the rows from one position to another, without copying them."""
        return Detections(**{name: getattr(self, name)[start:stop] for name in self._columns()})

    def to_arrow(self) -> pa.Table:
        """Convert to an Arrow table, a box in four columns, or nine; ``from_arrow`` reads it."""
        import pyarrow as pa

        boxes = {name: self.boxes_px[:, i] for i, name in enumerate(_BOX_COLUMNS)}
        rest = {name: getattr(self, name) for name in list(_DTYPES)[1:]}
        if self.rotated_px is not None:
            rest |= {name: self.rotated_px[:, i] for i, name in enumerate(_ROTATED_COLUMNS)}
        if self.first_seen is not None:
            rest["first_seen"] = self.first_seen
        return pa.table({**boxes, **rest})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Detections:
        """Read a table with at least the columns of ``to_arrow``."""
        boxes = np.stack([table[name].to_numpy() for name in _BOX_COLUMNS], axis=1)
        columns = {name: table[name].to_numpy() for name in list(_DTYPES)[1:]}
        if set(_ROTATED_COLUMNS) <= set(table.column_names):
            rotated = [table[name].to_numpy() for name in _ROTATED_COLUMNS]
            columns["rotated_px"] = np.stack(rotated, axis=1)
        if "first_seen" in table.column_names:
            columns["first_seen"] = table["first_seen"].to_numpy()
        return cls(boxes, **columns)


_BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
_ROTATED_COLUMNS = ("centre_x", "centre_y", "length", "width", "angle_deg")
_DTYPES = {
    "boxes_px": np.float64,
    "scores": np.float32,
    "labels": np.int32,
    "tile": np.int64,
    "cut": np.uint8,
    "joined": np.bool_,
}
