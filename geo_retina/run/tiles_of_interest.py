"""The part of a scene that is scanned: tiles on an area of interest, and what they lack.

A tile outside the area may still decide about an object at its border: it sees all of an object
of which the last tile inside sees a part. So a run detects the tiles on the area, asks which of
the objects there are not decided yet, detects the tiles that decide about them, and asks again.
What the area keeps is then what it would keep of the whole scene's detections.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import Boxes, overlapping_pairs
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import tiles_met, undecided_with
from geo_retina.options import MergeOptions

_REACH_PX = 2  # times edge_px: fragments this far apart may still be one object's


def tiles_on(tiles: TilePlan, area_px: Any) -> NDArray[np.bool_]:
    """Find which tiles show some of an area.

    Args:
        tiles: the plan.
        area_px: prepared geometry in grid pixels.

    Returns:
        (rows, cols) bool.
    """
    chosen = np.zeros((tiles.rows, tiles.cols), np.bool_)
    for part in shapely.get_parts(area_px):
        # Only tiles around each part are looked at: a plan may have millions.
        rows, cols = _span(shapely.bounds(part), tiles)
        near = (np.array(rows)[:, None] * tiles.cols + np.array(cols)).ravel().astype(np.int64)
        near = near[~chosen.flat[near]]
        windows = tiles.windows_px(near)
        shapely.prepare(part)
        chosen.flat[near[shapely.intersects(part, shapely.box(*windows.T))]] = True
    return chosen


def tiles_over(tiles: TilePlan, boxes_px: Boxes) -> NDArray[np.bool_]:
    """Find which tiles show some of (N, 4) boxes of whole pixels; (rows, cols) bool."""
    chosen = np.zeros((tiles.rows, tiles.cols), np.bool_)
    # A tile that only touches a box sees none of its pixels.
    for bounds in boxes_px + np.array([0.5, 0.5, -0.5, -0.5]):
        rows, cols = _span(bounds, tiles)
        chosen[rows.start : rows.stop, cols.start : cols.stop] = True
    return chosen


def _span(bounds: NDArray[np.float64], tiles: TilePlan) -> tuple[range, range]:
    """Find rows and columns of the tiles whose windows touch x_min, y_min, x_max, y_max."""
    last = np.array([tiles.cols, tiles.rows]) - 1
    low = np.ceil((bounds[:2] - tiles.tile_px) / tiles.step_px)
    high = np.floor(bounds[2:] / tiles.step_px)
    first_xy = np.clip(low, 0, last).astype(int)
    last_xy = np.clip(high, 0, last).astype(int)
    return range(first_xy[1], last_xy[1] + 1), range(first_xy[0], last_xy[0] + 1)


def on_area(detections: Detections, area_px: Any, rule: Literal["intersects", "within"]) -> Any:
    """Find (N,) boxes that touch an area, or that it covers, its border included."""
    shapes = shapely.polygons(detections.corners_px)
    return (
        shapely.intersects(area_px, shapes)
        if rule == "intersects"
        else shapely.covers(area_px, shapes)
    )


def missing_tiles(
    detections: Detections,
    tiles: TilePlan,
    known: NDArray[np.bool_],
    area_px: Any,
    options: MergeOptions,
) -> NDArray[np.int64]:
    """List the tiles that must be looked at before the objects on an area are decided.

    Args:
        detections: of all known tiles, without what their blocks have settled.
        tiles: the plan.
        known: (rows, cols) tiles that were scanned.
        area_px: prepared geometry in grid pixels.
        options: how detections are merged.

    Returns:
        Ascending positions of tiles that are not known; empty once all is decided.
    """
    waiting = undecided_with(detections, tiles, known, options)
    waiting = waiting.take(_chained_to(area_px, waiting, options))
    needed = np.zeros_like(known)
    for first_row, last_row, first_col, last_col in tiles_met(waiting, tiles, options):
        needed[first_row : last_row + 1, first_col : last_col + 1] = True
    return np.flatnonzero(needed & ~known)


def _chained_to(area_px: Any, waiting: Detections, options: MergeOptions) -> NDArray[np.bool_]:
    """Find (N,) detections on the area, or that touch one which touches one ... on it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(waiting)
    if not n:
        return np.zeros(0, np.bool_)
    grown = waiting.boxes_px + _REACH_PX * options.edge_px * np.array([-1.0, -1.0, 1.0, 1.0])
    i, j = overlapping_pairs(grown).T
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(n, n))
    chain = connected_components(graph, directed=False)[1]
    reaches = np.zeros(n, np.bool_)
    reaches[chain[on_area(waiting, area_px, "intersects")]] = True
    return np.asarray(reaches[chain])
