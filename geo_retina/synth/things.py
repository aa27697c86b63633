"""Things that stand on the ground: what they are, how large, and where their edges lie."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(IntEnum):
    """What a thing is; the classes come first, in order."""

    VEHICLE = 0
    TREE = 1
    TANK = 2
    # Look-alikes, from the ground upwards.
    PAINT = 3
    PATCH = 4
    POND = 5
    BOULDER = 6
    BUSH = 7
    TRAILER = 8
    HOUSE = 9
    # Freight: the classes of the other content, and what wagons stand on.
    LORRY = 10
    WAGON = 11
    CONTAINER = 12
    RAILS = 13


CLASSES = ("vehicle", "tree", "tank")
"""The classes of the truth, in order of ``Kind``."""

FREIGHT_CLASSES = ("lorry", "wagon", "container")
"""The classes of the truth where the content is freight, in order of ``Kind``."""

FLAT = (Kind.PAINT, Kind.PATCH, Kind.POND, Kind.RAILS)
"""Kinds without height, over which shadows fall."""

ROUND = (Kind.TREE, Kind.TANK, Kind.POND, Kind.BOULDER, Kind.BUSH)
"""Kinds with an outline around a centre; the others are rectangles."""

THING = np.dtype(
    [
        ("kind", np.int8),
        ("x", np.float64),
        ("y", np.float64),
        ("angle", np.float64),
        ("length", np.float64),
        ("width", np.float64),
        ("height", np.float64),
        ("key", np.uint32),
    ]
)
"""A thing: centre, direction of its length, sides and height in metres, and random bits."""

Things = NDArray[Any]
"""(N,) records of dtype ``THING``."""

CORNER_M = 0.35
"""Radius of a vehicle's corners, seen from above."""

_LOBES = (2, 3, 5)
_LOBE_SHARE = {Kind.TREE: 0.07, Kind.BUSH: 0.1, Kind.BOULDER: 0.12}


def labels_of(things: Things, *, freight: bool) -> NDArray[np.int32]:
    """Find the (N,) position of each thing among the classes; negative or beyond: in none."""
    first = Kind.LORRY if freight else Kind.VEHICLE
    return things["kind"].astype(np.int32) - np.int32(first)


def is_object(things: Things, *, freight: bool) -> NDArray[np.bool_]:
    """Find which of (N,) things are of a class."""
    labels = labels_of(things, freight=freight)
    return (labels >= 0) & (labels < len(FREIGHT_CLASSES if freight else CLASSES))


def corners_m(things: Things) -> NDArray[np.float64]:
    """Place (N, 4, 2) corners of the rectangles along the things' length and width, in metres."""
    along = np.stack([np.cos(things["angle"]), np.sin(things["angle"])], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    signs = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    centre = np.stack([things["x"], things["y"]], axis=1)
    reach = signs[:, :1] * things["length"][:, None, None] * along[:, None]
    reach = reach + signs[:, 1:] * things["width"][:, None, None] * across[:, None]
    return np.asarray(centre[:, None] + reach)


def outline(things: Things, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure (N, A) distances in metres from the centre to the outline of round things.

    Args:
        things: (N,) of kinds in ``ROUND``.
        angles: (A,) or (N, A) directions in radians.
    """
    share = np.array([_LOBE_SHARE.get(Kind(int(k)), 0.0) for k in things["kind"]])
    radius = np.ones(np.broadcast_shapes((len(things), 1), angles.shape))
    for i, lobes in enumerate(_LOBES):
        phase = (things["key"] >> np.uint32(8 * i) & np.uint32(255)) * (2 * np.pi / 256)
        radius += (share / (i + 1))[:, None] * np.cos(lobes * angles + phase[:, None])
    return radius * (things["length"] / 2)[:, None]


def half_extents_m(things: Things) -> NDArray[np.float64]:
    """Measure (N, 4) reach of each thing to the left, top, right and bottom in metres."""
    cos, sin = np.abs(np.cos(things["angle"])), np.abs(np.sin(things["angle"]))
    corner = np.where(things["kind"] == Kind.VEHICLE, CORNER_M, 0.0)
    length, width = things["length"] / 2 - corner, things["width"] / 2 - corner
    right = cos * length + sin * width + corner
    bottom = sin * length + cos * width + corner
    reach = np.stack([right, bottom, right, bottom], axis=1)
    rounds = np.isin(things["kind"], ROUND)
    if rounds.any():
        angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        radius = outline(things[rounds], angles)
        x, y = radius * np.cos(angles), radius * np.sin(angles)
        reach[rounds] = np.stack(
            [-x.min(axis=1), -y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1
        )
    return reach


def boxes_m(things: Things) -> NDArray[np.float64]:
    """Bound (N, 4) x_min y_min x_max y_max in metres what is visible of each thing."""
    centre = np.stack([things["x"], things["y"]] * 2, axis=1)
    return centre + half_extents_m(things) * np.array([-1, -1, 1, 1])
