"""Scenes opened alike: the same bands of each, whatever their order in its file."""

from __future__ import annotations

from geo_retina.errors import TrainingError
from geo_retina.options import DataOptions
from geo_retina.scene import Scene, look_at, match_bands


def open_alike(
    path: str, options: DataOptions, first: Scene | None = None, *, gsd_m: float | None = None
) -> Scene:
    """Open a scene for training.

    Bands that ``options`` gives by number are taken as they are. Else they are found by name, by
    those that ``options`` gives or those that the first scene has, as a model's would be.

    Args:
        path: file, or anything else that GDAL opens.
        options: bands and their names.
        first: the scene that was opened first; None for itself.
        gsd_m: resample to this many metres a pixel.

    Raises:
        SceneError: the file is missing, is no raster, or lacks a band asked for.
        TrainingError: its bands are not those of the first scene, or cannot be told.
    """
    file = look_at(path)
    names = options.band_names or (first.band_names if first else ())
    if options.bands is not None or not names or not all(names):
        return file.scene(bands=options.bands, gsd_m=gsd_m)
    places = range(1, len(names) + 1) if first is None else first.bands
    bands = None
    if len(names) == len(places):
        bands = match_bands(file.labels, list(zip(names, places, strict=True)))
    if bands is None:
        who = "data.band_names" if options.band_names or first is None else first.path
        raise TrainingError(
            f"{path} has the bands {', '.join(map(str, file.labels))}, but {who} has "
            f"{', '.join(names)}; choose the same bands of all scenes by number with data.bands, "
            "or leave this scene out"
        )
    return file.scene(bands=bands, gsd_m=gsd_m)
