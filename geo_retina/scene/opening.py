"""Looking at a file, and fixing the grid on which it will be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Interleaving

from geo_retina.errors import SceneError
from geo_retina.geodesy import missing_crs
from geo_retina.grid import Grid
from geo_retina.scene.bands import ALPHA, alphas, label_bands, read_palettes
from geo_retina.scene.datasets import listed_rasters, open_dataset, refuse_damage
from geo_retina.scene.georeferencing import georeference, metric_grid
from geo_retina.scene.reading import Scene
from geo_retina.scene.remote import is_remote
from geo_retina.scene.scene_file import SceneFile
from geo_retina.scene.stac_items import parse_day
from geo_retina.scene.validity import masked_bands
from geo_retina.scene.values import ValueMap
from geo_retina.scene.warping import OwnSource, own_source, view_of


def inspect_file(path: str | Path, *, pixel_m: float | None = None) -> SceneFile:
    """Read what a file says of itself. No pixel is read.

    Args:
        path: file, or anything else that GDAL opens.
        pixel_m: side of its pixels in metres, for a file without a CRS; others know theirs.

    Raises:
        SceneError: the file is missing, is no raster, or holds several that must be named.
    """
    path = os.fspath(path)
    with refuse_damage(path), open_dataset(path) as dataset:
        if not dataset.count:
            inner = list(dataset.subdatasets)
            held = f" ({listed_rasters(inner)})" if inner else ""
            raise SceneError(
                f"{path} holds {len(inner)} rasters and none of its own{held}; give one of them by "
                f"name{', such as ' + inner[0] if inner else ''}"
            )
        _refuse_huge_blocks(dataset, path)
        kinds = enumerate(dataset.colorinterp, 1)
        return SceneFile(
            path=path,
            labels=label_bands(dataset),
            dtypes=tuple(dataset.dtypes),
            nodatas=tuple(dataset.nodatavals),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            placement=georeference(dataset, path).sized(pixel_m),
            overviews=tuple(dataset.overviews(1)),
            declared_alphas=frozenset(i for i, kind in kinds if kind is ColorInterp.alpha),
            masked=masked_bands(dataset, dataset.indexes),
            block_px=tuple(dataset.block_shapes[0]),
            palettes=read_palettes(dataset),
            rasters=tuple(dataset.subdatasets),
            day=_day_of(dataset, path),
        )


def _day_of(dataset: rasterio.DatasetReader, path: str) -> date | None:
    """Read on which day a file was taken; None for one at an address.

    GDAL looks for files of a dozen satellites beside it, which would be as many requests there.
    ``TIFFTAG_DATETIME`` says when a file was written.
    """
    if is_remote(path):
        return None
    return parse_day(dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", ""))


_BLOCK_BYTES = 1 << 30


def _refuse_huge_blocks(dataset: rasterio.DatasetReader, path: str) -> None:
    """Refuse a file of which no part can be read without holding more than memory may take.

    Raises:
        SceneError: it is one.
    """
    height, width = dataset.block_shapes[0]
    together = dataset.count if dataset.interleaving is Interleaving.pixel else 1
    size = height * width * together * np.dtype(dataset.dtypes[0]).itemsize
    if size > _BLOCK_BYTES:
        raise SceneError(
            f"{path} is stored in blocks of {width} x {height} px, each of which takes "
            f"{size / 2**30:.1f} GiB of memory, expected at most {_BLOCK_BYTES >> 30}; tile it "
            f"with gdal_translate -co TILED=YES"
        )


def as_scene(
    file: SceneFile,
    *,
    bands: Sequence[int] | None = None,
    gsd_m: float | None = None,
    in_colours: bool = False,
) -> Scene:
    """Fix bands and grid; arguments and errors are those of ``open_scene``.

    With ``in_colours`` a colour table is taken, to be looked at.
    """
    chosen = _choose_bands(file, bands, in_colours=in_colours)
    own = file.placement.grid
    grid, to_file = own, Affine.identity()
    if file.placement.is_warped:
        grid, to_file = metric_grid(file.path, file.placement, gsd_m), None
    elif gsd_m is not None:
        grid, to_file = _scaled_grid(file.path, own, gsd_m)
    is_own = to_file is not None and to_file.is_identity
    if to_file is not None and not is_own:
        source = own_source(file, chosen, grid, to_file)
        if source is not None:
            return _scaled(
                as_scene(file, bands=chosen, in_colours=in_colours), grid, to_file, source
            )
    return Scene(
        path=file.path,
        bands=chosen,
        grid=grid,
        dtype=file.dtypes[chosen[0] - 1],
        band_names=tuple(_band_name(file, band) for band in chosen),
        grid_to_file=to_file,
        crs=own.crs,
        file_gsd_m=own.gsd_m,
        nodatas=file.nodatas_of(chosen, is_own=is_own),
        masks=tuple(file.masks(chosen)),
        has_mask=bool(file.masked) or bool(file.masks(chosen)),
        view=None if is_own else view_of(file, chosen, grid, to_file),
        values=ValueMap.of_tags(
            [file.scales[band - 1] for band in chosen],
            [file.offsets[band - 1] for band in chosen],
        ),
        palette=file.palette(chosen[:1]),
        file_block_px=None
        if to_file is None
        else (file.block_px[0] / to_file.e, file.block_px[1] / to_file.a),
        middle_x=file.placement.middle_x,
        rasters=file.rasters,
        day=file.day,
    )


def _scaled(own: Scene, grid: Grid, to_file: Affine, source: OwnSource) -> Scene:
    """Let a scene in its file's own pixels be read on a grid that is computed from a source."""
    affine = own.grid.affine @ source.to_file
    pixels = replace(
        own,
        grid=replace(own.grid, affine=affine, height=source.shape[0], width=source.shape[1]),
        grid_to_file=source.to_file,
        overview_level=source.level,
        file_block_px=(float(source.block_px[0]), float(source.block_px[1])),
    )
    assert own.file_block_px is not None
    height, width = own.file_block_px
    return replace(
        own,
        grid=grid,
        grid_to_file=to_file,
        file_block_px=(height / to_file.e, width / to_file.a),
        source=pixels,
    )


def open_scene(
    path: str | Path, *, bands: Sequence[int] | None = None, gsd_m: float | None = None
) -> Scene:
    """Look at a file and fix the grid on which it will be read. No pixel is read.

    Args:
        path: file, or anything else that GDAL opens.
        bands: the file's bands (from 1) in the requested order; left out, all that are not alpha.
        gsd_m: resample to this many metres a pixel; left out, the file's own pixels. A scene
            in a geographic CRS, or placed by control points or RPCs, is always warped, to the
            UTM zone of its centre.

    Returns:
        The scene; without georeferencing its grid has no CRS, and pixel (x, y) at (x, -y).

    Raises:
        SceneError: the file is missing, is no raster, or lacks a band asked for.

    Examples:
        >>> from geo_retina import open_scene
        >>> scene = open_scene("scene.tif")
        >>> scene.grid.shape, scene.grid.gsd_m, scene.bands
        ((512, 512), 0.3, (1, 2, 3))
    """
    return as_scene(inspect_file(path), bands=bands, gsd_m=gsd_m)


def open_picture(path: str | Path, *, bands: Sequence[int] | None = None) -> Scene:
    """Look at a file that is to be drawn: as ``open_scene``, with colour tables too.

    Raises:
        SceneError: the file is missing, is no raster, or lacks a band asked for.
    """
    return as_scene(inspect_file(path), bands=bands, in_colours=True)


def on_grid(scene: Scene, grid: Grid) -> Scene:
    """Warp the same bands of a scene to another grid, in any CRS.

    Raises:
        SceneError: its file is missing or no raster.
    """
    return _viewed(scene, inspect_file(scene.path), grid, None)


def coarsen(scene: Scene, factor: int) -> Scene:
    """Read the same bands of a scene in pixels that are so many times as long.

    They are averages, and taken from the file's overviews where these are fine enough. The last
    row and column may reach beyond the scene.

    Raises:
        SceneError: its file is missing or no raster.
    """
    file, own, stretched = inspect_file(scene.path), scene.grid, Affine.scale(factor)
    grid = replace(
        own,
        affine=own.affine @ stretched,
        height=-(-own.height // factor),
        width=-(-own.width // factor),
        pixel_m=None if own.pixel_m is None else own.pixel_m * factor,
    )
    to_file = None if scene.grid_to_file is None else scene.grid_to_file @ stretched
    source = None if to_file is None else own_source(file, scene.bands, grid, to_file)
    if to_file is not None and source is not None:
        scaled = _scaled(as_scene(file, bands=scene.bands), grid, to_file, source)
        return replace(scaled, values=scene.values)
    viewed = _viewed(scene, file, grid, to_file)
    return replace(viewed, overview_level=None, file_block_px=None)


def _viewed(scene: Scene, file: SceneFile, grid: Grid, to_file: Affine | None) -> Scene:
    """Let GDAL put the same bands of a scene on another grid."""
    return replace(
        scene,
        grid=grid,
        grid_to_file=to_file,
        nodatas=file.nodatas_of(scene.bands, is_own=False),
        view=view_of(file, scene.bands, grid, to_file),
        source=None,
    )


def count_bands(path: str | Path) -> int:
    """Count the bands of a file, alpha included.

    Raises:
        SceneError: the file is missing or no raster.
    """
    with open_dataset(os.fspath(path)) as dataset:
        return int(dataset.count)


def _band_name(file: SceneFile, band: int) -> str:
    label = file.labels[band - 1]
    coloured = label.name or ""  # an alpha band that was asked for is none
    return label.description or (coloured if coloured != ALPHA else "")


def _choose_bands(
    file: SceneFile, bands: Sequence[int] | None, *, in_colours: bool
) -> tuple[int, ...]:
    count = len(file.labels)
    if bands is None:
        bands = sorted({label.index for label in file.labels} - alphas(file.labels)) or (1,)
    missing = [band for band in bands if not 1 <= band <= count]
    if missing or not bands:
        raise SceneError(
            f"{file.path} has {count} bands, but no band {', '.join(map(str, missing))}; name "
            f"bands from 1 to {count}"
        )
    if not in_colours:
        file.refuse_palette(bands)
    dtypes = {file.dtypes[band - 1] for band in bands}
    if len(dtypes) > 1:
        raise SceneError(
            f"{file.path} has bands of different data types ({', '.join(sorted(dtypes))}), "
            "expected one; convert them with gdal_translate -ot"
        )
    if "complex" in (dtype := dtypes.pop()):
        raise SceneError(
            f"{file.path} has {dtype} pixels, expected real numbers; write their amplitude to "
            "a file of its own first"
        )
    return tuple(bands)


def _scaled_grid(path: str, own: Grid, gsd_m: float) -> tuple[Grid, Affine]:
    """Divide the file's ground into other pixels, square on the ground."""
    if own.gsd_m is None:
        raise SceneError(
            missing_crs(
                path,
                f"it cannot be resampled to {gsd_m:g} m",
                otherwise=", or say how many metres its pixels are with DetectOptions.pixel_m",
            )
        )
    sides_m = own.sides_m()
    width, height = (
        max(1, round(size * side_m / gsd_m))
        for size, side_m in zip((own.width, own.height), sides_m.tolist(), strict=True)
    )
    to_file = Affine.scale(own.width / width, own.height / height)
    side_m = None if own.pixel_m is None else gsd_m
    return Grid(own.crs, own.affine @ to_file, height, width, side_m), to_file
