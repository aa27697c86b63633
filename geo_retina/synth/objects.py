"""One thing at a time: how much of each pixel it covers, and in what colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_retina.grid import Window
from geo_retina.synth.noise import mix, smooth_grid
from geo_retina.synth.things import CORNER_M, FLAT, ROUND, Kind, Things, half_extents_m, outline

Pixels = NDArray[np.float32]

_CAR_COLOURS = (
    (0.90, 0.90, 0.89),
    (0.93, 0.93, 0.93),
    (0.74, 0.75, 0.77),
    (0.66, 0.66, 0.67),
    (0.11, 0.11, 0.12),
    (0.17, 0.18, 0.21),
    (0.27, 0.27, 0.28),
    (0.66, 0.14, 0.12),
    (0.15, 0.25, 0.52),
    (0.13, 0.31, 0.27),
    (0.78, 0.70, 0.54),
)
_LEAVES = (
    (0.17, 0.28, 0.14, 0.74),
    (0.21, 0.33, 0.16, 0.82),
    (0.15, 0.24, 0.15, 0.62),
    (0.27, 0.36, 0.17, 0.80),
    (0.32, 0.32, 0.16, 0.70),
)
_TRAILERS = ((0.80, 0.80, 0.78), (0.55, 0.22, 0.15), (0.22, 0.36, 0.52), (0.30, 0.42, 0.30))
_BEDS = (
    (0.86, 0.86, 0.84),
    (0.78, 0.79, 0.80),
    (0.70, 0.70, 0.68),
    (0.22, 0.34, 0.56),
    (0.60, 0.18, 0.15),
    (0.24, 0.40, 0.30),
    (0.76, 0.62, 0.28),
    (0.30, 0.31, 0.33),
)
_WAGONS = ((0.44, 0.30, 0.24), (0.36, 0.36, 0.37), (0.60, 0.60, 0.58), (0.30, 0.38, 0.46))
_LOADS = ((0.16, 0.16, 0.17), (0.62, 0.54, 0.40), (0.50, 0.40, 0.30), (0.30, 0.30, 0.31))
_CONTAINERS = (
    (0.62, 0.22, 0.16),
    (0.20, 0.32, 0.54),
    (0.26, 0.44, 0.32),
    (0.84, 0.84, 0.82),
    (0.80, 0.52, 0.20),
    (0.50, 0.51, 0.52),
    (0.48, 0.30, 0.24),
)
_BED = (0.36, 0.33, 0.31, 0.34)
_ROOFS = ((0.58, 0.32, 0.25), (0.48, 0.28, 0.23), (0.45, 0.45, 0.46), (0.33, 0.31, 0.31))
_WATER = (0.17, 0.22, 0.24, 0.06)
_PATCHES = ((0.24, 0.24, 0.25), (0.80, 0.79, 0.75), (0.30, 0.40, 0.56), (0.50, 0.34, 0.26))
_STONES = ((0.62, 0.60, 0.57), (0.50, 0.48, 0.45), (0.72, 0.70, 0.66))


@dataclass(frozen=True)
class Sun:
    """Where shadows fall: a unit vector on the ground, and their length over the height."""

    x: float
    y: float
    reach: float


def reach_px(things: Things, sun: Sun, gsd_m: float) -> NDArray[np.int64]:
    """Bound (N, 4) whole pixels that each thing and its shadow touch: x_min y_min x_max y_max."""
    extents = half_extents_m(things) / gsd_m
    fall = things["height"] * sun.reach / gsd_m
    centre = np.stack([things["x"], things["y"]], axis=1) / gsd_m
    low = centre - extents[:, :2] + np.minimum(fall[:, None] * [sun.x, sun.y], 0)
    high = centre + extents[:, 2:] + np.maximum(fall[:, None] * [sun.x, sun.y], 0)
    return np.concatenate([np.floor(low - 1), np.ceil(high + 1)], axis=1).astype(np.int64)


class Patch:
    """The pixels around one thing.

    Attributes:
        thing: one record of dtype ``THING``.
        gsd_m: metres a pixel.
        window: the pixels.
        x: (h, w) metres from the thing's centre.
        y: (h, w) the same downwards.
        u: (h, w) metres along the thing's length.
        v: (h, w) metres across it.
    """

    def __init__(self, thing: Things, window: Window, gsd_m: float) -> None:
        self.thing, self.window, self.gsd_m = thing, window, gsd_m
        self.kind = Kind(int(thing["kind"]))
        cols = np.arange(window.col, window.col + window.width) + 0.5
        rows = np.arange(window.row, window.row + window.height) + 0.5
        self.x = (cols * gsd_m - float(thing["x"]))[None, :]
        self.y = (rows * gsd_m - float(thing["y"]))[:, None]
        cos, sin = np.cos(float(thing["angle"])), np.sin(float(thing["angle"]))
        self.u = cos * self.x + sin * self.y
        self.v = cos * self.y - sin * self.x

    def chance(self, i: int) -> float:
        """Draw the i-th of this thing's own numbers in [0, 1)."""
        return mix(int(self.thing["key"]), 90, i) / 2**32

    def pick(self, i: int, colours: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
        """Choose one of some colours, by this thing's i-th number."""
        return colours[int(self.chance(i) * len(colours))]

    def covered(self, distance_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each pixel inside an edge, from the signed distance to it: outside positive."""
        return np.clip(0.5 - distance_m / self.gsd_m, 0.0, 1.0)

    def band(self, along: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
        """Share of each pixel between two lines, also when it is narrower than a pixel."""
        half = 0.5 * self.gsd_m
        inside = np.minimum(along + half, high) - np.maximum(along - half, low)
        return np.clip(inside / self.gsd_m, 0.0, 1.0)

    def shape(self, shift_x: float = 0.0, shift_y: float = 0.0) -> NDArray[np.float64]:
        """Measure (h, w) share of each pixel under the thing's outline, moved by metres."""
        if self.kind in ROUND:
            x, y = self.x - shift_x, self.y - shift_y
            radius = outline(self.thing.reshape(1), np.arctan2(y, x).reshape(1, -1))
            return self.covered(np.hypot(x, y) - radius.reshape(np.broadcast(x, y).shape))
        cos, sin = np.cos(float(self.thing["angle"])), np.sin(float(self.thing["angle"]))
        u = self.u - (cos * shift_x + sin * shift_y)
        v = self.v - (cos * shift_y - sin * shift_x)
        length, width = float(self.thing["length"]) / 2, float(self.thing["width"]) / 2
        if self.kind != Kind.VEHICLE:
            return self.band(u, -length, length) * self.band(v, -width, width)
        over_u, over_v = np.abs(u) - length + CORNER_M, np.abs(v) - width + CORNER_M
        outside = np.hypot(np.maximum(over_u, 0), np.maximum(over_v, 0))
        return self.covered(outside + np.minimum(np.maximum(over_u, over_v), 0) - CORNER_M)


def draw_shadow(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    """Measure (h, w) share of each pixel in the thing's shadow, the ground below it included."""
    fall = float(patch.thing["height"]) * sun.reach
    # A crown floats above its trunk; everything else casts its shadow from the ground up.
    start = 0.35 if patch.kind == Kind.TREE else 0.0
    steps = int(np.clip(np.ceil(fall * (1 - start) / (2.0 * patch.gsd_m)), 1, 6))
    shade = patch.shape(sun.x * fall, sun.y * fall)
    for i in range(steps):
        way = fall * (start + (1 - start) * i / steps)
        np.maximum(shade, patch.shape(sun.x * way, sun.y * way), out=shade)
    return shade


def draw_thing(patch: Patch, sun: Sun, difficulty: float) -> tuple[Pixels, Pixels]:
    """Draw one thing.

    Returns:
        (h, w) share of each pixel that it covers, and its (4, h, w) colour there.
    """
    alpha = patch.shape()
    colour = _PAINTERS[patch.kind](patch, sun)
    if patch.kind in (Kind.VEHICLE, Kind.LORRY, Kind.WAGON, Kind.CONTAINER):
        _occlude(patch, colour, difficulty)
    if patch.kind not in FLAT:
        alpha = alpha * (1 - 0.35 * difficulty * patch.chance(9))
    return alpha.astype(np.float32), colour.astype(np.float32)


def _flat(patch: Patch, colour: tuple[float, ...], nir: float = 0.6) -> NDArray[np.float64]:
    """Colour all alike; without its own, near infrared is a share of the visible mean."""
    values = (*colour, nir * sum(colour) / 3) if len(colour) == 3 else colour
    shape = np.broadcast(patch.x, patch.y).shape
    return np.broadcast_to(np.array(values)[:, None, None], (4, *shape)).copy()


def _paint_over(
    colour: NDArray[np.float64], share: NDArray[np.float64], tone: float | tuple[float, ...]
) -> None:
    target = np.broadcast_to(np.asarray(tone, dtype=np.float64), (4,))
    colour += (target[:, None, None] - colour) * share


def _vehicle(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    length, width = float(patch.thing["length"]), float(patch.thing["width"])
    colour = _flat(patch, patch.pick(0, _CAR_COLOURS))
    # The sunny flank is a little brighter, and the body is darker towards its sides.
    side = (patch.x * -sun.x + patch.y * -sun.y) / length
    colour *= 1 + 0.18 * side - 0.12 * np.abs(patch.v) / width
    across = patch.band(patch.v, -0.41 * width, 0.41 * width)
    van = patch.chance(1) < 0.2
    front = patch.band(patch.u, 0.16 * length, 0.29 * length)
    rear = (
        patch.band(patch.u, -0.45 * length, -0.40 * length)
        if van
        else patch.band(patch.u, -0.37 * length, -0.27 * length)
    )
    roof = patch.band(patch.u, -0.27 * length, 0.16 * length) * across
    colour *= 1 + 0.06 * roof
    _paint_over(colour, 0.85 * np.maximum(front, rear) * across, (0.10, 0.12, 0.15, 0.08))
    return colour


def _occlude(patch: Patch, colour: NDArray[np.float64], difficulty: float) -> None:
    """Shade a part, or lay a branch across: both leave the outline as it is."""
    turn = 2 * np.pi * patch.chance(5)
    along = np.cos(turn) * patch.x + np.sin(turn) * patch.y
    if patch.chance(6) < 0.35 * difficulty:
        colour *= 1 - 0.45 * patch.covered(along - 0.4 * (patch.chance(7) - 0.5))
    if patch.chance(8) < 0.12 * difficulty:
        branch = patch.band(along, -0.2, 0.2)
        _paint_over(colour, 0.8 * branch, (0.20, 0.27, 0.15, 0.6))


def _lumps(patch: Patch, metres: float, salt: int) -> Pixels:
    """Smooth noise of the thing's own, fixed to it."""
    window = patch.window
    rows = np.arange(window.height) + 7
    cols = np.arange(window.width) + 7
    return smooth_grid(
        rows, cols, max(metres / patch.gsd_m, 1.5), mix(int(patch.thing["key"]), salt)
    )


def _tree(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    colour = _flat(patch, patch.pick(0, _LEAVES))
    radius = float(patch.thing["length"]) / 2
    x, y = patch.x / radius, patch.y / radius
    dome = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = 0.55 * dome - 0.55 * (x * sun.x + y * sun.y)
    lumps = 0.26 * _lumps(patch, 1.3, 1) + 0.16 * _lumps(patch, 0.6, 2)
    return colour * (0.78 + 0.25 * patch.chance(1) + 0.55 * light + lumps)


def _tank(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    tone = 0.74 + 0.2 * patch.chance(0)
    colour = _flat(patch, (tone, tone, tone * 0.98))
    radius = float(patch.thing["length"]) / 2
    around = np.hypot(patch.x, patch.y)
    colour *= 1 - 0.14 * (patch.x * sun.x + patch.y * sun.y) / radius
    rim = patch.band(around, 0.86 * radius, 0.93 * radius)
    hatch = np.hypot(patch.u - 0.55 * radius, patch.v)
    _paint_over(colour, 0.4 * rim, 0.4)
    _paint_over(colour, 0.6 * patch.covered(hatch - 0.45), 0.3)
    if patch.chance(1) < 0.4:
        _paint_over(colour, 0.35 * patch.band(patch.v, -0.15, 0.15), 0.4)
    return colour


def _paint(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    return _flat(patch, (0.80, 0.80, 0.77))


def _patch(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    return _flat(patch, patch.pick(0, _PATCHES)) * (1 + 0.12 * _lumps(patch, 1.2, 1))


def _pond(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    if patch.chance(0) < 0.5:
        return _flat(patch, _WATER) * (1 + 0.1 * _lumps(patch, 3.0, 1))
    pale = 0.62 + 0.14 * patch.chance(1)
    return _flat(patch, (pale, pale * 0.96, pale * 0.88)) * (1 + 0.1 * _lumps(patch, 2.0, 1))


def _boulder(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    radius = float(patch.thing["length"]) / 2
    light = 1 - 0.3 * (patch.x * sun.x + patch.y * sun.y) / radius
    return _flat(patch, patch.pick(0, _STONES)) * light


def _bush(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    radius = float(patch.thing["length"]) / 2
    light = 1 - 0.25 * (patch.x * sun.x + patch.y * sun.y) / radius
    return _flat(patch, patch.pick(0, _LEAVES)) * light * 1.1


def _trailer(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    colour = _flat(patch, patch.pick(0, _TRAILERS))
    return colour * (1 + 0.06 * np.sin(patch.u * (2 * np.pi / 1.2)))


def _house(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    slope = np.sign(
        -(np.cos(float(patch.thing["angle"])) * sun.y - np.sin(float(patch.thing["angle"])) * sun.x)
    )
    side = np.clip(patch.v / patch.gsd_m, -0.5, 0.5) * 2 * slope
    colour = _flat(patch, patch.pick(0, _ROOFS)) * (1 + 0.2 * side)
    return colour * (1 + 0.05 * _lumps(patch, 0.9, 1))


def _lorry(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    """Draw a loaded bed behind a cab, with a gap between them."""
    length, width = float(patch.thing["length"]), float(patch.thing["width"])
    colour = _flat(patch, patch.pick(0, _BEDS))
    colour *= 1 + 0.14 * (patch.x * -sun.x + patch.y * -sun.y) / length
    colour *= 1 - 0.1 * np.abs(patch.v) / width
    colour *= 1 + 0.03 * np.sin(patch.u * (2 * np.pi / 1.6))
    front = length / 2
    cab = patch.band(patch.u, front - 2.2, front)
    _paint_over(colour, cab, (*patch.pick(1, _CAR_COLOURS), 0.5))
    _paint_over(colour, 0.8 * patch.band(patch.u, front - 2.7, front - 2.2), 0.16)
    screen = patch.band(patch.u, front - 0.8, front - 0.3)
    _paint_over(colour, 0.8 * screen * patch.band(patch.v, -0.42 * width, 0.42 * width), 0.12)
    return colour


def _wagon(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    """Draw a covered wagon, an open one with its load, or a tank wagon."""
    length, width = float(patch.thing["length"]), float(patch.thing["width"])
    colour = _flat(patch, patch.pick(0, _WAGONS))
    kind = patch.chance(1)
    inside = patch.band(patch.u, -length / 2 + 0.5, length / 2 - 0.5)
    if kind < 0.45:
        colour *= 1 - 0.3 * np.abs(patch.v) / width
        colour *= 1 + 0.05 * np.sin(patch.u * (2 * np.pi / 2.4))
    elif kind < 0.75:
        hold = inside * patch.band(patch.v, -width / 2 + 0.3, width / 2 - 0.3)
        load = np.array([*patch.pick(2, _LOADS), 0.4])[:, None, None]
        colour += (load * (1 + 0.25 * _lumps(patch, 1.4, 1)) - colour) * hold
    else:
        _paint_over(colour, 0.7 * (1 - inside), 0.25)
        colour *= 1 + 0.3 * np.cos(np.clip(patch.v / width, -0.5, 0.5) * np.pi) - 0.15
        for u in (-0.25, 0.0, 0.25):
            _paint_over(
                colour, 0.5 * patch.covered(np.hypot(patch.u - u * length, patch.v) - 0.4), 0.3
            )
    return colour


def _container(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    length, width = float(patch.thing["length"]), float(patch.thing["width"])
    colour = _flat(patch, patch.pick(0, _CONTAINERS))
    colour *= 1 + 0.05 * np.sin(patch.u * (2 * np.pi / 1.2)) + 0.1 * (patch.chance(1) - 0.5)
    inner = patch.band(patch.u, 0.2 - length / 2, length / 2 - 0.2)
    inner = inner * patch.band(patch.v, 0.15 - width / 2, width / 2 - 0.15)
    return colour * (0.82 + 0.18 * inner)


def _rails(patch: Patch, sun: Sun) -> NDArray[np.float64]:
    colour = _flat(patch, _BED)
    colour *= 1 + 0.1 * np.sin(patch.u * (2 * np.pi / 1.3))
    for v in (-0.75, 0.75):
        _paint_over(colour, patch.band(patch.v, v - 0.08, v + 0.08), 0.72)
    return colour


_PAINTERS = {
    Kind.VEHICLE: _vehicle,
    Kind.TREE: _tree,
    Kind.TANK: _tank,
    Kind.PAINT: _paint,
    Kind.PATCH: _patch,
    Kind.POND: _pond,
    Kind.BOULDER: _boulder,
    Kind.BUSH: _bush,
    Kind.TRAILER: _trailer,
    Kind.HOUSE: _house,
    Kind.LORRY: _lorry,
    Kind.WAGON: _wagon,
    Kind.CONTAINER: _container,
    Kind.RAILS: _rails,
}
