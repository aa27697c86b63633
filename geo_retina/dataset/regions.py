"""Polygons of ground that was labelled, or that is to be ignored, under each scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geo_retina import boxes
from geo_retina.errors import LabelError
from geo_retina.geodesy import missing_crs
from geo_retina.grid import Grid
from geo_retina.options import DataOptions, LabelOptions
from geo_retina.scene import Scene
from geo_retina.vector import LabelLayer, ground_polygons, read_source


@dataclass(frozen=True, eq=False)
class Regions:
    """A layer of ground polygons, ready to be looked up scene by scene.

    Attributes:
        layer: as it was read.
    """

    layer: LabelLayer

    @classmethod
    def read(
        cls, options: LabelOptions, *, place_column: str | None = None, layer_remedy: str
    ) -> Regions:
        """Read polygons from a vector file.

        Raises:
            LabelError: the file cannot be used, or holds points.
        """
        layer = read_source(
            options, place_column=place_column, layer_remedy=layer_remedy, as_ground=True
        )
        if layer.is_points:
            raise LabelError(f"{layer.path} holds points, expected polygons of ground")
        return cls(layer)

    @classmethod
    def read_ground(cls, options: DataOptions, place_column: str | None) -> Regions | None:
        """Read the ground that was labelled; None where that is all ground."""
        if options.ground is None:
            return None
        source = LabelOptions(
            path=options.ground,
            layer=options.ground_layer,
            where=options.ground_where,
            scene_column=options.ground_scene_column,
            encoding=options.encoding,
        )
        return cls.read(
            source, place_column=place_column, layer_remedy="say which one with data.ground_layer"
        )

    def under(self, scene: Scene) -> Any:
        """Find the regions' ground under a scene, as one geometry in the pixels of its grid.

        Of a layer whose polygons name scenes, those of this scene, and those that name none.

        Raises:
            LabelError: the scene has no CRS.
        """
        grid = scene.grid
        if grid.crs is None:
            so = f"the ground of {self.layer.path} cannot be placed on it"
            raise LabelError(missing_crs(scene.path, so))
        layer = self.layer
        if layer.scenes is not None:
            own = [name is None or name == scene.name for name in layer.scenes]
            layer = layer.take(np.array(own, dtype=np.bool_))
        near = shapely.union_all(ground_polygons(layer, grid.crs, grid.lattice_crs()))
        return shapely.transform(shapely.intersection(near, footprint(grid)), grid.crs_to_pixels)


def footprint(grid: Grid, margin_px: float = 1.0) -> Any:
    """Outline the grid on the ground, widened by a margin."""
    outline = np.array([[-margin_px, -margin_px, grid.width + margin_px, grid.height + margin_px]])
    return boxes.to_polygons(outline, grid)[0]


def without(scene: Scene, labelled: Any | None, ignore: Sequence[Regions]) -> Any | None:
    """Take ground to be ignored from the labelled ground of a scene, in grid pixels.

    Returns:
        One geometry, prepared for many queries, or None for all of the grid.
    """
    for regions in ignore:
        hidden = regions.under(scene)
        if shapely.is_empty(hidden):
            continue
        if labelled is None:
            labelled = shapely.box(0, 0, scene.grid.width, scene.grid.height)
        labelled = shapely.difference(labelled, hidden)
    if labelled is not None:
        shapely.prepare(labelled)
    return labelled
