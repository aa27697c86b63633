import pickle
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from support.stubs import NORTH_UP, ROTATED, write_scene

from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene import describe_scene, find_scenes, fingerprint, open_scene, scene_names
from geo_retina.scene.datasets import open_dataset


def positions(height: int, width: int) -> np.ndarray:
    """Two bands whose values are their own column and row."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([cols, rows]).astype(np.uint16)


def test_a_window_holds_the_pixels_of_its_place(tmp_path):
    scene = open_scene(write_scene(tmp_path / "a.tif", positions(90, 130), affine=ROTATED))
    pixels, valid = scene.read(Window(10, 20, 30, 40))
    assert pixels.dtype == np.uint16
    assert valid.all()
    np.testing.assert_array_equal(pixels, positions(90, 130)[:, 10:40, 20:60])
    assert scene.grid.affine == ROTATED
    assert scene.grid_to_file == Affine.identity()


def test_a_window_beyond_the_grid_is_padded_and_not_valid(tmp_path):
    scene = open_scene(write_scene(tmp_path / "a.tif", positions(50, 60) + 1))
    pixels, valid = scene.read(Window(-5, 40, 20, 30))
    assert valid.sum() == 15 * 20
    np.testing.assert_array_equal(
        pixels[:, valid].reshape(2, 15, 20), positions(50, 60)[:, :15, 40:] + 1
    )
    assert (pixels[:, ~valid] == 0).all()
    outside, nowhere = scene.read(Window(500, 500, 8, 8))
    assert outside.shape == (2, 8, 8)
    assert not nowhere.any()


def test_bands_come_in_the_order_asked(tmp_path):
    path = write_scene(tmp_path / "a.tif", positions(20, 20), descriptions=("x", "y"))
    scene = open_scene(path, bands=(2, 1))
    assert scene.band_names == ("y", "x")
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0], positions(20, 20)[::-1])


def test_nodata_is_invalid_only_where_every_band_has_it(tmp_path):
    pixels = np.ones((2, 8, 8), np.uint8)
    pixels[:, 0, 0] = 0
    pixels[0, 1, 1] = 0
    _, valid = open_scene(write_scene(tmp_path / "a.tif", pixels, nodata=0)).read(
        Window(0, 0, 8, 8)
    )
    assert not valid[0, 0]
    assert valid.sum() == 63


def test_nan_is_invalid(tmp_path):
    pixels = np.ones((1, 8, 8), np.float32)
    pixels[0, 2, 3] = np.nan
    _, valid = open_scene(write_scene(tmp_path / "a.tif", pixels)).read(Window(0, 0, 8, 8))
    assert np.argwhere(~valid).tolist() == [[2, 3]]


def test_an_alpha_band_is_a_mask_unless_it_is_asked_for(tmp_path):
    import rasterio

    pixels = np.full((4, 16, 16), 9, np.uint8)
    pixels[3, :, :4] = 0
    path = write_scene(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]
    scene = open_scene(path)
    assert scene.bands == (1, 2, 3)
    assert scene.read(scene.grid.window)[1].sum() == 16 * 12
    infrared = open_scene(path, bands=(1, 2, 3, 4))
    assert infrared.read(infrared.grid.window)[1].all()


def test_resampling_keeps_the_ground_and_maps_back_to_the_file(tmp_path):
    scene = open_scene(write_scene(tmp_path / "a.tif", positions(100, 200)), gsd_m=1.0)
    assert scene.grid.shape == (50, 100)
    assert scene.grid.gsd_m == pytest.approx(1.0)
    assert scene.grid_to_file @ (100, 50) == pytest.approx((200, 100))
    pixels, valid = scene.read(scene.grid.window)
    assert valid.all()
    # A pixel that averages columns 2i and 2i + 1 has the value 2i + 0.5, rounded.
    np.testing.assert_allclose(pixels[0, 25], 2 * np.arange(100) + 0.5, atol=0.6)


def test_a_geographic_scene_is_read_on_a_metric_grid(tmp_path):
    affine = Affine(1e-5, 0, 15.0, 0, -1e-5, 45.0)
    scene = open_scene(
        write_scene(tmp_path / "a.tif", positions(300, 300), affine=affine, crs="EPSG:4326")
    )
    assert scene.grid.crs.to_epsg() == 32633
    assert scene.grid_to_file is None
    assert 0.7 < scene.grid.gsd_m < 1.2
    pixels, valid = scene.read(scene.grid.window)
    centre = scene.grid.height // 2, scene.grid.width // 2
    assert valid[centre]
    assert float(pixels[0][centre]) == pytest.approx(150, abs=3)


def test_the_handle_travels_and_threads_read_alike(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    scene = open_scene(write_scene(tmp_path / "a.tif", positions(256, 256)))
    scene.read(Window(0, 0, 8, 8))
    copy = pickle.loads(pickle.dumps(scene))
    windows = [Window(r, c, 64, 64) for r in range(0, 256, 64) for c in range(0, 256, 64)]
    with ThreadPoolExecutor(4) as pool:
        for window, (pixels, _) in zip(windows * 4, pool.map(copy.read, windows * 4), strict=True):
            assert pixels[0, 0, 0] == window.col
            assert pixels[1, 0, 0] == window.row


def test_a_replaced_file_is_read_anew(tmp_path):
    path = write_scene(tmp_path / "a.tif", np.full((1, 16, 16), 1, np.uint8))
    scene = open_scene(path)
    before = fingerprint(str(path))
    assert scene.read(Window(0, 0, 4, 4))[0].max() == 1
    path.unlink()
    write_scene(path, np.full((1, 16, 16), 2, np.uint8))
    assert scene.read(Window(0, 0, 4, 4))[0].min() == 2
    assert fingerprint(str(path)) != before


def test_overview_averages(tmp_path):
    scene = open_scene(write_scene(tmp_path / "a.tif", np.full((1, 200, 100), 7, np.uint8)))
    pixels, valid, scale = scene.overview(50)
    assert pixels.shape == (1, 50, 25)
    assert valid.all()
    assert scale == 4
    assert (pixels == 7).all()


def test_a_truncated_file_is_one_sentence(tmp_path):
    rng = np.random.default_rng(0)
    path = write_scene(tmp_path / "a.tif", rng.integers(0, 255, (3, 512, 512), np.uint8))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(SceneError, match=r"a\.tif (cannot be read|is not a raster)") as caught:
        open_scene(path).read(Window(0, 0, 512, 512))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("missing.tif", "does not exist"), ("note.txt", "is not a raster")],
)
def test_what_is_no_raster_is_refused(tmp_path, name, text):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(SceneError, match=text):
        open_scene(tmp_path / name)


def test_a_missing_band_is_refused(tmp_path):
    path = write_scene(tmp_path / "a.tif", positions(20, 20))
    with pytest.raises(SceneError, match="has 2 bands, but no band 4; name bands from 1 to 2"):
        open_scene(path, bands=(1, 4))


def test_folders_and_globs_are_sorted_and_each_scene_comes_once(tmp_path):
    for name in ("b.tif", "a.tif", "c.TIF", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    names = [str(tmp_path / n) for n in ("a.tif", "b.tif", "c.TIF")]
    assert find_scenes(tmp_path) == names
    assert find_scenes([tmp_path / "b.tif", str(tmp_path / "*.tif")]) == [names[1], names[0]]
    with pytest.raises(SceneError, match=r"no file matches .*\*\.jp2"):
        find_scenes(str(tmp_path / "*.jp2"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="holds no raster"):
        find_scenes(tmp_path / "empty")


def test_hidden_files_are_left_out_and_brackets_of_folders_are_names(tmp_path):
    folder = tmp_path / "site [2020]"
    folder.mkdir()
    for name in ("a.tif", "._a.tif", "a.tif.aux.xml", "a.tif.ovr"):
        (folder / name).write_bytes(b"")
    (folder / "scenes.txt").write_bytes("*.tif\r\n".encode("utf-16"))
    only = [str(folder / "a.tif")]
    assert find_scenes(folder) == only
    assert find_scenes(str(folder / "*.tif*")) == only
    assert find_scenes(folder / "scenes.txt") == only


def test_description_names_what_people_ask_for(tmp_path):
    path = write_scene(tmp_path / "a.tif", positions(90, 130), affine=NORTH_UP, nodata=0)
    text = describe_scene(path)
    assert text["size"] == "130 x 90 px (width x height)"
    assert text["pixel"] == "0.5 m"
    assert text["CRS"].startswith("EPSG:32633")
    assert text["nodata"] == "0"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_its_own_handles(tmp_path):
    import os

    scene = open_scene(write_scene(tmp_path / "a.tif", positions(256, 256)))
    scene.read(Window(0, 0, 64, 64))
    child = os.fork()
    if child == 0:
        from geo_retina.scene.reading import _handles

        os._exit(0 if not _handles.datasets and scene.read(Window(64, 0, 1, 1))[1].all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert scene.read(Window(64, 0, 1, 1))[0].ravel().tolist() == [0, 64]


@pytest.mark.parametrize("how", [{"gsd_m": 1.0}, {"crs": "EPSG:4326"}])
def test_infrared_that_calls_itself_alpha_changes_nothing_where_it_is_resampled(tmp_path, how):
    import rasterio

    crs = how.pop("crs", "EPSG:32633")
    affine = Affine(1e-5, 0, 15.0, 0, -1e-5, 45.0) if crs == "EPSG:4326" else NORTH_UP
    pixels = np.random.default_rng(0).integers(1, 255, (4, 120, 100), np.uint8)
    paths = [
        write_scene(tmp_path / f"{name} & co.tif", pixels, affine=affine, crs=crs)
        for name in ("undefined", "alpha")
    ]
    kinds = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with rasterio.open(paths[1], "r+") as dataset:
        dataset.colorinterp = kinds
    plain, alpha = (open_scene(path, bands=(1, 2, 3, 4), **how) for path in paths)
    window = Window(-3, -3, plain.grid.height + 6, plain.grid.width + 6)
    for a, b in zip(plain.read(window), alpha.read(window), strict=True):
        np.testing.assert_array_equal(a, b)
    assert 0 < plain.read(window)[1].mean() < 1


def test_nodata_that_is_no_value_is_invalid_in_any_band(tmp_path):
    pixels = np.ones((2, 8, 8), np.int16)
    pixels[0, 1, 1] = -9999
    _, valid = open_scene(write_scene(tmp_path / "a.tif", pixels, nodata=-9999)).read(
        Window(0, 0, 8, 8)
    )
    assert np.argwhere(~valid).tolist() == [[1, 1]]


def test_one_file_by_two_names_is_one_scene(tmp_path, monkeypatch):
    write_scene(tmp_path / "a.tif", positions(20, 20))
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)
    assert find_scenes(["a.tif", "./a.tif", tmp_path / "a.tif", "link.tif"]) == ["a.tif"]


def test_scenes_of_one_stem_are_told_apart():
    assert scene_names(["2018/a.tif", "2020/a.tif", "b.tif"]) == ["2018/a.tif", "2020/a.tif", "b"]


def test_many_threads_open_files_without_a_place_quietly(tmp_path):
    """Warnings are errors here, and the filter that ignores one belongs to all threads."""
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "a.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8"):
            pass
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_dataset(str(path)).close(), range(400)))
    assert warnings.filters == before
