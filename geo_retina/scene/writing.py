"""Small rasters of numbers, such as maps of counts: the one place that writes GeoTIFFs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo_retina.errors import OutputError
from geo_retina.files import check_file_output, new_file
from geo_retina.grid import Grid
from geo_retina.scene.datasets import reason

_TILED_FROM_PX = 512
"""Rasters of at least this height and width are tiled."""


def check_raster_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a raster output that could not be written, before work is spent on it.

    Raises:
        OutputError: the suffix is not that of a GeoTIFF, the file exists and ``overwrite`` is
            false, or its folder does not exist or cannot be written.
    """
    check_file_output(Path(path), [".tif", ".tiff"], overwrite=overwrite)


def write_raster(
    path: str | Path,
    values: NDArray[Any],
    grid: Grid,
    *,
    names: Sequence[str],
    nodata: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a compressed GeoTIFF, whole or not at all.

    Args:
        path: ends in .tif or .tiff.
        values: (bands, height, width), in any data type that GDAL has.
        grid: where they lie; of the same height and width.
        names: one description per band.
        nodata: the value that stands for no value.
        overwrite: replace an existing file.

    Raises:
        OutputError: as ``check_raster_output``, or the disk refuses.
    """
    path = Path(path)
    check_raster_output(path, overwrite=overwrite)
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(values),
        "dtype": values.dtype,
        "crs": None if grid.crs is None else grid.crs.to_wkt(),
        "transform": grid.affine,
        "nodata": nodata,
        "compress": "deflate",
        "tiled": min(grid.shape) >= _TILED_FROM_PX,
        "BIGTIFF": "IF_SAFER",
    }
    with new_file(path, overwrite=overwrite) as draft:
        try:
            with rasterio.open(draft, "w", **profile) as file:
                file.write(values)
                for band, name in enumerate(names, start=1):
                    file.set_band_description(band, name)
        except RasterioError as error:
            raise OutputError(f"{path} cannot be written: {reason(error)}") from error
