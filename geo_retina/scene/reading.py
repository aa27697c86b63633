"""Scene: where its pixels are, and how they are read.

Datasets are opened when pixels are asked for, one handle per thread (GDAL datasets are not
thread-safe), and are never pickled.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT

from geo_retina.errors import SceneError
from geo_retina.grid import Grid, Window
from geo_retina.scene.finding import stem
from geo_retina.scene.remote import gdal_settings

_OPEN_HANDLES = 16  # per thread; a folder of small scenes must not exhaust file descriptors


@dataclass(frozen=True)
class Scene:
    """Imagery on the grid that the model sees.

    Attributes:
        path: file, or anything else that GDAL opens.
        bands: the file's bands (from 1) in the order read.
        grid: the pixels after any resampling or reprojection.
        dtype: numpy name of the file's own data type.
        band_names: descriptions of those bands; empty where the file gives none.
        grid_to_file: maps grid pixels to the file's own pixels; None where it was warped.
    """

    path: str
    bands: tuple[int, ...]
    grid: Grid
    dtype: str
    band_names: tuple[str, ...]
    grid_to_file: Affine | None

    @property
    def name(self) -> str:
        """Stem of the file."""
        return stem(self.path)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the grid.

        Args:
            window: whole pixels; may reach beyond the grid.

        Returns:
            pixels (bands, height, width) in the file's own dtype, 0 beyond the grid, and
            valid (height, width), false beyond the grid and where the file has no data.

        Raises:
            SceneError: the file cannot be opened or decoded.
        """
        row, col = max(window.row, 0), max(window.col, 0)
        bottom = min(window.row + window.height, self.grid.height)
        right = min(window.col + window.width, self.grid.width)
        pixels = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), np.bool_)
        if bottom <= row or right <= col:
            return pixels, valid
        inside = np.s_[
            row - window.row : bottom - window.row, col - window.col : right - window.col
        ]
        with self._dataset() as dataset:
            part = rasterio.windows.Window(col, row, right - col, bottom - row)
            pixels[:, *inside], valid[inside] = _read(dataset, self.bands, window=part)
        return pixels, valid

    def overview(self, max_px: int) -> tuple[NDArray[Any], NDArray[np.bool_], float]:
        """Read the whole grid, decimated so that no side exceeds ``max_px``.

        Returns:
            pixels (bands, height, width), valid (height, width), and the grid pixels per
            pixel returned.
        """
        scale = max(1.0, max(self.grid.shape) / max_px)
        shape = tuple(max(1, round(side / scale)) for side in self.grid.shape)
        with self._dataset() as dataset:
            pixels, valid = _read(
                dataset,
                self.bands,
                out_shape=shape,
                resampling=Resampling.average if self.dtype != "bool" else Resampling.nearest,
            )
        return pixels, valid, scale

    @contextmanager
    def _dataset(self) -> Iterator[rasterio.DatasetReader]:
        try:
            with gdal_settings(self.path):
                yield _handles.get(self)
        except SceneError:
            raise
        except (RasterioError, OSError) as error:
            _handles.drop(self)
            raise SceneError(f"{self.path} cannot be read: {_first_line(error)}") from error


class _Handles(threading.local):
    """The open datasets of one thread, least recently used first."""

    def __init__(self) -> None:
        self.datasets: OrderedDict[tuple[Any, ...], rasterio.DatasetReader] = OrderedDict()

    @staticmethod
    def _key(scene: Scene) -> tuple[Any, ...]:
        # A file that was replaced must not be read through a handle on the old one.
        stat = os.stat(scene.path) if os.path.exists(scene.path) else None
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else ()
        warp = () if _is_own_grid(scene) else (tuple(scene.grid.affine), scene.grid.shape)
        return scene.path, version, warp

    def get(self, scene: Scene) -> rasterio.DatasetReader:
        key = self._key(scene)
        if key not in self.datasets:
            self.datasets[key] = _open_on_grid(scene)
            while len(self.datasets) > _OPEN_HANDLES:
                self.datasets.popitem(last=False)[1].close()
        self.datasets.move_to_end(key)
        return self.datasets[key]

    def drop(self, scene: Scene) -> None:
        for key in [key for key in self.datasets if key[0] == scene.path]:
            self.datasets.pop(key).close()


_handles = _Handles()
_inherited: list[_Handles] = []


def _start_afresh() -> None:
    """Give a forked child handles of its own.

    It shares file positions with its parent, so the parent's handles must not be read, and
    closing them is the parent's business.
    """
    global _handles
    _inherited.append(_handles)
    _handles = _Handles()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_afresh)


def _is_own_grid(scene: Scene) -> bool:
    return scene.grid_to_file == Affine.identity()


def open_dataset(path: str) -> rasterio.DatasetReader:
    """Open a raster with a handle of its own.

    Raises:
        SceneError: the file is missing or no raster.
    """
    try:
        with warnings.catch_warnings(), gdal_settings(path):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, sharing=False)
    except RasterioError as error:
        if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
            raise SceneError(f"{path} does not exist") from error
        raise SceneError(
            f"{path} is not a raster that GDAL can open: {_first_line(error)}"
        ) from error


def _open_on_grid(scene: Scene) -> rasterio.DatasetReader:
    dataset = open_dataset(scene.path)
    if _is_own_grid(scene):
        return dataset
    if alphas(dataset) & set(scene.bands):
        dataset = _without_alpha(dataset, scene.path)
    finer = dataset.width > scene.grid.width * 1.5
    return WarpedVRT(
        dataset,
        crs=scene.grid.crs.to_wkt() if scene.grid.crs else None,
        transform=scene.grid.affine,
        height=scene.grid.height,
        width=scene.grid.width,
        resampling=Resampling.average if finer else Resampling.bilinear,
        add_alpha=dataset.nodata is None and not alphas(dataset),
    )


def alphas(dataset: rasterio.DatasetReader) -> set[int]:
    """Bands (from 1) that call themselves alpha."""
    kinds = enumerate(dataset.colorinterp, 1)
    return {i for i, kind in kinds if kind is ColorInterp.alpha}


def _without_alpha(dataset: rasterio.DatasetReader, path: str) -> rasterio.DatasetReader:
    """The same bands, none of which calls itself alpha.

    GDAL's warper weighs all bands by an alpha band, which spoils them where it is near infrared.
    """
    local = os.path.abspath(path) if os.path.exists(path) else path
    nodata = "" if dataset.nodata is None else f"<NoDataValue>{dataset.nodata!r}</NoDataValue>"
    bands = "".join(
        f'<VRTRasterBand dataType="{typename_fwd[dtype_rev[dtype]]}" band="{i}">{nodata}'
        "<ColorInterp>Undefined</ColorInterp><SimpleSource>"
        f'<SourceFilename relativeToVRT="0">{escape(local)}</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, dtype in enumerate(dataset.dtypes, 1)
    )
    crs = f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>" if dataset.crs else ""
    affine = ", ".join(map(repr, dataset.transform.to_gdal()))
    return open_dataset(
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">{crs}'
        f"<GeoTransform>{affine}</GeoTransform>{bands}</VRTDataset>"
    )


def _read(
    dataset: rasterio.DatasetReader, bands: Sequence[int], **how: Any
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels and their validity, by nodata, NaN, alpha or a dataset mask."""
    pixels = dataset.read(list(bands), **how)
    valid = np.ones(pixels.shape[1:], np.bool_)
    masks = sorted(alphas(dataset))
    nodata = dataset.nodata
    if nodata is not None and not math.isnan(nodata):
        # 0 or 255 is an honest value in one band of three; -9999 never is.
        is_honest = np.issubdtype(pixels.dtype, np.unsignedinteger)
        valid &= (pixels != nodata).any(axis=0) if is_honest else (pixels != nodata).all(axis=0)
    elif masks and masks[-1] not in bands:
        valid &= dataset.read(masks[-1], **how) > 0
    elif nodata is None and MaskFlags.per_dataset in dataset.mask_flag_enums[0] and not masks:
        valid &= dataset.read_masks(bands[0], **how) > 0
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(axis=0)
    return pixels, valid


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
