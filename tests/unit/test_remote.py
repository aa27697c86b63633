"""Reading over HTTP, against a server on this machine that counts and fails."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from support.http_server import serve
from support.stubs import write_scene

from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene import find_scenes, fingerprint, open_scene, scene_names
from geo_retina.scene.remote import gdal_settings

WINDOW = Window(1000, 1300, 700, 600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COG of 2048 x 2048 px whose blocks barely compress, so that bytes mean something."""
    folder = tmp_path_factory.mktemp("served")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2048, 2048), np.uint8)
    write_scene(folder / "plain.tif", pixels)
    copy(folder / "plain.tif", folder / "cog.tif", driver="COG", compress="deflate", blocksize=256)
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(folder) as served:
        yield served


def fresh(server, folder, name):
    """The COG under a name that GDAL has not cached."""
    (folder / name).hardlink_to(folder / "cog.tif")
    return f"{server.url}/{name}"


def block_bytes(path, window):
    """Compressed bytes of the file's blocks that a window meets."""
    col, row, right, bottom = window.box_px
    with rasterio.open(path) as dataset:
        return sum(
            int(dataset.get_tag_item(f"BLOCK_SIZE_{j}_{i}", "TIFF", bidx=1))
            for (i, j), block in dataset.block_windows(1)
            if block.row_off < bottom
            and block.row_off + block.height > row
            and block.col_off < right
            and block.col_off + block.width > col
        )


def test_a_window_costs_the_bytes_of_its_blocks_and_few_requests(server, folder):
    url = fresh(server, folder, "count.tif")
    scene = open_scene(url, bands=(1, 2, 3))
    assert server.requests["count.tif"] <= 2  # how long it is, and its head
    pixels, valid = scene.read(WINDOW)
    needed = block_bytes(folder / "cog.tif", WINDOW)
    assert needed <= server.bytes["count.tif"] <= 1.2 * needed
    rows_of_blocks = 4
    assert server.requests["count.tif"] <= 2 + rows_of_blocks
    # Nothing was looked for beside the file.
    assert set(server.requests) == {"count.tif"}
    expected = open_scene(folder / "cog.tif", bands=(1, 2, 3)).read(WINDOW)
    np.testing.assert_array_equal(pixels, expected[0])
    np.testing.assert_array_equal(valid, expected[1])


def test_a_busy_server_is_asked_again(server, folder, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    url = fresh(server, folder, "busy.tif")
    server.failures = 2
    scene = open_scene(url, bands=(1,))
    server.failures = 2
    pixels, _ = scene.read(WINDOW)
    assert server.failures == 0
    with rasterio.open(folder / "cog.tif") as dataset:
        np.testing.assert_array_equal(pixels, dataset.read([1])[:, 1000:1700, 1300:1900])


def test_the_users_settings_win(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    with gdal_settings("https://example.com/a.tif") as env:
        assert "GDAL_HTTP_MAX_RETRY" not in env.options
        assert env.options["GDAL_HTTP_RETRY_DELAY"] == "0.5"
    with (
        rasterio.Env(GDAL_HTTP_RETRY_DELAY="9"),
        gdal_settings("s3://bucket/a.tif") as env,
    ):
        assert "GDAL_HTTP_RETRY_DELAY" not in env.options


def test_local_files_keep_their_masks_beside_them():
    with gdal_settings("a.tif") as nothing:
        assert nothing is None
    with gdal_settings("a.vrt") as env:
        assert "GDAL_DISABLE_READDIR_ON_OPEN" not in env.options
        assert "GDAL_HTTP_MAX_RETRY" in env.options


def test_s3_goes_through_gdal(server, folder, monkeypatch):
    """The bucket is a folder of the local server, by GDAL's own settings for such a thing."""
    bucket = folder / "bucket"
    bucket.mkdir(exist_ok=True)
    (bucket / "s3.tif").hardlink_to(folder / "cog.tif")
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    scene = open_scene("s3://bucket/s3.tif", bands=(1,))
    pixels, _ = scene.read(Window(0, 0, 64, 64))
    with rasterio.open(folder / "cog.tif") as dataset:
        np.testing.assert_array_equal(pixels, dataset.read([1])[:, :64, :64])


def test_a_missing_address_is_an_error_that_names_it(server):
    with pytest.raises(SceneError, match=r"nowhere\.tif"):
        open_scene(f"{server.url}/nowhere.tif")


def test_signed_addresses_do_not_leak_into_names():
    signed = "https://example.com/x/a%20b.tif?sig=secret.part"
    assert find_scenes(signed) == [signed]
    assert scene_names([signed]) == ["a b"]
    other = "https://example.com/y/a%20b.tif?sig=other"
    assert not any("sig" in name for name in scene_names([signed, other]))
    assert fingerprint(signed) == {}
