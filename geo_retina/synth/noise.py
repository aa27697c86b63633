"""Randomness by position: the value at a pixel depends on the pixel and a key alone.

That is what makes a scene the same for every way of cutting it into windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = 0xFFFFFFFF


def mix(*words: int) -> int:
    """Mix whole numbers into a 32-bit key; their order counts."""
    state = 0x2545F491
    for word in words:
        state = (state ^ (word & _MASK)) * 0x9E3779B1 & _MASK
        state = (state ^ state >> 16) * 0x7FEB352D & _MASK
        state = (state ^ state >> 15) * 0x846CA68B & _MASK
        state ^= state >> 16
    return state


def _finish(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread every input bit over the word, in place (the `lowbias32` finaliser)."""
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def hash_grid(rows: NDArray[np.int64], cols: NDArray[np.int64], key: int) -> NDArray[np.uint32]:
    """Hash (R,) rows and (C,) columns, any sign, to (R, C) uniform 32-bit words."""
    of_rows = _finish(rows.astype(np.uint32) * np.uint32(0x85EBCA77) ^ np.uint32(key))
    of_cols = cols.astype(np.uint32) * np.uint32(0x9E3779B1)
    return _finish(of_rows[:, None] ^ of_cols[None, :])


def uniform_grid(rows: NDArray[np.int64], cols: NDArray[np.int64], key: int) -> NDArray[np.float32]:
    """Draw (R, C) values in [0, 1)."""
    return (hash_grid(rows, cols, key) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal_grid(rows: NDArray[np.int64], cols: NDArray[np.int64], key: int) -> NDArray[np.float32]:
    """Draw (R, C) values of mean 0 and deviation 1, the sum of four uniform bytes: within 3.45."""
    octets = hash_grid(rows, cols, key)[..., None].view(np.uint8)
    total = octets[..., 0].astype(np.float32)
    for i in (1, 2, 3):
        total += octets[..., i]
    total -= np.float32(510.0)
    total *= np.float32(1 / 147.801)
    return total


def smooth_grid(
    rows: NDArray[np.int64], cols: NDArray[np.int64], wavelength_px: float, key: int
) -> NDArray[np.float32]:
    """Draw (R, C) smooth noise in [-1, 1): hashed values on a lattice, eased in between."""
    low_y, ease_y = _lattice(rows, wavelength_px)
    low_x, ease_x = _lattice(cols, wavelength_px)
    lattice_rows = np.arange(low_y[0], low_y[-1] + 2)
    lattice_cols = np.arange(low_x[0], low_x[-1] + 2)
    values = uniform_grid(lattice_rows, lattice_cols, key) * np.float32(2) - np.float32(1)
    left = values[:, low_x - low_x[0]]
    across = left + (values[:, low_x - low_x[0] + 1] - left) * ease_x[None, :]
    top = across[low_y - low_y[0]]
    return top + (across[low_y - low_y[0] + 1] - top) * ease_y[:, None]


def _lattice(
    pixels: NDArray[np.int64], wavelength_px: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the lattice line at or before each pixel's centre, and the eased way to the next."""
    position = (pixels + 0.5) / wavelength_px
    low = np.floor(position).astype(np.int64)
    way = (position - low).astype(np.float32)
    return low, way * way * (3 - 2 * way)
