"""Places of the validation ground to look at: predicted beside labelled objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina.grid import Window
from geo_retina.plots import LabelledPlace, draw_comparisons
from geo_retina.scene import Scene
from geo_retina.training.validation.frame import at_meeting, meeting_grid
from geo_retina.training.validation.ground import ValidationGround

if TYPE_CHECKING:
    import geopandas as gpd

_PLACES = 4
_SIDE_PX = 256


def choose_places(ground: ValidationGround, *, seed: int) -> list[tuple[str, Scene, Window]]:
    """Choose a few windows around labels, from all scenes alike.

    Args:
        ground: for validation.
        seed: the same one chooses the same windows.

    Returns:
        Name of the scene, the scene, and a window of it; at least one.
    """
    rng = np.random.default_rng([seed, 0x91C7])
    scenes = dict(zip(ground.names, (each.scene for each in ground.scenes), strict=True))
    by_scene = [(name, rows) for name, rows in ground.truth.groupby("scene", observed=True)]
    order = rng.permutation(len(by_scene))
    places = []
    for i in range(_PLACES):
        name, rows = by_scene[order[i % len(order)]]
        label = rows.iloc[[int(rng.integers(len(rows)))]]
        scene = scenes[str(name)]
        grid = meeting_grid(scene.grid)
        centre = label.to_crs(grid.crs).geometry.centroid
        x, y = grid.crs_to_pixels(shapely.get_coordinates(np.asarray(centre)))[0]
        height, width = (min(_SIDE_PX, side) for side in scene.grid.shape)
        row = int(np.clip(y - height / 2, 0, scene.grid.height - height))
        col = int(np.clip(x - width / 2, 0, scene.grid.width - width))
        places.append((str(name), scene, Window(row, col, height, width)))
    return places


def draw_places(
    places: list[tuple[str, Scene, Window]],
    ground: ValidationGround,
    found: gpd.GeoDataFrame,
    out: Path,
) -> Path:
    """Draw the places, their labels and what was found, to a .png file; other ground is dark."""
    return draw_comparisons(
        [
            LabelledPlace(
                at_meeting(scene),
                window,
                _on_ground(ground, scene, window),
                ground.truth[ground.truth["scene"] == name],
                found[found["scene"] == name],
            )
            for name, scene, window in places
        ],
        out,
    )


def _on_ground(ground: ValidationGround, scene: Scene, window: Window) -> NDArray[np.bool_]:
    """Find (height, width) pixels of a window that lie, with their centre, on the ground."""
    x_min, y_min, x_max, y_max = window.box_px
    x, y = np.meshgrid(np.arange(x_min, x_max) + 0.5, np.arange(y_min, y_max) + 0.5)
    points_px = np.stack([x, y], axis=-1).reshape(-1, 2)
    return ground.on(scene.grid, points_px).reshape(window.height, window.width)
