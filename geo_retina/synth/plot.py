"""One parcel while it is laid out, and what stands on any kind of parcel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.synth.parcels import Land, Parcel
from geo_retina.synth.things import THING, Kind, Things

EDGE_GAP_M = 1.0
"""Room that stays free between a thing and the end of its parcel."""


@dataclass(frozen=True)
class Plot:
    """A parcel being laid out.

    Attributes:
        land: all parcels.
        parcel: the one.
        rng: its generator.
        quota: objects to place.
        clutter: look-alikes, relative to the usual number.
    """

    land: Land
    parcel: Parcel
    rng: np.random.Generator
    quota: int
    clutter: float

    def things(
        self,
        kind: Kind,
        at_m: NDArray[np.float64],
        size_m: NDArray[np.float64],
        *,
        angle: float | NDArray[np.float64] = 0.0,
        height_m: float | NDArray[np.float64] = 0.0,
    ) -> Things:
        """Make things of one kind at (N, 2) places with (N, 2) lengths and widths."""
        made = np.zeros(len(at_m), THING)
        made["kind"] = kind
        made["x"], made["y"] = at_m.T
        made["length"], made["width"] = size_m.T
        made["angle"], made["height"] = angle, height_m
        made["key"] = self.rng.integers(0, 2**32, len(at_m), dtype=np.uint32)
        return made

    def scatter(self, n: int) -> NDArray[np.float64]:
        """Draw (n, 2) places anywhere around; those outside the parcel are dropped later."""
        side = self.land.cell_m * 0.75
        return np.array([self.parcel.x, self.parcel.y]) + self.rng.uniform(-side, side, (n, 2))

    def lattice(
        self, pitch_u: float, pitch_v: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Lay places (N, 2) in rows along the parcel's direction; return the steps (N, 2) too."""
        n_u, n_v = (int(self.land.cell_m * 0.9 / pitch) for pitch in (pitch_u, pitch_v))
        steps = np.stack(
            np.meshgrid(np.arange(-n_u, n_u + 1), np.arange(-n_v, n_v + 1)), axis=-1
        ).reshape(-1, 2)
        return self.place(steps * np.array([pitch_u, pitch_v])), steps

    def place(self, uv_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (N, 2) positions along and across the parcel's direction to x, y."""
        cos, sin = np.cos(self.parcel.angle), np.sin(self.parcel.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        return np.array([self.parcel.x, self.parcel.y]) + uv_m @ turn

    def sizes(self, n: int, low: float, high: float, aspect: float = 1.0) -> NDArray[np.float64]:
        """Draw (n, 2) lengths from a range and widths in a fixed proportion."""
        length = self.rng.uniform(low, high, n)
        return np.stack([length, length * aspect], axis=1)


def make_vehicles(plot: Plot, at_m: NDArray[np.float64], angle: NDArray[Any] | float) -> Things:
    """Make cars at (N, 2) places."""
    n = len(at_m)
    size = np.stack([plot.rng.uniform(3.9, 5.1, n), plot.rng.uniform(1.75, 2.1, n)], axis=1)
    return plot.things(Kind.VEHICLE, at_m, size, angle=angle, height_m=1.5)


def make_trees(
    plot: Plot, at_m: NDArray[np.float64], low: float = 3.3, high: float = 8.5
) -> Things:
    """Make trees at (N, 2) places, of diameters in a range."""
    n = len(at_m)
    diameter = low + (high - low) * plot.rng.beta(1.6, 2.4, n)
    return plot.things(
        Kind.TREE, at_m, np.stack([diameter] * 2, axis=1), height_m=diameter * 0.8 + 1.0
    )


_CLUTTER_M = {
    Kind.BUSH: (1.0, 1.9, 1.0, 0.9),
    Kind.BOULDER: (0.9, 2.3, 1.0, 0.6),
    Kind.POND: (5.0, 10.0, 1.0, 0.0),
    Kind.PATCH: (1.5, 3.2, 0.85, 0.0),
    Kind.TRAILER: (6.2, 12.5, 0.28, 2.8),
}
"""Look-alikes: shortest and greatest length, width over length, height."""


def scatter_clutter(plot: Plot, kind: Kind, usual: float) -> Things:
    """Scatter look-alikes of a kind, in their usual number on a parcel of 64 m."""
    low, high, aspect, height_m = _CLUTTER_M[kind]
    n = int(plot.rng.poisson(usual * plot.clutter * (plot.land.cell_m / 64) ** 2))
    size = plot.sizes(n, low, high, aspect)
    turn = plot.parcel.angle + (plot.rng.normal(0, 0.05, n) if kind != Kind.PATCH else 0.0)
    return plot.things(kind, plot.scatter(n), size, angle=turn, height_m=height_m)
