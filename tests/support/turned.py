"""Rectangles at any angle in pictures, and a model that finds them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import rasterio.features
import shapely
import torch
from numpy.typing import NDArray
from scipy import ndimage

from geo_retina import Decoded
from geo_retina.boxes import oriented
from support.stubs import stub_model

BRIGHT = 200
"""Grey of the first rectangle; each next one is brighter by one, up to 255."""


def paint_turned(shape: tuple[int, int], rotated_px: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(3, height, width) pixels: at most 56 rectangles apart, each of a grey of its own."""
    polygons = shapely.polygons(oriented.corners(rotated_px))
    shapes = [(polygon, BRIGHT + i) for i, polygon in enumerate(polygons)]
    band = rasterio.features.rasterize(shapes, shape, fill=60, dtype="uint8")
    return np.stack([band] * 3)


def turned_rectangles(tiles_NCHW: torch.Tensor, angles_deg: tuple[float, ...]) -> Decoded:
    """Find what a tile shows of each rectangle, as the rectangle at its angle around that part.

    Args:
        tiles_NCHW: normalised as ``stub_model`` has it, of pictures by ``paint_turned``.
        angles_deg: of the rectangles by their greys.
    """
    side, found, image = tiles_NCHW.shape[-1], [], []
    for number, pixels in enumerate(tiles_NCHW[:, 0].double().cpu().numpy()):
        grey = np.rint(pixels * 127.5 + 127.5).astype(np.int64)
        spots, count = ndimage.label(grey >= BRIGHT)
        for spot in range(1, count + 1):
            within = spots == spot
            found.append(_around(within, angles_deg[int(np.median(grey[within])) - BRIGHT]))
            image.append(number)
    rotated = oriented.normalise(found)
    hulls = np.clip(oriented.hull(rotated), 0, side)
    return Decoded(
        torch.tensor(hulls, dtype=torch.float32).reshape(-1, 4),
        torch.full((len(found),), 0.75),
        torch.zeros(len(found), dtype=torch.int64),
        torch.tensor(image, dtype=torch.int64),
        torch.zeros(len(tiles_NCHW), dtype=torch.bool),
        rotated_M5=torch.tensor(rotated, dtype=torch.float32).reshape(-1, 5),
    )


def _around(spot: NDArray[np.bool_], angle_deg: float) -> NDArray[np.float64]:
    """(5,) rectangle at an angle around the middles of pixels, half a pixel beyond them."""
    row, col = np.nonzero(spot)
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    axes = np.array([[cos, sin], [-sin, cos]])
    reach = np.stack([col + 0.5, row + 0.5], axis=1) @ axes.T
    low, high = reach.min(axis=0) - 0.5, reach.max(axis=0) + 0.5
    return np.array([*(low + high) / 2 @ axes, *(high - low), angle_deg])


def turned_model(rotated_px: NDArray[np.float64], **changes: Any):
    """Make a model without a network that finds these rectangles in pictures of them."""
    angles = tuple(oriented.normalise(rotated_px)[:, 4].tolist())
    find = functools.partial(turned_rectangles, angles_deg=angles)
    return stub_model(find, boxes="oriented", **changes)
