"""Which detections of overlapping scenes are one object. Arrays only: no file, no CRS.

The rule is that of merging tiles, with scenes in the place of tiles and their borders in that of
inner tile sides: whole boxes outrank cut ones; a detection suppresses lower-ranked ones of other
scenes; nothing grows; fragments that face each other across a border join last.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import Boxes, area, intersection, iou, overlapping_pairs
from geo_retina.detections import Cut
from geo_retina.options import MergeOptions

Pairs = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """Detections of several scenes, as columns of one length.

    Attributes:
        boxes: (N, 4) in the pixels of the lattice that their scene is on.
        scores: (N,).
        labels: (N,) numbers of classes, common to all scenes.
        scene: (N,) number of the scene.
        cut: (N,) bits of ``Cut``.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    scene: NDArray[np.int64]
    cut: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: Pairs | Mask) -> Found:
        """The rows at positions, or where a mask is true."""
        return Found(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Scenes:
    """Where scenes lie.

    Attributes:
        windows: (S, 4) extents in the pixels of their lattice.
        lattice: (S,) number of the lattice, within which pixels can be compared.
        pixel_m2: (S,) area of a pixel.
    """

    windows: Boxes
    lattice: NDArray[np.int64]
    pixel_m2: NDArray[np.float64]


def rank(found: Found, scenes: Scenes) -> Pairs:
    """Order in which detections are decided, best first; total, but for equal ones.

    Whole ones come before those that a tile or a scene cuts. Whole ones go by score, cut ones by
    area and then score, larger first; ties by position, label and scene.
    """
    is_cut = found.cut != 0
    ground = area(found.boxes) * scenes.pixel_m2[found.scene]
    x_min, y_min, x_max, y_max = found.boxes.T
    keys = (is_cut, np.where(is_cut, -ground, 0.0), -found.scores, y_min, x_min, y_max, x_max)
    return np.lexsort((found.scene, found.labels, *keys[::-1]))


def contested(found: Found, scenes: Scenes, options: MergeOptions) -> Mask:
    """(N,) detections that reach the window of another scene of their lattice."""
    reach = options.edge_px
    outwards = np.array([-reach, -reach, reach, reach])
    meets = np.zeros(len(found), dtype=bool)
    # Scenes as boxes of lattices far from each other's would need a third axis: compare them all.
    for one, other in overlapping_pairs(scenes.windows + outwards):
        if scenes.lattice[one] != scenes.lattice[other]:
            continue
        for a, b in ((one, other), (other, one)):
            own = np.flatnonzero(found.scene == a)
            window = np.broadcast_to(scenes.windows[b] + outwards, (len(own), 4))
            meets[own] |= intersection(found.boxes[own], window) > 0
    return meets


def pairs_of_one_lattice(
    found: Found, scenes: Scenes, options: MergeOptions
) -> tuple[Pairs, Pairs]:
    """Conflicts and joins between scenes of one lattice, in pixels.

    Args:
        found: in rank order, all on one lattice.
        scenes: theirs.
        options: thresholds.

    Returns:
        (P, 2) positions i < j where i suppresses j if it is kept, sorted by i; and (Q, 2) where
        both are parts of one object. No pair is in both.
    """
    is_cut = found.cut != 0
    reach = np.where(is_cut, options.edge_px, 0.0)[:, None]
    pairs = overlapping_pairs(found.boxes + reach * np.array([-1.0, -1.0, 1.0, 1.0]))
    pairs = pairs[_may_meet(found, pairs, options)]
    i, j = pairs.T
    a, b = found.boxes[i], found.boxes[j]
    suppresses = iou(a, b) > options.iou
    suppresses |= is_cut[j] & (intersection(a, b) > options.share * area(b))
    faces = _face(found, scenes, pairs, options) if options.join else np.zeros(len(pairs), bool)
    return pairs[suppresses & ~faces], pairs[faces]


def pairs_of_polygons(
    found: Found, polygons: NDArray[np.object_], lattice: Pairs, options: MergeOptions
) -> Pairs:
    """Conflicts between scenes of different lattices, by areas on the ground.

    Args:
        found: in rank order.
        polygons: (N,) their places in an equal-area CRS.
        lattice: (N,) numbers of their lattices.
        options: thresholds.

    Returns:
        (P, 2) positions i < j where i suppresses j if it is kept, sorted by i.
    """
    pairs = overlapping_pairs(shapely.bounds(polygons).reshape(-1, 4))
    pairs = pairs[lattice[pairs[:, 0]] != lattice[pairs[:, 1]]]
    pairs = pairs[_may_meet(found, pairs, options)]
    i, j = pairs.T
    shared = shapely.area(shapely.intersection(polygons[i], polygons[j]))
    own = shapely.area(polygons)
    union = own[i] + own[j] - shared
    suppresses = shared > options.iou * union
    suppresses |= (found.cut[j] != 0) & (shared > options.share * own[j])
    return pairs[suppresses]


def select(conflicts: Pairs, count: int) -> Mask:
    """(count,) detections to keep: in rank order, who conflicts with no kept one above it."""
    suppressed = bytearray(count)
    for i, j in conflicts[np.lexsort(conflicts.T[::-1])].tolist():
        if not suppressed[i]:
            suppressed[j] = 1
    return ~np.frombuffer(suppressed, dtype=bool)


def objects_of(links: Pairs, count: int) -> NDArray[np.int64]:
    """(count,) number of the object that each detection is a part of; its own where of none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count,) * 2)
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _may_meet(found: Found, pairs: Pairs, options: MergeOptions) -> Mask:
    i, j = pairs.T
    wanted = found.scene[i] != found.scene[j]
    if options.class_aware:
        wanted &= found.labels[i] == found.labels[j]
    return wanted


def _face(found: Found, scenes: Scenes, pairs: Pairs, options: MergeOptions) -> Mask:
    """(P,) pairs that look like two parts of one object, divided by a border of their scenes."""
    divided, level = zip(
        *(_along(found, scenes, pairs, options, axis) for axis in (0, 1)), strict=True
    )
    return np.asarray((divided[0] & level[1]) | (divided[1] & level[0]) | (divided[0] & divided[1]))


def _along(
    found: Found, scenes: Scenes, pairs: Pairs, options: MergeOptions, axis: int
) -> tuple[Mask, Mask]:
    """(P,) pairs that a border divides along x (axis 0) or y (1), and pairs level there.

    Divided: each cut by its scene's border on the side towards the other, in windows of which
    one begins after the other and not beyond its end, both reaching over what the windows share
    to within ``edge_px``. Level: the 1-D IoU of their extents is at least ``join_iou``.
    """
    start = scenes.windows[found.scene[pairs], axis]
    ordered = np.where((start[:, :1] > start[:, 1:]), pairs[:, ::-1], pairs)
    windows = scenes.windows[found.scene[ordered]]
    seam_low, seam_high = windows[:, 1, axis], windows[:, 0, axis + 2]
    low, high = found.boxes[ordered][..., axis], found.boxes[ordered][..., axis + 2]
    towards = np.array(_TOWARDS[axis], dtype=np.uint8)
    divided = ((found.cut[ordered] & towards) != 0).all(axis=1)
    divided &= (start[:, 0] != start[:, 1]) & (seam_low <= seam_high + options.edge_px)
    divided &= low.max(axis=1) <= seam_low + options.edge_px
    divided &= high.min(axis=1) >= seam_high - options.edge_px
    shared = high.min(axis=1) - low.max(axis=1)
    together = high.max(axis=1) - low.min(axis=1)
    return divided, (shared > 0) & (shared >= options.join_iou * together)


_TOWARDS = ((Cut.SCENE_RIGHT, Cut.SCENE_LEFT), (Cut.SCENE_BOTTOM, Cut.SCENE_TOP))
