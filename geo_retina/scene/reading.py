"""Scene: where its pixels are, and how they are read.

Datasets are opened when pixels are asked for, one handle per thread (GDAL datasets are not
thread-safe), and are never pickled.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geo_retina.errors import SceneError
from geo_retina.geodesy import full_turn, move, wrap
from geo_retina.grid import Grid, Window
from geo_retina.resampling import Rescaling, Scaling
from geo_retina.scene.bands import Palette
from geo_retina.scene.damage.vrt_sources import Bounds, is_vrt, source_bounds, sources_read
from geo_retina.scene.datasets import open_dataset, refuse_damage
from geo_retina.scene.finding import stem
from geo_retina.scene.remote import gdal_settings
from geo_retina.scene.validity import (
    Presence,
    bounds_of,
    masked_valid,
    present_at,
    seen_valid,
)
from geo_retina.scene.values import ValueMap, ValueRange

VIEW_BLOCK_PX = 512
"""Side of the blocks in which GDAL computes a view."""

_MARGIN_PX = 8
"""A view may be computed from so many more pixels of the file, and two of its own."""

_OPEN_HANDLES = 16  # per thread; a folder of small scenes must not exhaust file descriptors


@dataclass(frozen=True)
class Scene:
    """Imagery on the grid that the model sees.

    Attributes:
        path: file, or anything else that GDAL opens.
        bands: the file's bands (from 1) in the order read.
        grid: the pixels after any resampling or reprojection. Its CRS is None where the file
            has none; without any georeferencing, pixel (x, y) lies at (x, -y).
        dtype: numpy name of the file's own data type.
        band_names: what the file calls those bands; empty where it gives no name.
        grid_to_file: maps grid pixels to the file's own pixels; None where it was warped.
        crs: the file's own CRS, in which its polygons are written.
        file_gsd_m: side of the file's own pixels on the ground; None without a CRS.
        nodatas: nodata value of each of the bands read; None where there is none.
        masks: the file's alpha bands (from 1), unless they are read as bands.
        has_mask: the file tells by a mask or an alpha band what is valid.
        view: text of the virtual dataset that gives the grid; None where it is the file's own,
            or computed from ``source``.
        source: the same bands in pixels of the file, or of an overview, from which those of the
            grid are computed, where that is a plain scaling that gets finer or little coarser;
            None elsewhere.
        overview_level: which overview of the file is read, from 0; None for the file itself.
        values: from the file's numbers to values, by its scale and offset tags or a stretch;
            None where they are the same. ``read`` gives the numbers.
        middle_x: first coordinate of the file's middle in its own CRS: in degrees, the longitude
            around which it counts.
        taken_in: the range that its values were found in, where they are of another kind of
            numbers than the model's; None where nothing is to be looked after.
        file_block_px: (height, width) of the file's own blocks, in pixels of the grid; None
            where it was warped.
        palette: colours of the first band's numbers; None where they are brightness. Only
            ``open_picture`` gives such scenes.
        rasters: GDAL's names of all rasters in the file, where this is the first of several.
        day: on which it was taken; None where that is not known.

    Examples:
        >>> from geo_retina import open_scene
        >>> scene = open_scene("scene.tif", bands=(3, 2, 1))
        >>> pixels, valid = scene.read(scene.grid.window)
        >>> pixels.shape, valid.shape
        ((3, 512, 512), (512, 512))
    """

    path: str
    bands: tuple[int, ...]
    grid: Grid
    dtype: str
    band_names: tuple[str, ...]
    grid_to_file: Affine | None
    crs: pyproj.CRS | None = None
    file_gsd_m: float | None = None
    nodatas: tuple[float | None, ...] = ()
    masks: tuple[int, ...] = ()
    has_mask: bool = False
    view: str | None = None
    source: Scene | None = None
    overview_level: int | None = None
    values: ValueMap | None = None
    taken_in: ValueRange | None = None
    file_block_px: tuple[float, float] | None = None
    middle_x: float = 0.0
    palette: Palette | None = None
    rasters: tuple[str, ...] = ()
    day: date | None = None

    @property
    def name(self) -> str:
        """Stem of the file."""
        return stem(self.path)

    @property
    def value_dtype(self) -> str:
        """Numpy name of the type of its values: the file's own unless they are computed."""
        return self.dtype if self.values is None else "float32"

    @property
    def resampling_factor(self) -> float:
        """Pixels of the file per pixel of the grid, along a side: above 1, it gets coarser."""
        if self.grid_to_file is not None:
            return float(abs(self.grid_to_file.determinant) ** 0.5)
        assert self.grid.gsd_m is not None  # a warped grid has a CRS
        assert self.file_gsd_m is not None
        return self.grid.gsd_m / self.file_gsd_m

    @property
    def is_resampled(self) -> bool:
        """Tell whether the grid's pixels are others than the file's."""
        return self.view is not None or self.source is not None

    @property
    def scaling(self) -> Scaling:
        """From the pixels of ``source``, which must be there, to the grid's."""
        assert self.source is not None
        return Scaling(self.source.grid.shape, self.grid.shape)

    def to_values(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Convert (bands, ...) numbers as ``read`` gives them to the values that they stand for."""
        return pixels.astype(np.float32) if self.values is None else self.values(pixels)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the grid.

        Only the part is decoded that can be valid by what the file's mask, alpha band or missing
        blocks tell.

        Args:
            window: whole pixels; may reach beyond the grid.

        Returns:
            pixels (bands, height, width) in the file's own dtype, 0 beyond the grid and where
            the file has no data, and valid (height, width), false in both.

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
        part = Window(row, col, bottom - row, right - col)
        if self.source is not None:
            own, resampling = self.read_source(part)
            resampling.on_host(own, pixels[:, *inside])
            valid[inside] = resampling.valid
            return pixels, valid
        with self._dataset(part) as dataset:
            self._read_into(dataset, part, pixels[:, *inside], valid[inside])
        return pixels, valid

    def read_source(self, window: Window) -> tuple[NDArray[Any], Rescaling]:
        """Read what a window of a grid that is computed from a source is computed from.

        Args:
            window: inside the grid.

        Returns:
            pixels (bands, height, width) of the source, and how the window's come of them.

        Raises:
            SceneError: the file cannot be opened or decoded.
        """
        assert self.source is not None
        part = self.scaling.part(window)
        pixels, valid = self.source.read(part)
        return pixels, Rescaling(self.scaling, window, part, valid, self.dtype)

    def _read_into(
        self,
        dataset: rasterio.DatasetReader,
        window: Window,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_],
    ) -> None:
        known = self._known(dataset, window)
        if known is not None and not known.any():
            return
        part = np.s_[:, :] if known is None else bounds_of(known)
        (top, bottom, _), (left, right, _) = (
            along.indices(side) for along, side in zip(part, valid.shape, strict=True)
        )
        here = rasterio.windows.Window(
            window.col + left, window.row + top, right - left, bottom - top
        )
        # Into its place: an array in between would cost as much as reading plain pixels does.
        dataset.read(self._indexes, window=here, out=pixels[:, *part])
        seen = seen_valid(pixels[:, *part], self.nodatas)
        valid[part] = True if seen is None else seen
        if known is not None:
            valid &= known

    def _known(self, dataset: rasterio.DatasetReader, window: Window) -> NDArray[np.bool_] | None:
        """Find what can be valid, as far as it is known before pixels are decoded."""
        place = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        present = self._present(window)
        if present is not None and not present.held.any():
            return present.mask()
        known = masked_valid(dataset, self._indexes, self._masks, window=place)
        if self.has_mask:
            return known  # an empty block is then black ground, if the mask says so
        if present is not None:
            return present.mask() if known is None else known & present.mask()
        return known

    def _present(self, window: Window) -> Presence | None:
        """Find which blocks under a window the file holds; None where none is missing."""
        if self.has_mask or self.grid_to_file is None:
            return None
        file = _handles.get(self.path)
        scale_x, scale_y = self.grid_to_file.a, self.grid_to_file.e
        rows, cols = (
            np.floor((np.arange(start, start + count) + 0.5) * scale).astype(np.int64)
            for start, count, scale in (
                (window.row, window.height, scale_y),
                (window.col, window.width, scale_x),
            )
        )
        return present_at(file, self.bands, rows, cols)

    @property
    def _masks(self) -> tuple[int, ...]:
        """Where the bands that tell what is valid are in the dataset that is read."""
        return self.masks if self.view is None else (len(self.bands) + 1,)

    @property
    def _indexes(self) -> list[int]:
        """Where the bands are in the dataset that is read."""
        return list(self.bands if self.view is None else range(1, len(self.bands) + 1))

    def is_blank(self, window: Window) -> bool:
        """Tell whether the file holds no block under a window, and no mask says what that means."""
        if self.source is not None:
            return self.source.is_blank(self.scaling.part(window))
        if self.has_mask or self.grid_to_file is None:
            return False
        try:
            with self._dataset(window):
                present = self._present(window)
        except SceneError:  # reading it will tell
            return False
        return present is not None and not present.held.any()

    @property
    def tells_gaps(self) -> bool:
        """Whether a pixel of it, read, may turn out to be no ground; missing blocks aside."""
        if self.source is not None:
            return self.source.tells_gaps
        has_nan = np.issubdtype(np.dtype(self.dtype), np.inexact)
        told = self.masks or self.has_mask or any(each is not None for each in self.nodatas)
        return self.view is not None or bool(told) or bool(has_nan)

    def known_share(self, window: Window) -> float | None:
        """Tell the share of a window that holds ground where that takes no pixel; else None."""
        if self.source is not None:
            return self.source.known_share(self.scaling.part(window))
        if self.tells_gaps:
            return None
        try:
            with self._dataset():
                present = self._present(window)
        except SceneError:
            return 1.0
        return 1.0 if present is None else round(present.share, 4)

    @property
    def has_overviews(self) -> bool:
        """Whether the file holds itself in coarser pixels too, or what it is read through does.

        Raises:
            SceneError: it cannot be opened.
        """
        own = self.source or self
        with own._dataset() as dataset:
            return bool(dataset.overviews(own._indexes[0]))

    def overview(self, max_px: int) -> tuple[NDArray[Any], NDArray[np.bool_], float]:
        """Read the whole grid, decimated so that no side exceeds ``max_px``.

        Returns:
            pixels (bands, height, width), valid (height, width), and the grid pixels per
            pixel returned.
        """
        scale = max(1.0, max(self.grid.shape) / max_px)
        shape = tuple(max(1, round(side / scale)) for side in self.grid.shape)
        is_exact = self.dtype == "bool" or self.palette is not None
        how: dict[str, Any] = {
            "out_shape": shape,
            "resampling": Resampling.nearest if is_exact else Resampling.average,
        }
        own = self.source or self
        with own._dataset() as dataset:
            pixels = dataset.read(own._indexes, **how)
            seen = seen_valid(pixels, own.nodatas)
            valid = np.ones(shape, np.bool_) if seen is None else seen
            known = masked_valid(dataset, own._indexes, own._masks, **how)
        return pixels, valid if known is None else valid & known, scale

    def check_opens(self) -> None:
        """Open the file, or its view, without a look at any pixel.

        Raises:
            SceneError: it cannot be opened, so that no part of it can be read.
        """
        with gdal_settings(self.path), refuse_damage(self.path):
            _handles.get(self.path, self.view, self.overview_level)

    def seams(self, window: Window) -> tuple[list[int], list[int]]:
        """Find rows and columns inside a window where ground that can be read may end.

        These are the borders of the file's blocks and of a VRT's sources, or of the blocks in
        which a view is computed, in order. Of a grid that is computed from a source, ask that.
        """
        height, width = self.file_block_px or (VIEW_BLOCK_PX, VIEW_BLOCK_PX)
        if self.view is not None:
            height = width = VIEW_BLOCK_PX
        y_places, x_places = (
            set(range(start + -start % step, start + size, step))
            for start, size, step in (
                (window.row, window.height, max(1, round(height))),
                (window.col, window.width, max(1, round(width))),
            )
        )
        if self.view is None and self.grid_to_file is not None:
            step_x, step_y = self.grid_to_file.a, self.grid_to_file.e
            for bounds in source_bounds(self.path, self._file_bounds(window)):
                x_places |= {f(x / step_x) for x in bounds[::2] for f in (math.floor, math.ceil)}
                y_places |= {f(y / step_y) for y in bounds[1::2] for f in (math.floor, math.ceil)}
        return (
            sorted(y for y in y_places if window.row < y < window.row + window.height),
            sorted(x for x in x_places if window.col < x < window.col + window.width),
        )

    def _file_bounds(self, part: Window) -> Bounds | None:
        """Bound what a part of the grid is read from, in a VRT's pixels; None where unknown."""
        left, top, right, bottom = part.box_px
        if self.view is not None:  # its blocks are computed as a whole
            left, top = (v // VIEW_BLOCK_PX * VIEW_BLOCK_PX for v in (left, top))
            right, bottom = (-(-v // VIEW_BLOCK_PX) * VIEW_BLOCK_PX for v in (right, bottom))
        if self.grid_to_file is None:
            points = self._in_file(Window(top, left, bottom - top, right - left))
        else:
            corners = np.array([(left, top), (right, bottom)], np.float64)
            points = np.array([self.grid_to_file @ tuple(corner) for corner in corners])
        if points is None or not np.isfinite(points).all():
            return None
        is_own = self.view is None and self.overview_level is None
        margin = 0.0 if is_own else _MARGIN_PX + 2 * self.resampling_factor
        (x_min, y_min), (x_max, y_max) = points.min(axis=0) - margin, points.max(axis=0) + margin
        return float(x_min), float(y_min), float(x_max), float(y_max)

    def _in_file(self, part: Window) -> NDArray[np.float64] | None:
        """Move a lattice over a part of a warped grid to the file's pixels, where an affine can."""
        file = _handles.get(self.path, None)
        if file.transform.is_identity or file.gcps[0] or file.rpcs or self.crs is None:
            return None
        shift = Affine.translation(part.col, part.row)
        inside = Grid(self.grid.crs, self.grid.affine @ shift, part.height, part.width)
        places = move(inside.lattice_crs(), self.grid.crs, self.crs)
        if (turn := full_turn(self.crs)) is not None:
            places[:, 0] = wrap(places[:, 0], turn, self.middle_x)
        own = Grid(None, file.transform, file.height, file.width)
        return own.crs_to_pixels(places)

    @contextmanager
    def _dataset(self, part: Window | None = None) -> Iterator[rasterio.DatasetReader]:
        """Open the file, or its view, to read a part of the grid, or with None any of it."""
        try:
            with gdal_settings(self.path), refuse_damage(self.path):
                needed = None if part is None or not is_vrt(self.path) else self._file_bounds(part)
                with sources_read(self.path, needed):
                    yield _handles.get(self.path, self.view, self.overview_level)
        except SceneError:
            _handles.drop(self.path)
            raise


class _Handles(threading.local):
    """The open datasets of one thread, least recently used first."""

    def __init__(self) -> None:
        self.datasets: OrderedDict[tuple[Any, ...], rasterio.DatasetReader] = OrderedDict()

    def get(
        self, path: str, view: str | None = None, level: int | None = None
    ) -> rasterio.DatasetReader:
        """Open a file, or a view or an overview of it, unless it is open."""
        # A file that was replaced must not be read through a handle on the old one.
        stat = os.stat(path) if os.path.exists(path) else None
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else ()
        key = path, version, view, level
        if key not in self.datasets:
            self.datasets[key] = open_dataset(
                view or path, **({} if level is None else {"overview_level": level})
            )
            while len(self.datasets) > _OPEN_HANDLES:
                self.datasets.popitem(last=False)[1].close()
        self.datasets.move_to_end(key)
        return self.datasets[key]

    def drop(self, path: str) -> None:
        """Close all handles on a file."""
        for key in [key for key in self.datasets if key[0] == path]:
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
