"""Detections and labels side by side: one frame, one numbering of classes and scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.options import EvaluateOptions
from geo_retina.vector import (
    LabelLayer,
    filter_frame,
    label_layer,
    read_detections,
    read_ground,
    read_labels,
    reproject,
)

if TYPE_CHECKING:
    import geopandas as gpd

_WGS84 = pyproj.CRS("EPSG:4326")
_MOST_NAMES = 10


@dataclass(frozen=True, eq=False)
class Objects:
    """Detections, or labels, ready to be matched.

    Attributes:
        geometries: (N,) shapely, in the CRS of the detections.
        centres: (N, 2) their centroids in that CRS.
        classes: (N,) positions in the class names; all 0 where classes are not told apart.
        scenes: (N,) positions in the scene names; all 0 where labels are not tied to scenes.
        scores: (N,) float64; of labels, all 1.
    """

    geometries: NDArray[np.object_]
    centres: NDArray[np.float64]
    classes: NDArray[np.int64]
    scenes: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.geometries)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Objects:
        """Those where a mask is true, or at positions, in that order."""
        return Objects(
            self.geometries[index],
            self.centres[index],
            self.classes[index],
            self.scenes[index],
            self.scores[index],
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be matched with what.

    Attributes:
        found: the detections, by score, highest first; equal ones in the order given.
        truth: the labels.
        crs: of both.
        class_names: () where classes are not told apart.
        scene_names: () where labels are not tied to scenes.
        detected_names: classes that the detections name, sorted.
        points: whether the labels are points.
    """

    found: Objects
    truth: Objects
    crs: pyproj.CRS
    class_names: tuple[str, ...]
    scene_names: tuple[str, ...]
    detected_names: tuple[str, ...]
    points: bool

    def on_ellipsoid_m(self, objects: Objects) -> NDArray[np.float64]:
        """(N, 3) geocentric positions of the centres, in metres.

        A straight line between two of them is the distance on the ground to a millionth, up
        to 10 km, in whatever zones they lie: a map projection is never in the way.
        """
        move = pyproj.Transformer.from_crs(self.crs, _WGS84, always_xy=True)
        lon, lat = (np.radians(v) for v in move.transform(*objects.centres.T))
        geod = pyproj.Geod(ellps="WGS84")
        normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
        axes = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), (1 - geod.es) * np.sin(lat))
        return normal[:, None] * np.stack(axes, axis=1)


def gather(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions,
) -> Problem:
    """Read both sides and bring them into one frame, without what lies outside the ground.

    Raises:
        LabelError: as ``evaluate``.
    """
    frame, name = _read_found(detections)
    layer = _read_truth(labels, options)
    crs = pyproj.CRS.from_user_input(frame.crs)
    found_classes = _column(frame, "class", name) if "class" in frame.columns else None
    if options.class_column is not None and found_classes is None:
        raise LabelError(
            f"{name} has no column class, so its classes cannot be compared with "
            f"{options.class_column}; leave the class column out to match any with any"
        )
    classes, found_codes, truth_codes = _number(
        found_classes, layer.class_names, len(frame), len(layer)
    )
    if found_classes is not None and layer.class_names is not None:
        _check_classes(
            _known_names(frame, "class", found_classes),
            _known_names(labels, options.class_column, layer.class_names),
            name,
            layer.path,
        )
    found_scenes = None if layer.scenes is None else _column(frame, "scene", name)
    scenes, found_scene, truth_scene = _number(found_scenes, layer.scenes, len(frame), len(layer))
    _check_scenes(found_scene, truth_scene, scenes, name, layer.path)
    found = _objects(_found_geometries(frame, name), found_codes, found_scene)
    found = replace(found, scores=_scores(frame, name))
    truth = _objects(reproject(layer.geometries, layer.crs, crs), truth_codes, truth_scene)
    if options.ground is not None:
        found, truth = _on_ground(found, truth, options.ground, crs)
    order = np.argsort(-found.scores, kind="stable")
    detected = () if found_classes is None else tuple(sorted(set(found_classes.tolist())))
    return Problem(found.take(order), truth, crs, classes, scenes, detected, layer.is_points)


def _read_found(detections: str | Path | gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, str]:
    if isinstance(detections, (str, Path)):
        frame, name = read_detections(detections), str(detections)
    else:
        frame, name = detections, "the table of detections"
    if frame.crs is None:
        raise LabelError(
            f"{name} has no CRS, so detections cannot be compared with labels; give it the right "
            f"one, for example with: ogr2ogr -a_srs EPSG:32633 fixed.gpkg {name}"
        )
    return frame, name


def _read_truth(labels: str | Path | gpd.GeoDataFrame, options: EvaluateOptions) -> LabelLayer:
    columns = {"class_column": options.class_column, "scene_column": options.scene_column}
    if isinstance(labels, (str, Path)):
        return read_labels(
            labels,
            layer=options.layer,
            where=options.where,
            layer_remedy="say which one with --layer",
            **columns,
        )
    name = "the table of labels"
    if options.where is not None:
        labels = filter_frame(labels, options.where, name)
    return label_layer(labels, name, **columns)


def _column(frame: gpd.GeoDataFrame, column: str, name: str) -> NDArray[np.object_]:
    if column not in frame.columns:
        raise LabelError(
            f"{name} has no column {column}; its columns are {', '.join(map(str, frame.columns))}"
        )
    gaps = int(frame[column].isna().sum())
    if gaps:
        raise LabelError(f"{gaps} detections in {name} have no {column}; fill the column")
    return np.array([str(value) for value in frame[column]], dtype=object)


def _number(
    found: NDArray[np.object_] | None, truth: NDArray[np.object_] | None, n: int, m: int
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Sorted names of both sides and each one's position; no names where labels have none."""
    if truth is None or found is None:
        return (), np.zeros(n, np.int64), np.zeros(m, np.int64)
    names, codes = np.unique(np.concatenate([found, truth]).astype(str), return_inverse=True)
    codes = codes.astype(np.int64)
    return tuple(names.tolist()), codes[:n], codes[n:]


def _known_names(
    table: str | Path | gpd.GeoDataFrame, column: str | None, values: NDArray[np.object_]
) -> set[str]:
    """Names in a column, and those that a categorical one declares though no row has them."""
    names = set(values.tolist())
    if not names or isinstance(table, (str, Path)) or str(table[column].dtype) != "category":
        return names
    return names | {str(name) for name in table[column].cat.categories}


def _check_classes(found: set[str], truth: set[str], found_name: str, truth_name: str) -> None:
    """Refuse two sides that know no class in common: nothing could match, by a slip of names."""
    if found and truth and not found & truth:
        raise LabelError(
            f"no class is in common: {found_name} has {_listed(found)}, {truth_name} has "
            f"{_listed(truth)}; give the labels the names that the detections have, or leave the "
            "class column out"
        )


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:_MOST_NAMES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if names - {*shown} else "")


def _check_scenes(
    found: NDArray[np.int64],
    truth: NDArray[np.int64],
    names: tuple[str, ...],
    found_name: str,
    truth_name: str,
) -> None:
    """Refuse two sides that name no scene in common: nothing could match, by a slip of names."""
    if names and len(found) and len(truth) and not np.isin(found, truth).any():
        raise LabelError(
            f"no scene of {found_name}, such as {names[found[0]]}, is named by {truth_name}, which "
            f"has {names[truth[0]]}; the scene column must hold the stems of the scene files"
        )


def _found_geometries(frame: gpd.GeoDataFrame, name: str) -> NDArray[np.object_]:
    geometries = np.asarray(frame.geometry.array, dtype=object)
    missing = int((shapely.is_missing(geometries) | shapely.is_empty(geometries)).sum())
    if missing:
        raise LabelError(f"{missing} detections in {name} have no geometry; delete those rows")
    broken = ~shapely.is_valid(geometries)
    if broken.any():
        geometries = geometries.copy()
        geometries[broken] = shapely.make_valid(geometries[broken])
    return geometries


def _scores(frame: gpd.GeoDataFrame, name: str) -> NDArray[np.float64]:
    if "score" not in frame.columns:
        raise LabelError(f"{name} has no column score, wanted detections as geo-retina writes them")
    try:
        scores = frame["score"].to_numpy(dtype=np.float64, na_value=np.nan)
    except ValueError:
        raise LabelError(f"the column score of {name} holds text, wanted numbers") from None
    if np.isnan(scores).any():
        raise LabelError(f"{int(np.isnan(scores).sum())} detections in {name} have no score")
    return scores


def _objects(
    geometries: NDArray[np.object_], classes: NDArray[np.int64], scenes: NDArray[np.int64]
) -> Objects:
    """Objects with a score of 1; one that the CRS cannot express is kept, far from all others."""
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    lost = np.unique(owner[~np.isfinite(points).all(axis=1)])
    if len(lost):
        geometries = geometries.copy()
        geometries[lost] = shapely.Point()
    centres = np.full((len(geometries), 2), np.nan)
    kept = ~shapely.is_empty(geometries)
    centres[kept] = shapely.get_coordinates(shapely.centroid(geometries[kept]))
    return Objects(geometries, centres, classes, scenes, np.ones(len(geometries)))


def _on_ground(
    found: Objects, truth: Objects, ground: str, crs: pyproj.CRS
) -> tuple[Objects, Objects]:
    """Those whose centre lies on the ground."""
    area = read_ground(ground, crs)
    shapely.prepare(area)
    return (
        found.take(shapely.contains_xy(area, found.centres)),
        truth.take(shapely.contains_xy(area, truth.centres)),
    )
