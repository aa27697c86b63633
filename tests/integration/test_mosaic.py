"""Overlapping scenes as one: objects once, and the same as in the scene they were cut from."""

from __future__ import annotations

import os
import pickle

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject
from support.stubs import NORTH_UP, UTM, paint, stub_model, write_scene

from geo_retina import DetectOptions, RunOptions, detect, detect_to_file, open_scene
from geo_retina.cli import main
from geo_retina.errors import RunError, SceneError, SceneMismatchError
from geo_retina.grid import Window
from geo_retina.scene import make_mosaic

CPU = RunOptions(device="cpu", block_px=256)
MOSAIC = DetectOptions(mosaic=True, tile_px=128, overlap_px=32)
SHAPE = (500, 640)
BOXES = np.array([[x, y, x + 12, y + 20] for x in range(15, 600, 37) for y in range(20, 450, 41)])


@pytest.fixture
def pieces(tmp_path):
    """A scene, and overlapping pieces of it in a folder."""
    pixels = paint(SHAPE, BOXES)
    pixels[:, :, 0] = np.arange(SHAPE[0]) % 50  # no symmetry hides a shift
    whole = write_scene(tmp_path / "whole.tif", pixels)
    folder = tmp_path / "pieces"
    folder.mkdir()
    for row in (0, 200):
        for col in (0, 170, 340):
            part = pixels[:, row : row + 300, col : col + 300]
            affine = NORTH_UP @ Affine.translation(col, row)
            write_scene(folder / f"{row}_{col}.tif", part, affine=affine)
    return whole, folder


def outlines(frame):
    bounds = frame.geometry.bounds.to_numpy()
    return bounds[np.lexsort(bounds.T)]


def test_the_mosaic_of_pieces_is_the_scene(pieces):
    whole, folder = pieces
    scenes = [open_scene(path) for path in sorted(folder.iterdir())]
    mosaic, refused = make_mosaic(scenes[::-1], "x")
    assert refused == []
    mosaic = pickle.loads(pickle.dumps(mosaic))
    expected, is_valid = open_scene(whole).read(Window(-10, -20, 600, 700))
    pixels, valid = mosaic.read(Window(-10, -20, 600, 700))
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(valid, is_valid)
    assert mosaic.grid.shape == SHAPE
    assert mosaic.grid.affine == NORTH_UP
    assert len(mosaic.under(Window(0, 0, 50, 50)).members) == 1


def test_an_object_in_several_scenes_is_found_once(tmp_path, pieces):
    whole, folder = pieces
    one = detect(whole, stub_model(), DetectOptions(tile_px=128, overlap_px=32), CPU)
    apart = detect(folder, stub_model(), DetectOptions(tile_px=128, overlap_px=32), CPU)
    report = detect_to_file(folder, stub_model(), tmp_path / "out.gpkg", MOSAIC, CPU)
    together = gpd.read_file(report.out)
    assert len(apart) > len(one) == len(BOXES)
    np.testing.assert_allclose(outlines(together), outlines(one), atol=1e-6)
    assert set(together["scene"]) == {"pieces"}
    assert together["x_min_px"].isna().all()
    assert (report.scenes, report.outside_scenes) == (6, 0)


def test_scenes_of_another_zone_and_resolution_are_warped_to_the_first(tmp_path):
    pixels = paint(SHAPE, BOXES[::7])
    first = write_scene(tmp_path / "a.tif", pixels[:, :, :340])
    moved = tmp_path / "b.tif"
    bounds = rasterio.transform.array_bounds(*SHAPE, NORTH_UP)
    affine, width, height = calculate_default_transform(
        UTM, "EPSG:32634", SHAPE[1], SHAPE[0], *bounds, resolution=0.3
    )
    warped = np.zeros((3, height, width), np.uint8)
    reproject(
        pixels,
        warped,
        src_transform=NORTH_UP,
        src_crs=UTM,
        dst_transform=affine,
        dst_crs="EPSG:32634",
        resampling=Resampling.nearest,
    )
    write_scene(moved, warped, affine=affine, crs="EPSG:32634", nodata=0)
    mosaic, _ = make_mosaic([open_scene(first), open_scene(moved)], "x")
    assert mosaic.grid.crs.to_epsg() == 32633
    assert mosaic.members[0].scene.grid_to_file == Affine.identity()
    assert mosaic.members[1].scene.grid_to_file is None
    origin = mosaic.grid.crs_to_pixels(np.array([NORTH_UP.c, NORTH_UP.f]))
    assert np.allclose(origin, np.round(origin), atol=1e-6)
    col, row = np.round(origin).astype(int)
    read, valid = mosaic.read(Window(row, col, *SHAPE))
    np.testing.assert_array_equal(read[:, :, :340], pixels[:, :, :340])
    # Beyond the first scene the other one shows, resampled twice, the same ground.
    inner = np.s_[:, 20:-20, 360:-20]
    assert valid[inner[1:]].all()
    near = np.abs(read[inner].astype(int) - pixels[inner]) < 60
    assert near.mean() > 0.95


def test_scattered_scenes_cost_only_their_own_ground(tmp_path):
    """Two scenes 300 km apart make a grid of 600,000 px, of which two tiles are looked at."""
    for i, shift in enumerate((0, 600_000)):
        affine = NORTH_UP @ Affine.translation(shift, -shift // 2)
        write_scene(tmp_path / f"{i}.tif", paint((200, 200), BOXES[:4]), affine=affine)
    report = detect_to_file(
        tmp_path, stub_model(), tmp_path / "out.gpkg", DetectOptions(mosaic=True), CPU
    )
    found = gpd.read_file(report.out)
    assert len(found) == 2 * 4
    assert report.tiles <= 2 * 16
    assert report.outside_tiles > 1_000_000


def test_an_area_of_a_mosaic(tmp_path, pieces):
    _, folder = pieces
    here = shapely.box(*(NORTH_UP @ (180, 320)), *(NORTH_UP @ (400, 190)))
    gpd.GeoDataFrame(geometry=[here], crs=UTM).to_file(tmp_path / "aoi.gpkg")
    options = DetectOptions(mosaic=True, tile_px=128, overlap_px=32, aoi=str(tmp_path / "aoi.gpkg"))
    whole = detect(folder, stub_model(), MOSAIC, CPU)
    found = detect(folder, stub_model(), options, CPU)
    wanted = whole[whole.intersects(here)]
    assert 0 < len(wanted) < len(whole)
    np.testing.assert_array_equal(outlines(found), outlines(wanted))
    corner = shapely.box(*(NORTH_UP @ (600, 490)), *(NORTH_UP @ (630, 460)))
    gpd.GeoDataFrame(geometry=[corner], crs=UTM).to_file(tmp_path / "aoi.gpkg")
    report = detect_to_file(folder, stub_model(), tmp_path / "out.gpkg", options, CPU)
    assert (report.scenes, report.outside_scenes) == (1, 5)
    assert report.complete


def test_an_unreadable_member_is_reported_and_any_replaced_one_is_noticed(tmp_path, pieces):
    _, folder = pieces
    (folder / "broken.tif").write_bytes(b"no raster")
    out = tmp_path / "out.gpkg"
    report = detect_to_file(folder, stub_model(), out, MOSAIC, CPU)
    assert [os.path.basename(failure.scene) for failure in report.failures] == ["broken.tif"]
    assert report.detections == len(BOXES)
    os.utime(folder / "200_340.tif", ns=(1, 1))
    with pytest.raises(RunError, match=r"200_340\.tif \(the file was replaced\)"):
        detect_to_file(folder, stub_model(), out, MOSAIC, CPU)


def test_scenes_of_another_kind_are_left_out_and_the_rest_is_done(tmp_path, pieces):
    _, folder = pieces
    kind, nowhere = folder / "1.tif", folder / "2.tif"
    write_scene(kind, paint((64, 64), BOXES[:1]).astype(np.uint16) * 200)
    write_scene(nowhere, paint((64, 64), BOXES[:1]), crs=None)
    out = tmp_path / "out.gpkg"
    report = detect_to_file(folder, stub_model(), out, MOSAIC, CPU)
    assert report.detections == len(BOXES)
    assert report.scenes == 6
    said = {os.path.basename(failure.scene): failure.error for failure in report.failures}
    assert set(said) == {"1.tif", "2.tif"}
    assert "uint16" in said["1.tif"]
    assert "has no CRS" in said["2.tif"]
    missing = gpd.read_file(out, layer="not_covered")
    assert list(missing["scene"]) == [str(kind), str(nowhere)]
    # Done again, the ledger holds all but what failed.
    states = []
    again = detect_to_file(folder, stub_model(), out, MOSAIC, CPU, progress=states.append)
    assert not states
    assert again.detections == len(BOXES)
    write_scene(nowhere, paint((64, 64), BOXES[:1]))
    with pytest.raises(RunError, match=r"2\.tif: left out, now used"):
        detect_to_file(folder, stub_model(), out, MOSAIC, CPU)


def test_scenes_of_two_kinds_make_no_mosaic(tmp_path):
    bare = open_scene(write_scene(tmp_path / "0.tif", paint((64, 64), BOXES[:1]), crs=None))
    a = open_scene(write_scene(tmp_path / "a.tif", paint((64, 64), BOXES[:1])))
    b = write_scene(tmp_path / "b.tif", paint((64, 64), BOXES[:1]).astype(np.uint16))
    mosaic, refused = make_mosaic([bare, a, open_scene(b)], "x")
    assert mosaic.scenes == [a]
    (first, _), (other, error) = refused
    assert (first, other.path) == (bare, str(b))
    assert isinstance(error, SceneMismatchError)
    assert "a mosaic needs scenes of one kind" in str(error)
    with pytest.raises(SceneError, match="has no CRS"):
        make_mosaic([bare], "x")


def test_the_plan_counts_the_scenes_of_a_mosaic(pieces, capsys):
    _, folder = pieces
    assert main(["plan", str(folder), "--model", "demo", "--mosaic", "--force"]) == 0
    assert "6 scenes" in capsys.readouterr().out
