"""Scene: a picklable handle on imagery, and the only place that reads rasters.

A scene keeps paths and numbers only. Datasets are opened when pixels are asked for, one handle
per thread (GDAL datasets are not thread-safe), and are never pickled.
"""

from __future__ import annotations

import glob
import math
import os
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from geo_retina.errors import SceneError
from geo_retina.grid import Grid, Window

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".ntf", ".nitf")
"""Files that a folder is searched for."""

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
        return Path(self.path).stem

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


def _open(path: str) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, sharing=False)
    except RasterioError as error:
        if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
            raise SceneError(f"{path} does not exist") from error
        raise SceneError(
            f"{path} is not a raster that GDAL can open: {_first_line(error)}"
        ) from error


def _open_on_grid(scene: Scene) -> rasterio.DatasetReader:
    dataset = _open(scene.path)
    if _is_own_grid(scene):
        return dataset
    if _alphas(dataset) & set(scene.bands):
        dataset = _without_alpha(dataset, scene.path)
    finer = dataset.width > scene.grid.width * 1.5
    return WarpedVRT(
        dataset,
        crs=scene.grid.crs.to_wkt() if scene.grid.crs else None,
        transform=scene.grid.affine,
        height=scene.grid.height,
        width=scene.grid.width,
        resampling=Resampling.average if finer else Resampling.bilinear,
        add_alpha=dataset.nodata is None and not _alphas(dataset),
    )


def _alphas(dataset: rasterio.DatasetReader) -> set[int]:
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
    return _open(
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">{crs}'
        f"<GeoTransform>{affine}</GeoTransform>{bands}</VRTDataset>"
    )


def _read(
    dataset: rasterio.DatasetReader, bands: Sequence[int], **how: Any
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels and their validity, by nodata, NaN, alpha or a dataset mask."""
    pixels = dataset.read(list(bands), **how)
    valid = np.ones(pixels.shape[1:], np.bool_)
    alphas = sorted(_alphas(dataset))
    nodata = dataset.nodata
    if nodata is not None and not math.isnan(nodata):
        # 0 or 255 is an honest value in one band of three; -9999 never is.
        is_honest = np.issubdtype(pixels.dtype, np.unsignedinteger)
        valid &= (pixels != nodata).any(axis=0) if is_honest else (pixels != nodata).all(axis=0)
    elif alphas and alphas[-1] not in bands:
        valid &= dataset.read(alphas[-1], **how) > 0
    elif nodata is None and MaskFlags.per_dataset in dataset.mask_flag_enums[0] and not alphas:
        valid &= dataset.read_masks(bands[0], **how) > 0
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(axis=0)
    return pixels, valid


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
    with _open(path) as dataset:
        chosen = _choose_bands(dataset, path, bands)
        own = Grid(_crs(dataset), dataset.transform, dataset.height, dataset.width)
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
    with _open(os.fspath(path)) as dataset:
        return int(dataset.count)


def _crs(dataset: rasterio.DatasetReader) -> pyproj.CRS | None:
    return pyproj.CRS.from_wkt(dataset.crs.to_wkt()) if dataset.crs else None


def _choose_bands(
    dataset: rasterio.DatasetReader, path: str, bands: Sequence[int] | None
) -> tuple[int, ...]:
    if bands is None:
        return tuple(sorted(set(dataset.indexes) - _alphas(dataset))) or (1,)
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


def find_scenes(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """List the scenes that files, folders and globs name.

    Args:
        paths: a file, a folder (searched for rasters, not deeper), a glob, or several of them.

    Returns:
        Paths in the order given, those of a folder or glob sorted; each once. Files are not
        opened: one that is no raster is found out, and reported, when it is used.

    Raises:
        SceneError: a path does not exist, or a folder or glob holds no raster.
    """
    found: dict[str, str] = {}
    for given in [paths] if isinstance(paths, (str, Path)) else paths:
        for path in _expand(os.fspath(given)):
            # The same file by another name or link must not give its objects twice.
            found.setdefault(absolute(path), path)
    if not found:
        raise SceneError("no scene was given, wanted at least one file, folder or glob")
    return list(found.values())


def absolute(path: str) -> str:
    """A local file's one full name; other addresses as they are."""
    return os.path.realpath(path) if os.path.exists(path) else path


def scene_names(paths: Sequence[str]) -> list[str]:
    """Names that tell scenes apart in a result: the stem, or the path where stems are alike."""
    stems = [Path(path).stem for path in paths]
    count = Counter(stems)
    return [stem if count[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _expand(path: str) -> list[str]:
    if "://" in path or path.startswith("/vsi") or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        inside = sorted(
            entry.path
            for entry in os.scandir(path)
            if entry.is_file() and entry.name.lower().endswith(RASTER_SUFFIXES)
        )
        if not inside:
            raise SceneError(
                f"{path} holds no raster, wanted files ending {', '.join(RASTER_SUFFIXES)}"
            )
        return inside
    matches = sorted(match for match in glob.glob(path, recursive=True) if os.path.isfile(match))
    if not matches:
        raise SceneError(f"{path} does not exist")
    return matches


def describe_scene(path: str | Path) -> dict[str, str]:
    """What a file is, as label and text, for people.

    Raises:
        SceneError: the file is missing or no raster.
    """
    path = os.fspath(path)
    with _open(path) as dataset:
        grid = Grid(_crs(dataset), dataset.transform, dataset.height, dataset.width)
        bands = ", ".join(
            f"{i} {dataset.descriptions[i - 1] or kind.name}"
            for i, kind in enumerate(dataset.colorinterp, 1)
        )
        block_height, block_width = dataset.block_shapes[0]
        compression = dataset.compression.value if dataset.compression else "none"
        mask = ", ".join(flag.name for flag in dataset.mask_flag_enums[0])
        return {
            "file": path,
            "driver": dataset.driver,
            "size": f"{dataset.width} x {dataset.height} px (width x height)",
            "bands": bands,
            "data type": ", ".join(dict.fromkeys(dataset.dtypes)),
            "CRS": _crs_text(grid.crs),
            "pixel": f"{grid.gsd_m:.4g} m" if grid.gsd_m else "unknown, as there is no CRS",
            "affine": ", ".join(f"{v:.12g}" for v in tuple(dataset.transform)[:6]),
            "bounds": ", ".join(f"{v:.3f}" for v in _bounds(grid)),
            "nodata": "none" if dataset.nodata is None else f"{dataset.nodata:g}",
            "mask": mask,
            "blocks": f"{block_width} x {block_height} px, compression {compression}",
            "overviews": ", ".join(map(str, dataset.overviews(1))) or "none",
        }


def _crs_text(crs: pyproj.CRS | None) -> str:
    if crs is None:
        return "none"
    authority = crs.to_authority()
    return f"{':'.join(authority)} {crs.name}" if authority else crs.name


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    ends = np.array([[0, 0], [grid.width, 0], [grid.width, grid.height], [0, grid.height]])
    points = grid.pixels_to_crs(ends.astype(np.float64))
    return (*points.min(axis=0), *points.max(axis=0))


def fingerprint(path: str) -> dict[str, Any]:
    """What tells one version of a file from another without reading it: size and time."""
    if not os.path.exists(path):
        return {}
    stat = os.stat(path)
    return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
