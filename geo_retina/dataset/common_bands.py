"""Scenes opened alike: the same bands of each, whatever their order in its file."""

from __future__ import annotations

from collections.abc import Sequence

from geo_retina.errors import TrainingError
from geo_retina.options import DataOptions
from geo_retina.scene import Scene, SceneFile, as_scene, inspect_file, match_bands


def open_alike(
    path: str, options: DataOptions, first: Scene | None = None, *, gsd_m: float | None = None
) -> Scene:
    """Open a scene for training.

    Bands that ``options`` gives by number are taken as they are. Else all that are not alpha are:
    of the first scene in the order of the names in ``options`` if it has them, or else these are
    new names for its bands; of others by the names that the first one has.

    Args:
        path: file, or anything else that GDAL opens.
        options: bands and their names.
        first: the scene that was opened first; None for itself.
        gsd_m: resample to this many metres a pixel.

    Raises:
        SceneError: the file is missing, is no raster, or lacks a band asked for.
        TrainingError: its bands are not those of the first scene.
    """
    file = inspect_file(path)
    if options.bands is not None:
        return as_scene(file, bands=options.bands, gsd_m=gsd_m)
    if first is None:
        return _first(file, options.band_names or (), gsd_m)
    if not all(first.band_names):
        return as_scene(file, gsd_m=gsd_m)
    needed = list(zip(first.band_names, first.bands, strict=True))
    bands = match_bands(file.labels, needed)
    if bands is None:
        raise TrainingError(
            f"{path} has the bands {', '.join(map(str, file.labels))}, but {first.path} has "
            f"{', '.join(first.band_names)}; choose the same bands of all scenes by number with "
            "data.bands, or leave this scene out"
        )
    return as_scene(file, bands=bands, gsd_m=gsd_m)


def _first(file: SceneFile, names: Sequence[str], gsd_m: float | None) -> Scene:
    """Open all bands, in the order of the given names if the file has just these."""
    scene = as_scene(file, gsd_m=gsd_m)
    if len(names) != len(scene.bands):  # said later, where names are given to the bands
        return scene
    bands = match_bands(file.labels, list(zip(names, scene.bands, strict=True)))
    return scene if bands is None else as_scene(file, bands=bands, gsd_m=gsd_m)
