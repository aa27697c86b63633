"""Overviews that are not those of the file's pixels: another scene's, or made too early."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rasterio import DatasetReader
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geo_retina.errors import SceneError
from geo_retina.scene.datasets import open_dataset
from geo_retina.scene.scene_file import SceneFile

_PART_PX, _CELL_PX, _FEWEST_CELLS = 64, 8, 9
_MOST_PX = 1024
"""Side of what is read of the file for a part."""

_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""Of the parts: the middle first, then those of the quarters."""

_OWN = {"GTiff", "HFA"}
"""Formats whose overviews are made apart from the pixels; others compute them, or fetch both."""

Pixels = np.ma.MaskedArray[Any, Any]


def check_overview(file: SceneFile, level: int, shape: tuple[int, int]) -> None:
    """Refuse an overview that is another scene's, or was made before the pixels were.

    Of files at addresses, and of formats that compute their overviews, none is compared.

    Args:
        file: the file.
        level: of the overview, from 0.
        shape: its (height, width).

    Raises:
        SceneError: its size or its values are other ones.
    """
    if not Path(file.path).is_file():
        return
    sidecar, own = Path(f"{file.path}.ovr"), file.placement.grid
    holder = sidecar if sidecar.is_file() else Path(file.path)
    factor = round(max(own.height / shape[0], own.width / shape[1]))
    if abs(own.height / factor - shape[0]) > 1 or abs(own.width / factor - shape[1]) > 1:
        what = f"an overview of {shape[1]} x {shape[0]} px, which does not belong to the "
        what += f"{own.width} x {own.height} px of {file.path}"
    elif not _shows_same(file.path, holder.stat().st_mtime_ns, level, shape, factor):
        what = f"an overview with other values than {file.path}"
    else:
        return
    first = f"remove {sidecar.name}" if holder == sidecar else "remove it with gdaladdo -clean"
    raise SceneError(f"{holder} has {what}; {first}, or make it anew with gdaladdo")


@lru_cache(maxsize=64)
def _shows_same(path: str, changed: int, level: int, shape: tuple[int, int], factor: int) -> bool:
    """Compare parts of an overview with the pixels of the file, in cells of either.

    True where there is too little to compare, or it cannot be read. ``changed`` is when the file
    with the overview was.
    """
    side = min(_PART_PX, _MOST_PX // factor, shape[0] - 1, shape[1] - 1) // _CELL_PX * _CELL_PX
    if not side:
        return True
    corners = [[int(p * (n - 1 - side)) for p, n in zip(at, shape, strict=True)] for at in _PLACES]
    try:
        with open_dataset(path) as dataset:
            if dataset.driver not in _OWN and not Path(f"{path}.ovr").is_file():
                return True
            own = [_read(dataset, [n * factor for n in (row, col, side)]) for row, col in corners]
            dtype = np.dtype(dataset.dtypes[0])
        with open_dataset(path, overview_level=level) as dataset:
            seen = [_read(dataset, [row, col, side]) for row, col in corners]
    except RasterioError:  # what is damaged there is told of when it is detected on
        return True
    spread = float(np.ma.filled(np.ma.stack(own).std(), 0.0))
    # Averages are rounded, and a compressed overview has errors of its own.
    least = 0.0 if dtype.kind == "f" else 4.0 if dtype.itemsize == 1 else 2.0
    if not _are_alike(seen[0], own[0], max(0.25 * spread, least)):
        return False
    return not any(
        _one_is_empty(there, here, max(0.25 * spread, least))
        or _are_blank(there, here, max(1.25 * spread, least))
        for there, here in zip(seen, own, strict=True)
    )


def _read(dataset: DatasetReader, place: Sequence[int]) -> Pixels:
    """Read the first band of a square (row, column, side), masked and 0 where no ground is."""
    row, col, side = place
    pixels = dataset.read(1, window=Window(col, row, side, side), masked=True)
    mask = np.ma.getmaskarray(pixels) | ~np.isfinite(pixels.data)
    return np.ma.MaskedArray(np.where(mask, 0.0, pixels.data).astype(np.float64), mask)


def _cells(pixels: Any, side: int) -> Any:
    """Cut (N, N) pixels in (side, side) cells: (side, N / side, side, N / side)."""
    part = pixels.shape[0] // side
    return pixels.reshape(side, part, side, part)


def _are_alike(seen: Pixels, own: Pixels, tolerance: float) -> bool:
    """Tell whether cells that are ground in both go together, or differ by little."""
    side = len(seen) // _CELL_PX
    cells = [_cells(each, side).mean(axis=(1, 3)) for each in (seen, own)]
    valid = ~(np.ma.getmaskarray(cells[0]) | np.ma.getmaskarray(cells[1]))
    if valid.sum() < _FEWEST_CELLS:
        return True
    there, here = (each.data[valid] for each in cells)
    if np.median(np.abs(there - here)) <= tolerance:
        return True
    spread = there.std() * here.std()
    alike = ((there - there.mean()) * (here - here.mean())).mean()
    return bool(alike >= 0.5 * spread > 0)


def _one_is_empty(seen: Pixels, own: Pixels, tolerance: float) -> bool:
    """Tell whether some cells are ground throughout in one and nowhere in the other.

    Ground as dark as nodata, which a compressed overview may take for it, does not count.
    """
    side = len(seen) // _CELL_PX
    there, here = (
        1 - _cells(np.ma.getmaskarray(each), side).mean(axis=(1, 3)) for each in (seen, own)
    )
    means = [_cells(each.data, side).mean(axis=(1, 3)) for each in (seen, own)]
    differ = np.abs(means[0] - means[1]) > tolerance
    opposed = ((there == 0) & (here == 1)) | ((there == 1) & (here == 0))
    return bool((opposed & differ).sum() >= _FEWEST_CELLS)


def _are_blank(seen: Pixels, own: Pixels, tolerance: float) -> bool:
    """Tell whether some cells of an overview have one value alone, which ground is far from."""
    side = len(seen) // _CELL_PX
    there, here = (_cells(each.data, side) for each in (seen, own))
    ground = ~_cells(np.ma.getmaskarray(seen), side).any(axis=(1, 3))
    flat = ground & (there.max(axis=(1, 3)) == there.min(axis=(1, 3)))
    differ = np.abs(there - here.mean(axis=(1, 3), keepdims=True)).max(axis=(1, 3))
    return bool((flat & (differ > tolerance)).sum() >= _FEWEST_CELLS)
