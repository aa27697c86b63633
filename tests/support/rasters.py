"""Raster files of every kind, whose pixel values are their own positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

STEP = 8
"""Positions are drawn this many times as large, so that resampling can be judged by fractions."""


def position_image(height: int, width: int, dtype: str = "uint16") -> np.ndarray:
    """Two bands that hold the column and row of each pixel's middle, times ``STEP``."""
    rows, cols = np.mgrid[:height, :width] + 0.5
    return (np.stack([cols, rows]) * STEP).astype(dtype)


def write_raster(
    path: Path, pixels: np.ndarray, change: Callable[..., None] | None = None, **profile: object
) -> Path:
    """Write (bands, height, width) pixels by any driver; ``change`` may set tags and masks."""
    bands, height, width = pixels.shape
    given = {
        "driver": "GTiff",
        "count": bands,
        "height": height,
        "width": width,
        "dtype": pixels.dtype,
        **profile,
    }
    with rasterio.open(path, "w", **given) as dataset:
        dataset.write(pixels)
        if change is not None:
            change(dataset)
    return path


def control_points(affine: Affine, height: int, width: int) -> list[GroundControlPoint]:
    """Nine points that an affine places."""
    places = [(row, col) for row in (0, height / 2, height) for col in (0, width / 2, width)]
    return [
        GroundControlPoint(row=row, col=col, x=x, y=y)
        for row, col in places
        for x, y in [affine @ (col, row)]
    ]


def straight_rpcs(lon: float, lat: float, step: float, height: int, width: int) -> RPC:
    """RPCs of a camera that looks straight down: ``step`` degrees a pixel about a centre."""
    first = [1.0] + [0.0] * 19

    def along(term: int) -> list[float]:
        return [1.0 if i == term else 0.0 for i in range(20)]

    return RPC(
        height_off=100.0,
        height_scale=500.0,
        lat_off=lat,
        lat_scale=step * height / 2,
        line_off=height / 2 - 0.5,
        line_scale=height / 2,
        long_off=lon,
        long_scale=step * width / 2,
        samp_off=width / 2 - 0.5,
        samp_scale=width / 2,
        # Terms are 1, longitude, latitude, height, ...; rows run south.
        line_num_coeff=[-v for v in along(2)],
        line_den_coeff=first,
        samp_num_coeff=along(1),
        samp_den_coeff=first,
        err_bias=None,
        err_rand=None,
    )


def break_block(path: Path, *, row: int, col: int) -> None:
    """Overwrite a compressed block of a GeoTIFF, so that it cannot be decoded."""
    with rasterio.open(path) as dataset:
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1))
            for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
