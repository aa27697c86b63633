"""Overviews that are not those of the file's pixels: another scene's, or made too early."""

from __future__ import annotations

from collections.abc import Sequence
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
_MOST_PX = 2048
"""Side of what is read of the file for a part."""


def check_overview(file: SceneFile, level: int, shape: tuple[int, int]) -> None:
    """Refuse an overview that is another scene's, or was made before the pixels were.

    Files at addresses are not compared.

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
    holder = sidecar if sidecar.is_file() else file.path
    factor = round(max(own.height / shape[0], own.width / shape[1]))
    if abs(own.height / factor - shape[0]) > 1 or abs(own.width / factor - shape[1]) > 1:
        what = f"an overview of {shape[1]} x {shape[0]} px, which does not belong to the "
        what += f"{own.width} x {own.height} px of {file.path}"
    elif not _shows_same(file, level, shape, factor):
        what = f"an overview with other values than {file.path}"
    else:
        return
    first = f"remove {sidecar.name}" if holder == sidecar else "remove it with gdaladdo -clean"
    raise SceneError(f"{holder} has {what}; {first}, or make it anew with gdaladdo")


def _shows_same(file: SceneFile, level: int, shape: tuple[int, int], factor: int) -> bool:
    """Compare parts of an overview with the pixels of the file, in cells of either.

    True where there is too little to compare, or it cannot be read.
    """
    side = min(_PART_PX, _MOST_PX // factor, shape[0] - 1, shape[1] - 1) // _CELL_PX * _CELL_PX
    if not side:
        return True
    # The middle first, then those of the quarters.
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    corners = [[int(p * (n - 1 - side)) for p, n in zip(at, shape, strict=True)] for at in places]
    try:
        with open_dataset(file.path, overview_level=level) as dataset:
            seen = [_read(dataset, [row, col, side]) for row, col in corners]
        with open_dataset(file.path) as dataset:
            own = [
                _read(dataset, [row * factor, col * factor, side * factor]) for row, col in corners
            ]
    except RasterioError:  # what is damaged there is told of when it is detected on
        return True
    if not _are_alike(seen[0], own[0]):
        return False
    return not any(map(_one_is_empty, seen, own)) and not any(map(_are_blank, seen, own))


def _read(dataset: DatasetReader, place: Sequence[int]) -> np.ma.MaskedArray[Any, Any]:
    """Read the first band of a square (row, column, side), masked where there is no ground."""
    row, col, side = place
    pixels = dataset.read(1, window=Window(col, row, side, side), masked=True)
    return np.ma.masked_invalid(pixels.astype(np.float64))


def _cells(pixels: Any, side: int) -> Any:
    """Cut (N, N) pixels in (side, side) cells: (side, N / side, side, N / side)."""
    part = pixels.shape[0] // side
    return pixels.reshape(side, part, side, part)


def _are_alike(seen: np.ma.MaskedArray[Any, Any], own: np.ma.MaskedArray[Any, Any]) -> bool:
    """Tell whether cells that are ground in both go together."""
    side = len(seen) // _CELL_PX
    cells = [_cells(each, side).mean(axis=(1, 3)) for each in (seen, own)]
    valid = ~(np.ma.getmaskarray(cells[0]) | np.ma.getmaskarray(cells[1]))
    if valid.sum() < _FEWEST_CELLS:
        return True
    there, here = (each.data[valid] for each in cells)
    if np.median(np.abs(there - here)) <= 0.25 * own.std():
        return True
    spread = there.std() * here.std()
    alike = ((there - there.mean()) * (here - here.mean())).mean()
    return bool(alike >= 0.5 * spread > 0)


def _one_is_empty(seen: np.ma.MaskedArray[Any, Any], own: np.ma.MaskedArray[Any, Any]) -> bool:
    """Tell whether some cells are ground throughout in one and nowhere in the other.

    Ground as dark as nodata, which a compressed overview may take for it, does not count.
    """
    side = len(seen) // _CELL_PX
    there, here = (
        1 - _cells(np.ma.getmaskarray(each), side).mean(axis=(1, 3)) for each in (seen, own)
    )
    means = [_cells(each.data, side).mean(axis=(1, 3)) for each in (seen, own)]
    differ = np.abs(means[0] - means[1]) > 0.25 * np.ma.filled(own.std(), 0.0)
    opposed = ((there == 0) & (here == 1)) | ((there == 1) & (here == 0))
    return bool((opposed & differ).sum() >= _FEWEST_CELLS)


def _are_blank(seen: np.ma.MaskedArray[Any, Any], own: np.ma.MaskedArray[Any, Any]) -> bool:
    """Tell whether some cells of an overview have one value alone, which ground is far from."""
    side = len(seen) // _CELL_PX
    there, here = (_cells(each.data, side) for each in (seen, own))
    ground = ~_cells(np.ma.getmaskarray(seen), side).any(axis=(1, 3))
    flat = ground & (there.max(axis=(1, 3)) == there.min(axis=(1, 3)))
    differ = np.abs(there - here.mean(axis=(1, 3), keepdims=True)).max(axis=(1, 3))
    return bool((flat & (differ > 0.25 * own.data.std())).sum() >= _FEWEST_CELLS)
