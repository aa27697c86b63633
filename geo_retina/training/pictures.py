"""Places of the tuning ground to look at: what was found there beside what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geo_retina.draw import Comparison, draw_comparisons
from geo_retina.grid import Window
from geo_retina.scene import Scene
from geo_retina.training.validate import TuningGround

if TYPE_CHECKING:
    import geopandas as gpd

_PLACES = 4
_SIDE_PX = 256


def choose_places(ground: TuningGround, *, seed: int) -> list[tuple[str, Scene, Window]]:
    """Choose a few windows around labels, from all scenes alike.

    Args:
        ground: that tunes.
        seed: the same one chooses the same windows.

    Returns:
        Name of the scene, the scene, and a window of it; at least one.
    """
    rng = np.random.default_rng([seed, 0x91C7])
    scenes = dict(zip(ground.names, (each.scene for each in ground.scenes), strict=True))
    by_scene = [(name, rows) for name, rows in ground.truth.groupby("scene", observed=True)]
    places = []
    for i in range(_PLACES):
        name, rows = by_scene[(i + int(rng.integers(len(by_scene)))) % len(by_scene)]
        label = rows.iloc[[int(rng.integers(len(rows)))]]
        scene = scenes[str(name)]
        centre = label.to_crs(scene.grid.crs).geometry.centroid
        x, y = scene.grid.crs_to_pixels(shapely.get_coordinates(np.asarray(centre)))[0]
        height, width = (min(_SIDE_PX, side) for side in scene.grid.shape)
        row = int(np.clip(y - height / 2, 0, scene.grid.height - height))
        col = int(np.clip(x - width / 2, 0, scene.grid.width - width))
        places.append((str(name), scene, Window(row, col, height, width)))
    return places


def draw_places(
    places: list[tuple[str, Scene, Window]],
    ground: TuningGround,
    found: gpd.GeoDataFrame,
    out: Path,
) -> Path:
    """Draw the places with their labels and what was found there, to a .png file."""
    return draw_comparisons(
        [
            Comparison(
                scene,
                window,
                ground.truth[ground.truth["scene"] == name],
                found[found["scene"] == name],
            )
            for name, scene, window in places
        ],
        out,
    )
