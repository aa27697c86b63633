"""Pixels that are their own positions, placed by everything that places pixels."""

import pickle
import re

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from support.rasters import (
    STEP,
    control_points,
    position_image,
    straight_rpcs,
    write_raster,
)
from support.stubs import NORTH_UP

from geo_retina.boxes import to_polygons
from geo_retina.errors import SceneError
from geo_retina.scene import describe_reading, describe_scene, open_scene

SHAPE = (240, 320)


def check_positions(scene, to_px, tolerance_px=0.3):
    """Every valid pixel must hold the position in the file to which its ground belongs.

    ``to_px`` moves (N, 2) positions in the scene's CRS to the file's pixels, by other means than
    the scene's.
    """
    pixels, valid = scene.read(scene.grid.window)
    rows, cols = np.nonzero(valid)
    assert len(rows) > 0.5 * SHAPE[0] * SHAPE[1] / scene.resampling_factor**2
    ground = scene.grid.pixels_to_crs(np.column_stack([cols, rows]) + 0.5)
    move = pyproj.Transformer.from_crs(scene.grid.crs, scene.crs, always_xy=True)
    found = pixels[:, rows, cols].T / STEP
    wanted = to_px(np.column_stack(move.transform(*ground.T)))
    inner = ((wanted > 2) & (wanted < np.array(SHAPE[::-1]) - 2)).all(axis=1)
    assert inner.mean() > 0.9
    assert np.abs(found - wanted)[inner].max() < tolerance_px + 0.5 * scene.resampling_factor / STEP


def inverse(affine):
    def to_px(points):
        return np.column_stack(~affine @ tuple(points.T))

    return to_px


def write(path, affine=None, crs=None, **profile):
    if affine is not None:
        profile["transform"] = affine
    return write_raster(path, position_image(*SHAPE), crs=crs, **profile)


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(1e-5, 0, 15, 0, -0.7e-5, 45)),
        ("EPSG:4269", Affine(1e-5, 0, -110, 0, -0.7e-5, 45)),  # another datum
        (
            "EPSG:4326",
            Affine.translation(15, -45) @ Affine.rotation(30) @ Affine.scale(1e-5, -1e-5),
        ),
        ("EPSG:4326", Affine(4e-5, 0, 20, 0, -1e-5, 86)),  # north of UTM
        ("EPSG:4326", Affine(4e-5, 0, 20, 0, 1e-5, -85)),  # south of it, and south-up
        ("EPSG:4326", Affine(1e-5, 0, 180 - 160e-5, 0, -1e-5, 10)),  # over the antimeridian
    ],
    ids=["plain", "nad83", "rotated", "north pole", "south pole", "antimeridian"],
)
def test_a_geographic_scene_is_read_in_metres(tmp_path, crs, affine):
    scene = open_scene(write(tmp_path / "a.tif", affine, crs))
    assert scene.crs == pyproj.CRS(crs)
    assert scene.grid.crs.is_projected
    assert scene.grid_to_file is None
    assert scene.grid.crs.geodetic_crs.name == scene.crs.name
    assert abs(scene.resampling_factor - 1) < 0.01
    to_px = inverse(affine)
    check_positions(scene, lambda p: to_px(np.column_stack([_near(p[:, 0], affine.c), p[:, 1]])))


def _near(lon, start):
    return start + (lon - start + 180) % 360 - 180


def test_a_geographic_scene_at_the_models_resolution(tmp_path):
    affine = Affine(1e-5, 0, 15, 0, -1e-5, 45)
    scene = open_scene(write(tmp_path / "a.tif", affine, "EPSG:4326"), gsd_m=2.0)
    assert scene.grid.gsd_m == pytest.approx(2.0)
    assert scene.resampling_factor == pytest.approx(2 / scene.file_gsd_m)
    check_positions(scene, inverse(affine))
    assert "factor 2.1" in describe_reading(scene)["resampling"]


def test_a_scene_of_half_the_globe_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", Affine(0.5, 0, -90, 0, -0.5, 60), "EPSG:4326")
    with pytest.raises(SceneError, match="more ground than one map in metres"):
        open_scene(path)


SHEARED = Affine(0.5, 0.2, 400_000, 0.1, -0.6, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 400_000, 0, 0.5, 5_000_000)
FLAT = Affine(0.5, 0, 400_000, 0, -1.5, 5_000_000)


@pytest.mark.parametrize("affine", [SHEARED, SOUTH_UP, FLAT], ids=["sheared", "south-up", "flat"])
def test_any_affine_places_pixels_and_polygons_exactly(tmp_path, affine):
    path = write(tmp_path / "a.tif", affine, "EPSG:32633")
    scene = open_scene(path)
    assert scene.grid.affine == affine
    polygon = to_polygons(np.array([[10.0, 20, 30, 25]]), scene.grid)[0]
    corners = [affine @ corner for corner in [(10, 20), (30, 20), (30, 25), (10, 25)]]
    found = np.array(polygon.exterior.coords)[:4]
    np.testing.assert_allclose(
        found[np.lexsort(found.T)], np.array(corners)[np.lexsort(np.array(corners).T)], atol=1e-6
    )
    assert polygon.exterior.is_ccw
    resampled = open_scene(path, gsd_m=scene.grid.gsd_m * 1.7)
    check_positions(resampled, inverse(affine))


def test_flat_pixels_become_square_where_they_are_resampled(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", FLAT, "EPSG:32633"), gsd_m=1.0)
    assert scene.grid.shape == (360, 160)
    assert (scene.grid.affine.a, scene.grid.affine.e) == (1.0, -1.0)


@pytest.mark.parametrize(
    ("crs", "metre"), [("EPSG:2263", 0.3048006096), ("EPSG:2222", 0.3048)], ids=["US", "intl"]
)
def test_feet_are_no_metres(tmp_path, crs, metre):
    affine = Affine(2, 0, 1_000_000, 0, -2, 200_000)
    path = write(tmp_path / "a.tif", affine, crs)
    assert open_scene(path).grid.gsd_m == pytest.approx(2 * metre)
    scene = open_scene(path, gsd_m=1.0)
    assert scene.grid.affine.a == pytest.approx(1 / metre, rel=0.01)
    check_positions(scene, inverse(affine))


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:2263"])
def test_control_points_place_a_scene(tmp_path, crs):
    origin, step = {
        "EPSG:32633": ((400_000, 5_000_000), 1.0),
        "EPSG:4326": ((15, 45), 1e-5),
        "EPSG:2263": ((1_000_000, 200_000), 2.0),
    }[crs]
    affine = Affine.translation(*origin) @ Affine.rotation(25) @ Affine.scale(step, -step)
    path = write(tmp_path / "a.tif", crs=crs, gcps=control_points(affine, *SHAPE))
    scene = pickle.loads(pickle.dumps(open_scene(path)))
    assert scene.crs == pyproj.CRS(crs)
    assert scene.grid_to_file is None
    check_positions(scene, inverse(affine))
    check_positions(open_scene(path, gsd_m=2 * scene.grid.gsd_m), inverse(affine))
    assert "control points" in describe_scene(path)["placed by"]


def rpcs_to_px(lon, lat, step):
    def to_px(points):
        centre = np.array(SHAPE[::-1]) / 2
        return centre + (points - [lon, lat]) / step * [1, -1]

    return to_px


def test_rpcs_place_a_scene(tmp_path):
    rpcs = straight_rpcs(15, 45, 1e-5, *SHAPE)
    path = write(tmp_path / "a.tif", rpcs=rpcs)
    scene = open_scene(path)
    assert scene.crs.to_epsg() == 4326
    assert scene.grid.gsd_m == pytest.approx(0.94, abs=0.03)
    check_positions(scene, rpcs_to_px(15, 45, 1e-5))
    assert describe_scene(path)["placed by"].startswith("RPCs")


def test_rpcs_of_a_scene_with_overviews(tmp_path):
    path = write(
        tmp_path / "a.tif",
        rpcs=straight_rpcs(15, 45, 1e-5, *SHAPE),
        change=lambda d: d.build_overviews([2, 4], Resampling.average),
    )
    scene = open_scene(path, gsd_m=4.2)
    assert "OVERVIEW_LEVEL" in scene.view
    check_positions(scene, rpcs_to_px(15, 45, 1e-5), tolerance_px=1.0)


def level_read(scene):
    """Find the overview that a scene is read from; None for the file itself."""
    if scene.source is not None:
        return scene.source.overview_level
    found = re.search(r'"OVERVIEW_LEVEL">(\d+)<', scene.view)
    return found and int(found[1])


@pytest.mark.parametrize("dims", [SHAPE, (241, 319)])
def test_overviews_are_used_as_far_as_they_are_fine_enough(tmp_path, dims):
    def mark(dataset):
        dataset.build_overviews([2, 4, 8], Resampling.average)

    path = write_raster(
        tmp_path / "a.tif", position_image(*dims), mark, crs="EPSG:32633", transform=NORTH_UP
    )
    for gsd_m, level in [(0.7, None), (1.0, 0), (1.9, 0), (2.1, 1), (16.0, 2)]:
        scene = open_scene(path, gsd_m=gsd_m)
        assert level_read(scene) == level
        pixels, valid = scene.read(scene.grid.window)
        assert valid.all()
        rows, cols = np.mgrid[: scene.grid.height, : scene.grid.width] + 0.5
        wanted = np.stack([cols * scene.grid_to_file.a, rows * scene.grid_to_file.e])
        inner = np.s_[:, 2:-2, 2:-2]
        np.testing.assert_allclose(
            (pixels / STEP)[inner], wanted[inner], atol=0.4 + 0.1 * gsd_m / 0.5
        )


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_overviews_own_pixels_are_seen(tmp_path):
    """An overview that was drawn over tells where pixels come from."""
    import rasterio

    ramp = np.tile(np.arange(64, dtype=np.uint8).repeat(4), (1, 256, 1))
    path = write_raster(
        tmp_path / "a.tif",
        ramp,
        crs="EPSG:32633",
        transform=NORTH_UP,
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    sidecar = path.with_suffix(".tif.ovr")
    assert sidecar.exists()
    with rasterio.open(sidecar, "r+") as dataset:
        dataset.write(ramp[:, ::2, ::2] + 99)
    assert (open_scene(path).read(open_scene(path).grid.window)[0] == ramp).all()
    half = open_scene(path, gsd_m=1.0)
    assert (half.read(half.grid.window)[0] == ramp[:, ::2, ::2] + 99).all()
    quarter = open_scene(path, gsd_m=2.0)
    assert (quarter.read(quarter.grid.window)[0] == ramp[:, ::4, ::4]).all()


def test_a_scene_of_no_place_is_in_pixels_with_y_up(tmp_path):
    with pytest.warns(UserWarning, match="no geotransform"):
        path = write(tmp_path / "a.tif")
    scene = open_scene(path)
    assert scene.crs is None
    assert scene.grid.crs is None
    assert scene.grid_to_file == Affine.identity()
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0], position_image(*SHAPE))
    polygon = to_polygons(np.array([[10.0, 20, 30, 25]]), scene.grid)[0]
    assert polygon.bounds == (10, -25, 30, -20)
    with pytest.raises(SceneError, match="no CRS, so it cannot be resampled"):
        open_scene(path, gsd_m=1.0)


def test_a_scene_with_an_affine_keeps_it_without_a_crs(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", NORTH_UP))
    assert scene.grid.crs is None
    assert scene.grid.affine == NORTH_UP


def test_infrared_that_is_declared_alpha_weighs_nothing_in_a_view(tmp_path):
    pixels = np.concatenate([position_image(*SHAPE), np.zeros((2, *SHAPE), np.uint16)])
    pixels[3, :, 100:200] = 7

    def declare(dataset):
        dataset.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]
        dataset.build_overviews([2], Resampling.average)

    path = write_raster(tmp_path / "a.tif", pixels, declare, crs="EPSG:32633", transform=NORTH_UP)
    for gsd_m in (0.8, 1.0):
        named = open_scene(path, bands=(1, 2, 3, 4), gsd_m=gsd_m)
        assert named.read(named.grid.window)[1].all()
        assert named.read(named.grid.window)[0][3].max() == 7
        masked = open_scene(path, gsd_m=gsd_m)
        assert masked.bands == (1, 2, 3)
        assert masked.read(masked.grid.window)[1].mean() == pytest.approx(100 / 320, abs=0.02)
