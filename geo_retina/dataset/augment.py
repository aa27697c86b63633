"""Augmentation: changes of a sample that leave its labels true.

Legend: C bands, H W size, M boxes. Boxes are x_min, y_min, x_max, y_max at pixel edges of the
sample; every geometric change moves them exactly as it moves the pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur_image

from geo_retina.dataset.window_labels import Turn
from geo_retina.engine import fill, mirror
from geo_retina.options import SampleOptions

_LEAST_SIGMA = 0.1  # pixels; less changes nothing that could be seen


class Sample(NamedTuple):
    """A window of a scene with what is known about it.

    Attributes:
        image_CHW: float32, normalised; 0 where nothing is shown.
        boxes_M4: float32 boxes of the objects, clipped to the window.
        labels_M: int64 classes.
        ignore_I4: float32 boxes that are neither object nor background.
        ground_HW: bool, where background may be learned.
        visible_HW: bool, where something is shown: ground, and from ``mirror_ground`` on what is
            mirrored too.
        rotated_M5: float32 oriented boxes of the objects, where they were asked for: centre x,
            centre y, length, width, and degrees of the length from x to y in [-90, 90).
    """

    image_CHW: Tensor
    boxes_M4: Tensor
    labels_M: Tensor
    ignore_I4: Tensor
    ground_HW: Tensor
    visible_HW: Tensor
    rotated_M5: Tensor | None = None


def turn(sample: Sample, quarters: int, *, mirror: bool) -> Sample:
    """Mirror left to right if asked, then turn counter-clockwise by quarters."""
    height, width = sample.ground_HW.shape
    masks = torch.stack([sample.ground_HW, sample.visible_HW])
    image, boxes, ignore = sample.image_CHW, sample.boxes_M4, sample.ignore_I4
    rotated = sample.rotated_M5
    if mirror:
        image, masks = image.flip(-1), masks.flip(-1)
        boxes, ignore = _mirror(boxes, width), _mirror(ignore, width)
        rotated = None if rotated is None else _mirror_rotated(rotated, width)
    for _ in range(quarters % 4):
        boxes, ignore = _quarter(boxes, width), _quarter(ignore, width)
        rotated = None if rotated is None else _quarter_rotated(rotated, width)
        height, width = width, height
    image = torch.rot90(image, quarters, (-2, -1)).contiguous()
    ground, visible = torch.rot90(masks, quarters, (-2, -1)).contiguous()
    return Sample(image, boxes, sample.labels_M, ignore, ground, visible, rotated)


def _mirror(boxes_M4: Tensor, width: int) -> Tensor:
    x_min, y_min, x_max, y_max = boxes_M4.unbind(1)
    return torch.stack([width - x_max, y_min, width - x_min, y_max], dim=1)


def _quarter(boxes_M4: Tensor, width: int) -> Tensor:
    """Turn boxes in a window of a given width by a quarter counter-clockwise."""
    x_min, y_min, x_max, y_max = boxes_M4.unbind(1)
    return torch.stack([y_min, width - x_max, y_max, width - x_min], dim=1)


def _mirror_rotated(rotated_M5: Tensor, width: int) -> Tensor:
    x, y, length, breadth, angle = rotated_M5.unbind(1)
    return torch.stack([width - x, y, length, breadth, _in_range(-angle, length, breadth)], dim=1)


def _quarter_rotated(rotated_M5: Tensor, width: int) -> Tensor:
    """Turn oriented boxes as ``_quarter`` turns upright ones."""
    x, y, length, breadth, angle = rotated_M5.unbind(1)
    angle = _in_range(angle - 90, length, breadth)
    return torch.stack([y, width - x, length, breadth, angle], dim=1)


def _in_range(degrees: Tensor, length: Tensor, breadth: Tensor) -> Tensor:
    """Put angles into [-90, 90), of squares into [-45, 45): they look the same."""
    turn = torch.where(length == breadth, 90.0, 180.0)
    return torch.remainder(degrees + turn / 2, turn) - turn / 2


def resample(planes_CHW: Tensor, turn: Turn) -> Tensor:
    """Turn and scale square planes about their middle, bilinear: (C, sample, sample).

    Every pixel of the sample must lie within the planes.
    """
    side, share = planes_CHW.shape[-1], math.radians(turn.degrees)
    cos, sin = math.cos(share) * turn.side_px / side, math.sin(share) * turn.side_px / side
    # Where each pixel of the sample comes from: turned back.
    matrix = torch.tensor([[[cos, sin, 0.0], [-sin, cos, 0.0]]])
    size = [1, len(planes_CHW), turn.sample_px, turn.sample_px]
    places = F.affine_grid(matrix, size, align_corners=False)
    return F.grid_sample(planes_CHW[None], places, mode="bilinear", align_corners=False)[0]


def resize(sample: Sample, side_px: int) -> Sample:
    """Resample a square sample to another side, edge to edge.

    A pixel counts as ground or visible only if all that it is made of does.
    """
    height, width = sample.ground_HW.shape
    if (height, width) == (side_px, side_px):
        return sample
    masks = torch.stack([sample.ground_HW, sample.visible_HW]).float()
    planes = torch.cat([sample.image_CHW, masks])[None]
    planes = F.interpolate(planes, size=(side_px, side_px), mode="bilinear", align_corners=False)[0]
    factor = torch.tensor([side_px / width, side_px / height] * 2)
    ground, visible = planes[-2:] > 1 - 1e-4
    return Sample(
        planes[:-2],
        sample.boxes_M4 * factor,
        sample.labels_M,
        sample.ignore_I4 * factor,
        ground,
        visible,
        None
        if sample.rotated_M5 is None
        else sample.rotated_M5 * torch.tensor([*[side_px / width] * 4, 1.0]),
    )


def change_light(
    sample: Sample,
    options: SampleOptions,
    *,
    mean_C: Tensor,
    std_C: Tensor,
    rng: np.random.Generator,
) -> Sample:
    """Shift, stretch and roughen each band; what is not visible stays 0.

    Args:
        sample: whose image is changed.
        options: ranges, in units of the band's standard deviation.
        mean_C: mean of each band over the scenes, around which contrast stretches.
        std_C: standard deviation of each band over the scenes.
        rng: source of random numbers.
    """
    bands = len(mean_C)
    gain = torch.from_numpy(rng.uniform(-1, 1, bands).astype(np.float32)) * options.contrast + 1
    shift = torch.from_numpy(rng.uniform(-1, 1, bands).astype(np.float32)) * options.brightness
    # (x - mean) * gain + mean + shift * std, as one multiplication and one addition.
    constant = mean_C * (1 - gain) + shift * std_C
    image = sample.image_CHW * gain[:, None, None] + constant[:, None, None]
    if options.noise:
        # torch draws normal numbers several times as fast as numpy.
        random = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(image.shape, generator=random)
        image += noise.mul_((options.noise * std_C)[:, None, None])
    image *= sample.visible_HW
    return sample._replace(image_CHW=image)


def blur(sample: Sample, options: SampleOptions, *, rng: np.random.Generator) -> Sample:
    """Blur the image by a Gaussian of a width drawn up to ``options.blur`` pixels.

    What is not visible was 0 before and is 0 after, so none of it leaks into what is.
    """
    sigma = rng.uniform(0, options.blur) if options.blur else 0.0
    if sigma < _LEAST_SIGMA:
        return sample
    side = 2 * max(1, math.ceil(3 * sigma)) + 1
    blurred = gaussian_blur_image(sample.image_CHW, [side, side], [sigma, sigma])
    return sample._replace(image_CHW=blurred * sample.visible_HW)


def mirror_ground(sample: Sample) -> Sample:
    """Show mirrored ground where nothing is visible, as detection does; nothing is learned there.

    After the light has changed, so that noise is mirrored as a sensor's would be, and before the
    blur, which needs neighbours.
    """
    mirrored = mirror(sample.visible_HW.numpy())
    if not len(mirrored.targets):
        return sample
    image = sample.image_CHW.clone(memory_format=torch.contiguous_format)
    shown = sample.visible_HW.clone(memory_format=torch.contiguous_format)
    fill(mirrored, image, shown[None])
    return sample._replace(image_CHW=image, visible_HW=shown)


def draw_shape(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw pixels to be taken for such without data: a slanted edge, a corner or a hole.

    Args:
        rng: source of random numbers.
        shape: (height, width) of the window.

    Returns:
        (height, width) bool; half of the window at the most.
    """
    height, width = shape
    angle, row, col = rng.uniform(0, 1, 3) * [2 * math.pi, height, width]
    kind = rng.integers(3)
    x, y = np.arange(width) + 0.5 - col, (np.arange(height) + 0.5 - row)[:, None]
    along, across = (
        x * math.cos(angle) + y * math.sin(angle),
        y * math.cos(angle) - x * math.sin(angle),
    )
    if kind == 0:
        drawn = along > 0
    elif kind == 1:
        drawn = (along > 0) & (across > 0)
    else:
        length, breadth = rng.uniform(0.02, 0.25, 2) * max(shape)
        drawn = (abs(along) < length) & (abs(across) < breadth)
    return np.asarray(drawn if drawn.mean() <= 0.5 else ~drawn)
