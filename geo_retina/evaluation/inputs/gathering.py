"""Detections and labels side by side: one frame, one numbering of classes and scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.evaluation.inputs.detection_columns import (
    found_geometries,
    found_scores,
    found_sides_px,
)
from geo_retina.evaluation.inputs.input_tables import read_found, read_truth
from geo_retina.evaluation.inputs.names import (
    check_classes,
    check_scenes,
    is_full,
    known_names,
    number_names,
    read_names,
    rename_as_found,
)
from geo_retina.evaluation.inputs.objects import Problem, make_objects
from geo_retina.evaluation.inputs.rectangles import as_rectangles, measure_sides
from geo_retina.geodesy import (
    crs_label,
    full_turn,
    is_connected,
    middle_longitude,
    near_longitude,
    reproject,
    square_metres,
)
from geo_retina.options import EvaluateOptions
from geo_retina.vector import (
    Ground,
    LabelLayer,
    explain_elsewhere,
    is_elsewhere,
    read_companions,
)
from geo_retina.vector.formats import AZIMUTH

if TYPE_CHECKING:
    import geopandas as gpd

_ELSEWHERE_M = 200_000.0
"""Farther than any scene is wide, as detections alone do not tell what was looked at."""


def gather(
    detections: str | Path | gpd.GeoDataFrame,
    labels: str | Path | gpd.GeoDataFrame,
    options: EvaluateOptions,
) -> Problem:
    """Read both sides and bring them into one frame.

    Raises:
        LabelError: as ``evaluate``.
    """
    frame, name = read_found(detections)
    layer, counts = read_truth(labels, options)
    crs = pyproj.CRS.from_user_input(frame.crs)
    class_text, scene_text = _read_both_names(frame, name, labels, layer, options)
    geometries = found_geometries(frame, name)
    scanned = _looked_at(detections)
    _check_place(geometries, crs, layer, scanned)
    placed = reproject(layer.geometries, layer.crs, crs)
    geometries, placed, scanned = _around_one_longitude(geometries, placed, scanned, crs)
    if options.rectangles and not layer.is_points:
        placed = as_rectangles(placed, crs)
    found = replace(
        make_objects(geometries, class_text, scene_text),
        scores=found_scores(frame, name),
        side_px=found_sides_px(frame),
    )
    truth = replace(make_objects(placed, layer.class_names, layer.scenes), counts=counts)
    classes: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    if layer.class_names is not None:
        classes, found_codes, truth_codes = number_names(found.class_text, truth.class_text)
        found, truth = replace(found, classes=found_codes), replace(truth, classes=truth_codes)
    if layer.scenes is not None:
        named = rename_as_found(
            truth.scene_text, found.scene_text, options.scene_column, layer.path
        )
        truth = replace(truth, scene_text=named)
        scenes, found_codes, truth_codes = number_names(found.scene_text, truth.scene_text)
        found, truth = replace(found, scenes=found_codes), replace(truth, scenes=truth_codes)
        check_scenes(found_codes, truth_codes, scenes, name, layer.path)
    detected = () if class_text is None else tuple(sorted(set(class_text.tolist())))
    found = found.take(np.argsort(-found.scores, kind="stable"))
    sides = None
    if AZIMUTH in frame.columns and not layer.is_points:
        sides = measure_sides(found.geometries, crs), measure_sides(truth.geometries, crs)
    return Problem(
        found,
        truth,
        crs,
        classes,
        scenes,
        detected,
        layer.is_points,
        scanned=None if scanned is None else shapely.union_all(shapely.make_valid(scanned)),
        sides=sides,
    )


def _read_both_names(
    frame: gpd.GeoDataFrame,
    name: str,
    labels: str | Path | gpd.GeoDataFrame,
    layer: LabelLayer,
    options: EvaluateOptions,
) -> tuple[NDArray[np.object_] | None, NDArray[np.object_] | None]:
    """Read the detections' classes and scenes, where they are needed, and compare the classes."""
    class_text = read_names(frame, "class", name) if "class" in frame.columns else None
    if options.class_column is not None and class_text is None:
        raise LabelError(
            f"{name} has no column class, so its classes cannot be compared with "
            f"{options.class_column}; leave the class column out to match any with any"
        )
    if class_text is not None and layer.class_names is not None:
        check_classes(
            known_names(frame, "class", class_text),
            known_names(labels, options.class_column, layer.class_names),
            name,
            layer.path,
        )
    needs_scenes = layer.scenes is not None or is_full(frame, "scene")
    return class_text, read_names(frame, "scene", name) if needs_scenes else None


def _around_one_longitude(
    found: NDArray[np.object_],
    truth: NDArray[np.object_],
    scanned: NDArray[np.object_] | None,
    crs: pyproj.CRS,
) -> tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.object_] | None]:
    """Count all longitudes around the detections' middle, whatever files do."""
    turn = full_turn(crs)
    if turn is None or not len(found):
        return found, truth, scanned
    middle = middle_longitude(shapely.get_coordinates(found)[:, 0], turn)
    ground = None if scanned is None else near_longitude(scanned, turn, middle)
    return near_longitude(found, turn, middle), near_longitude(truth, turn, middle), ground


def _check_place(
    found: NDArray[np.object_],
    crs: pyproj.CRS,
    layer: LabelLayer,
    ground: NDArray[np.object_] | None,
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
