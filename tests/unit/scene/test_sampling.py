"""How much of a scene is ground, estimated without a look at all of it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from support.rasters import break_block, write_raster
from support.stubs import NORTH_UP

from geo_retina.grid import Window
from geo_retina.scene import open_scene, valid_shares
from geo_retina.scene.reading import Scene

PLACED = {"crs": "EPSG:32633", "transform": NORTH_UP, "tiled": True,
          "blockxsize": 128, "blockysize": 128}  # fmt: skip


def ground(side: int) -> np.ndarray:
    """Ground below a slant from corner to corner."""
    pixels = np.random.default_rng(0).integers(1, 200, (3, side, side), dtype=np.uint8)
    pixels[:, np.triu(np.ones((side, side), np.bool_))] = 0
    return pixels


def quarters(side: int) -> list[Window]:
    half = side // 2
    return [Window(row, col, half, half) for row in (0, half) for col in (0, half)]


def exact(pixels: np.ndarray, windows: list[Window]) -> list[float]:
    seen = (pixels > 0).any(axis=0)
    return [float(seen[w.row : w.row + w.height, w.col : w.col + w.width].mean()) for w in windows]


@pytest.fixture
def reads(monkeypatch):
    """Windows of scenes that are read pixel by pixel."""
    seen: list[Window] = []
    read = Scene.read

    def counted(self, window):
        seen.append(window)
        return read(self, window)

    monkeypatch.setattr(Scene, "read", counted)
    return seen


def test_a_small_scene_is_read_once_for_all_its_windows(tmp_path, reads):
    pixels, windows = ground(512), quarters(512)
    scene = open_scene(write_raster(tmp_path / "a.tif", pixels, nodata=0, **PLACED))
    assert valid_shares(scene, windows) == pytest.approx(exact(pixels, windows), abs=1e-4)
    assert reads == [Window(0, 0, 512, 512)]


def test_a_large_scene_is_looked_at_through_its_overviews(tmp_path, reads):
    pixels, windows = ground(2048), quarters(2048)
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, **PLACED)
    probed = valid_shares(open_scene(path), windows)
    assert probed == pytest.approx(exact(pixels, windows), abs=0.05)
    assert len(reads) == 16 * len(windows)
    assert max(window.height for window in reads) == 16
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
    reads.clear()
    shares = valid_shares(open_scene(path), windows)
    assert shares == pytest.approx(exact(pixels, windows), abs=0.005)
    assert not reads


def test_of_a_finer_grid_what_it_is_computed_from_is_looked_at(tmp_path, reads):
    pixels = ground(512)
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, **PLACED)
    finer = open_scene(path, gsd_m=0.5 * open_scene(path).grid.gsd_m)
    assert finer.grid.shape == (1024, 1024)
    shares = valid_shares(finer, quarters(1024))
    assert shares == pytest.approx(exact(pixels, quarters(512)), abs=0.01)
    assert reads == [Window(0, 0, 512, 512)]


def test_what_cannot_be_read_counts_as_ground(tmp_path):
    pixels, windows = ground(512), quarters(512)
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, compress="deflate", **PLACED)
    break_block(path, row=0, col=3)  # in the upper right, which is empty
    shares = valid_shares(open_scene(path), windows)
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert 0 < shares[1] <= 0.5
    assert shares[2] == 1


def test_nothing_is_read_where_every_pixel_is_ground(tmp_path, reads):
    path = write_raster(tmp_path / "a.tif", ground(512), **PLACED)
    assert valid_shares(open_scene(path), quarters(512)) == [1, 1, 1, 1]
    assert not reads
