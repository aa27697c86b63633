"""Looking at a file, and fixing the grid on which it will be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.warp import calculate_default_transform

from geo_retina.errors import SceneError
from geo_retina.grid import Grid
from geo_retina.scene.reading import Scene, alphas, open_dataset


def open_scene(
    path: str | Path, *, bands: Sequence[int] | None = None, gsd_m: float | None = None
) -> Scene:
    """Look at a file and fix the grid on which it will be read. No pixel is read.

    Args:
        path: file, or anything else that GDAL opens.
        bands: the file's bands (from 1) in the order wanted; left out, all that do not call
            themselves alpha.
        gsd_m: resample to this many metres a pixel; left out, the file's own pixels. A scene
            in a geographic CRS is always warped to the UTM zone of its centre.

    Raises:
        SceneError: the file is missing, is no raster, or lacks a band asked for.
    """
    path = os.fspath(path)
    with open_dataset(path) as dataset:
        chosen = _choose_bands(dataset, path, bands)
        own = Grid(crs_of(dataset), dataset.transform, dataset.height, dataset.width)
        if own.crs is not None and own.crs.is_geographic:
            grid, to_file = _utm_grid(dataset, path, own, gsd_m), None
        elif gsd_m is not None:
            grid, to_file = _scaled_grid(path, own, gsd_m)
        else:
            grid, to_file = own, Affine.identity()
        return Scene(
            path=path,
            bands=chosen,
            grid=grid,
            dtype=dataset.dtypes[chosen[0] - 1],
            band_names=tuple(dataset.descriptions[b - 1] or "" for b in chosen),
            grid_to_file=to_file,
        )


def count_bands(path: str | Path) -> int:
    """Bands of a file, alpha included.

    Raises:
        SceneError: the file is missing or no raster.
    """
    with open_dataset(os.fspath(path)) as dataset:
        return int(dataset.count)


def crs_of(dataset: rasterio.DatasetReader) -> pyproj.CRS | None:
    """The file's CRS, as pyproj has it."""
    return _crs_from_wkt(dataset.crs.to_wkt()) if dataset.crs else None


@lru_cache(maxsize=64)
def _crs_from_wkt(wkt: str) -> pyproj.CRS:
    """One object per CRS: making and comparing them costs more than opening a small file."""
    return pyproj.CRS.from_wkt(wkt)


def _choose_bands(
    dataset: rasterio.DatasetReader, path: str, bands: Sequence[int] | None
) -> tuple[int, ...]:
    if bands is None:
        return tuple(sorted(set(dataset.indexes) - alphas(dataset))) or (1,)
    missing = [band for band in bands if not 1 <= band <= dataset.count]
    if missing or not bands:
        raise SceneError(
            f"{path} has {dataset.count} bands, band {', '.join(map(str, missing))} was asked "
            "for; name bands that it has with --bands"
        )
    dtypes = {dataset.dtypes[band - 1] for band in bands}
    if len(dtypes) > 1:
        raise SceneError(
            f"{path} has bands of different data types ({', '.join(sorted(dtypes))}), wanted one; "
            "convert them with gdal_translate -ot"
        )
    return tuple(bands)


def _scaled_grid(path: str, own: Grid, gsd_m: float) -> tuple[Grid, Affine]:
    if own.gsd_m is None:
        raise SceneError(
            f"{path} has no CRS, so it cannot be resampled to {gsd_m:g} m; give it one, for "
            "example with gdal_edit.py -a_srs EPSG:32633"
        )
    factor = gsd_m / own.gsd_m
    height, width = (max(1, round(side / factor)) for side in own.shape)
    to_file = Affine.scale(own.width / width, own.height / height)
    return Grid(own.crs, own.affine @ to_file, height, width), to_file


def _utm_grid(dataset: rasterio.DatasetReader, path: str, own: Grid, gsd_m: float | None) -> Grid:
    if own.affine.b or own.affine.d:
        raise SceneError(
            f"{path} is rotated in a geographic CRS, which is not read yet; warp it first with "
            "gdalwarp -t_srs to a projected CRS"
        )
    lon, lat = own.pixels_to_crs(np.array([own.width / 2, own.height / 2]))
    epsg = (32600 if lat >= 0 else 32700) + int((lon + 180) % 360 // 6) + 1
    affine, width, height = calculate_default_transform(
        dataset.crs,
        f"EPSG:{epsg}",
        dataset.width,
        dataset.height,
        *dataset.bounds,
        resolution=gsd_m or own.gsd_m,
    )
    return Grid(pyproj.CRS.from_epsg(epsg), affine, height, width)
