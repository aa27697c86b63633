"""Bare ground: parcels, ways and their textures, as reflectance on a 0 to 1 scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.grid import Window
from geo_retina.synth.noise import mix, normal_grid, smooth_grid
from geo_retina.synth.parcels import Land, Parcel, Use, Way

Pixels = NDArray[np.float32]

_GRASS = (0.37, 0.44, 0.29, 0.66)
_DRY = (0.57, 0.53, 0.37, 0.58)
_SOIL = (0.53, 0.43, 0.34, 0.45)
_CROP = (0.33, 0.45, 0.24, 0.78)
_ASPHALT = (0.40, 0.40, 0.41, 0.34)
_GRAVEL = (0.60, 0.56, 0.51, 0.50)
_CONCRETE = (0.66, 0.65, 0.62, 0.56)
_BALLAST = (0.45, 0.41, 0.37, 0.40)
_TRACK = (0.62, 0.55, 0.44, 0.52)

_GROUNDS = {
    Use.FIELD: (_SOIL, _CROP, _DRY),
    Use.MEADOW: (_GRASS, _DRY),
    Use.PARKING: (_ASPHALT, _ASPHALT, _GRAVEL),
    Use.ORCHARD: (_GRASS, _SOIL, _DRY),
    Use.WOOD: (_GRASS, _DRY),
    Use.YARD: (_GRAVEL, _CONCRETE, _SOIL),
    Use.HOMES: (_GRASS, _GRASS, _DRY),
    Use.LORRIES: (_ASPHALT, _CONCRETE, _GRAVEL),
    Use.SIDINGS: (_GRAVEL, _BALLAST, _DRY),
    Use.STACKS: (_CONCRETE, _ASPHALT, _GRAVEL),
}
_ROUGHNESS = {Use.PARKING: 0.4, Use.LORRIES: 0.4, Use.STACKS: 0.4, Use.YARD: 0.8, Use.FIELD: 0.9}
_FURROWED = (Use.FIELD, Use.ORCHARD)
_WAY_COLOUR = {Way.NONE: _GRASS, Way.TRACK: _TRACK, Way.ROAD: _ASPHALT}


@dataclass(frozen=True)
class _Look:
    """How a parcel looks: its colour, roughness, and furrows as a wave over the ground."""

    colour: tuple[float, ...]
    roughness: float
    wave_xy: tuple[float, float]
    furrow: float


def _look(parcel: Parcel) -> _Look:
    of_ground, tone, warmth, width, depth = (mix(parcel.key, 50, i) / 2**32 for i in range(5))
    grounds = _GROUNDS[parcel.use]
    base = grounds[int(of_ground * len(grounds))]
    gain = 1 + 0.26 * (tone - 0.5)
    tint = 0.06 * (warmth - 0.5)
    colour = tuple(v * gain + t for v, t in zip(base, (tint, 0.0, -tint, tint), strict=True))
    frequency = 2 * np.pi / (1.6 + 3.2 * width)
    wave = (frequency * float(np.cos(parcel.angle)), frequency * float(np.sin(parcel.angle)))
    furrow = 0.045 * depth if parcel.use in _FURROWED else 0.0
    return _Look(colour, _ROUGHNESS.get(parcel.use, 1.0), wave, furrow)


def draw_ground(land: Land, window: Window, gsd_m: float, channels: int) -> Pixels:
    """Draw the ground of a window.

    Args:
        land: its parcels.
        window: pixels; it may lie anywhere, also at negative positions.
        gsd_m: metres a pixel.
        channels: 3 for red, green and blue, 4 with near infrared.

    Returns:
        (channels, height, width), about 0 to 1. A pixel's value does not depend on the window.
    """
    rows = np.arange(window.row, window.row + window.height)
    cols = np.arange(window.col, window.col + window.width)
    ground = np.empty((channels, window.height, window.width), np.float32)
    rough = np.empty((window.height, window.width), np.float32)
    y, x = (rows + 0.5) * gsd_m, (cols + 0.5) * gsd_m
    cell_rows = np.floor(y / land.cell_m).astype(int)
    cell_cols = np.floor(x / land.cell_m).astype(int)
    for row in range(cell_rows[0], cell_rows[-1] + 1):
        in_rows = slice(*np.searchsorted(cell_rows, [row, row + 1]))
        for col in range(cell_cols[0], cell_cols[-1] + 1):
            in_cols = slice(*np.searchsorted(cell_cols, [col, col + 1]))
            _draw_cell(
                [land.parcel(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)],
                land,
                (y[in_rows], x[in_cols]),
                gsd_m,
                ground[:, in_rows, in_cols],
                rough[in_rows, in_cols],
            )
    _add_texture(ground, rough, (rows, cols), gsd_m, land.seed)
    return ground


def _draw_cell(
    parcels: list[Parcel],
    land: Land,
    at_m: tuple[NDArray[Any], NDArray[Any]],
    gsd_m: float,
    ground: Pixels,
    rough: Pixels,
) -> None:
    """Fill the pixels of one cell, of which the nearest points are its own or a neighbour's."""
    corner_y, corner_x = parcels[4].y, parcels[4].x
    y = (at_m[0] - corner_y).astype(np.float32)[:, None]
    x = (at_m[1] - corner_x).astype(np.float32)[None, :]
    points = np.array([[p.x - corner_x, p.y - corner_y] for p in parcels])
    first, second, gap = _two_nearest(points.astype(np.float32), y, x)
    half, inverse, colours = _ways(parcels, land, points)
    pair = first * np.int64(9) + second
    edge_m = half[pair] - gap * inverse[pair]
    on_way = np.clip(edge_m / np.float32(gsd_m) + np.float32(0.5), 0, 1)
    looks = [_look(p) for p in parcels]
    wave = np.array([look.wave_xy for look in looks], np.float32)
    depth = np.array([look.furrow for look in looks], np.float32)
    furrow = np.zeros((), np.float32)
    if depth.any():
        furrow = np.sin(wave[first, 0] * x + wave[first, 1] * y) * depth[first]
    roughness = np.array([look.roughness for look in looks], np.float32)[first]
    rough[:] = roughness + (np.float32(0.4) - roughness) * on_way
    tones = np.array([look.colour for look in looks], np.float32)
    for i in range(len(ground)):
        tone = tones[:, i][first] + furrow
        ground[i] = tone + (colours[:, i][pair] - tone) * on_way


def _two_nearest(
    points: Pixels, y: Pixels, x: Pixels
) -> tuple[NDArray[np.int64], NDArray[np.int64], Pixels]:
    """Find the nearest and second nearest of 9 points, and how much farther that is.

    The last in squared metres.
    """
    best = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, np.float32)
    next_ = best.copy()
    first = np.zeros(best.shape, np.int64)
    second = first.copy()
    for i, (px, py) in enumerate(points):
        far = (x - px) ** 2 + (y - py) ** 2
        is_best = far < best
        is_next = ~is_best & (far < next_)
        next_ = np.where(is_best, best, np.where(is_next, far, next_))
        second = np.where(is_best, first, np.where(is_next, i, second))
        best = np.where(is_best, far, best)
        first = np.where(is_best, i, first)
    return first, second, next_ - best


def _ways(
    parcels: list[Parcel], land: Land, points: NDArray[np.float64]
) -> tuple[Pixels, Pixels, Pixels]:
    """Compute half width, 1 / (2 distance) and colour of the way for each ordered pair of 9."""
    ways = [Way.NONE if a is b else land.way(a, b) for a in parcels for b in parcels]
    half = [
        # Where nothing runs, the border lies beyond reach of the anti-aliasing.
        -1e3 if way == Way.NONE else land.half_width_m(parcels[i // 9], parcels[i % 9])
        for i, way in enumerate(ways)
    ]
    apart = np.linalg.norm(points[:, None] - points, axis=2).reshape(-1)
    inverse = 1 / (2 * np.maximum(apart, 1e-3))
    colours = np.array([_WAY_COLOUR[way] for way in ways], np.float32)
    return np.array(half, np.float32), inverse.astype(np.float32), colours


def _add_texture(
    ground: Pixels,
    rough: Pixels,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    gsd_m: float,
    seed: int,
) -> None:
    """Lay noise of several scales over the ground, in place."""
    rows, cols = at
    broad = sum(
        np.float32(amplitude) * smooth_grid(rows, cols, max(metres / gsd_m, 2.0), mix(seed, 3, i))
        for i, (metres, amplitude) in enumerate([(170, 0.05), (41, 0.035), (11, 0.03)])
    )
    fine = np.float32(0.035) * smooth_grid(rows, cols, max(1.1 / gsd_m, 2.0), mix(seed, 4))
    fine += np.float32(0.022) * normal_grid(rows, cols, mix(seed, 5))
    hue = np.float32(0.02) * smooth_grid(rows, cols, max(23 / gsd_m, 2.0), mix(seed, 6))
    common = broad * (np.float32(0.4) + np.float32(0.6) * rough) + fine * rough
    for i, sign in zip(range(len(ground)), (1.0, 0.3, -0.7, 1.5), strict=False):
        ground[i] += common + np.float32(sign) * hue
