"""Maps of how many objects there are: a GeoTIFF of counts per cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geo_retina.errors import LabelError, OptionError
from geo_retina.geodesy import (
    WGS84,
    full_turn,
    is_same,
    metric_crs,
    middle_longitude,
    missing_crs,
    move,
    move_outlines,
    reproject,
    transformer,
    unit_m,
    wrap,
)
from geo_retina.grid import Grid
from geo_retina.scene import Scene, check_raster_output, write_raster
from geo_retina.vector import Centres, layer_crs, stream_centres

NODATA = 2**32 - 1
"""In cells that lie beside the scene."""

_MOST_VALUES = 2**28
"""Cells times bands; 1 GiB."""

_EQUAL_AREA = "EPSG:6933"
_ROUNDING = 1e-6
"""Share of a cell: ground that reaches no further into one was moved to another CRS and back."""

_ZONE_DEG = 12
"""Ground up to this wide is mapped in one UTM zone: its scale stays true to half a percent."""

_Bounds = NDArray[np.float64]


@dataclass(frozen=True)
class DensityMap:
    """What a density map holds.

    Attributes:
        path: the GeoTIFF.
        grid: its cells.
        counts: objects by class, sorted by name.
        most: objects in the fullest cell.
    """

    path: Path
    grid: Grid
    counts: dict[str, int]
    most: int

    @property
    def total(self) -> int:
        """Objects counted."""
        return sum(self.counts.values())


def draw_density(
    detections: str | Path,
    out: str | Path,
    *,
    cell_m: float,
    scene: Scene | None = None,
    score: float | None = None,
    overwrite: bool = False,
) -> DensityMap:
    """Count detections in square cells, into a GeoTIFF.

    The file is read twice in pieces and never held, so ten million detections are fine. An
    object belongs to the cell that the middle of its bounds lies in, so it is counted once.
    The corners of cells are multiples of their size, so maps of neighbouring ground fit.

    Args:
        detections: file of detections, or of points.
        out: the GeoTIFF, uint32. Its first band counts all objects; where there are several
            classes, a band for each follows, by name.
        cell_m: side of a cell on the ground.
        scene: the map covers it, with nodata in the cells beside it; objects beside it do not
            count. Left out, the map reaches as far as the objects do, and says nothing about
            where nobody looked.
        score: leave out what scores less.
        overwrite: replace an existing file.

    Returns:
        What was counted. The map is in the detections' CRS where a metre there is a metre on
        the ground; else, as with longitudes and latitudes or Web Mercator, in the UTM zone of
        its middle, or beyond 12 degrees of longitude in the equal-area EPSG:6933.

    Raises:
        LabelError: the file is missing or unreadable, has no CRS, or holds no detection and
            no scene was given.
        OptionError: the cells are not of a size, or too small for that much ground.
        OutputError: the map exists or cannot be written.

    Examples:
        >>> from geo_retina import draw_density
        >>> density = draw_density("detections.gpkg", "density.tif", cell_m=20)
        >>> density.total > density.most
        True
    """
    if not (cell_m > 0 and math.isfinite(cell_m)):
        raise OptionError(f"cells of {cell_m:g} m have no ground; give more than 0 m")
    check_raster_output(out, overwrite=overwrite)
    crs = layer_crs(detections)
    if crs is None:
        so = "its cells would have no size in metres"
        raise LabelError(missing_crs(str(detections), so, file=str(detections)))
    outline = None if scene is None else _outline(scene, crs)
    batches = partial(_batches, detections, crs, score, outline)
    bounds, names = _survey(detections, score, outline, batches())
    target = _true_crs(crs, bounds)
    moved = _moved_bounds(bounds, crs, target)
    if outline is not None:
        moved = np.array(reproject(np.array([outline]), crs, target)[0].bounds)
    grid = _cells(moved, target, cell_m, 1 + len(names), is_ground=outline is not None)
    counts = np.zeros((1 + len(names), *grid.shape), np.uint32)
    for batch in batches():
        _count(counts, batch, names, grid, move(batch.positions, crs, target))
    kept = counts[1:] if len(names) > 1 else counts[:1]
    totals = dict(zip(names, kept.sum(axis=(1, 2), dtype=np.int64).tolist(), strict=False))
    most = int(counts[0].max())
    written = counts if len(names) > 1 else counts[:1]
    if outline is not None:
        written[:, _beside(outline, crs, grid)] = NODATA
    bands = ("all", *names) if len(names) > 1 else (names[0] if names else "all",)
    write_raster(out, written, grid, names=bands, nodata=NODATA, overwrite=overwrite)
    return DensityMap(Path(out), grid, totals, most)


def _outline(scene: Scene, crs: pyproj.CRS) -> shapely.Polygon:
    """Outline the scene's ground in a CRS, with vertices along its sides."""
    if scene.grid.crs is None:
        so = "its ground is unknown"
        raise LabelError(missing_crs(f"the scene {scene.name}", so, otherwise=", or leave it out"))
    box = shapely.segmentize(shapely.box(0, 0, *scene.grid.shape[::-1]), max(scene.grid.shape) / 32)
    ground = np.array([shapely.transform(box, scene.grid.pixels_to_crs)])
    return move_outlines(ground, scene.grid.crs, crs)[0]


def _survey(
    detections: str | Path,
    score: float | None,
    outline: shapely.Polygon | None,
    batches: Iterator[Centres],
) -> tuple[_Bounds, tuple[str, ...]]:
    """Find the bounds of what the map has to cover, and the classes on it, sorted."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    names: set[str] = set()
    for batch in batches:
        if len(batch.positions):
            low = np.minimum(low, batch.positions.min(axis=0))
            high = np.maximum(high, batch.positions.max(axis=0))
            names |= {batch.names[code] for code in np.unique(batch.codes)}
    bounds = np.concatenate([low, high])
    if outline is not None:
        bounds = np.array(outline.bounds)
    if not np.isfinite(bounds).all():
        above = "" if score is None else f" that scores {score:g} or more"
        raise LabelError(
            f"{detections} holds no detection{above}, so the map would have no ground; name the "
            "scene that was searched"
        )
    return bounds, tuple(sorted(names))


def _batches(
    detections: str | Path, crs: pyproj.CRS, score: float | None, outline: shapely.Polygon | None
) -> Iterator[Centres]:
    """Stream centres within an outline, in degrees in one piece across the antimeridian."""
    if outline is not None:
        shapely.prepare(outline)
    turn = full_turn(crs)
    around = None if outline is None else float(outline.centroid.x)
    for batch in stream_centres(detections, score=score):
        if turn is not None and len(batch.positions):
            x, y = batch.positions.T
            around = middle_longitude(x, turn) if around is None else around
            batch = replace(batch, positions=np.column_stack([wrap(x, turn, around), y]))
        if outline is not None:
            inside = shapely.intersects_xy(outline, batch.positions)
            batch = Centres(batch.positions[inside], batch.codes[inside], batch.names)
        yield batch


def _true_crs(crs: pyproj.CRS, bounds: _Bounds) -> pyproj.CRS:
    """Choose a CRS where lengths are true: the given one, if they are true in it."""
    middle_xy = (bounds[:2] + bounds[2:]) / 2
    if not crs.is_geographic:
        pixel = Grid(crs, Affine.translation(*(middle_xy - 0.5)), 1, 1)
        if pixel.gsd_m is not None and abs(pixel.gsd_m / unit_m(crs) - 1) <= 0.01:
            return crs
    west, south, east, north = _moved_bounds(bounds, crs, WGS84)
    lon, lat = (west + east) / 2, (south + north) / 2
    if east - west > _ZONE_DEG or not -80 <= lat <= 84:
        return pyproj.CRS(_EQUAL_AREA)
    return metric_crs(WGS84, lon, lat)


def _moved_bounds(bounds: _Bounds, crs: pyproj.CRS, target: pyproj.CRS) -> _Bounds:
    if is_same(crs, target):
        return bounds
    moved = np.array(transformer(crs, target).transform_bounds(*bounds))
    if target.is_geographic and moved[0] > moved[2]:  # PROJ's way to say: over the antimeridian
        moved[2] += 360
    if not np.isfinite(moved).all():
        raise LabelError(
            f"the detections lie where {target.name} has no coordinates; write them in another CRS"
        )
    return moved


def _cells(bounds: _Bounds, crs: pyproj.CRS, cell_m: float, bands: int, *, is_ground: bool) -> Grid:
    """Lay cells whose corners are multiples of their size around the bounds.

    Ground that ends with a cell needs none beyond it; a point on that line does.
    """
    side = cell_m / unit_m(crs)
    left, bottom, right, top = np.floor(bounds / side)
    if is_ground:
        left, bottom = np.floor(bounds[:2] / side + _ROUNDING)
        right, top = np.maximum(np.ceil(bounds[2:] / side - _ROUNDING) - 1, [left, bottom])
    width, height = int(right - left) + 1, int(top - bottom) + 1
    if width * height * bands > _MOST_VALUES:
        raise OptionError(
            f"cells of {cell_m:g} m would make a map of {width:,} x {height:,} cells and {bands} "
            f"bands, expected at most {_MOST_VALUES:,} values; give larger cells"
        )
    affine = Affine(side, 0, left * side, 0, -side, (top + 1) * side)
    return Grid(crs, affine, height, width)


def _count(
    counts: NDArray[np.uint32],
    batch: Centres,
    names: tuple[str, ...],
    grid: Grid,
    positions: NDArray[np.float64],
) -> None:
    """Add a batch to the counts: all in the first band, each class in its own."""
    # By the grid's multiples, not by its affine: what lies on an edge falls where _cells has it.
    side = grid.affine.a
    left, top = round(grid.affine.c / side), round(grid.affine.f / side) - 1
    cells = np.floor(positions / side)
    cols = np.clip(cells[:, 0] - left, 0, grid.width - 1).astype(np.int64)
    rows = np.clip(top - cells[:, 1], 0, grid.height - 1).astype(np.int64)
    band_of = {name: band for band, name in enumerate(names, start=1)}
    bands = np.array([band_of.get(name, 0) for name in batch.names], dtype=np.int64)[batch.codes]
    np.add.at(counts, (0, rows, cols), 1)
    np.add.at(counts, (bands, rows, cols), 1)


def _beside(outline: shapely.Polygon, crs: pyproj.CRS, grid: Grid) -> NDArray[np.bool_]:
    """Find (height, width) cells that no part of the outline touches."""
    assert grid.crs is not None  # cells are of a size in metres
    moved = reproject(np.array([outline]), crs, grid.crs)[0]
    ground = shapely.transform(moved, grid.crs_to_pixels)
    shapely.prepare(ground)
    beside = np.ones(grid.shape, np.bool_)
    x = np.arange(grid.width)
    for row in range(grid.height):
        beside[row] = ~shapely.intersects(ground, shapely.box(x, row, x + 1, row + 1))
    return beside
