"""What detections were found in: the tiles of one scene, or whole scenes on common lattices.

The rule of merging needs little of either: the window that each source saw, and which sides of a
box that window cut. ``as_in_tiles`` says the latter of scenes in the terms of tiles, so that one
rule serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import INNER_SIDES, Detections
from geo_retina.grid import TilePlan

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
Line = NDArray[np.float64]

PIXEL = 1.0
"""Less than a pixel between two windows is no gap: nothing of the ground is missing there."""


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
        """Scenes with windows on one lattice, none of which were merged before."""
        count = len(windows)
        lattice = np.zeros(count, np.int64)
        return cls(np.asarray(windows, np.float64), lattice, np.arange(count), np.ones(count))

    def __len__(self) -> int:
        return len(self.windows)

    def windows_px(self, indices: Whole) -> Boxes:
        """(..., 4) windows of the scenes at positions."""
        return self.windows[indices]


Sources = TilePlan | Scenes


def settled(detections: Detections, sources: Sources) -> Whole:
    """(N,) numbers that are equal for detections between which all is decided."""
    tile = detections.tile
    return sources.settled[tile] if isinstance(sources, Scenes) else tile


def lattices(detections: Detections, sources: Sources) -> Whole:
    """(N,) numbers that are equal for detections whose boxes can be compared."""
    if isinstance(sources, Scenes):
        return sources.lattice[detections.tile]
    return np.zeros(len(detections), np.int64)


def meets_other_scenes(detections: Detections, scenes: Scenes, around: Line) -> Mask:
    """(N,) detections that meet the window of another scene of their lattice.

    Those that reach beyond their own scene, as objects joined at its border do, count too.

    Args:
        detections: any.
        scenes: theirs.
        around: (N,) pixels around a box that count as part of it.
    """
    outwards = np.array([-1.0, -1.0, 1.0, 1.0])
    reach = float(around.max(initial=0.0))
    meets = np.zeros(len(detections), dtype=bool)
    for own, rows in _by_scene(detections, np.arange(len(detections))):
        boxes = detections.boxes_px[rows] + around[rows, None] * outwards
        window = scenes.windows[own]
        outside = (boxes[:, :2] < window[:2]) | (boxes[:, 2:] > window[2:])
        found = outside.any(axis=1) & detections.joined[rows]
        others = (scenes.lattice == scenes.lattice[own]) & (scenes.settled != scenes.settled[own])
        extent = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        others &= _touch(scenes.windows, extent + reach * outwards)
        for other in scenes.windows[others]:
            found |= _touch(boxes, other)
            if found.all():
                break
        meets[rows] = found
    return meets


def as_in_tiles(
    detections: Detections, scenes: Scenes, edge_px: float, across: Mask | None = None
) -> Detections:
    """Say which sides of boxes are cut, as if the scenes were tiles.

    A scene's border cuts a box where another scene looks at ground beyond it, as an inner tile
    side does; where none does, that is the end of all ground, and the box as whole as it gets.

    Args:
        detections: with the borders of their own scenes in ``cut``.
        scenes: theirs.
        edge_px: a box this near to its scene's border touches it; one that is marked as cut and
            farther inside ends with the scene's valid ground.
        across: (N,) detections that meet scenes of other lattices, of whose windows nothing is
            known here: any border cuts them.

    Returns:
        The same, with the bits of scene borders moved to those of inner sides where they cut.
    """
    borders = detections.cut >> 4
    cuts = borders if across is None else np.where(across, borders, 0)
    cuts = cuts.astype(np.uint8)
    for own, rows in _by_scene(detections, np.flatnonzero(borders & ~cuts)):
        for side in range(4):
            at = rows[(borders[rows] & ~cuts[rows] & (1 << side)) != 0]
            if len(at):
                goes_on = _goes_on(detections.boxes_px[at], scenes, own, side, edge_px)
                cuts[at[goes_on]] |= np.uint8(1 << side)
    ends = (borders & ~cuts) << 4
    return replace(detections, cut=(detections.cut & INNER_SIDES | cuts | ends).astype(np.uint8))


def _goes_on(boxes: Boxes, scenes: Scenes, own: int, side: int, edge_px: float) -> Mask:
    """(N,) boxes of one scene beyond whose side another scene of its lattice sees ground.

    It must lie in line with the box, and no farther off than the longer of the two is long.
    """
    axis, outwards = side % 2, -1.0 if side < 2 else 1.0
    far, near = outwards * scenes.windows[:, side], outwards * scenes.windows[:, (side + 2) % 4]
    ends = outwards * boxes[:, side]
    ends = np.where(ends >= far[own] - edge_px, np.maximum(ends, far[own]), ends)
    length = np.maximum(far - near, far[own] - near[own])
    low, high = boxes[:, 1 - axis], boxes[:, 3 - axis]
    found = np.zeros(len(boxes), dtype=bool)
    others = (scenes.lattice == scenes.lattice[own]) & (far >= ends.min() + PIXEL)
    others &= near - ends.max() < length
    others &= scenes.windows[:, 1 - axis] < high.max() + PIXEL
    others &= scenes.windows[:, 3 - axis] > low.min() - PIXEL
    others[own] = False
    for k in np.flatnonzero(others):
        beyond = (far[k] >= ends + PIXEL) & (near[k] - ends < length[k])
        beyond &= (scenes.windows[k, 1 - axis] < high + PIXEL) & (
            scenes.windows[k, 3 - axis] > low - PIXEL
        )
        found |= beyond
        if found.all():
            break
    return found


def _by_scene(detections: Detections, rows: Whole) -> Iterator[tuple[int, Whole]]:
    """Numbers of scenes, and those of the rows that are theirs."""
    rows = rows[np.argsort(detections.tile[rows], kind="stable")]
    scene = detections.tile[rows]
    starts = np.flatnonzero(np.diff(scene, prepend=-1))
    for start, part in zip(starts, np.split(rows, starts[1:]), strict=True) if len(rows) else ():
        yield int(scene[start]), part


def _touch(boxes: Boxes, window: NDArray[np.float64]) -> Mask:
    """(N,) boxes that overlap one window, or touch it."""
    return (
        (boxes[:, 0] <= window[2])
        & (boxes[:, 2] >= window[0])
        & (boxes[:, 1] <= window[3])
        & (boxes[:, 3] >= window[1])
    )
