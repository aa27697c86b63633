"""What a raster file is, for people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyproj

from geo_retina.grid import Grid
from geo_retina.scene.datasets import open_dataset, refuse_damage
from geo_retina.scene.mosaic import Mosaic
from geo_retina.scene.opening import inspect_file
from geo_retina.scene.reading import Scene
from geo_retina.scene.scene_file import SceneFile


def describe_scene(path: str | Path) -> dict[str, str]:
    """Describe a file for people, as label and text.

    Raises:
        SceneError: the file is missing or no raster.
    """
    file = inspect_file(path)
    grid = file.placement.grid
    with refuse_damage(file.path), open_dataset(os.fspath(path)) as dataset:
        block_height, block_width = dataset.block_shapes[0]
        # rasterio before 1.4.4 gives a text where the colours of a JPEG are YCbCr.
        compression = getattr(dataset.compression, "value", dataset.compression) or "none"
        mask = ", ".join(flag.name for flag in dataset.mask_flag_enums[0])
        rows = {
            "file": file.path,
            "driver": dataset.driver,
            "size": f"{dataset.width} x {dataset.height} px (width x height)",
            "bands": ", ".join(map(str, file.labels)),
            "colours": _colours_text(file),
            "data type": ", ".join(dict.fromkeys(dataset.dtypes)),
            "scale, offset": _tags_text(file),
            "CRS": _crs_text(grid.crs),
            "placed by": _PLACED_BY[file.placement.kind],
            "pixel": f"{grid.gsd_m:.4g} m" if grid.gsd_m else "unknown, as there is no CRS",
            "affine": ", ".join(f"{v:.12g}" for v in tuple(grid.affine)[:6]),
            "bounds": ", ".join(f"{v:.3f}" for v in _bounds(grid)),
            "nodata": ", ".join(dict.fromkeys(map(_number, file.nodatas))),
            "mask": mask,
            "blocks": f"{block_width} x {block_height} px, compression {compression}",
            "overviews": ", ".join(map(str, file.overviews)) or "none",
            "more rasters": ", ".join(dataset.subdatasets),
        }
    return {label: text for label, text in rows.items() if text}


def note_other_rasters(scenes: Sequence[Scene]) -> str | None:
    """Note which scenes are the first of several rasters in their file; None where none is."""
    first = [scene for scene in scenes if len(scene.rasters) > 1]
    if not first:
        return None
    names = first[0].rasters
    others = f"name another as {names[1]}, or this one as {names[0]} to leave this note out"
    if len(first) == 1:
        return f"{first[0].path} holds {len(names)} rasters, of which the first is read; {others}"
    return (
        f"{len(first):,} scenes, such as {first[0].path}, hold several rasters, of which the first "
        f"is read; {others}"
    )


_PLACED_BY = {
    "affine": "its affine",
    "gcps": "control points; the affine and bounds below only touch them at the centre",
    "rpcs": "RPCs; the affine and bounds below only touch them at the centre",
    "none": "nothing: detections are in its pixels, x right, y up from the top edge",
}


def describe_reading(scene: Scene | Mosaic) -> dict[str, str]:
    """Describe for people how a scene is read, as label and text; what is plain is left out."""
    rows = {}
    names = zip(scene.bands, scene.band_names, strict=True)
    rows["bands read"] = ", ".join(f"{band} {name}".rstrip() for band, name in names)
    if scene.values is not None:
        pairs = zip(scene.values.scale, scene.values.offset, strict=True)
        rows["values"] = ", ".join(f"{scale:.6g} x + {offset:.6g}" for scale, offset in pairs)
    if isinstance(scene, Mosaic):
        own = sum(each.grid_to_file is not None for each in scene.scenes)
        rows["scenes"] = f"{own} on the grid, {len(scene.scenes) - own} warped to it"
    elif scene.grid.crs is None:
        rows["place"] = "unknown, so the resolution is taken to be the model's"
        if scene.grid.pixel_m is not None:
            rows["place"] = f"unknown; read at {scene.grid.pixel_m:.4g} m a pixel"
    elif scene.is_resampled:
        about = f"warped to {scene.grid.crs.name}, " if scene.grid_to_file is None else ""
        rows["resampling"] = (
            f"{about}from {scene.file_gsd_m:.4g} m to {scene.grid.gsd_m:.4g} m a pixel, "
            f"factor {scene.resampling_factor:.3g}"
        )
    return rows


def _tags_text(file: SceneFile) -> str:
    pairs = dict.fromkeys(zip(file.scales, file.offsets, strict=True))
    plain = all(scale in (0, 1) and not offset for scale, offset in pairs)
    return "" if plain else ", ".join(f"{scale:g}, {offset:g}" for scale, offset in pairs)


def _colours_text(file: SceneFile) -> str:
    tables = [table for table in file.palettes if table is not None]
    if not tables:
        return ""
    return f"a table of {len(tables[0])}; to be expanded before detecting or training"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _crs_text(crs: pyproj.CRS | None) -> str:
    if crs is None:
        return "none"
    authority = crs.to_authority()
    return f"{':'.join(authority)} {crs.name}" if authority else crs.name


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    ends = np.array([[0, 0], [grid.width, 0], [grid.width, grid.height], [0, grid.height]])
    points = grid.pixels_to_crs(ends.astype(np.float64))
    return (*points.min(axis=0), *points.max(axis=0))
