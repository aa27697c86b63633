"""What a detection has to do with the windows of other sources, and fragments on either side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import INNER_SIDES, Cut, Detections
from geo_retina.grid import TilePlan
from geo_retina.merge.pairs import Pairs
from geo_retina.merge.shapes import axes_agree, extents_across, extents_within
from geo_retina.merge.sources import PIXEL, Line, Mask, Scenes, Sources, meets_other_scenes
from geo_retina.options import MergeOptions

_ROUNDING_PX = 1e-6
"""By how much the ends of one part of an oriented box differ that two windows show."""

Span = tuple[int, int] | tuple[NDArray[np.int64], NDArray[np.int64]]


def is_cut(detections: Detections) -> Mask:
    """Find (N,) detections that an inner side of their tile, or a scene's border, may have cut."""
    return (detections.cut & INNER_SIDES) != 0


def contested(detections: Detections, sources: Sources, options: MergeOptions) -> Mask:
    """Find (N,) detections that another source may decide about; the others stand as they are.

    Objects that the tiles of one scene were joined to stand; between scenes they compete.
    """
    if isinstance(sources, Scenes):
        return meets_other_scenes(detections, sources, reach(detections, options))
    row, col = np.divmod(detections.tile, sources.cols)
    meets = meets_others(detections, (row, row + 1), (col, col + 1), sources, options)
    return meets & ~detections.joined


def meets_others(
    detections: Detections, rows: Span, cols: Span, plan: TilePlan, options: MergeOptions
) -> Mask:
    """Find (N,) detections that touch a tile's window outside rows x cols, or may join into it.

    Fragments that face each other may each end ``edge_px`` short of the other's window, so a cut
    one counts from there on, and rather too early than too late: who is looked at without need
    is decided later, not differently.

    Args:
        detections: any.
        rows: first row and the one after the last, of the plan's tiles; numbers or (N,) arrays.
        cols: likewise the columns.
        plan: the tiles.
        options: thresholds.
    """
    around = reach(detections, options)
    x_min, y_min, x_max, y_max = detections.boxes_px.T
    meets = np.zeros(len(detections), dtype=bool)
    for low, high, (first, stop), n in (
        (x_min, x_max, cols, plan.cols),
        (y_min, y_max, rows, plan.rows),
    ):
        before = low - around <= (first - 1) * plan.step_px + plan.tile_px
        after = high + around >= stop * plan.step_px
        meets |= (before & (first > 0)) | (after & (stop < n))
    return meets


def reach(detections: Detections, options: MergeOptions) -> Line:
    """Compute (N,) pixels around a box within which it may face another."""
    return np.where(is_cut(detections) & options.join, 2 * options.edge_px, 0.0)


def face(detections: Detections, pairs: Pairs, sources: Sources, options: MergeOptions) -> Mask:
    """Find (P,) pairs that may be two parts of one object, divided by the seam of their sources.

    Along each axis they are divided by the seam or level with each other, and along one at
    least divided. For tiles of one row that means divided along x and level along y. Diagonal
    tiles come in because of a long object in the overlap of two rows one row may keep the left
    part and the other the right. Oriented ones agree in their axes, and lie in line: they are level
    along both axes where these are divided, too, and across the longer. Without ``options.join`` no
    pair faces each other.
    """
    facing = np.zeros(len(pairs), dtype=bool)
    if not options.join:
        return facing
    at = np.flatnonzero(is_cut(detections)[pairs].all(axis=1) & axes_agree(detections, pairs))
    pairs = pairs[at]
    divided = [_divided(detections, pairs, sources, options, axis) for axis in (0, 1)]
    found = divided[0] | divided[1]
    rotated, overlaps = detections.rotated_px, _overlaps(detections, pairs, sources)
    # Upright boxes that both fill the overlap along an axis are level there. Oriented ones may lie
    # side by side in it, which cannot be told where it is no more than a line or a corner.
    is_wide = ((overlaps[:, 2:] - overlaps[:, :2]) > PIXEL).all(axis=1) & (rotated is not None)
    for axis in (0, 1):
        aside = np.flatnonzero(found & divided[1 - axis] & (~divided[axis] | is_wide))
        ends = extents_within(detections, pairs[aside], overlaps[aside], axis)
        found[aside] = _level(*ends, options, exact=rotated is None)
    if rotated is not None:
        aside = np.flatnonzero(found & is_wide)
        ends = extents_across(rotated, pairs[aside], overlaps[aside])
        found[aside] = _level(*ends, options, exact=False)
    facing[at] = found
    return facing


def _divided(
    detections: Detections, pairs: Pairs, sources: Sources, options: MergeOptions, axis: int
) -> Mask:
    """Find (P,) pairs that the seam divides along x (axis 0) or y (1).

    In windows that follow each other and meet, each is cut on its side towards the other, and both
    reach over the whole overlap to within ``edge_px``, or a quarter of it.
    """
    start = sources.windows_px(detections.tile[pairs])[..., axis]
    ordered = np.where(start[:, :1] > start[:, 1:], pairs[:, ::-1], pairs)
    windows = sources.windows_px(detections.tile[ordered])
    starts, ends = windows[..., axis], windows[..., axis + 2]
    seam_low, seam_high = starts[:, 1], ends[:, 0]
    boxes = detections.boxes_px[ordered]
    low, high = boxes[..., axis], boxes[..., axis + 2]
    towards = np.array([(Cut.RIGHT, Cut.LEFT), (Cut.BOTTOM, Cut.TOP)][axis], dtype=np.uint8)
    divided = ((detections.cut[ordered] & towards) != 0).all(axis=1)
    # Windows of tiles are whole pixels; those of scenes may be a part of one apart.
    divided &= (starts[:, 0] < starts[:, 1]) & (ends[:, 0] < ends[:, 1])
    divided &= seam_low < seam_high + PIXEL
    # Two neighbours that end near a narrow overlap are not parts of one object: short of it by
    # more than a quarter, they would share too little to tell.
    short = np.minimum(options.edge_px, np.maximum(seam_high - seam_low, 0) / 4)
    divided &= low.max(axis=1) <= seam_low + short
    divided &= high.min(axis=1) >= seam_high - short
    return np.asarray(divided)


def _overlaps(detections: Detections, pairs: Pairs, sources: Sources) -> Boxes:
    """Find the (P, 4) overlaps of the windows of pairs; of windows that abut, the line between."""
    windows = sources.windows_px(detections.tile[pairs]).astype(np.float64)
    low, high = windows[..., :2].max(axis=1), windows[..., 2:].min(axis=1)
    return np.hstack([np.minimum(low, high) - _ROUNDING_PX, np.maximum(low, high) + _ROUNDING_PX])


def _level(low: Line, high: Line, options: MergeOptions, *, exact: bool) -> Mask:
    """Find (P,) pairs of extents, from (P, 2) low to high, with a 1-D IoU of ``join_iou``."""
    shared = high.min(axis=1) - low.max(axis=1)
    together = high.max(axis=1) - low.min(axis=1)
    rounding = 0.0 if exact else _ROUNDING_PX
    return np.asarray((shared > 0) & (shared >= options.join_iou * together - rounding))
