"""Label layers as GIS people have them, and their boxes in the pixels of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.errors import LabelError
from geo_retina.grid import Grid
from geo_retina.vector.reading import ONE_LAYER, read_frame
from geo_retina.vector.tables import densify
from geo_retina.vector.transforms import pixel_sides_m, reproject

if TYPE_CHECKING:
    import geopandas as gpd

_POINT, _POLYGON, _MULTIPOLYGON = 0, 3, 6


@dataclass(frozen=True, eq=False)
class LabelLayer:
    """One point or polygon per object.

    Attributes:
        path: where it came from, for messages.
        geometries: (N,) shapely points, or polygons; valid, finite and never empty. A polygon
            that was invalid may have become a multi-polygon, still one object.
        crs: of the geometries, x before y.
        class_names: (N,) text, or None where no class column was named.
        scenes: (N,) stems of scene files, or None where no scene column was named.
        dropped_null: features left out for having no geometry.
        dropped_empty: features left out for an empty one.
        dropped_invalid: features left out for one without area or with infinite coordinates.
    """

    path: str
    geometries: NDArray[np.object_]
    crs: pyproj.CRS
    class_names: NDArray[np.object_] | None = None
    scenes: NDArray[np.object_] | None = None
    dropped_null: int = 0
    dropped_empty: int = 0
    dropped_invalid: int = 0

    def __len__(self) -> int:
        return len(self.geometries)

    @property
    def is_points(self) -> bool:
        """Whether the labels are points; false for a layer without labels."""
        return len(self) > 0 and shapely.get_type_id(self.geometries[0]) == _POINT

    def to_crs(self, crs: pyproj.CRS) -> LabelLayer:
        """The same labels in another CRS."""
        return replace(self, geometries=reproject(self.geometries, self.crs, crs), crs=crs)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> LabelLayer:
        """The labels where a mask is true, or at positions, in that order."""
        return replace(
            self,
            geometries=self.geometries[index],
            class_names=None if self.class_names is None else self.class_names[index],
            scenes=None if self.scenes is None else self.scenes[index],
        )


def read_labels(
    path: str | Path,
    *,
    layer: str | None = None,
    where: str | None = None,
    class_column: str | None = None,
    scene_column: str | None = None,
    layer_remedy: str = "say which one with data.layer in the config",
) -> LabelLayer:
    """Read labels from a vector file.

    Args:
        path: any file GDAL reads, or GeoParquet.
        layer: needed where the file has several.
        where: attribute filter, as in SQL's WHERE.
        class_column: column with the class of each label.
        scene_column: column with the stem of the scene file each label belongs to.
        layer_remedy: how a layer is chosen, for the message; left out, in a training's config.

    Returns:
        The labels in the order of the file. Parts of a multi-part geometry are labels of
        their own; z is left out; invalid polygons are mended.

    Raises:
        LabelError: the file is missing or unreadable, has several layers and none was
            chosen, has no CRS, no label, no such column, gaps in it, points mixed with
            polygons, or ``where`` is not understood.
    """
    frame = read_frame(path, layer=layer, where=where, layer_remedy=layer_remedy)
    if not len(frame):
        raise LabelError(_empty_sentence(path, layer, where))
    labels = label_layer(frame, str(path), class_column=class_column, scene_column=scene_column)
    if not len(labels):
        raise LabelError(
            f"none of the {len(frame)} features of {path} has a usable geometry, wanted points "
            "or polygons"
        )
    return labels


def _empty_sentence(path: str | Path, layer: str | None, where: str | None) -> str:
    if where is None:
        return f"{path} holds no label, wanted at least one point or polygon"
    total = len(read_frame(path, layer=layer))
    return f"the filter {where!r} leaves none of the {total} labels of {path}; widen it"


def label_layer(
    frame: gpd.GeoDataFrame,
    name: str,
    *,
    class_column: str | None = None,
    scene_column: str | None = None,
) -> LabelLayer:
    """Labels from a GeoDataFrame, which may be without rows; otherwise as ``read_labels``.

    Args:
        frame: one feature per row.
        name: what messages call it.
        class_column: as in ``read_labels``.
        scene_column: as in ``read_labels``.

    Raises:
        LabelError: as ``read_labels``.
    """
    if frame.crs is None:
        raise LabelError(
            f"{name} has no CRS, so its place on Earth is unknown; give it the right one, for "
            f"example with: ogr2ogr -a_srs EPSG:32633 fixed.gpkg {name}"
        )
    classes = _text_column(frame, class_column, "class", name)
    scenes = _text_column(frame, scene_column, "scene", name)
    geometry = np.asarray(frame.geometry.array, dtype=object)
    is_null = shapely.is_missing(geometry)
    is_empty = shapely.is_empty(geometry)
    rows = np.flatnonzero(~is_null & ~is_empty)
    parts, source = shapely.get_parts(shapely.force_2d(geometry[rows]), return_index=True)
    _check_kinds(parts, name)
    parts, usable = _mend(parts)
    rows = rows[source[usable]]
    return LabelLayer(
        name,
        parts[usable],
        pyproj.CRS.from_user_input(frame.crs),
        None if classes is None else classes[rows],
        None if scenes is None else scenes[rows],
        dropped_null=int(is_null.sum()),
        dropped_empty=int(is_empty.sum()),
        dropped_invalid=int((~usable).sum()),
    )


def _text_column(
    frame: gpd.GeoDataFrame, column: str | None, role: str, name: str
) -> NDArray[np.object_] | None:
    """A column as text; whole numbers without a decimal point."""
    if column is None:
        return None
    known = [str(c) for c in frame.columns if c != frame.geometry.name]
    if column not in known:
        raise LabelError(
            f"{name} has no {role} column {column}; its columns are {', '.join(known) or 'none'}"
        )
    values = frame[column]
    gaps = int(values.isna().sum())
    if gaps:
        raise LabelError(
            f"{gaps} of {len(frame)} labels in {name} have no value in the {role} column {column}; "
            f'fill them, or leave them out with the filter "{column} IS NOT NULL"'
        )
    if values.dtype.kind == "f" and (values == np.floor(values)).all():
        values = values.astype(np.int64)
    return np.array([str(value) for value in values], dtype=object)


def _check_kinds(parts: NDArray[np.object_], name: str) -> None:
    kinds = set(np.unique(shapely.get_type_id(parts)).tolist())
    if kinds - {_POINT, _POLYGON}:
        raise LabelError(f"{name} holds geometries such as lines, wanted points or polygons only")
    if len(kinds) > 1:
        raise LabelError(
            f"{name} mixes points and polygons, wanted one kind; split it into two layers, or "
            "filter one kind out by a column"
        )


def _mend(parts: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Make polygons valid; also tells which parts are usable at all."""
    coordinates, owner = shapely.get_coordinates(parts, return_index=True)
    usable = np.ones(len(parts), np.bool_)
    usable[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    mended = parts.copy()
    broken = np.flatnonzero(usable & ~shapely.is_valid(parts))
    mended[broken] = [_polygons_of(g) for g in shapely.make_valid(parts[broken])]
    is_point = shapely.get_type_id(parts) == _POINT
    usable &= is_point | (shapely.area(mended) > 0)
    return mended, usable


def _polygons_of(geometry: Any) -> Any:
    """The areas of a mended polygon, without the lines that it may have left behind."""
    if shapely.get_type_id(geometry) in (_POLYGON, _MULTIPOLYGON):
        return geometry
    parts = [p for p in shapely.get_parts(geometry) if shapely.area(p) > 0]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def label_boxes(labels: LabelLayer, grid: Grid, *, point_size_m: float | None) -> Boxes:
    """Boxes around labels in the pixels of a scene.

    Args:
        labels: in any CRS.
        grid: grid of the scene.
        point_size_m: ground length of the sides of boxes around point labels, along rows and
            columns; not used for polygons.

    Returns:
        (N, 4) float64 grid pixels, x_min y_min x_max y_max, in the order of the labels, not
        clipped to the grid: for polygons the bounds, in the pixel frame, of all vertices. A
        label that the grid's CRS cannot express lies at infinity, outside of every grid.

    Raises:
        LabelError: the grid has no CRS, or the labels are points and have no size.
    """
    if grid.crs is None:
        raise LabelError(
            f"the scene has no CRS, so the labels of {labels.path} cannot be placed on it; give "
            "it one, for example with gdal_edit.py -a_srs EPSG:32633"
        )
    if labels.is_points and point_size_m is None:
        raise LabelError(
            f"the labels of {labels.path} are points without a size; give the side of their "
            "boxes in metres with point_size_m"
        )
    if not len(labels):
        return np.empty((0, 4))
    geometries = reproject(labels.geometries, labels.crs, grid.crs)
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    points_px = grid.crs_to_pixels(np.where(np.isfinite(points), points, np.nan))
    points_px = np.where(np.isnan(points_px).any(axis=1, keepdims=True), np.inf, points_px)
    starts = np.searchsorted(owner, np.arange(len(labels)))
    low, high = np.minimum.reduceat(points_px, starts), np.maximum.reduceat(points_px, starts)
    half_px = np.zeros(2)
    if labels.is_points and point_size_m is not None:
        half_px = point_size_m / pixel_sides_m(grid) / 2
    return np.concatenate([low - half_px, high + half_px], axis=1)


def read_ground(path: str | Path, crs: pyproj.CRS) -> Any:
    """Read polygons of ground, such as the one that was labelled, as one geometry.

    Args:
        path: any file GDAL reads, or GeoParquet, with one layer.
        crs: CRS of the result; edges get extra vertices where it is not the file's own.

    Returns:
        A shapely polygon or multi-polygon in ``crs``.

    Raises:
        LabelError: as ``read_labels``, or it holds no polygons.
    """
    ground = read_labels(path, layer_remedy=ONE_LAYER)
    if ground.is_points:
        raise LabelError(f"{path} holds points, wanted polygons of ground")
    polygons = ground.geometries
    if ground.crs != crs:
        polygons = shapely.make_valid(reproject(densify(polygons), ground.crs, crs))
    return shapely.union_all(polygons)
