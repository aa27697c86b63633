"""Coordinate systems: their names and units, and which have to do with each other."""

from __future__ import annotations

import math
from functools import lru_cache

import pyproj
from pyproj.crs import GeographicCRS, ProjectedCRS
from pyproj.crs.coordinate_operation import PolarStereographicAConversion, UTMConversion

from geo_retina.errors import CrsError, OptionError

Crs = pyproj.CRS | None

WGS84 = pyproj.CRS("EPSG:4326")
FALLBACK_CRS = "EPSG:4326"
"""Where detections go whose scenes are in several CRSs."""

_UTM_SOUTH, _UTM_NORTH = -80.0, 84.0


def crs_label(crs: pyproj.CRS) -> str:
    """Name a CRS for people: ``EPSG:32633``, or its name where no authority numbers it."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def parse_crs(text: str) -> pyproj.CRS:
    """Find the CRS that a user names, by code, WKT, PROJ string or name.

    Raises:
        OptionError: PROJ knows none, or it is not one of maps, such as a vertical one.
    """
    try:
        crs = pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        raise OptionError(
            f"{text} is not a CRS that PROJ knows, expected for example EPSG:4326"
        ) from None
    if not (crs.is_projected or crs.is_geographic or crs.is_engineering):
        raise OptionError(
            f"{text} is a {crs.type_name}, in which no map is drawn; expected a projected or "
            "geographic one, for example EPSG:4326"
        )
    return crs


def missing_crs(
    subject: str, so: str, *, file: str | None = None, otherwise: str = "", several: bool = False
) -> str:
    """Say that something lacks a CRS: the one sentence, whatever lacks it.

    Args:
        subject: what lacks it.
        so: what cannot be done, or is done otherwise, therefore.
        file: of a vector layer, for the remedy; left out, the remedy is that for an image.
        otherwise: another way out, with its conjunction: ", or leave out DetectOptions.aoi".
        several: the subject is in the plural.
    """
    has, it = ("have", "them") if several else ("has", "it")
    remedy = (
        f"give {it} one, for example with gdal_edit.py -a_srs EPSG:32633"
        if file is None
        else f"give {it} the right one, for example with: "
        f"ogr2ogr -a_srs EPSG:32633 fixed.gpkg {file}"
    )
    return f"{subject} {has} no CRS, so {so}; {remedy}{otherwise}"


def is_on_earth(crs: Crs) -> bool:
    """Check whether a CRS says where its positions lie on Earth; local ones of a site don't."""
    return crs is not None and crs.geodetic_crs is not None


def is_same(one: Crs, other: Crs) -> bool:
    """Check whether two CRSs are equal, quickly where they are one object."""
    return one is other or one == other


def is_connected(source: Crs, target: Crs) -> bool:
    """Check whether positions can be moved from one CRS to the other."""
    return is_same(source, target) or (is_on_earth(source) and is_on_earth(target))


def unit_m(crs: pyproj.CRS) -> float:
    """Return the metres of a CRS's unit of length; of an angular one, its radians."""
    return float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0


def full_turn(crs: Crs) -> float | None:
    """Return the units of a full circle, 360 in degrees; None where a CRS is not geographic."""
    if crs is None or not crs.is_geographic:
        return None
    return round(2 * math.pi / unit_m(crs), 9)


@lru_cache(maxsize=256)
def transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    """Make the transformer from one CRS to another, x before y.

    Made once per pair of CRSs: making one costs as much as opening a small scene.

    Raises:
        CrsError: one of them is local, so nothing says where it lies in the other.
    """
    for crs, other in ((source, target), (target, source)):
        if not is_on_earth(crs):
            raise CrsError(
                f"the local CRS {crs_label(crs)} has no place on Earth, so positions cannot be "
                f"moved between it and {crs_label(other)}; give all files in one CRS, or the right "
                "CRS with gdal_edit.py -a_srs or ogr2ogr -a_srs"
            )
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise CrsError(
            f"PROJ cannot move positions from {crs_label(source)} to {crs_label(target)} "
            f"({error}); choose another CRS"
        ) from error


def metric_crs(geodetic: pyproj.CRS, lon: float, lat: float) -> pyproj.CRS:
    """Choose a CRS in metres for a place, on a geographic CRS's own datum: nothing is shifted.

    The UTM zone, or the polar stereographic one that goes with UTM beyond 84 N and 80 S.
    """
    north = lat >= 0
    zone = int((lon + 180) % 360 // 6) + 1
    is_utm = _UTM_SOUTH <= lat <= _UTM_NORTH
    if geodetic.to_epsg() == 4326:
        utm = (32600 if north else 32700) + zone
        return pyproj.CRS.from_epsg(utm if is_utm else 5041 if north else 5042)
    conversion = (
        UTMConversion(str(zone), "N" if north else "S")
        if is_utm
        else PolarStereographicAConversion(
            latitude_natural_origin=90 if north else -90,
            scale_factor_natural_origin=0.994,
            false_easting=2e6,
            false_northing=2e6,
        )
    )
    base = geodetic if geodetic.is_geographic else GeographicCRS(datum=geodetic.datum)
    return ProjectedCRS(conversion, name=f"{geodetic.name} in metres", geodetic_crs=base)
