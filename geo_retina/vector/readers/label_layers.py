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
from geo_retina.boxes.oriented import Rotated, from_upright, minimum_rectangles
from geo_retina.errors import LabelError
from geo_retina.geodesy import (
    are_expressible,
    carry_ground,
    densify,
    missing_crs,
    move,
    reproject,
)
from geo_retina.grid import Grid
from geo_retina.options import LabelOptions
from geo_retina.vector.readers.columns import flag_column, size_column, text_column
from geo_retina.vector.readers.frames import DETECTIONS_LAYER, ONE_LAYER, SCANNED_LAYER, read_frame
from geo_retina.vector.readers.sided_points import point_rectangles, rectangle_columns

if TYPE_CHECKING:
    import geopandas as gpd

_POINT, _POLYGON, _MULTIPOINT, _MULTIPOLYGON = 0, 3, 4, 6
_COLUMNS = ("class_names", "scenes", "sizes_m", "ignored", "places", "weights")


@dataclass(frozen=True, eq=False)
class LabelLayer:
    """One point or polygon per object.

    Attributes:
        path: where it came from, for messages.
        geometries: (N,) shapely points, or polygons; valid, finite and never empty. A polygon
            that was invalid may have become a multi-polygon, still one object.
        crs: of the geometries, x before y.
        class_names: (N,) text, or None where no class column was named.
        scenes: (N,) stems of scene files, or None where no scene column was named; None among
            them for a label that names none.
        sizes_m: (N,) float64 sides of the squares around points, or None where no size column
            was named.
        ignored: (N,) which labels are neither object nor background, or None for none of them.
        places: (N,) text of the column that ground is split by, or None where none was named.
        weights: (N,) how often samples are drawn around each label, or None for all alike.
        repaired: polygons that were invalid and were made valid.
        dropped_null: features left out for having no geometry.
        dropped_empty: features left out for an empty one.
        dropped_invalid: features left out for one without area or with infinite coordinates.
    """

    path: str
    geometries: NDArray[np.object_]
    crs: pyproj.CRS
    class_names: NDArray[np.object_] | None = None
    scenes: NDArray[np.object_] | None = None
    sizes_m: NDArray[np.float64] | None = None
    ignored: NDArray[np.bool_] | None = None
    places: NDArray[np.object_] | None = None
    weights: NDArray[np.float64] | None = None
    repaired: int = 0
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
        """Move the labels to another CRS."""
        return replace(self, geometries=reproject(self.geometries, self.crs, crs), crs=crs)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> LabelLayer:
        """Select the labels where a mask is true, or at positions, in that order."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        taken: dict[str, Any] = {
            name: None if c is None else c[index] for name, c in columns.items()
        }
        return replace(self, geometries=self.geometries[index], **taken)


def read_labels(  # noqa: PLR0913 - a layer, and its columns
    path: str | Path,
    *,
    layer: str | None = None,
    where: str | None = None,
    class_column: str | None = None,
    scene_column: str | None = None,
    encoding: str | None = None,
    layer_remedy: str = "say which one with data.layer in the config",
) -> LabelLayer:
    """Read labels from a vector file.

    Args:
        path: any file GDAL reads, or GeoParquet.
        layer: needed where the file has several.
        where: attribute filter, as in SQL's WHERE.
        class_column: column with the class of each label.
        scene_column: column with the stem of the scene file each label belongs to.
        encoding: of the texts in a file that does not say it, such as a shapefile.
        layer_remedy: how a layer is chosen, for the message; left out, in a training's config.

    Returns:
        The labels in the order of the file. Parts of a multi-part geometry are labels of
        their own; z is left out; invalid polygons are repaired.

    Raises:
        LabelError: the file is missing or unreadable, has several layers and none was
            chosen, has no CRS, no label, no such column, gaps in it, points mixed with
            polygons, or ``where`` is not understood.
    """
    options = LabelOptions(
        path=str(path),
        layer=layer,
        where=where,
        class_column=class_column,
        scene_column=scene_column,
        encoding=encoding,
    )
    return read_source(options, layer_remedy=layer_remedy, strict=True)


def read_source(
    options: LabelOptions,
    *,
    place_column: str | None = None,
    layer_remedy: str = "say which one with data.layer in the config",
    strict: bool = False,
    as_ground: bool = False,
) -> LabelLayer:
    """Read labels from a vector file with all columns that training knows.

    Args:
        options: the file and its columns.
        place_column: column that names the place to which a label's ground belongs.
        layer_remedy: as in ``read_labels``.
        strict: refuse a label that names no scene. A box that was drawn into a layer of
            detections names none, and belongs where it lies.
        as_ground: of several layers take the scanned ground, not the detections.

    Returns:
        As ``read_labels``; multi-part polygons are one label where the options say ``box``.

    Raises:
        LabelError: as ``read_labels``, or a size is no number above 0, or a flag no truth value.
    """
    path = options.path
    frame = read_frame(
        path,
        layer=options.layer,
        where=options.where,
        layer_remedy=layer_remedy,
        # Detections that were corrected are labels; as ground, they would be found all.
        prefer=SCANNED_LAYER if as_ground else DETECTIONS_LAYER,
        encoding=options.encoding,
    )
    if not len(frame):
        raise LabelError(_empty_sentence(path, options.layer, options.where))
    labels = layer_of(frame, path, options, place_column=place_column, strict=strict)
    if not len(labels):
        raise LabelError(
            f"none of the {len(frame)} features of {path} has a usable geometry, expected points "
            "or polygons"
        )
    return labels


def _empty_sentence(path: str | Path, layer: str | None, where: str | None) -> str:
    if where is None:
        return f"{path} holds no label, expected at least one point or polygon"
    total = len(read_frame(path, layer=layer, prefer=DETECTIONS_LAYER, geometry_only=True))
    return f"the filter {where!r} leaves none of the {total} labels of {path}; widen it"


def label_layer(
    frame: gpd.GeoDataFrame,
    name: str,
    *,
    class_column: str | None = None,
    scene_column: str | None = None,
) -> LabelLayer:
    """Read labels from a GeoDataFrame, which may have no rows; otherwise as ``read_labels``.

    Args:
        frame: one feature per row.
        name: what messages call it.
        class_column: as in ``read_labels``.
        scene_column: as in ``read_labels``.

    Raises:
        LabelError: as ``read_labels``.
    """
    columns = LabelOptions(path=name, class_column=class_column, scene_column=scene_column)
    return layer_of(frame, name, columns, strict=True)


def layer_of(
    frame: gpd.GeoDataFrame,
    name: str,
    options: LabelOptions,
    *,
    place_column: str | None = None,
    strict: bool,
) -> LabelLayer:
    """Read labels from a GeoDataFrame with the columns that options name; as ``read_source``."""
    if frame.crs is None:
        raise LabelError(missing_crs(name, "its place on Earth is unknown", file=name))
    sides = rectangle_columns(frame, options, name)
    columns: dict[str, Any] = {
        "class_names": text_column(frame, options.class_column, "class", name),
        "scenes": text_column(frame, options.scene_column, "scene", name, gaps=not strict),
        "sizes_m": size_column(frame, options.point_size_column, name),
        "ignored": flag_column(frame, options.ignore_column, name),
        "places": text_column(frame, place_column, "place", name),
    }
    geometry = np.asarray(frame.geometry.array, dtype=object)
    is_null = shapely.is_missing(geometry)
    is_empty = shapely.is_empty(geometry)
    rows = np.flatnonzero(~is_null & ~is_empty)
    parts, source = _parts(shapely.force_2d(geometry[rows]), options.multi or "explode")
    _check_kinds(parts, name)
    crs = pyproj.CRS.from_user_input(frame.crs)
    if sides is not None:
        parts = point_rectangles(parts, sides[rows[source]], crs, name)
    was_valid = shapely.is_valid(parts)
    parts, usable = _mend(parts)
    rows = rows[source[usable]]
    return LabelLayer(
        name,
        parts[usable],
        crs,
        **{key: None if column is None else column[rows] for key, column in columns.items()},
        repaired=int((usable & ~was_valid).sum()),
        dropped_null=int(is_null.sum()),
        dropped_empty=int(is_empty.sum()),
        dropped_invalid=int((~usable).sum()),
    )


def _parts(
    geometry: NDArray[np.object_], multi: str
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Split geometries that are several labels, and give the position of the one each was in."""
    parts, source = _exploded(geometry)
    if multi == "explode":
        return parts, source
    # A collection is one label only where all of it is polygons.
    is_polygon = shapely.get_type_id(parts) == _POLYGON
    several = np.bincount(source, minlength=len(geometry)) > 1
    whole = several & ~np.isin(np.arange(len(geometry)), source[~is_polygon])
    rows = np.flatnonzero(whole)
    united = shapely.multipolygons(parts[whole[source]], indices=_ranks(source[whole[source]]))
    alone = ~whole[source]
    source = np.concatenate([source[alone], rows])
    order = np.argsort(source, kind="stable")
    return np.concatenate([parts[alone], united])[order], source[order]


def _exploded(
    geometry: NDArray[np.object_],
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Split into all single parts, of nested collections too; empty ones are left out."""
    parts, source = geometry, np.arange(len(geometry))
    while (shapely.get_type_id(parts) >= _MULTIPOINT).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        source = source[index]
    full = ~shapely.is_empty(parts)
    return parts[full], source[full]


def _ranks(ascending: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(ascending, return_inverse=True)[1].astype(np.int64)


def _check_kinds(parts: NDArray[np.object_], name: str) -> None:
    kinds = set(np.unique(shapely.get_type_id(parts)).tolist())
    kinds = {_POLYGON if kind == _MULTIPOLYGON else kind for kind in kinds}
    if kinds - {_POINT, _POLYGON}:
        raise LabelError(f"{name} holds geometries such as lines, expected points or polygons only")
    if len(kinds) > 1:
        raise LabelError(
            f"{name} mixes points and polygons, expected one kind; split it into two layers, or "
            "filter one kind out by a column"
        )


def _mend(parts: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Make polygons valid; also tells which parts are usable at all."""
    coordinates, owner = shapely.get_coordinates(parts, return_index=True)
    usable = np.ones(len(parts), np.bool_)
    usable[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    repaired = parts.copy()
    broken = np.flatnonzero(usable & ~shapely.is_valid(parts))
    repaired[broken] = [_polygons_of(g) for g in shapely.make_valid(parts[broken])]
    is_point = shapely.get_type_id(parts) == _POINT
    usable &= is_point | (shapely.area(repaired) > 0)
    return repaired, usable


def _polygons_of(geometry: Any) -> Any:
    """Keep the areas of a repaired polygon, without the lines that it may have left behind."""
    if shapely.get_type_id(geometry) in (_POLYGON, _MULTIPOLYGON):
        return geometry
    parts = [p for p in shapely.get_parts(geometry) if shapely.area(p) > 0]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def label_rectangles(labels: LabelLayer, grid: Grid, *, point_size_m: float | None) -> Rotated:
    """Bound labels by the smallest rectangles, at any angle, in the pixels of a scene.

    Args:
        labels: as for ``label_boxes``.
        grid: as for ``label_boxes``.
        point_size_m: as for ``label_boxes``.

    Returns:
        (N, 5) oriented boxes in grid pixels, in the order of the labels, not clipped to the grid:
        of a multi-part polygon one around all parts, of points their upright squares. A label
        that the grid's CRS cannot express lies at infinity.

    Raises:
        LabelError: as ``label_boxes``.
    """
    boxes_px = label_boxes(labels, grid, point_size_m=point_size_m)
    placed = np.isfinite(boxes_px).all(axis=1)
    found = np.column_stack([boxes_px[:, :2], np.zeros((len(labels), 3))])
    if labels.is_points:
        found[placed] = from_upright(boxes_px[placed])
    else:
        outlines = reproject(labels.geometries[placed], labels.crs, grid.crs)
        found[placed] = minimum_rectangles(shapely.transform(outlines, grid.crs_to_pixels))
    return found


def label_boxes(labels: LabelLayer, grid: Grid, *, point_size_m: float | None) -> Boxes:
    """Bound labels by boxes in the pixels of a scene.

    Args:
        labels: in any CRS.
        grid: grid of the scene.
        point_size_m: ground length of the sides of boxes around point labels, along rows and
            columns, where they have no sizes of their own; not used for polygons.

    Returns:
        (N, 4) float64 grid pixels, x_min y_min x_max y_max, in the order of the labels, not
        clipped to the grid: for polygons the bounds, in the pixel frame, of all vertices. A
        label that the grid's CRS cannot express lies at infinity, outside of every grid.

    Raises:
        LabelError: the grid has no CRS, or the labels are points and have no size.
    """
    if grid.crs is None:
        so = f"the labels of {labels.path} cannot be placed on it"
        raise LabelError(missing_crs("the scene", so))
    if labels.is_points and point_size_m is None and labels.sizes_m is None:
        raise LabelError(
            f"the labels of {labels.path} are points without a size; give the side of their "
            "boxes in metres with data.point_size_m, or the column that holds it with "
            "data.point_size_column"
        )
    if not len(labels):
        return np.empty((0, 4))
    geometries = reproject(labels.geometries, labels.crs, grid.crs)
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    points_px = grid.crs_to_pixels(np.where(np.isfinite(points), points, np.nan))
    points_px = np.where(np.isnan(points_px).any(axis=1, keepdims=True), np.inf, points_px)
    starts = np.searchsorted(owner, np.arange(len(labels)))
    low, high = np.minimum.reduceat(points_px, starts), np.maximum.reduceat(points_px, starts)
    half_px = np.zeros((1, 2))
    if labels.is_points:
        sizes_m = np.array([point_size_m]) if labels.sizes_m is None else labels.sizes_m
        half_px = sizes_m[:, None].astype(np.float64) / grid.sides_m() / 2
    return np.concatenate([low - half_px, high + half_px], axis=1)


def read_ground(
    path: str | Path,
    crs: pyproj.CRS,
    around: NDArray[np.float64] | None = None,
    *,
    encoding: str | None = None,
) -> Any:
    """Read polygons of ground, such as the one that was labelled, as one geometry.

    Args:
        path: any file GDAL reads, or GeoParquet, with one layer; of detections with their ground,
            the layer ``scanned``.
        crs: CRS of the result; edges get extra vertices where it is not the file's own.
        around: (M, 2) positions in ``crs`` that span the ground that matters; in another CRS
            than the file's, what lies far from them is left out. Without them, only what ``crs``
            cannot express.
        encoding: as in ``read_labels``.

    Returns:
        A shapely polygon or multi-polygon in ``crs``.

    Raises:
        LabelError: as ``read_labels``, or it holds no polygons.
    """
    source = LabelOptions(path=str(path), encoding=encoding)
    ground = read_source(source, layer_remedy=ONE_LAYER, strict=True, as_ground=True)
    if around is None:
        points = shapely.get_coordinates(densify(ground.geometries))
        points = points[are_expressible(points, ground.crs, crs)]
        around = move(points, ground.crs, crs)
    return shapely.union_all(ground_polygons(ground, crs, around))


def ground_polygons(
    ground: LabelLayer, crs: pyproj.CRS, around: NDArray[np.float64]
) -> NDArray[np.object_]:
    """Move polygons of ground to a CRS, as far as it matters there.

    Args:
        ground: polygons; N may be 0.
        crs: CRS of the result.
        around: as for ``carry_ground``.

    Returns:
        (N,) valid shapely geometries in ``crs``, in order.

    Raises:
        LabelError: the layer holds points.
        CrsError: the layer's CRS and ``crs`` have nothing to do with each other.
    """
    if ground.is_points:
        raise LabelError(f"{ground.path} holds points, expected polygons of ground")
    return carry_ground(ground.geometries, ground.crs, crs, around)
