"""Which labels a window shows, how much of each, and how they lie in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.dataset.labelled_scenes import LabelledScene
from geo_retina.grid import Window
from geo_retina.nn.rotated_overlap import pair_intersection
from geo_retina.options import SampleOptions

_LEAST_AREA = 1e-12


class Turn(NamedTuple):
    """How a sample is turned and scaled out of a square window, about the middle of both.

    Attributes:
        degrees: from x to y, so clockwise as seen.
        side_px: what the sample shows of the window, in its pixels.
        sample_px: the sample's side, in its own pixels.
    """

    degrees: float
    side_px: int
    sample_px: int

    def move(self, rotated: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
        """Move oriented boxes (N, 5) from the window's pixels into the sample's."""
        scale, turn = self.sample_px / self.side_px, np.radians(self.degrees)
        cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
        x, y = (rotated[:, :2] - np.array([window.width, window.height]) / 2).T
        middle = self.sample_px / 2
        columns = [cos * x - sin * y + middle, sin * x + cos * y + middle]
        moved = [*columns, *(rotated[:, 2:4] * scale).T, rotated[:, 4] + self.degrees]
        return oriented.normalise(np.column_stack(moved))


class WindowLabels(NamedTuple):
    """The labels that a window shows, in its own pixels.

    Attributes:
        boxes: (M, 4) float64 objects, cut to the window.
        labels: (M,) int64 classes.
        ignored: (I, 4) float64 boxes that are neither object nor background; whole, so they may
            reach beyond the window, as the anchors do that stand for what is cut.
        cut: labels of which the window shows some but not all.
        dropped: labels of which it shows so little that they count as background.
        places: (M,) int64 positions of the objects among the scene's labels.
        rotated: (M, 5) float64 the objects' oriented boxes, each the rectangle at the same angle
            around the part inside, so that it may reach beyond the window again; None where the
            scenes have none.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignored: NDArray[np.float64]
    cut: int
    dropped: int
    places: NDArray[np.int64]
    rotated: NDArray[np.float64] | None = None


def label_window(
    each: LabelledScene,
    window: Window,
    shown: NDArray[np.bool_],
    options: SampleOptions,
    turn: Turn | None = None,
) -> WindowLabels:
    """Find the labels that a window shows.

    A label's visible share is that of its area which lies on pixels that the sample shows:
    inside the window, valid, and on training ground. The area is that of the oriented box where
    the scene has these.

    Args:
        each: the scene.
        window: pixels of its grid.
        shown: (height, width) pixels that the sample shows, in its own frame where it is turned.
        options: what becomes of labels of which little is visible.
        turn: how the sample lies in the window; left out, it is the window. Only where the
            scene has oriented boxes.
    """
    near, near_ignored = each.near(window), each.near_ignored(window)
    if each.rotated_px is None or each.ignored_rotated_px is None:
        objects = _visible(each.boxes_px[near], window, shown)
        ignored = _visible(each.ignored_px[near_ignored], window, shown)
    else:
        objects = _visible_rotated(each.rotated_px[near], window, shown, turn)
        ignored = _visible_rotated(each.ignored_rotated_px[near_ignored], window, shown, turn)
    visible = objects.visible
    keep = visible >= options.min_visible
    dropped = ~keep & (visible < options.drop_visible)
    seen = visible > 0
    return WindowLabels(
        objects.clipped[keep & seen],
        each.labels[near][keep & seen],
        np.concatenate(
            [objects.whole[~keep & ~dropped & seen], ignored.whole[ignored.visible > 0]]
        ),
        int((seen & (visible < 1 - 1e-9)).sum()),
        int((dropped & seen).sum()),
        near[keep & seen],
        None if objects.rotated is None else objects.rotated[keep & seen],
    )


class _Visible(NamedTuple):
    """Labels in a sample: (N, 4) whole boxes and cut ones, (N,) shares, (N, 5) cut oriented."""

    whole: NDArray[np.float64]
    clipped: NDArray[np.float64]
    visible: NDArray[np.float64]
    rotated: NDArray[np.float64] | None = None


def _visible(boxes_px: NDArray[np.float64], window: Window, shown: NDArray[np.bool_]) -> _Visible:
    """Cut boxes to a window, in its pixels, and measure the share of each that is shown."""
    whole = boxes.shift(boxes_px, -window.col, -window.row)
    clipped = boxes.clip(whole, (0, 0, window.width, window.height))
    visible = boxes.area(clipped) / boxes.area(whole)
    if not shown.all():
        seen = np.flatnonzero(visible > 0)
        visible[seen] *= _shown_share(clipped[seen], shown)
    return _Visible(whole, clipped, visible)


def _visible_rotated(
    rotated_px: NDArray[np.float64],
    window: Window,
    shown: NDArray[np.bool_],
    turn: Turn | None,
) -> _Visible:
    """Cut oriented boxes to a sample, in its pixels, and measure the shown share of each."""
    rotated = oriented.shift(rotated_px, -window.col, -window.row)
    if turn is not None:
        rotated = turn.move(rotated, window)
    height, width = shown.shape
    bounds = (0.0, 0.0, float(width), float(height))
    whole = oriented.hull(rotated)
    clipped = boxes.clip(whole, bounds)
    cut, visible = oriented.clip(rotated, bounds), np.zeros(len(rotated))
    inside = np.flatnonzero(boxes.area(clipped) > 0)
    frame = np.array([width / 2, height / 2, width, height, 0.0])
    common = pair_intersection(
        torch.from_numpy(rotated[inside]), torch.from_numpy(np.tile(frame, (len(inside), 1)))
    ).numpy()
    visible[inside] = common / np.maximum(oriented.area(rotated[inside]), _LEAST_AREA)
    # What lies inside is whole; a sum of parts may miss that by a rounding.
    visible[(whole == clipped).all(axis=1)] = 1.0
    if not shown.all():
        seen = np.flatnonzero(visible > 0)
        sums = _shown_share(clipped[seen], shown)
        for i in seen[sums < 1].tolist():
            visible[i] *= _shown_share_of(cut[i], clipped[i], shown)
    return _Visible(whole, boxes.clip(oriented.hull(cut), bounds), visible, cut)


def _shown_share_of(
    cut: NDArray[np.float64], box: NDArray[np.float64], shown: NDArray[np.bool_]
) -> float:
    """Measure the share of the pixels in one oriented box, by their centres, that are shown."""
    x0, y0 = np.floor(box[:2]).astype(np.int64)
    x1, y1 = np.ceil(box[2:]).astype(np.int64)
    x, y = np.arange(x0, x1) + 0.5 - cut[0], (np.arange(y0, y1) + 0.5 - cut[1])[:, None]
    cos, sin = np.cos(np.radians(cut[4])), np.sin(np.radians(cut[4]))
    # Where it is thinner than a pixel, the pixels along its middle stand for it.
    within = np.abs(cos * x + sin * y) <= max(cut[2] / 2, 0.5)
    within &= np.abs(cos * y - sin * x) <= max(cut[3] / 2, 0.5)
    around = shown[y0:y1, x0:x1]
    # A sliver at a corner may hold no pixel's centre.
    return float(around[within].mean() if within.any() else around.mean())


def _shown_share(clipped: NDArray[np.float64], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure (N,) share of the pixels under each box, to whole pixels, that are shown."""
    height, width = shown.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = shown.cumsum(axis=0).cumsum(axis=1)
    x0, y0 = np.floor(clipped[:, :2]).astype(np.int64).T
    x1, y1 = np.ceil(clipped[:, 2:]).astype(np.int64).T
    under = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray(under / ((x1 - x0) * (y1 - y0)), dtype=np.float64)
