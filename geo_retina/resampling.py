"""Resampling where one grid is a plain scaling of another, as a raster with finer pixels is.

One rule for numpy arrays and torch tensors, so that a device computes to the bit what is read on
the host: each value is a sum of products in a fixed order, rounded after each step. It depends on
nothing but its own place in the grid, so the window that it is computed with does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.grid import Window

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLED = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Types of numbers that are resampled here; what single or double precision cannot hold is not."""

_WIDER_FROM = 1 / 0.95
"""Source pixels per pixel of the grid from which on more than the two nearest count, as in GDAL."""

_WHOLE = 1 - 1e-5
"""Share of a value's weights from which on no pixel is missing that would matter."""

_HOST_PX, _DEVICE_PX = 1 << 16, 1 << 22
"""Pixels that are computed at once: what caches hold, and what keeps a device busy."""


class _Taps(NamedTuple):
    """Which source pixels along an axis make up each pixel of a grid.

    Attributes:
        places: (K, n) positions in the source.
        weights: (K, n) float64, which add up to 1.
    """

    places: NDArray[np.int64]
    weights: NDArray[np.float64]

    def put(self, first: int, is_double: bool, arrays: _Arrays) -> _Taps:
        """Bring them to where pixels are, which begin at a position, and in their precision."""
        weights = self.weights.astype(np.float64 if is_double else np.float32)
        return _Taps(arrays.put(self.places - first), arrays.put(weights))


@dataclass(frozen=True)
class Scaling:
    """A source and a grid whose pixels show the same ground in another number of rows and columns.

    Attributes:
        source: (height, width).
        grid: (height, width).
    """

    source: tuple[int, int]
    grid: tuple[int, int]

    def part(self, window: Window) -> Window:
        """Find the window of the source that a window inside the grid is computed from."""
        rows = self.taps(0, window.row, window.height).places
        cols = self.taps(1, window.col, window.width).places
        row, col = int(rows.min()), int(cols.min())
        return Window(row, col, int(rows.max()) + 1 - row, int(cols.max()) + 1 - col)

    def nearest(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find rows and columns of the source's pixels in which those of a window have centres."""
        rows = self._nearest(0, window.row, window.height)
        return rows, self._nearest(1, window.col, window.width)

    def _centres(self, axis: int, start: int, count: int) -> tuple[NDArray[np.int64], int]:
        """Count centres along an axis of the source in whole parts of a pixel, and these parts."""
        parts = 2 * self.grid[axis]
        return (2 * np.arange(start, start + count) + 1) * self.source[axis], parts

    def _nearest(self, axis: int, start: int, count: int) -> NDArray[np.int64]:
        centres, parts = self._centres(axis, start, count)
        return np.minimum(centres // parts, self.source[axis] - 1)

    def taps(self, axis: int, start: int, count: int) -> _Taps:
        """Weigh source pixels by a triangle: linear interpolation, wider where it gets coarser."""
        size = self.source[axis]
        factor = size / self.grid[axis]
        radius = factor if factor > _WIDER_FROM else 1.0
        centres, parts = self._centres(axis, start, count)
        # The first pixel whose middle lies within reach, and how far before the centre it lies.
        if radius == 1.0:
            first, rest = np.divmod(centres - parts // 2, parts)
            before = rest / parts
        else:
            first = np.floor(centres / parts - radius + 0.5).astype(np.int64)
            before = centres / parts - first - 0.5
        steps = np.arange(math.ceil(2 * radius))[:, None]
        weights = np.maximum(0.0, 1 - np.abs(before - steps) / radius)
        places = first + steps
        inside = (places >= 0) & (places < size)
        weights = np.where(inside, weights, 0.0)
        # Two that lie inside add up to 1 already; a division could round them.
        is_one = inside.all(axis=0) & (radius == 1.0)
        weights /= np.where(is_one, 1.0, weights.sum(axis=0))
        return _Taps(places.clip(0, size - 1), weights)


@dataclass(frozen=True, eq=False)
class Rescaling:
    """How a window of a grid is computed from pixels of a source.

    Attributes:
        scaling: of the source and the grid.
        window: of the grid.
        part: window of the source, whose pixels are given.
        source_valid: (height, width) which of these are valid.
        dtype: numpy name of their type.
    """

    scaling: Scaling
    window: Window
    part: Window
    source_valid: NDArray[np.bool_]
    dtype: str

    @property
    def is_double(self) -> bool:
        """Tell whether single precision would not hold numbers of the type."""
        return np.dtype(self.dtype).itemsize > (4 if self.dtype.startswith("float") else 2)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(height, width) of the window: the source's pixel in which the centre lies is valid."""
        if self.source_valid.all():
            return np.ones((self.window.height, self.window.width), np.bool_)
        rows, cols = self.scaling.nearest(self.window)
        return self.source_valid[np.ix_(rows - self.part.row, cols - self.part.col)]

    def on_host(self, pixels: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Compute (bands, height, width) pixels of the window; 0 where they are not valid.

        Args:
            pixels: (bands, height, width) of ``part``.
            out: where to write them.
        """
        if out is None:
            out = np.empty((len(pixels), self.window.height, self.window.width), pixels.dtype)
        if self._is_doubling:
            _double(pixels, out, self)
        else:
            _resample(pixels, out, self, _HOST, _HOST_PX)
        return out

    @property
    def _is_doubling(self) -> bool:
        """Tell whether valid pixels of 8 bits are to be halved, as trees-naip has it always."""
        (height, width), grid = self.scaling.source, self.scaling.grid
        is_half = grid == (2 * height, 2 * width)
        return is_half and self.dtype == "uint8" and bool(self.source_valid.all())

    def on_device(self, pixels: Tensor) -> Tensor:
        """Compute what ``on_host`` does, where a tensor is, in its own type.

        Args:
            pixels: (bands, height, width) of ``part``, in ``dtype`` or a wider type.
        """
        out = pixels.new_empty((len(pixels), self.window.height, self.window.width))
        _resample(pixels, out, self, _on_device(pixels), _DEVICE_PX)
        return out


class _Arrays(NamedTuple):
    """What numpy and torch call by different names.

    Attributes:
        put: brings an array of numpy to where the pixels are.
        cast: converts to float32, or with True to float64.
        take: picks positions along an axis.
        floor: rounds down in place.
    """

    put: Callable[[NDArray[Any]], Any]
    cast: Callable[[Any, bool], Any]
    take: Callable[[Any, Any, int], Any]
    floor: Callable[[Any], Any]


_HOST = _Arrays(
    put=lambda array: array,
    cast=lambda array, double: array.astype(np.float64 if double else np.float32),
    take=lambda array, places, axis: array.take(places, axis=axis),
    floor=lambda array: np.floor(array, out=array),
)


def _on_device(pixels: Tensor) -> _Arrays:
    import torch

    return _Arrays(
        put=lambda array: torch.from_numpy(array).to(pixels.device),
        cast=lambda array, double: array.to(torch.float64 if double else torch.float32, copy=True),
        take=lambda array, places, axis: array.index_select(axis, places),
        floor=lambda array: array.floor_(),
    )


def _resample(pixels: Any, out: Any, how: Rescaling, arrays: _Arrays, at_once_px: int) -> None:
    """Fill ``out``, some rows at a time."""
    window, part = how.window, how.part
    rows = how.scaling.taps(0, window.row, window.height)
    cols = how.scaling.taps(1, window.col, window.width).put(part.col, how.is_double, arrays)
    source_valid = None if how.source_valid.all() else arrays.put(how.source_valid)
    step = max(8, at_once_px // window.width)
    for start in range(0, window.height, step):
        chosen = np.s_[:, start : start + step]
        some = _Taps(rows.places[chosen], rows.weights[chosen])
        top, bottom = int(some.places.min()) - part.row, int(some.places.max()) - part.row + 1
        taps = some.put(part.row + top, how.is_double, arrays), cols
        source = arrays.cast(pixels[:, top:bottom], how.is_double)
        target = out[chosen]
        if source_valid is None:
            target[:] = _as_numbers(_filtered(source, *taps, arrays), how.dtype, arrays)
            continue
        held = source_valid[top:bottom]
        source[:, ~held] = 0  # no number times no weight would be none
        values = _filtered(source, *taps, arrays)
        share = _filtered(arrays.cast(held[None], how.is_double), *taps, arrays)
        share[(share > _WHOLE) | (share == 0)] = 1
        values /= share
        target[:] = _as_numbers(values, how.dtype, arrays)
        target[:, ~arrays.put(how.valid[start : start + step])] = 0


def _double(pixels: NDArray[Any], out: NDArray[Any], how: Rescaling) -> None:
    """Fill ``out`` as ``_resample`` does where pixels of 8 bits are halved, in whole numbers.

    The nearest pixel counts three quarters and its neighbour one, along both axes: sixteenths of a
    grey level, which 16 bits hold exactly.
    """
    window, part = how.window, how.part
    cols = _around(window.col, window.width, part.col, part.width)
    step = max(8, _HOST_PX // window.width)
    for start in range(0, window.height, step):
        height = min(step, window.height - start)
        rows = _around(window.row + start, height, part.row, part.height)
        source = pixels[:, rows].take(cols, axis=2).astype(np.uint16)
        along = _three_to_one(source, window.row + start, height)
        nearest = 3 * along[:, :, 1:-1]
        nearest += 8
        target = out[:, start : start + height]
        for side, neighbour in enumerate((along[:, :, :-2], along[:, :, 2:])):
            # The halves of one side are every second column; the first may lie before the window.
            columns = target[:, :, (side - window.col) % 2 :: 2]
            first = int(side < window.col % 2)
            both = nearest + neighbour
            both >>= 4
            columns[:] = both[:, :, first : first + columns.shape[2]]


def _around(start: int, count: int, first: int, size: int) -> NDArray[np.int64]:
    """Find positions in a part of the source from one before to one behind what is halved."""
    places = np.arange(start // 2 - 1, (start + count - 1) // 2 + 2)
    return (places - first).clip(0, size - 1)


def _three_to_one(source: NDArray[np.uint16], start: int, count: int) -> NDArray[np.uint16]:
    """Add three times the nearest pixel and once its neighbour along axis 1."""
    bands, places, across = source.shape
    halves = np.empty((bands, places - 2, 2, across), np.uint16)
    nearest = 3 * source[:, 1:-1]
    np.add(nearest, source[:, :-2], out=halves[:, :, 0])
    np.add(nearest, source[:, 2:], out=halves[:, :, 1])
    return halves.reshape(bands, -1, across)[:, start % 2 :][:, :count]


def _filtered(source: Any, rows: _Taps, cols: _Taps, arrays: _Arrays) -> Any:
    """Compute (C, H, W) pixels of a grid from those of a source."""
    across = _weighted(source, cols.places, cols.weights, 2, arrays)
    return _weighted(across, rows.places, rows.weights[:, :, None], 1, arrays)


def _weighted(source: Any, places: Any, weights: Any, axis: int, arrays: _Arrays) -> Any:
    """Add up values at (K, n) places along an axis, times their weights."""
    total = arrays.take(source, places[0], axis)
    total *= weights[0]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        more = arrays.take(source, place, axis)
        more *= weight
        total += more
    return total


def _as_numbers(values: Any, dtype: str, arrays: _Arrays) -> Any:
    """Round values in place to whole numbers, halves up, where the type holds no others."""
    if dtype.startswith("float"):
        return values
    values += 0.5
    # Storing cuts off fractions, which is another thing below zero.
    return values if dtype.startswith("u") else arrays.floor(values)
