"""Oriented boxes, against shapely and pyproj."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from geo_retina.boxes import clip as clip_upright
from geo_retina.boxes import oriented, to_rings
from geo_retina.grid import Grid

NONE = np.empty((0, 5))
UTM = pyproj.CRS("EPSG:32633")


def some(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-50, 150, (count, 2))
    sides = rng.uniform(0.5, 80, (count, 2))
    angle = rng.choice([*rng.uniform(-90, 90, 20), -90.0, 0.0, 45.0], count)
    return oriented.normalise(np.column_stack([centre, sides, angle]))


def polygons(rotated: np.ndarray) -> np.ndarray:
    """Made by shapely's own turning of an upright box."""
    return np.array(
        [
            shapely.affinity.rotate(
                shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2),
                angle,  # from x to y, whichever way y points
                origin=(x, y),
            )
            for x, y, length, width, angle in rotated
        ]
    )


def same(found: np.ndarray, wanted: np.ndarray, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(found[:, :4], wanted[:, :4], atol=atol)
    turn = np.where(wanted[:, 2] - wanted[:, 3] < 1e-6, 90, 180)
    apart = (found[:, 4] - wanted[:, 4] + turn / 2) % turn - turn / 2
    np.testing.assert_allclose(apart, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([1, 2, 8, 3, 0], [1, 2, 8, 3, 0]),
        ([1, 2, 3, 8, 0], [1, 2, 8, 3, -90]),
        ([1, 2, 8, 3, 90], [1, 2, 8, 3, -90]),
        ([1, 2, 3, 8, -90], [1, 2, 8, 3, 0]),
        ([1, 2, 8, 3, 725], [1, 2, 8, 3, 5]),
        ([1, 2, 4, 4, 80], [1, 2, 4, 4, -10]),
        ([1, 2, 4, 4, 45], [1, 2, 4, 4, -45]),
        ([1, 2, 8, 3, -90 - 1e-15], [1, 2, 8, 3, -90]),
    ],
)
def test_normalise(row, wanted):
    assert oriented.normalise([row]).tolist() == [wanted]


def test_normalised_angles_are_in_range_and_stay():
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.random((9999, 4)), rng.choice(np.arange(-999, 999, 7.5), 9999)])
    rows[::3, 3] = rows[::3, 2]
    rows[::2, 4] -= 1e-14
    once = oriented.normalise(rows)
    assert (once[:, 2] >= once[:, 3]).all()
    low = np.where(once[:, 2] == once[:, 3], -45, -90)
    assert ((once[:, 4] >= low) & (once[:, 4] < -low)).all()
    assert np.array_equal(oriented.normalise(once), once)
    both = shapely.symmetric_difference(polygons(rows), polygons(once))
    assert shapely.area(both).max() < 1e-9


def test_no_boxes():
    assert oriented.normalise(NONE).shape == oriented.clip(NONE, (0, 0, 1, 1)).shape == (0, 5)
    assert oriented.corners(NONE).shape == (0, 4, 2)
    assert oriented.from_corners(np.empty((0, 4, 2))).shape == (0, 5)
    assert oriented.hull(NONE).shape == (0, 4)
    assert oriented.minimum_rectangles([]).shape == (0, 5)
    grid = Grid(UTM, Affine.identity(), 1, 1)
    assert oriented.to_rings(NONE, grid).shape == (0, 5, 2)
    assert [len(column) for column in oriented.ground_sides(NONE, grid)] == [0, 0, 0]


def test_corners_hull_and_area_are_shapelys():
    boxes = some()
    drawn = polygons(boxes)
    apart = shapely.symmetric_difference(shapely.polygons(oriented.corners(boxes)), drawn)
    assert shapely.area(apart).max() < 1e-9
    np.testing.assert_allclose(oriented.hull(boxes), shapely.bounds(drawn), atol=1e-9)
    np.testing.assert_allclose(oriented.area(boxes), shapely.area(drawn))


def test_corners_of_an_upright_box_start_top_left_and_go_clockwise():
    boxes = oriented.from_upright(np.array([[2.0, 3, 12, 7]]))
    assert oriented.corners(boxes)[0].tolist() == [[2, 3], [12, 3], [12, 7], [2, 7]]
    tall = oriented.from_upright(np.array([[2.0, 3, 7, 12]]))
    assert tall.tolist() == [[4.5, 7.5, 9, 5, -90]]
    assert oriented.hull(tall).tolist() == [[2, 3, 7, 12]]


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_corners_in_any_order_around_are_read(first, step):
    boxes = some()
    order = (first + step * np.arange(4)) % 4
    same(oriented.from_corners(oriented.corners(boxes)[:, order]), boxes)


def test_clipping_is_the_rectangle_around_the_part_inside():
    boxes, bounds = some(1500), (0.0, 0.0, 100.0, 90.0)
    found = oriented.clip(boxes, bounds)
    parts = shapely.intersection(polygons(boxes), shapely.box(*bounds))
    outside = shapely.area(parts) == 0
    assert 50 < outside.sum() < 1000
    assert (oriented.area(found)[outside] == 0).all()
    assert ((found[outside, :2] >= 0) & (found[outside, :2] <= [100, 90])).all()
    for part, box, cut in zip(parts[~outside], boxes[~outside], found[~outside], strict=True):
        lying = shapely.affinity.rotate(part, -box[4], origin=(0, 0))
        wanted = shapely.affinity.rotate(shapely.box(*lying.bounds), box[4], origin=(0, 0))
        assert shapely.symmetric_difference(wanted, polygons(cut[None])[0]).area < 1e-6
    inside = shapely.area(parts) > shapely.area(polygons(boxes)) - 1e-9
    assert np.array_equal(found[inside], boxes[inside])


def test_clipping_an_upright_box_is_the_upright_clip():
    rng = np.random.default_rng(3)
    low = rng.integers(-20, 60, (500, 2))
    boxes = np.hstack([low, low + rng.integers(1, 70, (500, 2))]).astype(float)
    wanted = clip_upright(boxes, (0, 0, 40, 50))
    found = oriented.clip(oriented.from_upright(boxes), (0, 0, 40, 50))
    has_area = (wanted[:, 2:] > wanted[:, :2]).all(axis=1)
    np.testing.assert_allclose(oriented.hull(found)[has_area], wanted[has_area], atol=1e-12)
    assert (oriented.area(found)[~has_area] == 0).all()


def test_minimum_rectangles_give_rectangles_back():
    boxes = some()
    same(oriented.minimum_rectangles(polygons(boxes)), boxes, atol=1e-8)


def test_minimum_rectangles_are_as_small_as_shapelys_and_cover():
    rng = np.random.default_rng(5)
    clouds = np.array(
        [shapely.MultiPoint(rng.normal(size=(rng.integers(3, 40), 2))) for _ in range(300)]
    )
    found = oriented.minimum_rectangles(clouds)
    assert shapely.covers(shapely.buffer(polygons(found), 1e-9), clouds).all()
    theirs = shapely.area(shapely.oriented_envelope(clouds))
    assert (oriented.area(found) <= theirs + 1e-9).all()


def test_minimum_rectangles_of_what_has_no_area():
    shapes = [shapely.LineString([(1, 1), (4, 5)]), shapely.Point(2, 3), shapely.Polygon(), None]
    found = oriented.minimum_rectangles(shapes)
    np.testing.assert_allclose(found[0], [2.5, 3, 5, 0, np.degrees(np.arctan2(4, 3))], atol=1e-12)
    assert found[1].tolist() == [2, 3, 0, 0, 0]
    assert np.isnan(found[2:]).all()


GRIDS = {
    "upright": Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000),
    "turned and sheared": Affine(0.3, 0.1, 500_000, 0.2, -0.4, 5_300_000),
    "mirrored": Affine(-0.5, 0, 500_000, 0, -0.5, 5_300_000),
}


@pytest.mark.parametrize("name", GRIDS)
def test_ground_and_back(name):
    grid, boxes = Grid(UTM, GRIDS[name], 100, 100), some()
    rings = oriented.to_rings(boxes, grid)
    same(oriented.from_rings(rings, grid), boxes, atol=1e-6)
    drawn = oriented.to_polygons(boxes, grid)
    assert shapely.is_ccw(shapely.get_exterior_ring(drawn)).all()
    a = GRIDS[name]
    placed = [
        shapely.affinity.affine_transform(p, [a.a, a.b, a.d, a.e, a.c, a.f])
        for p in polygons(boxes)
    ]
    assert max(x.symmetric_difference(y).area for x, y in zip(placed, drawn, strict=True)) < 1e-6


def test_an_upright_box_has_the_ring_of_upright_boxes():
    upright, grid = np.array([[2.0, 3, 12, 7]]), Grid(UTM, GRIDS["turned and sheared"], 9, 9)
    found = oriented.to_rings(oriented.from_upright(upright), grid)
    assert np.array_equal(found, to_rings(upright, grid))


def test_sides_in_metres_and_azimuth_from_grid_north():
    """By hand: half a metre a pixel, north up; 30 degrees clockwise from x is 120 from north."""
    grid = Grid(UTM, GRIDS["upright"], 100, 100)
    boxes = np.array([[50.0, 50, 40, 10, 30], [50, 50, 40, 10, -90], [50, 50, 40, 10, -89.5]])
    found = oriented.ground_sides(boxes, grid)
    np.testing.assert_allclose(found.azimuth_deg, [120, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.length_m, 20, rtol=5e-4)  # of the scale of UTM
    np.testing.assert_allclose(found.width_m, 5, rtol=5e-4)


def test_pixels_that_are_no_squares_may_make_the_other_side_long():
    grid = Grid(UTM, Affine(0.1, 0, 500_000, 0, -1, 5_300_000), 100, 100)
    found = oriented.ground_sides(np.array([[50.0, 50, 40, 10, 0]]), grid)
    np.testing.assert_allclose(found.azimuth_deg, 0, atol=1e-6)
    np.testing.assert_allclose([found.length_m[0], found.width_m[0]], [10, 4], rtol=5e-4)


def test_azimuths_of_a_file_in_degrees_are_geodesic():
    grid = Grid(UTM, GRIDS["upright"], 100, 100)
    boxes = np.array([[50.0, 50, 40, 10, 30]])
    found = oriented.ground_sides(boxes, grid, pyproj.CRS("EPSG:4326"))
    start, end = grid.pixels_to_crs(oriented.corners(boxes)[0, :2])
    to_lon_lat = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform
    wanted, _, length = UTM.get_geod().inv(*to_lon_lat(*start), *to_lon_lat(*end))
    np.testing.assert_allclose(found.azimuth_deg, wanted % 180, atol=1e-4)
    np.testing.assert_allclose(found.length_m, length, rtol=1e-6)


def test_scenes_that_are_in_degrees():
    grid = Grid(pyproj.CRS("EPSG:4326"), Affine(1e-5, 0, 10, 0, -1e-5, 60), 100, 100)
    found = oriented.ground_sides(np.array([[50.0, 50, 40, 10, 0], [50, 50, 40, 10, 45]]), grid)
    metres_lon, metres_lat = 55_800 * 1e-5, 111_412 * 1e-5  # at 60 degrees north, Snyder's table
    along_45 = np.hypot(metres_lon, metres_lat) * 40 / np.sqrt(2)
    # 45 degrees in pixels is steeper on the ground, where a degree of longitude is half as long.
    steep = 180 - np.degrees(np.arctan2(metres_lon, metres_lat))
    np.testing.assert_allclose(found.length_m, [40 * metres_lon, along_45], rtol=1e-3)
    np.testing.assert_allclose(found.azimuth_deg, [90, steep], atol=0.05)


@pytest.mark.parametrize(("pixel_m", "length"), [(None, np.nan), (0.2, 8)])
def test_scenes_without_a_crs(pixel_m, length):
    grid = Grid(None, Affine.identity(), 100, 100, pixel_m)
    found = oriented.ground_sides(np.array([[50.0, 50, 40, 10, 30]]), grid)
    np.testing.assert_allclose(found.azimuth_deg, 120)
    np.testing.assert_allclose(found.length_m, length)


def test_scenes_in_the_frame_of_a_site():
    site = pyproj.CRS('LOCAL_CS["site",UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]')
    grid = Grid(site, Affine(1, 0, 0, 0, -1, 0), 100, 100)
    found = oriented.ground_sides(np.array([[50.0, 50, 40, 10, 30]]), grid)
    np.testing.assert_allclose([found.azimuth_deg[0], found.length_m[0]], [120, 40 * 0.3048])
