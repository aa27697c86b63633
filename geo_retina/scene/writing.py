"""Small rasters of numbers, such as maps of counts: the one place that writes GeoTIFFs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo_retina.errors import OutputError
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
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{path} ends in {path.suffix or 'no suffix'}, expected .tif or .tiff")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give overwrite=True or another name")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")
    if not os.access(path.parent, os.W_OK | os.X_OK) or path.is_dir():
        raise OutputError(f"{path} cannot be written; choose another place")


def write_raster(
    path: str | Path,
    values: NDArray[Any],
    grid: Grid,
    *,
    names: Sequence[str],
    nodata: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a compressed GeoTIFF, beside its target and renamed into place.

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
    handle, draft = tempfile.mkstemp(suffix=".tif", prefix=f".{path.stem}.", dir=path.parent)
    os.close(handle)
    try:
        with rasterio.open(draft, "w", **profile) as file:
            file.write(values)
            for band, name in enumerate(names, start=1):
                file.set_band_description(band, name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(draft, 0o666 & ~mask)
        os.replace(draft, path)
    except (RasterioError, OSError) as error:
        raise OutputError(f"{path} cannot be written: {reason(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
