"""Detections and labels side by side: one frame, one numbering of classes and scenes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.geodesy import (
    crs_label,
    full_turn,
    is_connected,
    middle_longitude,
    missing_crs,
    near_longitude,
    reproject,
    square_metres,
)
from geo_retina.options import EvaluateOptions, it_has, same_text
from geo_retina.scene import match_names
from geo_retina.vector import (
    Ground,
    LabelLayer,
    explain_elsewhere,
    filter_frame,
    is_elsewhere,
    label_layer,
    read_companions,
    read_detections,
    read_labels,
)
from geo_retina.vector.readers.frames import DETECTIONS_LAYER, read_frame

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

_MOST_NAMES = 10
_ELSEWHERE_M = 200_000.0
"""Farther than any scene is wide, as detections alone do not tell what was looked at."""

_LAYER_REMEDY = "say which one with EvaluateOptions.layer"
_PIXEL_COLUMNS = ("x_min_px", "y_min_px", "x_max_px", "y_max_px")
_BOX_TOLERANCE = 1e-7
"""Share of its bounds' area that a box may lack: float64 corners at 5,000 km are that exact."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Detections, or labels, ready to be matched.

    Attributes:
        geometries: (N,) shapely, in the CRS of the detections.
        boxes: (N, 4) their bounds in that CRS; not finite for what the CRS cannot express.
        is_box: (N,) whether an object fills its bounds.
        centres: (N, 2) their centroids in that CRS.
        classes: (N,) positions in the class names; all 0 where classes are not told apart.
        scenes: (N,) positions in the scene names; all 0 where labels are not tied to scenes.
        scores: (N,) float64; of labels, all 1.
        counts: (N,) bool: of labels, whether one must be found; of detections, whether one
            without a match is false.
        row: (N,) int64 position in what was read.
        class_text: (N,) str, "" where unknown.
        scene_text: (N,) str, "" where unknown.
        side_px: (N,) side in pixels of a square of the same area; NaN where unknown.
    """

    geometries: NDArray[np.object_]
    boxes: NDArray[np.float64]
    is_box: NDArray[np.bool_]
    centres: NDArray[np.float64]
    classes: NDArray[np.int64]
    scenes: NDArray[np.int64]
    scores: NDArray[np.float64]
    counts: NDArray[np.bool_]
    row: NDArray[np.int64]
    class_text: NDArray[np.object_]
    scene_text: NDArray[np.object_]
    side_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.geometries)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Objects:
        """Select the objects where a mask is true, or at positions, in that order."""
        return Objects(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


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
        ground: the labelled ground as one geometry, or None.
        ignored_ground: ground on which nothing counts, or None.
    """

    found: Objects
    truth: Objects
    crs: pyproj.CRS
    class_names: tuple[str, ...]
    scene_names: tuple[str, ...]
    detected_names: tuple[str, ...]
    points: bool
    ground: Any = None
    ignored_ground: Any = None


def gather(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions,
) -> Problem:
    """Read both sides and bring them into one frame.

    Raises:
        LabelError: as ``evaluate``.
    """
    frame, name = _read_found(detections)
    layer, counts = _read_truth(labels, options)
    crs = pyproj.CRS.from_user_input(frame.crs)
    found_classes = _column(frame, "class", name) if "class" in frame.columns else None
    if options.class_column is not None and found_classes is None:
        raise LabelError(
            f"{name} has no column class, so its classes cannot be compared with "
            f"{options.class_column}; leave the class column out to match any with any"
        )
    if found_classes is not None and layer.class_names is not None:
        _check_classes(
            _known_names(frame, "class", found_classes),
            _known_names(labels, options.class_column, layer.class_names),
            name,
            layer.path,
        )
    found_scenes = None
    if layer.scenes is not None or _is_full(frame, "scene"):
        found_scenes = _column(frame, "scene", name)
    geometries = _found_geometries(frame, name)
    _check_place(geometries, crs, layer, detections)
    turn = full_turn(crs)
    middle = 0.0
    if turn is not None:  # both sides counted around one longitude, whatever their files do
        middle = middle_longitude(shapely.get_coordinates(geometries)[:, 0], turn)
        geometries = near_longitude(geometries, turn, middle)
    found = replace(
        _objects(geometries, found_classes, found_scenes),
        scores=_scores(frame, name),
        side_px=_sides_px(frame),
    )
    geometries = reproject(layer.geometries, layer.crs, crs)
    if turn is not None:
        geometries = near_longitude(geometries, turn, middle)
    truth = replace(_objects(geometries, layer.class_names, layer.scenes), counts=counts)
    classes: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    if layer.class_names is not None:
        classes, found_codes, truth_codes = _number(found.class_text, truth.class_text)
        found, truth = replace(found, classes=found_codes), replace(truth, classes=truth_codes)
    if layer.scenes is not None:
        named = _as_found(truth.scene_text, found.scene_text, options.scene_column, layer.path)
        truth = replace(truth, scene_text=named)
        scenes, found_codes, truth_codes = _number(found.scene_text, truth.scene_text)
        found, truth = replace(found, scenes=found_codes), replace(truth, scenes=truth_codes)
        _check_scenes(found_codes, truth_codes, scenes, name, layer.path)
    detected = () if found_classes is None else tuple(sorted(set(found_classes.tolist())))
    found = found.take(np.argsort(-found.scores, kind="stable"))
    return Problem(found, truth, crs, classes, scenes, detected, layer.is_points)


def _check_place(
    found: NDArray[np.object_],
    crs: pyproj.CRS,
    layer: LabelLayer,
    detections: str | Path | gpd.GeoDataFrame,
) -> None:
    """Refuse labels that all lie elsewhere: nothing could match, by a slip of CRS or axes.

    Where the file of detections says what was looked at, that is the ground; else labels lie
    elsewhere that are farther from all detections than these are wide, and than a scene is.
    """
    if not is_connected(layer.crs, crs):
        raise LabelError(
            f"{layer.path} is in {crs_label(layer.crs)} and the detections in {crs_label(crs)}, "
            "but a local CRS has no place on Earth, so they cannot be compared; give both in one "
            "CRS"
        )
    if not len(found) or not len(layer):
        return
    ground = _looked_at(detections)
    if ground is None:
        low, high = np.split(shapely.total_bounds(found), 2)
        reach = max((high - low).max(), _ELSEWHERE_M / _unit_on_ground_m(crs, low))
        ground = np.array([shapely.box(*(low - reach), *(high + reach))])
    grounds = [Ground(crs, ground)]
    if is_elsewhere(layer, grounds):
        raise LabelError(
            f"none of the {len(layer)} labels of {layer.path} lies on the ground of the "
            f"detections: {explain_elsewhere(layer, grounds, 'the detections')}"
        )


def _looked_at(detections: str | Path | gpd.GeoDataFrame) -> NDArray[np.object_] | None:
    """Read the scanned ground that a file of detections has, in its CRS; None if unknown."""
    if not isinstance(detections, (str, Path)) or str(detections).startswith("/vsi"):
        return None
    companions = read_companions(detections)
    if companions is None or companions.scanned is None or not companions.scanned.num_rows:
        return None
    if Path(detections).suffix.lower() == ".geojson":
        return None  # what lies beside it is in the scenes' CRS
    polygons = shapely.from_wkb(companions.scanned["geometry"].to_numpy())
    polygons = polygons[~(shapely.is_missing(polygons) | shapely.is_empty(polygons))]
    return np.asarray(polygons, dtype=object) if len(polygons) else None


def _unit_on_ground_m(crs: pyproj.CRS, position: NDArray[np.float64]) -> float:
    area = square_metres(position[None], crs)[0]
    return float(np.sqrt(area)) if np.isfinite(area) and area > 0 else 1.0


def _read_found(detections: str | Path | gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, str]:
    if isinstance(detections, (str, Path)):
        frame, name = read_detections(detections), str(detections)
    else:
        frame, name = detections, "the table of detections"
    if frame.crs is None:
        so = "detections cannot be compared with labels"
        raise LabelError(missing_crs(name, so, file=name))
    return frame, name


def _read_truth(
    labels: str | Path | gpd.GeoDataFrame, options: EvaluateOptions
) -> tuple[LabelLayer, NDArray[np.bool_]]:
    """Read the labels, those first that must be found, and a mask of these."""
    columns: dict[str, Any] = {
        "class_column": options.class_column,
        "scene_column": options.scene_column,
    }
    which: dict[str, Any] = {
        "layer": options.layer,
        "where": options.where,
        "encoding": options.encoding,
        "layer_remedy": _LAYER_REMEDY,
    }
    if isinstance(labels, (str, Path)):
        if options.ignore_where is None:
            layer = read_labels(labels, **which, **columns)
            return layer, np.ones(len(layer), np.bool_)
        name, frame = str(labels), read_frame(labels, **which, prefer=DETECTIONS_LAYER)
    else:
        name, frame = "the table of labels", labels
        if options.where is not None:
            frame = filter_frame(frame, options.where, name)
    if options.ignore_where is None:
        layer = label_layer(frame, name, **columns)
        return layer, np.ones(len(layer), np.bool_)
    frame = frame.reset_index(drop=True)
    doubtful = np.zeros(len(frame), np.bool_)
    doubtful[filter_frame(frame, options.ignore_where, name).index] = True
    if not doubtful.any():
        log.warning(
            "the filter %r of labels to ignore fits none of the %d labels of %s; all must be found",
            options.ignore_where,
            len(frame),
            name,
        )
    must = label_layer(frame[~doubtful], name, **columns)
    need_not = label_layer(frame[doubtful], name, **columns)
    return _joined(must, need_not), np.arange(len(must) + len(need_not)) < len(must)


def _joined(a: LabelLayer, b: LabelLayer) -> LabelLayer:
    def both(x: Any, y: Any) -> Any:
        return None if x is None else np.concatenate([x, y])

    return replace(
        a,
        geometries=both(a.geometries, b.geometries),
        class_names=both(a.class_names, b.class_names),
        scenes=both(a.scenes, b.scenes),
    )


def _is_full(frame: gpd.GeoDataFrame, column: str) -> bool:
    return column in frame.columns and not frame[column].isna().any()


def _column(frame: gpd.GeoDataFrame, column: str, name: str) -> NDArray[np.object_]:
    import pandas as pd

    if column not in frame.columns:
        raise LabelError(
            f"{name} has no column {column}; "
            f"{it_has(column, list(map(str, frame.columns)), say='its columns are')}"
        )
    codes, values = pd.factorize(frame[column])
    gaps = int((codes < 0).sum())
    if gaps:
        raise LabelError(f"{gaps} detections in {name} have no {column}; fill the column")
    words = map(str, values)
    words = map(same_text, words) if column == "class" else words  # a scene's is its file's
    return np.array(list(words), dtype=object)[codes]


def _number(
    found: NDArray[np.object_], truth: NDArray[np.object_]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """List the names of both sides, sorted, and each one's position."""
    import pandas as pd

    codes, names = pd.factorize(np.concatenate([found, truth]), sort=True)
    codes = codes.astype(np.int64)
    return tuple(map(str, names)), codes[: len(found)], codes[len(found) :]


def _as_found(
    truth: NDArray[np.object_], found: NDArray[np.object_], column: str | None, labels: str
) -> NDArray[np.object_]:
    """Name the scenes of labels as detections do: without suffix and folders."""
    import pandas as pd

    codes, names = pd.factorize(truth)
    stems = sorted(set(found.tolist()))
    same = match_names(list(names), stems, given_in=f"column {column} of {labels}")
    renamed = [stems[same[i]] if i in same else name for i, name in enumerate(names)]
    return np.array(renamed, dtype=object)[codes] if len(codes) else truth


def _known_names(
    table: str | Path | gpd.GeoDataFrame, column: str | None, values: NDArray[np.object_]
) -> set[str]:
    """List the names in a column, and those that a categorical one declares but has in no row."""
    names = set(values.tolist())
    if not names or isinstance(table, (str, Path)) or str(table[column].dtype) != "category":
        return names
    return names | {same_text(str(name)) for name in table[column].cat.categories}


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
    turned = np.flatnonzero(~_fills_bounds(geometries, shapely.bounds(geometries)))
    broken = turned[~shapely.is_valid(geometries[turned])]
    if len(broken):
        geometries = geometries.copy()
        geometries[broken] = shapely.make_valid(geometries[broken])
    return geometries


def _fills_bounds(
    geometries: NDArray[np.object_], bounds: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Find boxes along the axes: four corners, and no less area than the bounds."""
    size = bounds[:, 2:] - bounds[:, :2]
    whole = size.prod(axis=1)
    filled = np.abs(shapely.area(geometries) - whole) <= _BOX_TOLERANCE * whole
    plain = (shapely.get_num_coordinates(geometries) == 5) & (whole > 0)
    return np.asarray(plain & filled & np.isfinite(bounds).all(axis=1))


def _scores(frame: gpd.GeoDataFrame, name: str) -> NDArray[np.float64]:
    if "score" not in frame.columns:
        raise LabelError(
            f"{name} has no column score, expected detections as geo-retina writes them"
        )
    try:
        scores = frame["score"].to_numpy(dtype=np.float64, na_value=np.nan)
    except ValueError:
        raise LabelError(f"the column score of {name} holds text, expected numbers") from None
    if np.isnan(scores).any():
        raise LabelError(f"{int(np.isnan(scores).sum())} detections in {name} have no score")
    return scores


def _sides_px(frame: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Compute the side of the square with each pixel box's area, where the columns are there."""
    if not set(_PIXEL_COLUMNS) <= set(frame.columns):
        return np.full(len(frame), np.nan)
    try:
        values = [frame[c].to_numpy(dtype=np.float64, na_value=np.nan) for c in _PIXEL_COLUMNS]
    except ValueError:
        return np.full(len(frame), np.nan)
    x_min, y_min, x_max, y_max = values
    return np.sqrt(np.maximum(x_max - x_min, 0) * np.maximum(y_max - y_min, 0))


def _objects(
    geometries: NDArray[np.object_],
    class_text: NDArray[np.object_] | None,
    scene_text: NDArray[np.object_] | None,
) -> Objects:
    """Make objects with a score of 1; one that the CRS cannot express is kept, far from others."""
    n = len(geometries)
    boxes = shapely.bounds(geometries).reshape(n, 4)
    lost = ~np.isfinite(boxes).all(axis=1)
    if lost.any():
        geometries = geometries.copy()
        geometries[lost] = shapely.Point()
    boxes = np.where(lost[:, None], np.nan, boxes)
    is_box = _fills_bounds(geometries, boxes)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    other = ~is_box & ~lost
    centres[other] = shapely.get_coordinates(shapely.centroid(geometries[other]))
    blank = np.full(n, "", dtype=object)
    return Objects(
        geometries=geometries,
        boxes=boxes,
        is_box=is_box,
        centres=centres,
        classes=np.zeros(n, np.int64),
        scenes=np.zeros(n, np.int64),
        scores=np.ones(n),
        counts=np.ones(n, np.bool_),
        row=np.arange(n),
        class_text=blank if class_text is None else class_text,
        scene_text=blank if scene_text is None else scene_text,
        side_px=np.full(n, np.nan),
    )
