"""How the scenes' pixels become numbers around zero, from a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.dataset.split import Split, Subset
from geo_retina.errors import TrainingError
from geo_retina.grid import Window
from geo_retina.model import Radiometry
from geo_retina.scene import Scene

_SCENES = 64  # looked at for statistics
_WINDOW_PX = 256
_WINDOWS = 16  # per scene at the most


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """What the pixels are like.

    Attributes:
        radiometry: for the model's card.
        mean: (bands,) float32, of normalised valid pixels.
        std: (bands,) float32, of normalised valid pixels.
    """

    radiometry: Radiometry
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def measure_bands(
    scenes: Sequence[Scene], *, seed: int, split: Split | None = None
) -> BandStatistics:
    """Choose the normalisation, and measure what is normal after it.

    Only training ground is looked at: the normalisation is part of the model.

    uint8 becomes [-1, 1], which is what backbones trained with mean = std = 0.5 expect. Other
    types, whose range says little about what is in it, put their 1st and 99th percentile per
    band at -1 and 1.

    Raises:
        TrainingError: no valid pixel was met.
    """
    rng = np.random.default_rng([seed, 0xBA2D])
    chosen = rng.permutation(len(scenes))[:_SCENES]
    per_scene = max(1, min(_WINDOWS, _SCENES // len(chosen)))
    seeds = rng.spawn(len(chosen))
    # Read in threads that end here, and their open datasets with them: worker processes are
    # forked next, and a dataset must not be shared with one.
    with ThreadPoolExecutor(2) as threads:
        parts = list(
            threads.map(
                lambda i, random: _some_pixels(scenes[i], random, per_scene, split), chosen, seeds
            )
        )
    pixels = np.concatenate(parts, axis=1).astype(np.float64)
    if not pixels.shape[1]:
        raise TrainingError(
            f"no valid pixel of training ground was met in {len(chosen)} scenes, such as "
            f"{scenes[chosen[0]].path}; check their nodata value"
        )
    dtype = scenes[0].value_dtype
    if dtype == "uint8":
        offset = scale = np.full(len(pixels), 127.5)
    else:
        low, high = np.percentile(pixels, [1, 99], axis=1)
        offset, scale = (low + high) / 2, (high - low) / 2
        scale = np.where(scale > 0, scale, 1.0)
    normalised = (pixels - offset[:, None]) / scale[:, None]
    return BandStatistics(
        Radiometry(dtype, tuple(offset.tolist()), tuple(scale.tolist())),
        normalised.mean(axis=1).astype(np.float32),
        normalised.std(axis=1).astype(np.float32),
    )


def _some_pixels(
    scene: Scene, rng: np.random.Generator, windows: int, split: Split | None
) -> NDArray[Any]:
    """Sample (bands, n) valid pixels, on training ground, of random windows, thinned."""
    height, width = (min(_WINDOW_PX, side) for side in scene.grid.shape)
    found = []
    for _ in range(windows):
        row = int(rng.integers(0, scene.grid.height - height + 1))
        col = int(rng.integers(0, scene.grid.width - width + 1))
        window = Window(row, col, height, width)
        pixels, valid = scene.read(window)
        if split is not None:
            valid = valid & (split.mask(scene.grid, window) == Subset.TRAIN)
        found.append(scene.to_values(pixels[:, valid][:, ::7]))
    return np.concatenate(found, axis=1)
