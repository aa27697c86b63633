"""Ground as polygons with a name: the areas and places by which ground can be split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.dataset.regions import Regions, footprint
from geo_retina.errors import LabelError, TrainingError
from geo_retina.geodesy import densify, is_connected, missing_crs, reproject
from geo_retina.grid import Grid, Window
from geo_retina.options import LabelOptions, SplitOptions
from geo_retina.scene import Scene
from geo_retina.vector import LabelLayer, ground_polygons

if TYPE_CHECKING:
    from geo_retina.dataset.labelled_scenes import TrainingSet

ALL = "all areas"
"""Name of areas that have none."""

_TRAIN, _VAL, _TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Areas:
    """Validation ground and test ground, as one geometry each in every CRS.

    Ground under both is for the test; all other ground is for training.

    Attributes:
        val: by the CRS's WKT; "" for scenes without one.
        test: likewise.
        val_names: validation places, sorted.
        test_names: places that test, sorted.
        source: where they came from, for messages.
    """

    val: Mapping[str, Any]
    test: Mapping[str, Any]
    val_names: tuple[str, ...]
    test_names: tuple[str, ...]
    source: str

    def describe(self, part: int) -> str:
        """Describe the ground of a part for people."""
        names = self.val_names if part == _VAL else self.test_names
        if names == (ALL,):
            return f"the areas of {self.source}"
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return f"the {len(names)} places {shown} of {self.source}"

    def parts(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.int8]:
        """Find the part to which pixel positions x, y (..., 2) of a grid belong."""
        points = grid.pixels_to_crs(points_px)
        parts = np.zeros(points.shape[:-1], np.int8)
        for part, ground in ((_VAL, self.val), (_TEST, self.test)):
            area = ground[_key(grid.crs)]
            shapely.prepare(area)
            parts[shapely.contains_xy(area, points[..., 0], points[..., 1])] = part
        return parts

    def whole(self, grid: Grid, window: Window) -> int | None:
        """Find the one part that a window lies in; None where it lies in several."""
        corners = np.array([window.box_px], dtype=np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]]
        outline = shapely.polygons(grid.pixels_to_crs(corners.reshape(4, 2)))
        found = _TRAIN
        for part, ground in ((_TEST, self.test), (_VAL, self.val)):
            area = ground[_key(grid.crs)]
            shapely.prepare(area)
            if shapely.contains_properly(area, outline):
                return part if found == _TRAIN else None
            if shapely.intersects(area, outline):
                return None
        return found

    def pixels(self, scenes: Sequence[Scene]) -> tuple[float, float]:
        """Count the pixels of the scenes for validation, and for the test."""
        in_val = tests = 0.0
        for scene in scenes:
            outline = footprint(scene.grid, 0.0)
            key, pixel = _key(scene.grid.crs), abs(scene.grid.affine.determinant)
            test = shapely.intersection(self.test[key], outline)
            val = shapely.difference(shapely.intersection(self.val[key], outline), test)
            tests += shapely.area(test) / pixel
            in_val += shapely.area(val) / pixel
        return in_val, tests


@dataclass(frozen=True, eq=False)
class NamedAreas:
    """Polygons of ground with the name of the place that each belongs to.

    Attributes:
        names: (N,) text.
        source: where they came from, for messages.
    """

    names: NDArray[np.object_]
    source: str
    _layer: LabelLayer | None = None
    _outlines: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)

    def _under(self, scenes: Sequence[Scene]) -> NDArray[np.object_]:
        """Move (N,) polygons to the CRS that scenes share, as far as they are near them."""
        crs = scenes[0].grid.crs
        if self._layer is None:
            return self._outlines[_key(crs)]
        if crs is None:
            so = f"the areas of {self.source} cannot be placed on it"
            raise LabelError(missing_crs("a scene", so, otherwise=", or split by blocks"))
        around = np.concatenate([scene.grid.lattice_crs() for scene in scenes])
        return ground_polygons(self._layer, crs, around)

    def pixels(self, scenes: Sequence[Scene]) -> dict[str, float]:
        """Count the scenes' pixels on each place; places under no scene are left out."""
        found: dict[str, float] = {}
        for _, own in _by_crs(scenes):
            polygons = self._under(own)
            tree = shapely.STRtree(polygons)
            for scene in own:
                outline = footprint(scene.grid, 0.0)
                rows = tree.query(outline, predicate="intersects")
                for name in dict.fromkeys(self.names[np.sort(rows)].tolist()):
                    mine = polygons[rows[self.names[rows] == name]]
                    area = shapely.area(shapely.intersection(shapely.union_all(mine), outline))
                    pixels = area / abs(scene.grid.affine.determinant)
                    if pixels > 0.5:
                        found[name] = found.get(name, 0.0) + pixels
        return found

    def choose(self, val: Collection[str], test: Collection[str], scenes: Sequence[Scene]) -> Areas:
        """Join the ground of the validation and the test places, in the CRS of every scene."""
        grounds: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for crs, own in _by_crs(scenes):
            polygons = self._under(own)
            for ground, chosen in zip(grounds, (val, test), strict=True):
                rows = np.array([name in chosen for name in self.names], dtype=np.bool_)
                ground[_key(crs)] = shapely.union_all(polygons[rows])
        return Areas(*grounds, tuple(sorted(val)), tuple(sorted(test)), self.source)


def gather_areas(options: SplitOptions, training_set: TrainingSet | None) -> NamedAreas:
    """Find the polygons to split by: the areas given, else the ground, else whole scenes.

    Raises:
        LabelError: the areas cannot be read, or lack the column.
        TrainingError: the labels of one scene name several places.
    """
    if options.areas is not None:
        source = LabelOptions(
            path=options.areas, layer=options.areas_layer, encoding=options.areas_encoding
        )
        remedy = "say which one with split.areas_layer"
        layer = Regions.read(source, place_column=options.column, layer_remedy=remedy).layer
        return _of_layer(layer)
    assert training_set is not None  # a column of what was labelled
    if training_set.ground is not None:
        return _of_layer(training_set.ground)
    return _of_scenes(training_set, options)


def _of_layer(layer: LabelLayer) -> NamedAreas:
    names = layer.places if layer.places is not None else np.full(len(layer), ALL, dtype=object)
    return NamedAreas(names, layer.path, layer)


def _of_scenes(training_set: TrainingSet, options: SplitOptions) -> NamedAreas:
    """Outline the scenes by the place that their labels name; without one they are for training."""
    names: list[str] = []
    outlines: list[tuple[pyproj.CRS | None, Any]] = []
    for each in training_set.scenes:
        if len(each.places) > 1:
            raise TrainingError(
                f"{each.scene.path} holds labels of several places in the column {options.column} "
                f"({', '.join(each.places[:3])}), so its ground cannot be given to one; give "
                "polygons of ground with that column as data.ground, or split.areas"
            )
        if each.places:
            names.append(each.places[0])
            outlines.append((each.scene.grid.crs, footprint(each.scene.grid, 0.0)))
    by_crs = {
        _key(crs): np.array([_outline_in(crs, own, o) for own, o in outlines], dtype=object)
        for crs, _ in _by_crs([each.scene for each in training_set.scenes])
    }
    source = f"the labels' column {options.column}"
    return NamedAreas(np.array(names, dtype=object), source, None, by_crs)


def _outline_in(crs: pyproj.CRS | None, own: pyproj.CRS | None, outline: Any) -> Any:
    """Move an outline to another CRS; empty where it has no place in it."""
    if _key(crs) == _key(own):
        return outline
    if crs is None or own is None:
        return shapely.Polygon()
    if not is_connected(own, crs):
        return shapely.Polygon()
    moved = reproject(densify(np.array([outline], dtype=object)), own, crs)[0]
    is_placed = np.isfinite(shapely.get_coordinates(moved)).all()
    return shapely.make_valid(moved) if is_placed else shapely.Polygon()


def _by_crs(scenes: Sequence[Scene]) -> list[tuple[pyproj.CRS | None, list[Scene]]]:
    groups: dict[str, tuple[pyproj.CRS | None, list[Scene]]] = {}
    for scene in scenes:
        groups.setdefault(_key(scene.grid.crs), (scene.grid.crs, []))[1].append(scene)
    return list(groups.values())


def _key(crs: pyproj.CRS | None) -> str:
    return "" if crs is None else str(crs.to_wkt())
