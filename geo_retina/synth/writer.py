"""The scene's file and its truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window as FileWindow

from geo_retina.boxes import oriented, to_polygons
from geo_retina.errors import OptionError
from geo_retina.files import check_file_output, new_file
from geo_retina.grid import Window
from geo_retina.options import SynthOptions
from geo_retina.synth.painter import NODATA, Painter
from geo_retina.synth.things import CLASSES, FREIGHT_CLASSES

Truth = tuple[NDArray[np.float64], NDArray[np.int32]]
"""(N, 4) or (N, 5) boxes in pixels and their (N,) classes."""

_TILE_PX = 512
_NAMES = ("red", "green", "blue", "nir")
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class SynthReport:
    """What was drawn.

    Attributes:
        path: the scene.
        truth: the layer of its objects, or None if none was asked for.
        counts: objects by class, all of ``scene_classes``.
        options: what was asked for.
    """

    path: Path
    truth: Path | None
    counts: dict[str, int]
    options: SynthOptions


def draw_scene(
    path: str | Path,
    options: SynthOptions = SynthOptions(),
    *,
    truth: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SynthReport:
    """Draw a scene into a tiled, compressed GeoTIFF, and its objects into a vector layer.

    Args:
        path: the GeoTIFF.
        options: the scene; the same options give the same bytes.
        truth: vector file for the objects: a rectangle around what is visible of each, without
            its shadow, along the grid's axes or, where the content is freight, along the
            object's own sides; columns ``class`` and ``id``. Left out, none.
        overwrite: replace existing files.
        progress: called with the windows done and their number.

    Returns:
        Where it is and how many objects of each class it has.

    Raises:
        OutputError: an output exists, or its folder does not, or cannot be written.

    Examples:
        >>> from geo_retina import SynthOptions, draw_scene
        >>> options = SynthOptions(height=256, width=256, seed=3)
        >>> draw_scene("drawn.tif", options, truth="drawn.gpkg").path.name
        'drawn.tif'
    """
    path, truth = Path(path), None if truth is None else Path(truth)
    check_file_output(path, [".tif", ".tiff"], overwrite=overwrite)
    if truth is not None:
        from geo_retina import vector

        vector.check_output(truth, overwrite=overwrite)
    painter = Painter(options)
    with new_file(path, overwrite=overwrite) as draft:
        _write_pixels(draft, painter, progress)
        counts = dict.fromkeys(scene_classes(options), 0)
        tables = _truth_tables(painter, counts)
        if truth is None:
            for _ in tables:
                pass
        else:
            vector.write_vector(
                truth, tables, crs=painter.grid.crs, overwrite=overwrite, layer="truth"
            )
    return SynthReport(path, truth, counts, options)


def truth_boxes(options: SynthOptions) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """List the objects of a scene without drawing it.

    Returns:
        (N, 4) upright boxes in grid pixels and (N,) positions in ``scene_classes``, in the order
        of the truth layer.
    """
    painter = Painter(options)
    return _joined(list(_by_row(painter, painter.truth)))


def truth_rotated(options: SynthOptions) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """List the objects of a scene of freight as rotated boxes, without drawing it.

    Returns:
        (N, 5) centre x, centre y, length, width in grid pixels and angle of the length in
        [-90, 90) degrees from x towards y, and (N,) positions in ``scene_classes``; in the order
        of the truth layer.

    Raises:
        OptionError: the content is mixed, whose truth is upright.
    """
    if options.content != "freight":
        raise OptionError(
            "SynthOptions.content is mixed, whose truth is upright boxes; draw freight instead"
        )
    painter = Painter(options)
    return _joined(list(_by_row(painter, painter.rotated_truth)))


def scene_classes(options: SynthOptions) -> tuple[str, ...]:
    """Return the classes of a scene's truth."""
    return FREIGHT_CLASSES if options.content == "freight" else CLASSES


def _windows(height: int, width: int) -> list[Window]:
    return [
        Window(row, col, min(_TILE_PX, height - row), min(_TILE_PX, width - col))
        for row in range(0, height, _TILE_PX)
        for col in range(0, width, _TILE_PX)
    ]


def _write_pixels(
    path: Path, painter: Painter, progress: Callable[[int, int], None] | None
) -> None:
    """Draw window by window, each one tile of the file, so that little is held at once."""
    o, grid = painter.options, painter.grid
    profile = {
        "driver": "GTiff",
        "height": o.height,
        "width": o.width,
        "count": o.bands,
        "dtype": o.dtype,
        "crs": grid.crs.to_wkt() if grid.crs is not None else None,
        "transform": grid.affine,
        "nodata": NODATA[o.dtype] if o.nodata_corner else None,
        "tiled": True,
        "blockxsize": _TILE_PX,
        "blockysize": _TILE_PX,
        "compress": "deflate",
        "predictor": 3 if o.dtype == "float32" else 2,
        "zlevel": 4,
        "interleave": "pixel",
        "photometric": "RGB" if o.bands >= 3 else "MINISBLACK",
        "alpha": "NO",
        "BIGTIFF": "IF_SAFER",
    }
    windows = _windows(o.height, o.width)
    # A fixed cache makes tiles reach the file in one order, whatever the machine's memory.
    with rasterio.Env(GDAL_CACHEMAX=64 << 20), rasterio.open(path, "w", **profile) as file:
        file.colorinterp = _interpretation(o.bands)
        for band in range(o.bands):
            file.set_band_description(band + 1, _band_name(band, o.bands))
        for done, window in enumerate(windows, start=1):
            pixels, _ = painter.draw(window)
            file.write(
                pixels, window=FileWindow(window.col, window.row, window.width, window.height)
            )
            if progress is not None:
                progress(done, len(windows))


def _interpretation(bands: int) -> tuple[ColorInterp, ...]:
    if bands < 3:
        return (ColorInterp.gray, *(ColorInterp.undefined,) * (bands - 1))
    return (*_COLOURS, *(ColorInterp.undefined,) * (bands - 3))


def _band_name(band: int, bands: int) -> str:
    if bands == 1:
        return "gray"
    return _NAMES[band] if band < len(_NAMES) else f"band {band + 1}"


def _by_row(painter: Painter, truth: Callable[[int, int], Truth]) -> Iterator[Truth]:
    """Yield boxes and classes, one row of parcels after the other."""
    o, cell_px = painter.options, painter.land.cell_m / painter.options.gsd_m
    cols = range(-2, math.floor(o.width / cell_px) + 3)
    for row in range(-2, math.floor(o.height / cell_px) + 3):
        yield _joined([truth(row, col) for col in cols])


def _joined(parts: list[Truth]) -> Truth:
    return np.concatenate([b for b, _ in parts]), np.concatenate([k for _, k in parts])


def _truth_tables(painter: Painter, counts: dict[str, int]) -> Iterator[pa.Table]:
    """Yield tables of the objects, counting them on the way."""
    freight, classes = painter.land.freight, scene_classes(painter.options)
    for shapes_px, labels in _by_row(painter, painter.rotated_truth if freight else painter.truth):
        for label, n in enumerate(np.bincount(labels, minlength=len(classes))):
            counts[classes[label]] += int(n)
        place = oriented.to_polygons if freight else to_polygons
        polygons = place(shapes_px, painter.grid)
        names = [classes[label] for label in labels]
        yield pa.table(
            {
                "geometry": pa.array(shapely.to_wkb(polygons), pa.binary()),
                "class": pa.array(names, pa.string()),
            }
        )
