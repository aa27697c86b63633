"""What a raster file is, for people."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyproj

from geo_retina.grid import Grid
from geo_retina.scene.opening import crs_of
from geo_retina.scene.reading import open_dataset


def describe_scene(path: str | Path) -> dict[str, str]:
    """What a file is, as label and text, for people.

    Raises:
        SceneError: the file is missing or no raster.
    """
    path = os.fspath(path)
    with open_dataset(path) as dataset:
        grid = Grid(crs_of(dataset), dataset.transform, dataset.height, dataset.width)
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
