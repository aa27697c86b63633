"""Places on Earth: longitudes without an end, ground cut before it is moved, local CRSs."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely

import geo_retina
from geo_retina import geodesy
from geo_retina.errors import CrsError, OptionError
from geo_retina.geodesy import WGS84, missing_crs

UTM32, UTM60, POLAR = (pyproj.CRS(f"EPSG:{n}") for n in (32632, 32660, 3995))
LOCAL = pyproj.CRS('LOCAL_CS["Arbitrary",UNIT["foot",0.3048]]')
KM = 1000.0


def lattice(x, y, side):
    along = np.linspace(0, side, 9)
    return np.stack(np.meshgrid(x + along, y + along), axis=-1).reshape(-1, 2)


def world(crs):
    """All that a CRS shows: a rectangle, reaching beyond the Earth's outline in some."""
    x, y = {4326: (180, 90), 3857: (20_037_508.34, 2e7), 54009: (1.805e7, 9.03e6)}[crs]
    return np.array([shapely.box(-x, -y, x, y)], dtype=object)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "ESRI:54009"])
@pytest.mark.parametrize(
    ("target", "x", "y"),
    [
        (UTM32, 500 * KM, 5300 * KM),
        (UTM60, 828.9 * KM, 1106.9 * KM),
        (pyproj.CRS("EPSG:32733"), 400 * KM, 7000 * KM),
    ],
)
def test_the_world_covers_every_scene(crs, target, x, y):
    around = lattice(x, y, 5 * KM)
    source = pyproj.CRS(crs)
    moved = geodesy.carry_ground(world(int(crs.split(":")[1])), source, target, around)
    assert np.isfinite(shapely.get_coordinates(moved)).all()
    scene = shapely.box(x, y, x + 5 * KM, y + 5 * KM)
    # Over the antimeridian, the outline of an oval map is met to some metres.
    assert shapely.area(shapely.intersection(moved[0], scene)) == pytest.approx(
        scene.area, rel=1e-3
    )


def test_ground_around_a_pole_is_carried_whole():
    around = lattice(-50 * KM, -50 * KM, 100 * KM)  # the pole is in it
    arctic = np.array([shapely.box(-180, 66, 180, 90)], dtype=object)
    moved = geodesy.carry_ground(arctic, WGS84, POLAR, around)[0]
    scene = shapely.box(-50 * KM, -50 * KM, 50 * KM, 50 * KM)
    assert shapely.area(shapely.intersection(moved, scene)) == pytest.approx(scene.area, rel=1e-6)


def test_carried_ground_keeps_holes_and_stays_where_it_was():
    hole = shapely.Point(9.02, 47.86).buffer(0.005)
    area = np.array([shapely.box(-10, 0, 179, 80).difference(hole), shapely.box(100, 0, 101, 1)])
    around = lattice(500 * KM, 5300 * KM, 5 * KM)
    moved = geodesy.carry_ground(area, WGS84, UTM32, around)
    assert shapely.is_empty(moved[1])  # far away
    want = geodesy.reproject(np.array([hole], dtype=object), WGS84, UTM32)[0]
    left = shapely.difference(shapely.box(500 * KM, 5300 * KM, 505 * KM, 5305 * KM), moved[0])
    assert shapely.area(shapely.symmetric_difference(left, want)) < 1e-3 * want.area


@pytest.mark.parametrize("shift", [-360, 0, 360])
def test_ground_is_found_whole_turns_away(shift):
    around = lattice(828.9 * KM, 1106.9 * KM, 2 * KM)
    area = np.array([shapely.box(179.5 + shift, 9, 180.5 + shift, 11)], dtype=object)
    moved = geodesy.carry_ground(area, WGS84, UTM60, around)[0]
    assert shapely.contains(moved, shapely.MultiPoint(around))


def test_what_crosses_the_antimeridian_stays_in_one_piece():
    box = shapely.box(828.9 * KM, 1106.9 * KM, 828.95 * KM, 1107.1 * KM)
    lon = shapely.get_coordinates(geodesy.reproject(np.array([box], dtype=object), UTM60, WGS84))[
        :, 0
    ]
    rings = shapely.get_coordinates(box).reshape(1, 5, 2)
    by_ring = geodesy.reproject_rings(rings, UTM60, WGS84)[0, :, 0]
    assert np.ptp(lon) < 0.01
    np.testing.assert_allclose(np.sort(by_ring), np.sort(lon), atol=1e-12)
    assert lon.min() < 180 < lon.max() or lon.min() < -180 < lon.max()


def test_halves_cut_at_the_antimeridian_become_one_object():
    halves = shapely.MultiPolygon([shapely.box(179.9, 0, 180, 1), shapely.box(-180, 0, -179.9, 1)])
    one = geodesy.near_longitude(np.array([halves], dtype=object), 360.0, 181.0)[0]
    assert one.geom_type == "Polygon"
    np.testing.assert_allclose(one.bounds, (179.9, 0, 180.1, 1))


@pytest.mark.parametrize("lon", [-540.0, -181.0, 9.0, 180.0005, 250.0])
def test_positions_meet_polygons_whole_turns_away(lon):
    polygon = shapely.box(lon - 0.1, 9, lon + 0.1, 11)
    moved = geodesy.from_lon_lat(np.array([[lon, 10.0]]), geodesy.metric_crs(WGS84, lon, 10.0))
    crs = geodesy.metric_crs(WGS84, lon, 10.0)
    copies = geodesy.positions_in(moved, crs, WGS84, np.array(polygon.bounds))
    assert sum(int(shapely.contains_xy(polygon, each)[0]) for each in copies) == 1


def test_only_what_comes_back_is_expressible():
    # 90 degrees of longitude from its central meridian, a transverse Mercator ends.
    lon_lat = np.array([[9.0, 47.0], [99.0, 0.0], [-81.0, 0.0]])
    assert geodesy.are_expressible(lon_lat, WGS84, UTM32).tolist() == [True, False, False]
    assert geodesy.are_expressible(np.array([[250.0, 10.0]]), WGS84, pyproj.CRS(32612)).all()


def test_a_local_crs_has_its_own_metres_and_no_other_place():
    positions = np.array([[0.0, 0.0], [1000.0, 500.0]])
    np.testing.assert_allclose(geodesy.geocentric_m(positions, LOCAL)[1], [304.8, 152.4, 0.0])
    np.testing.assert_allclose(geodesy.square_metres(positions, LOCAL), 0.3048**2)
    back = geodesy.from_lon_lat(geodesy.to_lon_lat(positions, LOCAL), LOCAL)
    np.testing.assert_allclose(back, positions, atol=1e-9)
    assert not geodesy.is_connected(LOCAL, UTM32)
    assert geodesy.is_connected(LOCAL, pyproj.CRS(LOCAL.to_wkt()))
    with pytest.raises(CrsError, match="the local CRS Arbitrary has no place on Earth"):
        geodesy.move(positions, LOCAL, UTM32)


@pytest.mark.parametrize(
    ("crs", "metres"),
    [("EPSG:2225", 1200 / 3937), ("EPSG:32633+5773", 1), ("EPSG:2193", 1), ("EPSG:3035", 1)],
)
def test_units_of_odd_crss(crs, metres):
    assert geodesy.unit_m(pyproj.CRS(crs)) == pytest.approx(metres)
    assert geodesy.full_turn(pyproj.CRS(crs)) is None


def test_full_turns():
    assert geodesy.full_turn(WGS84) == 360
    assert geodesy.full_turn(pyproj.CRS("EPSG:4979")) == 360
    assert geodesy.full_turn(pyproj.CRS("EPSG:4807")) == 400  # in gradians


def test_only_crss_of_maps_are_parsed():
    assert geodesy.parse_crs("epsg:32633") == pyproj.CRS(32633)
    for text in ("EPSG:5773", "EPSG:4978", "no such"):
        with pytest.raises(OptionError, match=r"expected .*EPSG:4326"):
            geodesy.parse_crs(text)


def test_a_missing_crs_is_said_in_the_words_of_what_lacks_it():
    assert missing_crs("a.tif", "it has no place", otherwise=", or leave it out") == (
        "a.tif has no CRS, so it has no place; give it one, for example with gdal_edit.py -a_srs "
        "EPSG:32633, or leave it out"
    )
    assert missing_crs("the labels", "they have no place", file="b.gpkg", several=True) == (
        "the labels have no CRS, so they have no place; give them the right one, for example "
        "with: ogr2ogr -a_srs EPSG:32633 fixed.gpkg b.gpkg"
    )


def test_nothing_else_says_that_a_crs_is_missing():
    package = Path(geo_retina.__file__).parent
    said = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.JoinedStr)
        for part in node.values
        if isinstance(part, ast.Constant) and " no CRS" in str(part.value)
    }
    assert said == {str(Path("geodesy", "systems.py"))}
