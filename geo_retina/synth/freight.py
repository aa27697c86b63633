"""Where goods are handled: rows of lorries, trains in sidings and stacks of containers.

Every parcel has a direction of its own, so that objects lie at any angle, side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.synth.plot import EDGE_GAP_M, Plot, scatter_clutter
from geo_retina.synth.things import Kind, Things

LORRY_REACH_M = 9.0
"""Half the length of the longest lorry."""

_LORRY_M, _WAGON_M = (9.5, 17.0), (12.5, 19.0)
_CONTAINER_M = (6.06, 12.19)
_CONTAINER_WIDTH_M = 2.44
_TRACK_GAUGE_M = (4.9, 6.5)


def make_lorries(plot: Plot, at_m: NDArray[np.float64], angle: NDArray[np.float64]) -> Things:
    """Make lorries at (N, 2) places, facing either way along (N,) directions."""
    n, rng = len(at_m), plot.rng
    size = np.stack([rng.uniform(*_LORRY_M, n), rng.uniform(2.45, 2.6, n)], axis=1)
    facing = angle + np.pi * rng.integers(0, 2, n) + rng.normal(0, 0.02, n)
    return plot.things(Kind.LORRY, at_m, size, angle=facing, height_m=3.8)


def park_lorries(plot: Plot) -> list[Things]:
    """Park lorries side by side, square to their row or at a slant."""
    rng = plot.rng
    slant = rng.choice([np.pi / 2, np.pi / 2, np.pi / 3, 2 * np.pi / 3, np.pi / 4])
    pitch = rng.uniform(3.4, 4.4) / np.sin(slant)
    bays, _ = plot.lattice(pitch, _LORRY_M[1] * np.sin(slant) + rng.uniform(4.0, 9.0))
    bays = bays[plot.land.room_m(plot.parcel, bays) > LORRY_REACH_M + EDGE_GAP_M]
    bays = _some(plot, bays) + rng.normal(0, 0.1, (1, 2))
    lorries = make_lorries(plot, bays, np.full(len(bays), plot.parcel.angle + slant))
    return [lorries, *_loose_ends(plot)]


def shunt_wagons(plot: Plot) -> list[Things]:
    """Lay sidings side by side, and couple wagons into trains on them."""
    rng, side_m = plot.rng, plot.land.cell_m * 0.75
    gauge = rng.uniform(*_TRACK_GAUGE_M)
    tracks = rng.permutation(np.arange(-int(side_m / gauge), int(side_m / gauge) + 1)) * gauge
    chance = np.clip(plot.quota / 40, 0, 0.9)
    places, lengths = [], []
    for v in tracks.tolist():
        u = -side_m + rng.uniform(0, 12)
        length = rng.uniform(*_WAGON_M)
        while u < side_m:
            if rng.random() < chance:
                places.append((u + length / 2, v))
                lengths.append(length)
            elif rng.random() < 0.6:
                length = rng.uniform(*_WAGON_M)
            u += length + 1.3
    at_m = plot.place(np.array(places).reshape(-1, 2))
    size = np.stack([np.array(lengths), np.full(len(lengths), rng.uniform(2.8, 3.0))], axis=1)
    wagons = plot.things(Kind.WAGON, at_m, size, angle=plot.parcel.angle, height_m=3.6)
    pieces = np.arange(-side_m, side_m, 6.0)
    beds = np.stack(np.meshgrid(pieces, tracks), axis=-1).reshape(-1, 2)
    rails = plot.things(
        Kind.RAILS,
        plot.place(beds),
        np.full((len(beds), 2), [6.0, 2.6]),
        angle=plot.parcel.angle,
    )
    return [
        wagons,
        rails,
        scatter_clutter(plot, Kind.BUSH, 2),
        scatter_clutter(plot, Kind.PATCH, 1),
    ]


def stack_containers(plot: Plot) -> list[Things]:
    """Stack containers in blocks of long or short ones, with lanes between the blocks."""
    rng = plot.rng
    length = rng.choice(_CONTAINER_M)
    gap = rng.uniform(0.7, 1.5)
    spots, steps = plot.lattice(length + 1.0, _CONTAINER_WIDTH_M + gap)
    rows = int(rng.integers(3, 8))
    open_ = plot.land.room_m(plot.parcel, spots) > length / 2 + _CONTAINER_WIDTH_M + EDGE_GAP_M
    open_ &= steps[:, 1] % (rows + 2) < rows
    spots = _some(plot, spots[open_])
    n = len(spots)
    turn = rng.normal(0, 0.01, n) + plot.parcel.angle
    size = np.tile([length, _CONTAINER_WIDTH_M], (n, 1))
    boxes = plot.things(
        Kind.CONTAINER,
        spots,
        size,
        angle=turn,
        height_m=2.6 * rng.integers(1, 4, n).astype(np.float64),
    )
    return [boxes, *_loose_ends(plot)]


def _some(plot: Plot, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take as many of (N, 2) places as the parcel has objects to place, but not quite all."""
    chance = np.clip(plot.quota / max(len(places), 1), 0, 0.92)
    return places[plot.rng.random(len(places)) < chance]


def _loose_ends(plot: Plot) -> list[Things]:
    """Add a few lorries that stand anywhere, at any angle, and what litters such ground."""
    n = max(plot.quota // 12, 0)
    strays = make_lorries(plot, plot.scatter(n), plot.rng.uniform(0, np.pi, n))
    boxes = plot.things(
        Kind.CONTAINER,
        plot.scatter(n),
        np.stack([plot.rng.choice(_CONTAINER_M, n), np.full(n, _CONTAINER_WIDTH_M)], axis=1),
        angle=plot.rng.uniform(0, np.pi, n),
        height_m=2.6,
    )
    return [
        strays,
        boxes,
        scatter_clutter(plot, Kind.PATCH, 3),
        scatter_clutter(plot, Kind.BUSH, 2),
        scatter_clutter(plot, Kind.POND, 1),
    ]
