"""What ground items show: areas, overlaps, and which of them no newer one shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate

from geo_retina.errors import SceneError
from geo_retina.geodesy import densify, reproject

Polygons = NDArray[np.object_]

DEGREES = pyproj.CRS("EPSG:4326")
_EQUAL_AREA = pyproj.CRS("EPSG:6933")
_WORLD = shapely.box(-180, -90, 180, 90)
_POLE = 86.0
"""Latitude beyond which the equal-area map is too flat to compute on."""

_LEAST_SHARE = 0.01
"""Share of an item's ground that must be new: borders of flights differ by some pixels."""


@dataclass(frozen=True, eq=False)
class Footprints:
    """The ground of items on the ground that was searched.

    Attributes:
        polygons_m: (N,) polygons on an equal-area map; empty where an item only touches it.
    """

    polygons_m: Polygons

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]], ground: Any) -> Footprints:
        """Cut the footprints of STAC items to ground in degrees.

        Raises:
            SceneError: an item has no polygon.
        """
        polygons = np.array([_footprint(item) for item in items], dtype=object)
        shapely.prepare(ground)
        return cls(on_equal_area(shapely.intersection(polygons, ground)))

    @property
    def area_km2(self) -> float:
        """Ground that at least one item shows."""
        return float(shapely.area(shapely.union_all(self.polygons_m))) / 1e6

    @property
    def sum_km2(self) -> float:
        """Ground of all items, counted as often as it is shown."""
        return float(shapely.area(self.polygons_m).sum()) / 1e6

    def newest(self, order: Sequence[int]) -> list[int]:
        """Select the items that show ground that no item before them in an order shows.

        Args:
            order: positions of all items, the newest first.

        Returns:
            Those to keep, in that order.
        """
        tree = shapely.STRtree(self.polygons_m)
        kept: list[int] = []
        is_kept = np.zeros(len(self.polygons_m), np.bool_)
        for i in order:
            own = self.polygons_m[i]
            near = tree.query(own)
            newer = shapely.union_all(self.polygons_m[near[is_kept[near]]])
            area = shapely.area(own)
            if area > 0 and shapely.area(shapely.difference(own, newer)) > _LEAST_SHARE * area:
                kept.append(i)
                is_kept[i] = True
        return kept


def split_at_antimeridian(ground: Any) -> Any:
    """Move ground whose longitudes go on beyond 180 degrees back between -180 and 180."""
    turns = [translate(ground, xoff=360.0 * k) for k in (-1, 0, 1)]
    return shapely.union_all([shapely.intersection(turn, _WORLD) for turn in turns])


def on_equal_area(polygons: Polygons) -> Polygons:
    """Move (N,) polygons in degrees to an equal-area map, in metres."""
    inside = shapely.intersection(polygons, shapely.box(-180, -_POLE, 180, _POLE))
    return shapely.make_valid(reproject(densify(inside), DEGREES, _EQUAL_AREA))


def _footprint(item: Mapping[str, Any]) -> Any:
    geometry = item.get("geometry")
    try:
        shape = shapely.make_valid(shapely.geometry.shape(geometry))
    except (TypeError, ValueError, AttributeError, KeyError, shapely.GEOSException):
        shape = None
    if shape is None or shapely.get_dimensions(shape) < 2:
        raise SceneError(
            f"item {item.get('id', '?')} of the catalogue has no polygon, expected one that says "
            "which ground it shows"
        )
    return shape
