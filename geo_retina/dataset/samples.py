"""Samples: random windows of the training ground, read, labelled and augmented.

A sample is a pure function of the seed, its number and the place asked for, so that the
workers' number and order change nothing and a training run can be continued. The number counts
on over the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from geo_retina.dataset.augment import (
    Sample,
    blur,
    change_light,
    draw_shape,
    mirror_ground,
    resample,
    resize,
    turn,
)
from geo_retina.dataset.labelled_scenes import LabelledScene, TrainingSet
from geo_retina.dataset.pixel_cache import CachedReader
from geo_retina.dataset.radiometry import BandStatistics
from geo_retina.dataset.split import Split, Subset
from geo_retina.dataset.window_labels import Turn, label_window
from geo_retina.dataset.windows import Frame, Spot, WindowDraw, on_train_ground, window_with
from geo_retina.grid import Window
from geo_retina.nn.losses import Target
from geo_retina.options import SampleOptions

CACHE_BYTES = 2 << 30
"""Decoded pixels kept in memory where nothing else is said."""


class HardDraw(NamedTuple):
    """A sample's number, with the place that it is to show."""

    number: int
    spot: Spot


class TrainSamples(Dataset[Sample]):
    """Samples by number; picklable, so that worker processes can read them.

    Args:
        training_set: scenes and labels.
        split: ground that must not be shown.
        bands: normalisation and what is normal after it.
        options: windows and augmentation.
        seed: with the number of a sample, all that its random numbers depend on.
        cache_bytes: decoded pixels that this process may keep.

    Attributes:
        scenes: with their labels.
        train_px: pixels of labelled training ground, estimated on a lattice.
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
        self.scenes = training_set.scenes
        self._split = split
        self._options = options
        self._draw = WindowDraw(training_set, split, options)
        self._reader = CachedReader(cache_bytes, options.cache_folder)
        self._seed = seed
        self._offset, self._scale = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (bands.radiometry.offset, bands.radiometry.scale)
        )
        self._mean, self._std = torch.from_numpy(bands.mean), torch.from_numpy(bands.std)
        self.train_px = self._draw.train_px

    def __getitem__(self, key: int | HardDraw) -> Sample:
        number, spot = key if isinstance(key, HardDraw) else (key, None)
        rng = np.random.default_rng([self._seed, number])
        frame = self._draw.frame(rng)
        turned = self._turn(number, frame)
        frame = frame if turned is None else frame.within_any_turn()
        if spot is None:
            scene, window = self._draw.choose(rng, frame)
        else:
            scene, point = spot.scene, np.array([spot.x, spot.y])
            window = window_with(rng, point, self.scenes[scene].scene, frame)
        if turned is not None:
            window = _grown(window, turned)
        without_data = self._without_data(number, window)
        sample = self._blanked(self.scenes[scene], window, without_data, turned)
        sample = resize(sample, self._options.window_px)
        if self._options.flips:
            sample = turn(sample, int(rng.integers(4)), mirror=bool(rng.integers(2)))
        sample = change_light(sample, self._options, mean_C=self._mean, std_C=self._std, rng=rng)
        return blur(self._padded(sample), self._options, rng=rng)

    def read(self, each: LabelledScene, window: Window) -> Sample:
        """Read a window as a sample before augmentation, as the network is to be shown it."""
        return self._padded(self._blanked(each, window, None))

    def _padded(self, sample: Sample) -> Sample:
        return mirror_ground(sample) if self._options.padding == "mirror" else sample

    def _without_data(self, number: int, window: Window) -> NDArray[np.bool_] | None:
        """Choose (height, width) pixels to treat as without data; None for most samples."""
        rng = np.random.default_rng([self._seed, number, 0xDA7A])  # the windows stay the same
        if rng.random() >= self._options.nodata:
            return None
        return draw_shape(rng, (window.height, window.width))

    def _turn(self, number: int, frame: Frame) -> Turn | None:
        """Draw by which angle a sample is turned; None for not at all."""
        if self._options.rotate == "none":
            return None
        rng = np.random.default_rng([self._seed, number, 0x7072])  # the rest stays the same
        return Turn(float(rng.uniform(-180, 180)), frame.side, self._options.window_px)

    def _blanked(
        self,
        each: LabelledScene,
        window: Window,
        without_data: NDArray[np.bool_] | None,
        turned: Turn | None = None,
    ) -> Sample:
        """Read a window; ground that does not fit or counts as without data is 0."""
        pixels, valid = self._reader.read(each.scene, window)
        is_train = valid & (self._split.mask(each.scene.grid, window) == Subset.TRAIN)
        if without_data is not None:
            is_train &= ~without_data
        ground = is_train & each.labelled(window)
        image = (torch.from_numpy(each.scene.to_values(pixels)) - self._offset) / self._scale
        visible = torch.from_numpy(is_train)
        image = torch.where(visible, image, 0.0)
        learned = torch.from_numpy(ground)
        if turned is not None:
            planes = torch.cat([image, torch.stack([learned, visible]).float()])
            planes = resample(planes, turned)
            learned, visible = planes[-2:] > 1 - 1e-4  # of known pixels alone
            image = torch.where(visible, planes[:-2], 0.0)
        found = label_window(each, window, visible.numpy(), self._options, turned)
        rotated = None if found.rotated is None else found.rotated.astype(np.float32)
        return Sample(
            image,
            torch.from_numpy(found.boxes.astype(np.float32)),
            torch.from_numpy(found.labels),
            torch.from_numpy(found.ignored.astype(np.float32)),
            learned,
            visible,
            None if rotated is None else torch.from_numpy(rotated),
        )

    def rejected(self) -> dict[Spot, float]:
        """List false positives on training ground that a person rejected, with their weights."""
        found: dict[Spot, float] = {}
        for number, each in enumerate(self.scenes):
            on = on_train_ground(each, self._split, each.rejected_px)
            for (x, y), weight in zip(each.rejected_px[on], each.rejected_weights[on], strict=True):
                found[Spot(number, float(x), float(y))] = float(weight)
        return {spot: weight for spot, weight in found.items() if weight > 0}

    def window(self, number: int, *, balanced: bool = False) -> tuple[int, Window]:
        """Draw a window of training ground, unscaled, by number: scene and window.

        Args:
            number: that all random numbers depend on.
            balanced: as samples are, between objects and empty ground; else anywhere.
        """
        rng = np.random.default_rng([self._seed, number, 0xA17])
        draw = self._draw.choose if balanced else self._draw.anywhere
        return draw(rng, self._draw.plain_frame())


class EpochSampler(Sampler[int | HardDraw]):
    """Numbers of an epoch's samples, counting on from epoch to epoch.

    Args:
        per_epoch: samples in an epoch.
        seed: decides which numbers are drawn around hard places.
        hard_share: share of samples drawn around hard places, where there are any.
        rejected: places that are hard from the start, and how often each is drawn.

    Attributes:
        hard: places where the model found what is not there; samples are drawn around them.
    """

    def __init__(
        self,
        per_epoch: int,
        *,
        seed: int = 0,
        hard_share: float = 0.0,
        rejected: Mapping[Spot, float] | None = None,
    ) -> None:
        self._per_epoch = per_epoch
        self._epoch = 0
        self._seed = seed
        self._hard_share = hard_share
        self._rejected = dict(rejected or {})
        self.hard: tuple[Spot, ...] = ()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._per_epoch

    def __iter__(self) -> Iterator[int | HardDraw]:
        start = self._epoch * self._per_epoch
        return iter([self._key(number) for number in range(start, start + self._per_epoch)])

    def _key(self, number: int) -> int | HardDraw:
        if not self.hard and not self._rejected:
            return number
        rng = np.random.default_rng([self._seed, number, 0x4A2D])
        if rng.random() >= self._hard_share:
            return number
        if not self._rejected:
            return HardDraw(number, self.hard[rng.integers(len(self.hard))])
        spots = [*self._rejected, *self.hard]
        upto = np.cumsum([*self._rejected.values(), *[1.0] * len(self.hard)])
        at = np.searchsorted(upto, rng.random() * upto[-1], side="right")
        return HardDraw(number, spots[at])


def _grown(window: Window, turned: Turn) -> Window:
    """Widen a window about its middle to hold all that a turned sample shows of it."""
    share = math.radians(turned.degrees)
    side = math.ceil(turned.side_px * (abs(math.cos(share)) + abs(math.sin(share)))) + 2
    side += (side - window.width) % 2
    more = (side - window.width) // 2
    return Window(window.row - more, window.col - more, side, side)


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[Target]]:
    """Stack images (N, C, H, W); the labels stay a list."""
    images = torch.stack([sample.image_CHW for sample in samples])
    return images, [
        Target(s.boxes_M4, s.labels_M, s.ignore_I4, s.ground_HW, s.rotated_M5) for s in samples
    ]
