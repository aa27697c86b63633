"""Plain scaling against GDAL's warper, which gave the same scenes before, and against sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from affine import Affine
from support.rasters import write_raster

from geo_retina import open_scene
from geo_retina.grid import Window
from geo_retina.resampling import Rescaling, Scaling
from geo_retina.scene import inspect_file
from geo_retina.scene.warping import view_of

PLACED = {"crs": "EPSG:32633", "transform": Affine(0.6, 0, 500_000, 0, -0.6, 5_000_000)}
FACTORS = [0.5, 0.37, 0.9, 1.02, 1.3, 1.49]


def scene_of(tmp_path, pixels, factor, **more):
    path = write_raster(tmp_path / "a.tif", pixels, **PLACED, **more)
    return open_scene(path, gsd_m=0.6 * factor)


def by_gdal(scene):
    """Let GDAL's warper give the same scene."""
    file = inspect_file(scene.path)
    return dataclasses.replace(
        scene,
        source=None,
        view=view_of(file, scene.bands, scene.grid, scene.grid_to_file),
        nodatas=file.nodatas_of(scene.bands, is_own=False),
    )


def noise(dtype="uint8", shape=(3, 61, 83)):
    rng = np.random.default_rng(7)
    if dtype.startswith("float"):
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_pixels_are_those_of_gdal(tmp_path, dtype, factor):
    scene = scene_of(tmp_path, noise(dtype), factor)
    assert scene.source is not None
    pixels, valid = scene.read(scene.grid.window)
    expected, expected_valid = by_gdal(scene).read(scene.grid.window)
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(valid, expected_valid)
    difference = np.abs(pixels.astype(np.float64) - expected)
    assert difference.max() <= (0.02 if dtype == "float32" else 1)


@pytest.mark.parametrize("factor", [0.5, 0.37, 1.3])
@pytest.mark.parametrize("kind", ["nodata", "mask", "nan"])
def test_invalid_pixels_carry_no_weight(tmp_path, kind, factor):
    """Ground of one value stays that value up to the edge of what is no ground."""
    dtype = "float32" if kind == "nan" else "uint8"
    pixels = np.full((3, 61, 83), 200, dtype)
    hole = np.zeros((61, 83), bool)
    hole[20:40, 30:31] = hole[50:, 60:] = True
    pixels[:, hole] = np.nan if kind == "nan" else 7

    def mark(dataset):
        if kind == "mask":
            dataset.write_mask(~hole)

    scene = scene_of(
        tmp_path, pixels, factor, change=mark, **({"nodata": 7} if kind == "nodata" else {})
    )
    found, valid = scene.read(scene.grid.window)
    np.testing.assert_allclose(found[:, valid], 200, rtol=1e-6)
    assert (found[:, ~valid] == 0).all()
    rows, cols = (
        (np.arange(n) + 0.5) * size / n
        for n, size in zip(scene.grid.shape, hole.shape, strict=True)
    )
    np.testing.assert_array_equal(valid, ~hole[np.ix_(rows.astype(int), cols.astype(int))])


@pytest.mark.parametrize("factor", FACTORS)
def test_neither_window_nor_device_changes_a_pixel(tmp_path, factor):
    pixels = noise(shape=(2, 300, 200))
    pixels[:, 40:90, 50:120] = 0
    scene = scene_of(tmp_path, pixels, factor, nodata=0)
    whole, valid = scene.read(scene.grid.window)
    height, width = scene.grid.shape
    for row, col in [(0, 0), (13, 7), (height - 71, width - 53)]:
        window = Window(row, col, 71, 53)
        part, part_valid = scene.read(window)
        here = np.s_[row : row + 71, col : col + 53]
        np.testing.assert_array_equal(part, whole[:, *here])
        np.testing.assert_array_equal(part_valid, valid[here])
        own, rescaling = scene.read_source(window)
        np.testing.assert_array_equal(rescaling.on_device(torch.from_numpy(own)), part)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (13, 8), (30, 17), (49, 87)])
def test_pixels_of_8_bits_are_halved_in_whole_numbers_as_in_others(row, col):
    source = noise(shape=(2, 60, 70))
    scaling, window = Scaling((60, 70), (120, 140)), Window(row, col, 71, 53)
    part = scaling.part(window)
    rows, cols = (slice(p, p + n) for p, n in ((part.row, part.height), (part.col, part.width)))
    every = np.ones((part.height, part.width), bool)
    halved = Rescaling(scaling, window, part, every, "uint8").on_host(source[:, rows, cols])
    exact = Rescaling(scaling, window, part, every, "float32").on_host(
        source[:, rows, cols].astype(np.float32)
    )
    np.testing.assert_array_equal(halved, np.floor(exact + 0.5))


def test_a_value_is_the_weighted_mean_of_valid_neighbours():
    pixels = np.array([[[10, 20], [30, 40]]], np.uint8)
    shown = np.array([[True, False], [True, True]])
    scaling = Scaling((2, 2), (4, 4))
    window = Window(1, 1, 2, 2)
    assert scaling.part(window) == (0, 0, 2, 2)
    rescaling = Rescaling(scaling, window, Window(0, 0, 2, 2), shown, "uint8")
    # Weights are 9, 3, 3 and 1 sixteenths, the nearest pixel's the greatest.
    expected = [
        [(9 * 10 + 3 * 30 + 40) / 13, 0],
        [(9 * 30 + 3 * 40 + 3 * 10) / 15, (9 * 40 + 3 * 30 + 10) / 13],
    ]
    np.testing.assert_array_equal(rescaling.valid, [[True, False], [True, True]])
    np.testing.assert_array_equal(rescaling.on_host(pixels)[0], np.floor(np.add(expected, 0.5)))


@pytest.mark.parametrize(
    ("factor", "dtype"), [(1.6, "uint8"), (3.0, "uint8"), (0.5, "int64"), (0.5, "float64")]
)
def test_gdal_averages_what_gets_much_coarser(tmp_path, factor, dtype):
    scene = scene_of(tmp_path, np.ones((1, 61, 83), dtype), factor)
    assert (scene.source is None) == (factor > 1.5 or dtype == "int64")
    assert (scene.read(scene.grid.window)[0] == 1).all()
