"""What detections were found in: the tiles of one scene, or whole scenes on common lattices.

The rule of merging needs little of either: the window that each source saw, and which sides of a
box that window cut. ``as_in_tiles`` says the latter of scenes in the terms of tiles, so that one
rule serves both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes, overlapping_pairs
from geo_retina.detections import INNER_SIDES, Detections
from geo_retina.grid import TilePlan

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
Line = NDArray[np.float64]

PIXEL = 1.0
"""Less than a pixel between two windows is no gap: nothing of the ground is missing there."""

_AT_ONCE = 1 << 18
"""Pairs of boxes and windows looked at together: few enough for the processor's caches."""

_OUTWARDS = np.array([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Scenes:
    """Where scenes lie that are merged with each other.

    ``Detections.tile`` is then the number of the scene.

    Attributes:
        windows: (S, 4) x_min y_min x_max y_max in pixels of the scene's lattice.
        lattice: (S,) number of the lattice; boxes of different ones cannot be compared.
        settled: (S,) detections of scenes of one number never conflict: each scene's own, and
            those of all scenes that were merged before.
        pixel_area: (S,) area of a pixel, equal within a lattice.
    """

    windows: Boxes
    lattice: Whole
    settled: Whole
    pixel_area: Line

    @classmethod
    def of_one_lattice(cls, windows: Boxes) -> Scenes:
        """Make scenes with windows on one lattice, none of which were merged before."""
        count = len(windows)
        lattice = np.zeros(count, np.int64)
        return cls(np.asarray(windows, np.float64), lattice, np.arange(count), np.ones(count))

    def __len__(self) -> int:
        return len(self.windows)

    def windows_px(self, indices: Whole) -> Boxes:
        """Return (..., 4) windows of the scenes at positions."""
        return self.windows[indices]


Sources = TilePlan | Scenes


def settled(detections: Detections, sources: Sources) -> Whole:
    """Assign (N,) equal numbers to detections between which all is decided."""
    tile = detections.tile
    return sources.settled[tile] if isinstance(sources, Scenes) else tile


def lattices(detections: Detections, sources: Sources) -> Whole:
    """Assign (N,) equal numbers to detections whose boxes can be compared."""
    if isinstance(sources, Scenes):
        return sources.lattice[detections.tile]
    return np.zeros(len(detections), np.int64)


def meets_other_scenes(detections: Detections, scenes: Scenes, around: Line) -> Mask:
    """Find (N,) detections that touch the window of another scene of their lattice.

    Those that reach beyond their own scene, as objects joined at its border do, count too.

    Args:
        detections: any.
        scenes: theirs.
        around: (N,) pixels around a box that count as part of it.
    """
    parts = _by_scene(detections, np.arange(len(detections)))
    boxes = detections.boxes_px + around[:, None] * _OUTWARDS
    extents = [
        np.concatenate([boxes[rows, :2].min(axis=0), boxes[rows, 2:].max(axis=0)])
        for _, rows in parts
    ]
    near = _neighbours(np.reshape(extents, (-1, 4)), scenes.windows)
    meets = np.zeros(len(detections), dtype=bool)
    for (own, rows), others in zip(parts, near, strict=True):
        mine, window = boxes[rows], scenes.windows[own]
        beyond = (mine[:, :2] < window[:2]) | (mine[:, 2:] > window[2:])
        found = beyond.any(axis=1) & detections.joined[rows]
        apart = scenes.settled[others] != scenes.settled[own]
        apart &= scenes.lattice[others] == scenes.lattice[own]
        for other in scenes.windows[others[apart]]:
            found |= _touch(mine, other)
            if found.all():
                break
        meets[rows] = found
    return meets


def as_in_tiles(
    detections: Detections, scenes: Scenes, edge_px: float, abroad: Mask | None = None
) -> Detections:
    """Say which sides of boxes are cut, as if the scenes were tiles.

    A scene's border cuts a box where another scene looks at ground beyond it, as an inner tile
    side does; where none does, that is the end of all ground, and the box as whole as it gets.

    Args:
        detections: with the borders of their own scenes in ``cut``.
        scenes: theirs.
        edge_px: a box this near to its scene's border touches it; one that is marked as cut and
            farther inside ends with the scene's valid ground.
        abroad: (N,) detections on ground at which scenes of other lattices look, of whose
            windows nothing is known here: any border cuts them.

    Returns:
        The same, with the bits of scene borders moved to those of inner sides where they cut.
    """
    borders = detections.cut >> 4
    cuts = np.zeros_like(borders) if abroad is None else np.where(abroad, borders, 0)
    cuts = cuts.astype(np.uint8)
    length = scenes.windows[:, 2:] - scenes.windows[:, :2]
    around = scenes.windows + (np.hstack([length, length]) + PIXEL) * _OUTWARDS
    parts = _by_scene(detections, np.flatnonzero(borders & ~cuts))
    near = _neighbours(around[[own for own, _ in parts]], around)
    for (own, rows), others in zip(parts, near, strict=True):
        others = others[(scenes.lattice[others] == scenes.lattice[own]) & (others != own)]
        for side in range(4):
            at = rows[(borders[rows] & ~cuts[rows] & (1 << side)) != 0]
            goes_on = _goes_on(
                detections.boxes_px[at], scenes.windows[own], scenes.windows[others], side, edge_px
            )
            cuts[at[goes_on]] |= np.uint8(1 << side)
    ends = (borders & ~cuts) << 4
    return replace(detections, cut=(detections.cut & INNER_SIDES | cuts | ends).astype(np.uint8))


def _goes_on(boxes: Boxes, window: Line, others: Boxes, side: int, edge_px: float) -> Mask:
    """Find (N,) boxes of one scene beyond whose side one of the others has ground.

    It must lie in line with the box, and no farther off than the longer of the two is long.
    """
    axis, outwards = side % 2, -1.0 if side < 2 else 1.0
    ends, border = outwards * boxes[:, side], outwards * window[side]
    ends = np.where(ends >= border - edge_px, np.maximum(ends, border), ends)
    far, near = outwards * others[:, side], outwards * others[:, side - 2]
    length = np.maximum(far - near, window[axis + 2] - window[axis])
    low, high = boxes[:, 1 - axis] - PIXEL, boxes[:, 3 - axis] + PIXEL
    found = np.zeros(len(boxes), dtype=bool)
    at_once = max(1, _AT_ONCE // max(len(others), 1))
    for start in range(0, len(boxes), at_once):
        here = slice(start, start + at_once)
        end = ends[here, None]
        beyond = (far >= end + PIXEL) & (near - end < length)
        beyond &= (others[:, 1 - axis] < high[here, None]) & (others[:, 3 - axis] > low[here, None])
        found[here] = beyond.any(axis=1)
    return found


def _by_scene(detections: Detections, rows: Whole) -> list[tuple[int, Whole]]:
    """Group rows by scene: its number, and its rows."""
    if not len(rows):
        return []
    rows = rows[np.argsort(detections.tile[rows], kind="stable")]
    scene = detections.tile[rows]
    starts = np.flatnonzero(np.diff(scene, prepend=-1))
    return list(zip(scene[starts].tolist(), np.split(rows, starts[1:]), strict=True))


def _neighbours(boxes: Boxes, others: Boxes) -> list[Whole]:
    """Find, for each box, the positions of the others that it overlaps or touches."""
    i, j = overlapping_pairs(boxes, others).T
    return np.split(j, np.searchsorted(i, np.arange(1, len(boxes)))) if len(boxes) else []


def _touch(boxes: Boxes, window: NDArray[np.float64]) -> Mask:
    """Find (N,) boxes that overlap one window, or touch it."""
    return (
        (boxes[:, 0] <= window[2])
        & (boxes[:, 2] >= window[0])
        & (boxes[:, 1] <= window[3])
        & (boxes[:, 3] >= window[1])
    )
