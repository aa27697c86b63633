"""Which pixels are ground: by masks and missing blocks beforehand, by nodata after.

Overviews are not asked: they may have been made before the pixels were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Interleaving, MaskFlags

Mask = NDArray[np.bool_]


def bounds_of(mask: Mask) -> tuple[slice, slice]:
    """Find the rows and columns that hold all that is true; there must be some."""
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)


def masked_bands(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> tuple[int, ...]:
    """List those of some bands (from 1) that have a mask of their own; 0 for a mask of all."""
    every = dataset.mask_flag_enums
    flags = {band: every[band - 1] for band in bands}
    if MaskFlags.per_dataset in flags[bands[0]]:
        return () if MaskFlags.alpha in flags[bands[0]] else (0,)
    none = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
    return tuple(band for band, those in flags.items() if none.isdisjoint(those))


def masked_valid(
    dataset: rasterio.DatasetReader, bands: Sequence[int], masks: Sequence[int], **how: Any
) -> Mask | None:
    """Read which pixels the alpha bands and the dataset's own masks declare valid.

    What the mask of one band declares invalid is, whatever the others say.

    Args:
        dataset: open.
        bands: those to be read, from 1.
        masks: alpha bands, from 1.
        how: window, shape and resampling, as rasterio's ``read`` takes them.

    Returns:
        (height, width); None where there is neither.
    """
    parts = [dataset.read(band, **how) > 0 for band in masks]
    for band in masked_bands(dataset, bands):
        parts.append(dataset.read_masks(band or bands[0], **how) > 0)
    return np.logical_and.reduce(parts) if parts else None


class Presence(NamedTuple):
    """Which of the file's blocks that a window shows the file holds.

    Attributes:
        held: (Y, X), at least one of which is false.
        heights: (Y,) rows of the window in each row of blocks.
        widths: (X,) columns of the window in each column of blocks.
    """

    held: Mask
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of the window's pixels that lie in blocks which are held."""
        return float(self.heights @ self.held @ self.widths) / (
            int(self.heights.sum()) * int(self.widths.sum())
        )

    def mask(self) -> Mask:
        """(height, width) pixels that lie in blocks which are held."""
        # Rows last, as whole ones are copied; to pick each pixel would take fifty times as long.
        return np.repeat(np.repeat(self.held, self.widths, axis=1), self.heights, axis=0)


def present_at(
    dataset: rasterio.DatasetReader,
    bands: Sequence[int],
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
) -> Presence | None:
    """Find which blocks a sparse GeoTIFF holds.

    Args:
        dataset: open.
        bands: those to be read, from 1.
        rows: (height,) rows of the file, ascending.
        cols: (width,) columns of the file, ascending.

    Returns:
        None where no block is missing, or the format has no sparse files.
    """
    if dataset.driver != "GTiff":
        return None
    height, width = dataset.block_shapes[bands[0] - 1]
    ys, heights = np.unique(rows // height, return_counts=True)
    xs, widths = np.unique(cols // width, return_counts=True)
    looked_at = bands[:1] if dataset.interleaving is Interleaving.pixel else bands
    present = np.array(
        [[any(_is_present(dataset, band, x, y) for band in looked_at) for x in xs] for y in ys]
    )
    if present.all():
        return None
    return Presence(present, heights, widths)


def _is_present(dataset: rasterio.DatasetReader, band: int, x: int, y: int) -> bool:
    return dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) is not None


def seen_valid(pixels: NDArray[Any], nodatas: Sequence[float | None]) -> Mask | None:
    """Find which of (bands, height, width) pixels are ground, by nodata values and NaN.

    In unsigned numbers, where 0 or 255 is an honest value of one band among three, a pixel is
    invalid if all its bands have no data; in others, where -9999 is never honest, if any has.

    Returns:
        (height, width); None where all are, whatever they hold.
    """
    has = [_differs(band, nodata) for band, nodata in zip(pixels, nodatas, strict=True)]
    known = [part for part in has if part is not None]
    if np.issubdtype(pixels.dtype, np.unsignedinteger):
        return np.logical_or.reduce(known) if known and len(known) == len(has) else None
    if np.issubdtype(pixels.dtype, np.floating):
        known.append(np.isfinite(pixels).all(axis=0))
    return np.logical_and.reduce(known) if known else None


def _differs(band: NDArray[Any], nodata: float | None) -> Mask | None:
    """Find where a band differs from its nodata value; None where it could never equal it."""
    if nodata is None or math.isnan(nodata):
        return None
    if np.issubdtype(band.dtype, np.integer):
        limits = np.iinfo(band.dtype)
        if not (limits.min <= nodata <= limits.max) or nodata != int(nodata):
            return None
    return np.asarray(band != band.dtype.type(nodata))
