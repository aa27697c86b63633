"""Windows of the training ground: where samples are taken, and which labels one shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.dataset.labelled_scenes import LabelledScene, TrainingSet
from geo_retina.dataset.split import Split, Subset
from geo_retina.errors import TrainingError
from geo_retina.grid import Window
from geo_retina.options import SampleOptions
from geo_retina.scene import Scene

_EDGE_SHARE = 16  # a window may reach over the scene's edge by its side over this,
_FAR_EDGE_SHARE = 2  # or by its side over this, where it is drawn to reach far
_TRIES = 300  # to find a point on training ground, before taking any
_EMPTY_TRIES = 20  # to find a window without an object, before taking any


@dataclass(frozen=True, eq=False)
class TrainObjects:
    """The objects on the training ground, as columns of one length.

    Attributes:
        scene: (N,) position of the scene.
        index: (N,) position among that scene's labels.
        label: (N,) class.
        sides_px: (N, 2) width and height in grid pixels.
        weight: (N,) how often samples are drawn around each.
    """

    scene: NDArray[np.int64]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    sides_px: NDArray[np.float64]
    weight: NDArray[np.float64]

    def per_class(self, classes: Sequence[str]) -> dict[str, int]:
        """Count objects by class, in the order of the classes."""
        counts = np.bincount(self.label, minlength=len(classes))
        return dict(zip(classes, counts.tolist(), strict=True))


def train_objects(training_set: TrainingSet, split: Split) -> TrainObjects:
    """List the labels whose centre lies on labelled training ground, scene by scene."""
    return objects_on(Subset.TRAIN, training_set, split)


def objects_on(part: Subset, training_set: TrainingSet, split: Split) -> TrainObjects:
    """List the labels whose centre lies on labelled ground of a part, scene by scene."""
    columns: list[tuple[NDArray[Any], ...]] = []
    for number, each in enumerate(training_set.scenes):
        centres_px = each.centres_px
        on = each.holds(centres_px) & split.on(part, each.scene.grid, centres_px)
        index = np.flatnonzero(on)
        sides_px = each.boxes_px[index, 2:] - each.boxes_px[index, :2]
        weights = np.ones(len(index)) if each.weights is None else each.weights[index]
        columns.append((np.full(len(index), number), index, each.labels[index], sides_px, weights))
    return TrainObjects(*(np.concatenate(column) for column in zip(*columns, strict=True)))


class Spot(NamedTuple):
    """A place to look at: the position of a scene, and x, y in its grid's pixels."""

    scene: int
    x: float
    y: float


class Frame(NamedTuple):
    """A window's side, and how far it may reach over the scene's edge, both in grid pixels."""

    side: int
    margin: int

    def within_any_turn(self) -> Frame:
        """Return the frame of the middle that stays in sight however a window is turned."""
        side = max(2, int(self.side / math.sqrt(2)))
        return Frame(side, self.margin - (self.side - side) // 2)


class WindowDraw:
    """Draws windows: around objects, classes alike; where there is none; or anywhere.

    Args:
        training_set: scenes and labels.
        split: whose training ground is drawn from.
        options: shares and size of the windows.

    Attributes:
        objects: labels on training ground.
        train_px: pixels of labelled training ground, estimated on a lattice.

    Raises:
        TrainingError: there is no training ground.
    """

    def __init__(self, training_set: TrainingSet, split: Split, options: SampleOptions) -> None:
        self._scenes = training_set.scenes
        self._split = split
        self._options = options
        self.objects = train_objects(training_set, split)
        present = np.unique(self.objects.label)
        self._of_class = [np.flatnonzero(self.objects.label == label) for label in present]
        train_px = np.array([_train_pixels(each, split) for each in self._scenes])
        self.train_px = float(train_px.sum())
        if not self.train_px:
            raise TrainingError("no ground is left for training; lower split.val_fraction")
        self._scene_ends = np.cumsum(train_px / self.train_px)

    def frame(self, rng: np.random.Generator) -> Frame:
        """Draw the side of a window, by the scale jitter, and whether it may reach far over."""
        low, high = sorted(self._options.scale)
        side = max(8, round(self._options.window_px / rng.uniform(low, high)))
        far = self._options.over_edge > 0 and rng.random() < self._options.over_edge
        return Frame(side, side // (_FAR_EDGE_SHARE if far else _EDGE_SHARE))

    def choose(self, rng: np.random.Generator, frame: Frame) -> tuple[int, Window]:
        """Draw a window; returns the position of its scene, and the window."""
        random = rng.random()
        if self._of_class and random < self._options.object_share:
            of_class = self._of_class[rng.integers(len(self._of_class))]
            row = self._one_of(rng, of_class)
            number = int(self.objects.scene[row])
            centre = self._scenes[number].centre_px(int(self.objects.index[row]))
            return number, window_with(rng, centre, self._scenes[number].scene, frame)
        wants_empty = random >= 1 - self._options.empty_share
        for _ in range(_EMPTY_TRIES if wants_empty else 1):
            number, window = self.anywhere(rng, frame)
            if not _shows_object(self._scenes[number], window):
                break
        return number, window

    def _one_of(self, rng: np.random.Generator, rows: NDArray[np.int64]) -> np.int64:
        """Draw one of some objects, by their weights."""
        weights = self.objects.weight[rows]
        if (weights == weights[0]).all():
            return np.int64(rows[rng.integers(len(rows))])
        upto = np.cumsum(weights)
        return np.int64(rows[np.searchsorted(upto, rng.random() * upto[-1], side="right")])

    def plain_frame(self) -> Frame:
        """Return the frame of a window before augmentation."""
        side = self._options.window_px
        return Frame(side, side // _EDGE_SHARE)

    def anywhere(self, rng: np.random.Generator, frame: Frame) -> tuple[int, Window]:
        """Draw a window anywhere on training ground."""
        found = int(np.searchsorted(self._scene_ends, rng.random(), side="right"))
        number = min(found, len(self._scenes) - 1)
        each = self._scenes[number]
        extent = [each.scene.grid.width, each.scene.grid.height]
        for _ in range(_TRIES):
            point = rng.uniform(0, 1, 2) * extent
            if on_train_ground(each, self._split, point[None])[0]:
                break
        return number, window_with(rng, point, each.scene, frame)


def window_with(
    rng: np.random.Generator, point_px: NDArray[np.float64], scene: Scene, frame: Frame
) -> Window:
    """Draw a window that shows a point anywhere in it, and no more beyond the scene than allowed.

    By a little it may always reach over, so that small scenes too are seen at every phase of the
    network's strides.
    """
    side, margin = frame
    start = np.floor(point_px - rng.uniform(0, side, 2)).astype(np.int64)
    extent = np.array([scene.grid.width, scene.grid.height])
    spare = np.maximum(side - extent, 0)  # a scene smaller than the window moves about in it
    low, high = -margin - spare, np.maximum(extent - side, 0) + margin
    col, row = np.clip(start, low, high)
    # Clipping must not push the point out of sight.
    col, row = np.minimum([col, row], np.floor(point_px).astype(np.int64))
    col, row = np.maximum([col, row], np.floor(point_px).astype(np.int64) - side + 1)
    return Window(int(row), int(col), side, side)


def on_train_ground(
    each: LabelledScene, split: Split, points_px: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Find which positions x, y (N, 2) lie on labelled training ground."""
    return each.holds(points_px) & split.on(Subset.TRAIN, each.scene.grid, points_px)


def _shows_object(each: LabelledScene, window: Window) -> bool:
    near = each.boxes_px[each.near(window)]
    return bool((boxes.area(boxes.clip(near, window.box_px)) > 0).any())


def _train_pixels(each: LabelledScene, split: Split) -> float:
    """Estimate the pixels of a scene on labelled training ground, on a lattice."""
    return subset_pixels(each, split, Subset.TRAIN)


def subset_pixels(each: LabelledScene, split: Split, part: Subset) -> float:
    """Estimate the pixels of a scene on labelled ground of a part, on a lattice."""
    grid = each.scene.grid
    x, y = ((np.arange(64) + 0.5) / 64 * side for side in (grid.width, grid.height))
    lattice = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    on = each.holds(lattice) & split.on(part, grid, lattice)
    return float(on.mean() * grid.height * grid.width)
