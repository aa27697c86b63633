"""Scenes at odd places on Earth: the same objects there, or one sentence."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from support.stubs import NORTH_UP, paint, stub_model, write_scene

from geo_retina import DetectOptions, RunOptions, detect_to_file, evaluate
from geo_retina.errors import LabelError, OutputError, SceneMismatchError
from geo_retina.html_report.crops import worst_places
from geo_retina.scene import open_picture

LOCAL = 'LOCAL_CS["Arbitrary",UNIT["metre",1]]'
CPU = RunOptions(device="cpu", block_px=256, overwrite=True, restart=True)
OPTIONS = DetectOptions(tile_px=128, overlap_px=64)
BOXES = np.array([[x, y, x + 16, y + 10] for x in (20, 120, 200) for y in (30, 110, 190)])


@pytest.fixture(scope="module")
def model():
    return stub_model()


def degrees_scene(path, west):
    side = 0.5 / 110_600
    affine = Affine(side / np.cos(np.radians(10)), 0, west, 0, -side, 10)
    return write_scene(path, paint((256, 256), BOXES), affine=affine, crs="EPSG:4326")


@pytest.mark.parametrize("west", [9.0, 179.9994, 250.0, -180.0006, 359.9])
def test_longitudes_have_no_end(tmp_path, model, west):
    scene = degrees_scene(tmp_path / "scene.tif", west)
    out = tmp_path / "out.gpkg"
    report = detect_to_file(scene, model, out, OPTIONS, CPU)
    assert report.detections == len(BOXES)
    found = gpd.read_file(out, layer="detections")
    # They lie on the scene as its file counts, and so does the ground that was looked at.
    assert ((found.bounds.minx > west) & (found.bounds.maxx < west + 0.0013)).all()
    scanned = gpd.read_file(out, layer="scanned").total_bounds
    np.testing.assert_allclose(scanned[[0, 2]], [west, west + 0.0012], atol=2e-4)
    # Labels that are counted otherwise are the same place.
    labels = found[["class", "geometry"]].copy()
    labels.geometry = labels.geometry.translate(xoff=-360.0 if west > 0 else 360.0)
    assert evaluate(out, labels).overall.f1 == 1.0


@pytest.mark.parametrize("west", [179.9994, -180.0006])
def test_pictures_of_a_report_show_what_lies_beyond_180(tmp_path, model, west):
    scene = degrees_scene(tmp_path / "scene.tif", west)
    out = tmp_path / "out.gpkg"
    detect_to_file(scene, model, out, OPTIONS, CPU)
    labels = gpd.read_file(out, layer="detections")[["class", "geometry"]].iloc[:5]
    labels.geometry = labels.geometry.translate(xoff=-360.0 if west > 0 else 360.0)
    matches = evaluate(out, labels).matches
    places = worst_places(matches, [open_picture(scene)], ["scene"])
    assert sum(place.wrong for place in places) == len(BOXES) - 5
    assert sum(len(place.marks) for place in places) == len(BOXES) + 5  # of either side


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, -360), (-360, 0)])
def test_a_mosaic_over_180_is_one_scene(tmp_path, model, first, second):
    """Two files that overlap by 56 px, each counted as some program may."""
    boxes = [[x, y, x + 16, y + 10] for x in (20, 120, 230, 300, 400) for y in (30, 110, 190)]
    pixels = paint((256, 456), np.array(boxes))
    side = 0.5 / 110_600
    step = side / np.cos(np.radians(10))
    paths = []
    for name, col, turn in (("a", 0, first), ("b", 200, second)):
        west = 180 + turn + (col - 230) * step
        affine = Affine(step, 0, west, 0, -side, 10)
        part = pixels[:, :, col : col + 256]
        paths.append(write_scene(tmp_path / f"{name}.tif", part, affine=affine, crs="EPSG:4326"))
    options = DetectOptions(tile_px=128, overlap_px=64, mosaic=True)
    out = tmp_path / "out.gpkg"
    assert detect_to_file(paths, model, out, options, CPU).detections == len(boxes)
    x_min, _, x_max, _ = gpd.read_file(out, layer="detections").total_bounds
    assert 0 < x_max - x_min < 456 * step


def test_geojson_has_no_longitude_beyond_180(tmp_path, model):
    scene = degrees_scene(tmp_path / "scene.tif", 179.9994)
    out = tmp_path / "out.geojson"
    assert detect_to_file(scene, model, out, OPTIONS, CPU).detections == len(BOXES)
    found = gpd.read_file(out)
    parts = found.geometry.explode()
    assert len(found) == len(BOXES)
    assert parts.bounds.minx.min() >= -180
    assert parts.bounds.maxx.max() <= 180
    assert (parts.bounds.maxx - parts.bounds.minx < 1e-3).all()  # none around the world
    assert (parts.bounds.minx < 0).any()
    assert (parts.bounds.minx > 0).any()


@pytest.mark.parametrize("area", [(-10, 0, 179, 80), (-180, -85, 180, 85)])
def test_an_area_as_large_as_the_world_keeps_all(tmp_path, model, area):
    scene = write_scene(tmp_path / "scene.tif", paint((256, 256), BOXES))
    gpd.GeoDataFrame(geometry=[shapely.box(*area)], crs=4326).to_file(tmp_path / "aoi.gpkg")
    options = DetectOptions(tile_px=128, overlap_px=64, aoi=str(tmp_path / "aoi.gpkg"))
    report = detect_to_file(scene, model, tmp_path / "out.gpkg", options, CPU)
    assert report.detections == len(BOXES)


def test_a_local_crs_serves_by_itself(tmp_path, model):
    scene = write_scene(tmp_path / "site.tif", paint((256, 256), BOXES), crs=LOCAL)
    out = tmp_path / "out.gpkg"
    assert detect_to_file(scene, model, out, OPTIONS, CPU).detections == len(BOXES)
    labels = gpd.read_file(out, layer="detections")
    assert evaluate(out, labels[["class", "geometry"]]).overall.f1 == 1.0
    earthly = labels[["class", "geometry"]].set_crs(32633, allow_override=True)
    with pytest.raises(LabelError, match="a local CRS has no place on Earth"):
        evaluate(out, earthly)
    with pytest.raises(OutputError, match=r"the local CRS Arbitrary.*write \.gpkg"):
        detect_to_file(scene, model, tmp_path / "out.geojson", OPTIONS, CPU)


def test_a_local_scene_among_others_is_told_at_the_beginning(tmp_path, model):
    here = write_scene(tmp_path / "here.tif", paint((256, 256), BOXES))
    site = write_scene(tmp_path / "site.tif", paint((256, 256), BOXES), crs=LOCAL)
    report = detect_to_file([here, site], model, tmp_path / "out.gpkg", OPTIONS, CPU)
    assert report.detections == len(BOXES)
    assert [failure.scene for failure in report.failures] == [str(site)]
    assert "the local CRS Arbitrary has no place on Earth" in report.failures[0].error


def test_an_output_that_cannot_hold_the_scene_is_refused_before_detecting(tmp_path, model):
    affine = Affine(0.5, 0, 500_000, 0, -0.5, 100)  # at 15 E on the equator
    scene = write_scene(tmp_path / "scene.tif", paint((256, 256), BOXES), affine=affine)
    with pytest.raises(SceneMismatchError, match="lies where EPSG:32648"):
        detect_to_file(scene, model, tmp_path / "out.gpkg", OPTIONS, CPU, crs="EPSG:32648")
    assert not (tmp_path / "out.gpkg.run").exists()


@pytest.mark.parametrize("swap", [True, False])
def test_labels_elsewhere_are_refused(tmp_path, model, swap):
    scene = write_scene(tmp_path / "scene.tif", paint((256, 256), BOXES), affine=NORTH_UP)
    out = tmp_path / "out.gpkg"
    detect_to_file(scene, model, out, OPTIONS, CPU)
    labels = gpd.read_file(out, layer="detections")[["class", "geometry"]]
    if swap:
        labels = labels.to_crs(4326)
        labels.geometry = shapely.transform(labels.geometry.values, lambda xy: xy[:, ::-1])
        remedy = "in EPSG:4326 with x and y swapped"
    else:
        labels = labels.set_crs(4326, allow_override=True)
        remedy = "in EPSG:32633"
    with pytest.raises(LabelError, match=f"most labels would lie on the detections {remedy}"):
        evaluate(out, labels)


def test_pixels_without_a_crs_can_be_given_a_size(tmp_path, model):
    small = BOXES // 2
    scene = write_scene(tmp_path / "scene.tif", paint((128, 128), small), crs=None)
    options = DetectOptions(tile_px=128, overlap_px=64, pixel_m=1.5)  # for 0.3 to 1 m
    report = detect_to_file(scene, model, tmp_path / "out.gpkg", options, CPU)
    found = gpd.read_file(tmp_path / "out.gpkg", layer="scanned")
    assert found["gsd_m"].tolist() == [0.5]
    assert found["width_px"].tolist() == [384]
    assert not any("taken to be" in note for note in report.notes)
