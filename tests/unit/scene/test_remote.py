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
from geo_retina.scene.datasets import gdal_name
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


STORES = {"s3": "vsis3", "gs": "vsigs", "az": "vsiaz"}

ACCESS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GS_ACCESS_KEY_ID", "GS_NO_SIGN_REQUEST"),
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_NO_SIGN_REQUEST"),
)


@pytest.fixture
def stores(server, monkeypatch):
    """All three kinds of store are this server; a container is a folder of it."""
    host = server.url.removeprefix("http://")
    account = "DefaultEndpointsProtocol=http;AccountName=me;AccountKey=a2V5"
    for name, value in {
        "AWS_S3_ENDPOINT": host,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES",
        "CPL_GS_ENDPOINT": f"{server.url}/",
        "GS_NO_SIGN_REQUEST": "YES",
        "AZURE_STORAGE_CONNECTION_STRING": f"{account};BlobEndpoint={server.url}",
    }.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.mark.parametrize("scheme", STORES)
def test_a_store_is_read_as_a_server_is(stores, folder, scheme):
    (folder / "bucket").mkdir(exist_ok=True)
    (folder / "bucket" / f"{scheme}_store.tif").hardlink_to(folder / "cog.tif")
    path = f"{scheme}://bucket/{scheme}_store.tif"
    assert find_scenes(path) == [path]
    assert gdal_name(path) == f"/{STORES[scheme]}/bucket/{scheme}_store.tif"
    scene = open_scene(path, bands=(1, 2, 3))
    expected = open_scene(folder / "cog.tif", bands=(1, 2, 3))
    np.testing.assert_array_equal(scene.read(WINDOW)[0], expected.read(WINDOW)[0])
    # By ranges, and nothing is looked for beside the file.
    assert set(stores.requests) == {f"bucket/{scheme}_store.tif"}
    assert 0 < stores.bytes[f"bucket/{scheme}_store.tif"] < (folder / "cog.tif").stat().st_size
    # Also through a view on another grid, which names its source by GDAL's own path.
    coarse = open_scene(path, bands=(1,), gsd_m=1.0)
    wanted = open_scene(folder / "cog.tif", bands=(1,), gsd_m=1.0)
    np.testing.assert_array_equal(
        coarse.read(Window(0, 0, 90, 80))[0], wanted.read(Window(0, 0, 90, 80))[0]
    )


@pytest.mark.parametrize("scheme", STORES)
def test_every_store_has_the_settings_of_an_address(scheme, monkeypatch):
    monkeypatch.delenv("GDAL_HTTP_MAX_RETRY", raising=False)
    with gdal_settings(f"{scheme}://bucket/a.tif"):
        inside = rasterio.env.getenv()
    assert inside["GDAL_HTTP_MAX_RETRY"] == "5"
    assert inside["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"


@pytest.mark.parametrize(
    ("path", "keys", "public"),
    [
        ("s3://bucket/a.tif", "AWS_ACCESS_KEY_ID", "AWS_NO_SIGN_REQUEST=YES"),
        ("gs://bucket/a.tif", "GOOGLE_APPLICATION_CREDENTIALS", "GS_NO_SIGN_REQUEST=YES"),
        ("/vsigs/bucket/a.tif", "GOOGLE_APPLICATION_CREDENTIALS", "GS_NO_SIGN_REQUEST=YES"),
        ("az://bucket/a.tif", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_NO_SIGN_REQUEST=YES"),
    ],
)
def test_without_credentials_one_sentence_says_which(monkeypatch, tmp_path, path, keys, public):
    for name in ACCESS:
        monkeypatch.delenv(name, raising=False)
    # Neither files of the user nor a machine that would lend its own.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CPL_AWS_EC2_API_ROOT_URL", "disabled")
    monkeypatch.setenv("CPL_MACHINE_IS_GCE", "NO")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(SceneError) as caught:
        open_scene(path)
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be opened without credentials; set ")
    assert keys in said
    assert public in said
    assert "\n" not in said


def test_credentials_that_do_not_fit_are_said_to_be_so(stores, monkeypatch):
    stores.status = 403
    with pytest.raises(
        SceneError, match=r"not to be had with these credentials .*403.*; set AZURE"
    ):
        open_scene("az://bucket/forbidden.tif")
