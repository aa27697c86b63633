"""Samples: random windows of the ground that fits, read, labelled and augmented.

A sample is a pure function of the seed and its number, so that the workers' number and order
change nothing and a training run can be continued. The number counts on over the epochs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from geo_retina import boxes
from geo_retina.errors import TrainingError
from geo_retina.grid import Window
from geo_retina.nn.losses import Target
from geo_retina.options import SampleOptions
from geo_retina.scene import Scene
from geo_retina.training.augment import Sample, change_light, resize, turn
from geo_retina.training.labels import LabelledScene, TrainingSet
from geo_retina.training.radiometry import BandStatistics
from geo_retina.training.split import Split

CACHE_BYTES = 2 << 30
"""Decoded scenes kept in memory, over all worker processes."""

_EDGE_SHARE = 16  # a window may reach over the scene's edge by its side over this
_TRIES = 300  # to find a point on ground that fits, before taking any


@dataclass(frozen=True, eq=False)
class FitObjects:
    """The objects on the ground that fits, as columns of one length.

    Attributes:
        scene: (N,) position of the scene.
        index: (N,) position among that scene's labels.
        label: (N,) class.
        sides_px: (N, 2) width and height in grid pixels.
    """

    scene: NDArray[np.int64]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    sides_px: NDArray[np.float64]


def fit_objects(training_set: TrainingSet, split: Split) -> FitObjects:
    """List the labels whose centre lies on labelled ground that fits, scene by scene."""
    parts: list[tuple[NDArray[Any], ...]] = []
    for number, each in enumerate(training_set.scenes):
        index = np.flatnonzero(_fits(each, split, each.centres_px))
        sides_px = each.boxes_px[index, 2:] - each.boxes_px[index, :2]
        parts.append((np.full(len(index), number), index, each.labels[index], sides_px))
    return FitObjects(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class FitSamples(Dataset[Sample]):
    """Samples by number; picklable, so that worker processes can read them.

    Args:
        training_set: scenes and labels.
        split: ground that must not be shown.
        bands: normalisation and what is normal after it.
        options: windows and augmentation.
        seed: with the number of a sample, all that its chance depends on.
        cache_bytes: decoded scenes that this process may keep.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        split: Split,
        bands: BandStatistics,
        options: SampleOptions,
        *,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        objects = fit_objects(training_set, split)
        self._scenes = training_set.scenes
        self._split = split
        self._objects = objects
        self._options = options
        self._reader = _CachedReader(cache_bytes)
        self._seed = seed
        self._offset, self._scale = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (bands.radiometry.offset, bands.radiometry.scale)
        )
        self._mean, self._std = torch.from_numpy(bands.mean), torch.from_numpy(bands.std)
        present = np.unique(objects.label)
        self._of_class = [np.flatnonzero(objects.label == label) for label in present]
        fit_px = np.array([_fit_pixels(each, split) for each in self._scenes])
        self.fit_px = float(fit_px.sum())
        if not self.fit_px:
            raise TrainingError("no ground is left to fit; lower split.tune_fraction")
        self._scene_ends = np.cumsum(fit_px / self.fit_px)

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng([self._seed, number])
        side = self._options.window_px
        low, high = sorted(self._options.scale)
        seen_side = max(8, round(side / rng.uniform(low, high)))
        each, window = self._choose(rng, seen_side)
        sample = resize(self.read(each, window), side)
        if self._options.flips:
            sample = turn(sample, int(rng.integers(4)), mirror=bool(rng.integers(2)))
        return change_light(sample, self._options, mean_C=self._mean, std_C=self._std, rng=rng)

    def read(self, each: LabelledScene, window: Window) -> Sample:
        """Read a window as a sample before augmentation; tuning ground is blanked."""
        pixels, valid = self._reader.read(each.scene, window)
        fits = valid & ~self._split.tune_mask(each.scene.grid, window)
        ground = fits & each.labelled(window)
        image = (torch.from_numpy(each.scene.to_values(pixels)) - self._offset) / self._scale
        visible = torch.from_numpy(fits)
        image = torch.where(visible, image, 0.0)
        boxes_M4, labels_M, ignore_I4 = _label_window(each, window, fits, self._options.min_visible)
        return Sample(image, boxes_M4, labels_M, ignore_I4, torch.from_numpy(ground), visible)

    def _choose(self, rng: np.random.Generator, side: int) -> tuple[LabelledScene, Window]:
        """Draw a window around an object, classes alike, or anywhere on ground that fits."""
        if self._of_class and rng.random() < self._options.object_share:
            of_class = self._of_class[rng.integers(len(self._of_class))]
            row = of_class[rng.integers(len(of_class))]
            each = self._scenes[self._objects.scene[row]]
            centre = each.centre_px(int(self._objects.index[row]))
            return each, _window_with(rng, centre, each.scene, side)
        number = int(np.searchsorted(self._scene_ends, rng.random(), side="right"))
        each = self._scenes[min(number, len(self._scenes) - 1)]
        extent = [each.scene.grid.width, each.scene.grid.height]
        for _ in range(_TRIES):
            point = rng.uniform(0, 1, 2) * extent
            if _fits(each, self._split, point[None])[0]:
                break
        return each, _window_with(rng, point, each.scene, side)


def _window_with(
    rng: np.random.Generator, point_px: NDArray[np.float64], scene: Scene, side: int
) -> Window:
    """Draw a window that shows a point anywhere in it, and hardly more beyond the scene.

    It may reach over the scene's edge by a sixteenth of its side, so that small scenes too are
    seen at every phase of the network's strides.
    """
    start = np.floor(point_px - rng.uniform(0, side, 2)).astype(np.int64)
    extent = np.array([scene.grid.width, scene.grid.height])
    margin = side // _EDGE_SHARE
    spare = np.maximum(side - extent, 0)  # a scene smaller than the window moves about in it
    low, high = -margin - spare, np.maximum(extent - side, 0) + margin
    col, row = np.clip(start, low, high)
    # Clipping must not push the point out of sight.
    col, row = np.minimum([col, row], np.floor(point_px).astype(np.int64))
    col, row = np.maximum([col, row], np.floor(point_px).astype(np.int64) - side + 1)
    return Window(int(row), int(col), side, side)


def _label_window(
    each: LabelledScene, window: Window, fits: NDArray[np.bool_], min_visible: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and ignored boxes of a window, in its own pixels.

    A label's visible share is that of its area which lies on pixels that the sample shows:
    inside the window, valid, and not on tuning ground.
    """
    height, width = fits.shape
    near = each.near(window)
    shifted = boxes.shift(each.boxes_px[near], -window.col, -window.row)
    clipped = boxes.clip(shifted, (0, 0, width, height))
    seen = boxes.area(clipped) > 0
    shifted, clipped, labels = shifted[seen], clipped[seen], each.labels[near[seen]]
    visible = boxes.area(clipped) / boxes.area(shifted)
    if not fits.all():
        visible = visible * _shown_share(clipped, fits)
    keep = visible >= min_visible
    ignore = clipped[~keep & (visible > 0)]
    return (
        torch.from_numpy(clipped[keep].astype(np.float32)),
        torch.from_numpy(labels[keep]),
        torch.from_numpy(ignore.astype(np.float32)),
    )


def _shown_share(clipped: NDArray[np.float64], fits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N,) share of the pixels under each box, to whole pixels, that are shown."""
    height, width = fits.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = fits.cumsum(axis=0).cumsum(axis=1)
    x0, y0 = np.floor(clipped[:, :2]).astype(np.int64).T
    x1, y1 = np.ceil(clipped[:, 2:]).astype(np.int64).T
    shown = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray(shown / ((x1 - x0) * (y1 - y0)), dtype=np.float64)


def _fits(each: LabelledScene, split: Split, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which positions x, y (N, 2) lie on labelled ground that fits."""
    return each.holds(points_px) & ~split.on_tune(each.scene.grid, points_px)


def _fit_pixels(each: LabelledScene, split: Split) -> float:
    """Pixels of a scene on labelled ground that fits, estimated on a lattice."""
    grid = each.scene.grid
    x, y = ((np.arange(64) + 0.5) / 64 * side for side in (grid.width, grid.height))
    lattice = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return float(_fits(each, split, lattice).mean() * grid.height * grid.width)


class _CachedReader:
    """Reads windows of scenes, keeping small scenes decoded within a bound of memory."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._held = 0
        self._scenes: OrderedDict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = OrderedDict()

    def read(self, scene: Scene, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As ``Scene.read``."""
        if _scene_bytes(scene) > self._capacity // 8:
            return scene.read(window)
        if scene.path not in self._scenes:
            self._scenes[scene.path] = scene.read(scene.grid.window)
            self._held += _scene_bytes(scene)
            while self._held > self._capacity:
                self._held -= sum(part.nbytes for part in self._scenes.popitem(last=False)[1])
        self._scenes.move_to_end(scene.path)
        return _cut(*self._scenes[scene.path], window)

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes fill their own."""
        return {"_capacity": self._capacity, "_held": 0, "_scenes": OrderedDict()}


def _scene_bytes(scene: Scene) -> int:
    pixel = len(scene.bands) * np.dtype(scene.dtype).itemsize + 1
    return scene.grid.height * scene.grid.width * pixel


def _cut(
    pixels: NDArray[Any], valid: NDArray[np.bool_], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A window of a whole scene; 0 and invalid beyond it."""
    height, width = valid.shape
    top, left = max(window.row, 0), max(window.col, 0)
    bottom = max(top, min(window.row + window.height, height))
    right = max(left, min(window.col + window.width, width))
    out = np.zeros((len(pixels), window.height, window.width), pixels.dtype)
    shown = np.zeros((window.height, window.width), np.bool_)
    here = np.s_[top - window.row : bottom - window.row, left - window.col : right - window.col]
    out[:, *here] = pixels[:, top:bottom, left:right]
    shown[here] = valid[top:bottom, left:right]
    return out, shown


class EpochSampler(Sampler[int]):
    """Numbers of an epoch's samples, counting on from epoch to epoch.

    Args:
        per_epoch: samples in an epoch.
    """

    def __init__(self, per_epoch: int) -> None:
        self._per_epoch = per_epoch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self._epoch * self._per_epoch
        return iter(range(start, start + self._per_epoch))


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[Target]]:
    """Stack images (N, C, H, W); the labels stay a list."""
    images = torch.stack([sample.image_CHW for sample in samples])
    return images, [Target(s.boxes_M4, s.labels_M, s.ignore_I4, s.ground_HW) for s in samples]
