"""File formats and compressions: what GDAL has is read, what it lacks is said."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from support.rasters import write_raster
from support.stubs import NORTH_UP

from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene import describe_scene, open_scene

PLACED = {"crs": "EPSG:32633", "transform": NORTH_UP}
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def smooth(dtype="uint8", bands=3):
    rows, cols = np.mgrid[:200, :300]
    return np.stack([rows * 0.5 + cols * 0.3 + 10 * b for b in range(bands)]).astype(dtype)


FORMATS = [
    ("a.tif", {"bigtiff": "YES", **TILED}, 0),
    ("a.tif", {"compress": "ZSTD", "predictor": 2, **TILED}, 0),
    ("a.tif", {"compress": "LERC", **TILED}, 0),
    ("a.tif", {"compress": "LERC_ZSTD", "max_z_error": 1, **TILED}, 1),
    ("a.tif", {"compress": "LZW", "interleave": "band"}, 0),
    ("a.tif", {"compress": "JPEG", "photometric": "YCBCR", "jpeg_quality": 95, **TILED}, 6),
    ("a.tif", {"compress": "WEBP", "webp_lossless": True, **TILED}, 0),
    ("a.tif", {"driver": "COG", "compress": "JPEG", "quality": 95}, 6),
    ("a.tif", {"driver": "COG", "compress": "WEBP", "quality": 100}, 0),
    ("a.tif", {"driver": "COG", "compress": "ZSTD"}, 0),
    ("a.tif", {"driver": "COG", "compress": "LERC"}, 0),
    ("a.jp2", {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES", "YCC": "NO"}, 0),
    ("a.ntf", {"driver": "NITF", "ICORDS": "N"}, 0),
    ("a.img", {"driver": "HFA"}, 0),
    ("a.png", {"driver": "PNG"}, 0),
    ("a.jpg", {"driver": "JPEG", "quality": 95}, 6),
]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("name", "how", "error"), FORMATS, ids=lambda v: str(v)[:60])
def test_formats_that_gdal_has_are_read(tmp_path, name, how, error):
    pixels = smooth()
    profile = {**PLACED, **how}
    driver = how.get("driver", "GTiff")
    with rasterio.Env() as env:
        if driver not in env.drivers():
            pytest.skip(f"this build of rasterio has no {driver} driver")
    try:
        write_raster(tmp_path / name, pixels, **profile)
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as refusal:
        pytest.skip(f"this build of rasterio cannot write {how}: {refusal}")
    scene = open_scene(tmp_path / name)
    found, valid = scene.read(Window(50, 60, 100, 200))
    assert valid.all()
    assert np.abs(found.astype(int) - pixels[:, 50:150, 60:260]).max() <= error
    assert describe_scene(tmp_path / name)["driver"] in (driver, "GTiff")
    assert scene.grid.crs.to_epsg() == 32633
    # NITF notes its corners in whole metres.
    error_m = 0.5 if name == "a.ntf" else 1e-6
    corners = np.array([[0.0, 0], [300, 0], [0, 200]])
    wanted = np.column_stack(NORTH_UP @ tuple(corners.T))
    assert np.abs(scene.grid.pixels_to_crs(corners) - wanted).max() <= error_m


def test_sidecar_overviews_and_masks_serve_together(tmp_path):
    path = write_raster(tmp_path / "a.tif", smooth(), **PLACED, **TILED)
    valid = np.zeros((200, 300), bool)
    valid[:, 120:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    assert {p.name for p in tmp_path.iterdir()} >= {"a.tif", "a.tif.msk", "a.tif.ovr"}
    scene = open_scene(path, gsd_m=2.0)
    assert scene.source.overview_level == 1
    found, shown = scene.read(scene.grid.window)
    assert shown[:, 31:].all()
    assert not shown[:, :29].any()
    np.testing.assert_allclose(found[0, 10:, 40], 21 + 2 * np.arange(40) + 48, atol=2)
    # Overviews that stayed when the scene was replaced by a larger one show other ground.
    old = (tmp_path / "a.tif.ovr").read_bytes()
    write_raster(path, np.tile(smooth(), (1, 2, 1)), **PLACED, **TILED)
    (tmp_path / "a.tif.ovr").write_bytes(old)
    with pytest.raises(SceneError, match=r"of 75 x 50 px, which does not .* 300 x 400 px of"):
        open_scene(path, gsd_m=2.0)


def test_an_overview_of_other_pixels_is_refused(tmp_path):
    """As it is left where a scene was made anew, of the same size; one in other shades is not."""
    path, sidecar = tmp_path / "a.tif", tmp_path / "a.tif.ovr"
    ground = np.random.default_rng(0).normal(size=(1, 20, 24))
    pixels = 120 + 30 * np.kron(ground, np.ones((1, 16, 16)))  # 320 x 384 px, in squares of 16
    noise = np.random.default_rng(1).normal(0, 25, pixels.shape)
    scenes = {
        "same": pixels, "noisy": 120 + noise, "shaded": 0.5 * pixels + 90,
        "turned": pixels[:, ::-1, ::-1], "black": 0 * pixels,
    }  # fmt: skip
    overviews = {}
    for name, values in scenes.items():
        write_raster(path, values.clip(0, 255).astype(np.uint8), **PLACED, **TILED)
        for how in (Resampling.average, Resampling.nearest):
            sidecar.unlink(missing_ok=True)
            with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
                dataset.build_overviews([4], how)
            overviews[name, how.name] = sidecar.read_bytes()
        path.unlink()
    for name, shown in (("same", "same"), ("same", "shaded"), ("noisy", "noisy")):
        for how in ("average", "nearest"):
            write_raster(path, scenes[name].clip(0, 255).astype(np.uint8), **PLACED, **TILED)
            sidecar.write_bytes(overviews[shown, how])
            open_scene(path, gsd_m=4.0)
    for shown in ("turned", "black"):
        write_raster(path, scenes["same"].clip(0, 255).astype(np.uint8), **PLACED, **TILED)
        sidecar.write_bytes(overviews[shown, "average"])
        with pytest.raises(SceneError, match=r"a\.tif\.ovr has an overview with other values than"):
            open_scene(path, gsd_m=4.0)


@pytest.mark.parametrize("beside", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize(("rows", "cols"), [(320, 384), (320, 192), (160, 192)])
def test_overviews_made_before_the_pixels_tell_nothing(tmp_path, beside, nodata, rows, cols):
    """As they are where a mosaic is written into a file that already has some."""
    path = tmp_path / "a.tif"
    cells = np.random.default_rng(0).integers(40, 200, (1, 20, 24))
    pixels = np.kron(cells, np.ones((1, 16, 16))).astype(np.uint8)
    before = pixels.copy()
    before[:, -rows:, -cols:] = 0
    write_raster(path, before, nodata=nodata, **PLACED, **TILED)
    with rasterio.Env(TIFF_USE_OVR=beside), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(pixels)
    seen, valid = open_scene(path).read(Window(0, 0, 320, 384))
    assert valid.all()
    np.testing.assert_array_equal(seen, pixels)
    for gsd_m in (2.0, 4.0):
        with pytest.raises(SceneError, match=r"an overview with other values than .*gdaladdo"):
            open_scene(path, gsd_m=gsd_m)


@pytest.mark.parametrize(("level", "spread"), [(12.4, 0.5), (254.8, 0.3), (12.3, 1.5), (0.2, 0.4)])
@pytest.mark.parametrize("how", [Resampling.average, Resampling.cubic, Resampling.mode])
@pytest.mark.parametrize("packed", [{}, {"compress": "JPEG", "jpeg_quality": 75}])
def test_overviews_of_flat_ground_are_its_own(tmp_path, level, spread, how, packed):
    """Water and clouds, where rounding and compression are more than the ground's own texture."""
    random = np.random.default_rng(0)
    pixels = np.kron(random.integers(40, 200, (1, 64, 64)), np.ones((1, 16, 16)))
    pixels[:, :600, :600] = random.normal(level, spread, (600, 600)).round()
    path = tmp_path / "a.tif"
    pixels = pixels.clip(0, 255).astype(np.uint8)
    write_raster(path, pixels, nodata=0, **PLACED, **TILED, **packed)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], how)
    for gsd_m in (1.0, 2.0, 4.0):
        open_scene(path, gsd_m=gsd_m)


def test_one_of_several_rasters_must_be_named(tmp_path):
    path = tmp_path / "a.gpkg"
    for table, append in (("first", "NO"), ("second", "YES")):
        write_raster(
            path,
            smooth(),
            driver="GPKG",
            RASTER_TABLE=table,
            APPEND_SUBDATASET=append,
            TILE_FORMAT="PNG",
            **PLACED,
        )
    with pytest.raises(SceneError, match=r"holds 2 rasters and none of its own.*first"):
        open_scene(path)
    scene = open_scene(f"GPKG:{path}:second")
    found, valid = scene.read(Window(0, 0, 200, 300))
    np.testing.assert_array_equal(found[:, valid], smooth()[:, valid])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.ecw", "needs GDAL's driver ECW, which is not in this build"),
        ("a.sid", "needs GDAL's driver MrSID"),
        ("a.xyzzy", "is not a raster that GDAL can open"),
    ],
)
def test_a_driver_that_is_absent_is_named(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"\x00" * 100)
    with rasterio.Env() as env:
        if {"ECW", "MrSID"} & set(env.drivers()):
            pytest.skip("this build of rasterio has the drivers that others lack")
    with pytest.raises(SceneError, match=said) as caught:
        open_scene(tmp_path / name)
    assert ("gdal_translate" in str(caught.value)) == (name != "a.xyzzy")


def test_complex_pixels_are_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 8, 8), np.complex64), **PLACED)
    with pytest.raises(SceneError, match=r"has complex64 pixels.*amplitude"):
        open_scene(path)
