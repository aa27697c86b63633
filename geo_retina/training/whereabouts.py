"""Where labels are that lie on no scene, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.scene import Scene
from geo_retina.training.placing import scenes_named
from geo_retina.training.regions import footprint
from geo_retina.training.sources import Source
from geo_retina.vector import CocoLabels, LabelLayer, reproject

_WGS84 = pyproj.CRS("EPSG:4326")


def whereabouts(source: Source, scenes: Sequence[Scene]) -> str:
    """One sentence on a layer of which no label lies on a scene: where both are, what to check."""
    count = len(source)
    if isinstance(source.layer, CocoLabels):
        known = ", ".join(str(name) for name in source.layer.files[:3])
        return (
            f"{source.name} gives {count} labels for {len(scenes)} scenes, but the images that it "
            f"names, such as {known or 'none'}, are none of them; its file_name must be the name "
            f"of the scene's file, such as {Path(scenes[0].path).name}"
        )
    layer, column = source.layer, source.options.scene_column
    if layer.scenes is not None:
        named = [str(name) for name in dict.fromkeys(layer.scenes) if name is not None]
        if not scenes_named(source, scenes):
            return (
                f"{source.name} gives {count} labels for {len(scenes)} scenes, but no label names "
                f"one of them in its column {column}, which holds {', '.join(named[:3])}; it must "
                f"hold the stems of the scene files, such as {scenes[0].name}"
            )
    return (
        f"{source.name} gives {count} labels for {len(scenes)} scenes, but no label lies on any of "
        f"them: by its CRS {_crs_text(layer.crs)} the layer is at {_place_text(_middle(layer))}, "
        f"and the scenes are at {_place_text(_middle_of_scenes(scenes))}; check that both show "
        f"the same place and that the layer's CRS is right{_better_crs(layer, scenes)}"
    )


def _crs_text(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def _middle(layer: LabelLayer) -> NDArray[np.float64]:
    """(2,) longitude and latitude of the middle label."""
    centres = shapely.get_coordinates(shapely.centroid(layer.geometries))
    point = np.array([shapely.Point(np.median(centres, axis=0))], dtype=object)
    return np.asarray(shapely.get_coordinates(reproject(point, layer.crs, _WGS84))[0])


def _middle_of_scenes(scenes: Sequence[Scene]) -> NDArray[np.float64]:
    points = []
    for scene in scenes:
        centre = shapely.centroid(footprint(scene.grid))
        moved = reproject(np.array([centre], dtype=object), scene.grid.crs, _WGS84)
        points.append(shapely.get_coordinates(moved)[0])
    return np.asarray(np.median(points, axis=0))


def _place_text(lon_lat: NDArray[np.float64]) -> str:
    lon, lat = lon_lat.tolist()
    if not np.isfinite(lon_lat).all():
        return "no place on Earth"
    return f"{abs(lat):.4f} {'N' if lat >= 0 else 'S'}, {abs(lon):.4f} {'E' if lon >= 0 else 'W'}"


def _better_crs(layer: LabelLayer, scenes: Sequence[Scene]) -> str:
    """Name the CRS, or the swap of axes, with which most labels would lie on scenes."""
    known = {id(scene.grid.crs): scene.grid.crs for scene in scenes}.values()
    candidates = [*(crs for crs in known if crs is not None), _WGS84, pyproj.CRS("EPSG:3857")]
    centres = shapely.get_coordinates(shapely.centroid(layer.geometries))[:1000]
    for swapped in (False, True):
        points = shapely.points(centres[:, ::-1] if swapped else centres)
        for crs in candidates if not swapped else [layer.crs, *candidates]:
            if _share_on_scenes(points, crs, scenes) > 0.5:
                axes = " with x and y swapped" if swapped else ""
                return f": most labels would lie on the scenes in {_crs_text(crs)}{axes}"
    return ""


def _share_on_scenes(
    points: NDArray[np.object_], crs: pyproj.CRS, scenes: Sequence[Scene]
) -> float:
    hit = np.zeros(len(points), np.bool_)
    for own in {id(s.grid.crs): s.grid.crs for s in scenes}.values():
        moved = reproject(points, crs, own)
        finite = np.isfinite(shapely.get_coordinates(moved)).all(axis=1)
        tree = shapely.STRtree([footprint(s.grid) for s in scenes if s.grid.crs is own])
        rows, _ = tree.query(moved[finite], predicate="intersects")
        hit[np.flatnonzero(finite)[rows]] = True
    return float(hit.mean()) if len(hit) else 0.0
