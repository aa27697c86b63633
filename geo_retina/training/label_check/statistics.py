"""What labels are like: their sizes, how dense they lie, how much they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.dataset.labelled_scenes import LabelledScene, TrainingSet
from geo_retina.dataset.split import Split, Subset
from geo_retina.dataset.window_labels import label_window
from geo_retina.dataset.windows import WindowDraw, objects_on, subset_pixels
from geo_retina.nn.rotated_coding import NEAR_SQUARE
from geo_retina.nn.rotated_overlap import pair_iou
from geo_retina.options import SampleOptions

WINDOWS = 400
"""Windows that stand for all that training will see."""

PERCENTILES = (1, 25, 50, 75, 99)
IOU_STEPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.95)


@dataclass(frozen=True)
class SubsetNumbers:
    """What lies on the ground of a part.

    Attributes:
        scenes: those that show some of it.
        hectares: its labelled ground.
        per_class: labels whose centre is on it, by class.
    """

    scenes: int
    hectares: float
    per_class: dict[str, int]

    @property
    def labels(self) -> int:
        """Labels of all classes."""
        return sum(self.per_class.values())


@dataclass(frozen=True)
class WindowNumbers:
    """What samples show, before augmentation.

    Attributes:
        labels: labels in them.
        cut: those of which some but not all is visible.
        ignored: labels that are ignored there.
        dropped: labels that count as background there.
        most: labels in the fullest one.
        empty: share of windows anywhere on training ground that show no label.
    """

    labels: int
    cut: int
    ignored: int
    dropped: int
    most: int
    empty: float


@dataclass(frozen=True)
class AngleNumbers:
    """In which directions the lengths of oriented labels lie.

    Attributes:
        histogram_deg: lower edge, upper edge and count of angles in pixels, from x to y.
        near_square: labels whose direction means nothing, which are none of these.
    """

    histogram_deg: list[tuple[float, float, int]]
    near_square: int


def measure_angles(training_set: TrainingSet) -> AngleNumbers:
    """Count the angles of all labels in steps of 15 degrees."""
    parts = [each.rotated_px for each in training_set.scenes if each.rotated_px is not None]
    rotated = np.concatenate([np.empty((0, 5)), *parts])
    is_long = rotated[:, 3] <= NEAR_SQUARE * rotated[:, 2]
    counts, edges = np.histogram(rotated[is_long, 4], np.arange(-90, 91, 15))
    bins = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    return AngleNumbers(list(bins), int((~is_long).sum()))


def count_subset(training_set: TrainingSet, split: Split, part: Subset) -> SubsetNumbers:
    """Count scenes, ground and labels of a part."""
    scenes, hectares = 0, 0.0
    for each in training_set.scenes:
        pixels = subset_pixels(each, split, part)
        scenes += pixels > 0
        hectares += pixels * each.gsd_m**2 / 10_000
    objects = objects_on(part, training_set, split)
    return SubsetNumbers(scenes, hectares, objects.per_class(training_set.classes))


def sides_px(training_set: TrainingSet) -> NDArray[np.float64]:
    """Measure (N, 2) widths and heights of all labels, scene by scene."""
    parts = [each.boxes_px[:, 2:] - each.boxes_px[:, :2] for each in training_set.scenes]
    return np.concatenate([np.empty((0, 2)), *parts])


def max_ious(each: LabelledScene) -> NDArray[np.float64]:
    """Compute (N,) greatest IoU of each label of a scene with another one; 0 for a lone one."""
    greatest = np.zeros(len(each.boxes_px))
    if each.rotated_px is None:
        i, j = boxes.overlapping_pairs(each.boxes_px).T
        iou = boxes.iou(each.boxes_px[i], each.boxes_px[j])
    else:
        i, j = boxes.overlapping_pairs(oriented.hull(each.rotated_px)).T
        one, other = (torch.from_numpy(each.rotated_px[k]) for k in (i, j))
        iou = pair_iou(one, other).numpy()
    np.maximum.at(greatest, i, iou)
    np.maximum.at(greatest, j, iou)
    return greatest


def measure_windows(
    training_set: TrainingSet,
    split: Split,
    samples: SampleOptions,
    *,
    seed: int,
    windows: int = WINDOWS,
) -> WindowNumbers:
    """Draw windows as training will, without reading a pixel, and count what they show."""
    draw = WindowDraw(training_set, split, samples)
    labels = cut = ignored = dropped = most = empty = 0
    for number in range(windows):
        rng = np.random.default_rng([seed, number])
        scene, window = draw.choose(rng, draw.frame(rng))
        each = training_set.scenes[scene]
        shown = split.mask(each.scene.grid, window) == Subset.TRAIN
        shown &= _inside(each, shown.shape, window.row, window.col)
        found = label_window(each, window, shown, samples)
        labels += len(found.boxes) + len(found.ignored) + found.dropped
        cut += found.cut
        ignored += len(found.ignored)
        dropped += found.dropped
        most = max(most, len(found.boxes))
        scene, window = draw.anywhere(rng, draw.plain_frame())
        each = training_set.scenes[scene]
        near = each.boxes_px[each.near(window)]
        empty += not (boxes.area(boxes.clip(near, window.box_px)) > 0).any()
    return WindowNumbers(labels, cut, ignored, dropped, most, empty / windows)


def _inside(each: LabelledScene, shape: tuple[int, int], row: int, col: int) -> NDArray[np.bool_]:
    rows, cols = np.arange(row, row + shape[0]), np.arange(col, col + shape[1])
    grid = each.scene.grid
    return ((rows >= 0) & (rows < grid.height))[:, None] & ((cols >= 0) & (cols < grid.width))[None]


def histogram(values: NDArray[np.float64]) -> list[tuple[float, float, int]]:
    """Lower edge, upper edge and count of bins that grow by the root of two, first to last."""
    if not len(values):
        return []
    steps = np.floor(np.log2(np.maximum(values, 0.5)) * 2).astype(np.int64)
    low = int(steps.min())
    counts = np.bincount(steps - low)
    return [
        (2 ** ((low + i) / 2), 2 ** ((low + i + 1) / 2), int(count))
        for i, count in enumerate(counts)
    ]
