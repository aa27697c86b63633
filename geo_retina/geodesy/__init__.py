"""Coordinate systems: their names and units, and moving positions and ground between them.

All that knows about places on Earth is here. Positions are float64, x before y whatever the axis
order of a CRS's authority. Longitudes have no beginning and no end: what comes out in degrees is in
one piece, also where it crosses the antimeridian, and is then counted beyond 180.
"""

from geo_retina.geodesy.directions import turn_azimuths
from geo_retina.geodesy.positions import (
    METRES_A_DEGREE,
    are_expressible,
    from_lon_lat,
    geocentric_m,
    middle_longitude,
    move,
    positions_in,
    square_metres,
    steps_on_ellipsoid_m,
    to_lon_lat,
    true_aspect,
    wrap,
)
from geo_retina.geodesy.reprojection import (
    carry_ground,
    densify,
    move_outlines,
    near_longitude,
    reproject,
    reproject_rings,
)
from geo_retina.geodesy.systems import (
    FALLBACK_CRS,
    WGS84,
    crs_label,
    full_turn,
    is_connected,
    is_on_earth,
    is_same,
    metric_crs,
    missing_crs,
    parse_crs,
    transformer,
    unit_m,
)

__all__ = [
    "FALLBACK_CRS",
    "METRES_A_DEGREE",
    "WGS84",
    "are_expressible",
    "carry_ground",
    "crs_label",
    "densify",
    "from_lon_lat",
    "full_turn",
    "geocentric_m",
    "is_connected",
    "is_on_earth",
    "is_same",
    "metric_crs",
    "middle_longitude",
    "missing_crs",
    "move",
    "move_outlines",
    "near_longitude",
    "parse_crs",
    "positions_in",
    "reproject",
    "reproject_rings",
    "square_metres",
    "steps_on_ellipsoid_m",
    "to_lon_lat",
    "transformer",
    "true_aspect",
    "turn_azimuths",
    "unit_m",
    "wrap",
]
