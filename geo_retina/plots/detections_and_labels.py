"""Predicted beside labelled objects, at a few places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geo_retina.grid import Window
from geo_retina.plots.display import Display
from geo_retina.plots.saving import save_figure
from geo_retina.scene import Scene
from geo_retina.vector import CLASS_COLOURS

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

_POLYGON = 3


@dataclass(frozen=True, eq=False)
class LabelledPlace:
    """A place to look at.

    Attributes:
        scene: the imagery.
        window: the place, in the scene's grid.
        ground: (height, width) of the window, where labels and finds are known; the rest is
            drawn darker.
        truth: polygons or points with a column ``class``, in any CRS.
        found: polygons with a column ``class``, in any CRS.
    """

    scene: Scene
    window: Window
    ground: NDArray[np.bool_]
    truth: GeoDataFrame
    found: GeoDataFrame


def draw_comparisons(places: Sequence[LabelledPlace], out: str | Path) -> Path:
    """Draw a row for each place: its labels to the left, predictions to the right.

    Args:
        places: one or more.
        out: the picture, ending .png; replaced if it exists.

    Returns:
        The picture's path.

    Raises:
        OutputError: the picture cannot be written.
        SceneError: a scene cannot be read.
    """
    figure = Figure(figsize=(8, 4.2 * len(places)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(places), 2, squeeze=False)
    names = sorted({str(n) for p in places for n in (*p.truth["class"], *p.found["class"])})
    colours = {name: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, name in enumerate(names)}
    for (left, right), place in zip(rows, places, strict=True):
        pixels, valid = place.scene.read(place.window)
        picture = Display.of(place.scene, pixels, valid).picture(pixels, valid)
        picture = np.where(place.ground[..., None], picture, picture // 2)
        for axes, table, title in ((left, place.truth, "labels"), (right, place.found, "found")):
            x_min, y_min, x_max, y_max = place.window.box_px
            axes.imshow(picture, extent=(x_min, x_max, y_max, y_min), interpolation="nearest")
            count = _draw_shapes(axes, place, table, colours)
            axes.set(xlim=(x_min, x_max), ylim=(y_max, y_min), xticks=[], yticks=[])
            axes.set_title(f"{count} {title}", loc="left", fontsize=9)
        left.set_ylabel(f"{place.scene.name}, row {place.window.row}, column {place.window.col}")
        left.yaxis.label.set_fontsize(7)
    return save_figure(figure, Path(out))


def _draw_shapes(
    axes: Axes, place: LabelledPlace, table: GeoDataFrame, colours: dict[str, str]
) -> int:
    """Draw outlines of polygons and crosses at points that reach into the window; count them."""
    if table.crs is not None and table.crs != place.scene.grid.crs:
        table = table.to_crs(place.scene.grid.crs)
    shapes = shapely.transform(np.asarray(table.geometry.values), place.scene.grid.crs_to_pixels)
    near = shapely.intersects(shapes, shapely.box(*place.window.box_px))
    names = table["class"].to_numpy(str)
    for name, colour in colours.items():
        own = shapes[near & (names == name)]
        outlined = shapely.get_type_id(own) == _POLYGON
        rings = [shapely.get_coordinates(shape) for shape in own[outlined]]
        axes.add_collection(LineCollection(rings, colors=colour, linewidths=1.1), autolim=False)
        x, y = shapely.get_coordinates(own[~outlined]).T
        axes.scatter(x, y, s=30, c=colour, marker="+", linewidths=1.2)
    return int(near.sum())
