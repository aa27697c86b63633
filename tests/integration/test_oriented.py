"""Oriented boxes from scenes at any place through every command that takes detections."""

from __future__ import annotations

import json
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from matplotlib.image import imread
from support.rasters import control_points, write_raster
from support.reviews import edit
from support.stubs import NORTH_UP, UTM, write_scene
from support.turned import paint_turned, turned_model

from geo_retina import DetectOptions, RunOptions, detect, detect_to_file, evaluate
from geo_retina.boxes import oriented
from geo_retina.cli import main
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.grid import Grid
from geo_retina.options import DataOptions, EvaluateOptions
from geo_retina.vector import read_detections

CPU = RunOptions(device="cpu", block_px=256, overwrite=True, restart=True)
TILES = DetectOptions(tile_px=128, overlap_px=64)
ACROSS = DetectOptions(tile_px=128, overlap_px=64, across_scenes=True)
SIDE = 0.5 / 110_600

HERE = oriented.normalise(
    [
        [40, 40, 50, 16, 30],
        [120, 50, 60, 14, -40],
        [200, 60, 40, 12, 80],
        [60, 150, 80, 16, -10],
        [150, 150, 36, 30, 20],
        [210, 200, 60, 14, 45],
        [90, 215, 50, 12, -75],
    ]
)
PLACES = {
    "southern": (Affine(0.5, 0, 4e5, 0, -0.5, 6e6), "EPSG:32733"),
    "sheared": (Affine(0.5, 0.1, 4e5, 0.05, -0.5, 5e6), UTM),
    "geographic": (Affine(SIDE / 0.5, 0, 15, 0, -SIDE, 60), "EPSG:4326"),
    "over 180": (Affine(SIDE / 0.985, 0, 179.9994, 0, -SIDE, 10), "EPSG:4326"),
    "over -180": (Affine(SIDE / 0.985, 0, -180.0006, 0, -SIDE, -10), "EPSG:4326"),
    "control points": (NORTH_UP @ Affine.rotation(30), UTM),
}


def longest_side(polygon, crs):
    """Azimuth and metres of a rectangle's longest side: geodesic in degrees, else of the grid."""
    corners = np.array(polygon.exterior.coords)[:3]
    if pyproj.CRS(crs).is_geographic:
        ends = (*corners[:2].T, *corners[1:].T)
        azimuths, _, lengths = pyproj.Geod(ellps="WGS84").inv(*ends)
    else:
        steps = np.diff(corners, axis=0)
        azimuths, lengths = np.degrees(np.arctan2(*steps.T)), np.hypot(*steps.T)
    longest = np.argmax(lengths)
    return float(azimuths[longest]), float(lengths[longest])


def pair(polygons, found):
    """For each polygon, the row of the detection that covers most of it, and their IoU."""
    iou = shapely.area(shapely.intersection(polygons[:, None], np.asarray(found.geometry)))
    iou /= shapely.area(shapely.union(polygons[:, None], np.asarray(found.geometry)))
    return iou.argmax(axis=1), iou.max(axis=1)


@pytest.mark.parametrize("place", PLACES)
def test_boxes_lie_and_point_as_their_objects_anywhere(tmp_path, place):
    affine, crs = PLACES[place]
    pixels, seen, path = paint_turned((256, 256), HERE), HERE, tmp_path / "a.tif"
    if place == "control points":  # the grid that these are warped to is not turned
        write_raster(path, pixels, gcps=control_points(affine, 256, 256), crs=crs)
        seen = HERE + np.array([0, 0, 0, 0, 30])
    else:
        write_scene(path, pixels, affine=affine, crs=crs)
    detect_to_file(path, turned_model(seen), tmp_path / "a.gpkg", TILES, CPU)
    found = gpd.read_file(tmp_path / "a.gpkg", layer="detections")
    wanted = np.asarray(oriented.to_polygons(HERE, Grid(pyproj.CRS(crs), affine, 256, 256)))
    rows, iou = pair(wanted, found)
    assert sorted(rows) == list(range(len(HERE)))
    assert iou.min() > 0.8
    for row, polygon in zip(rows, wanted, strict=True):
        azimuth, length = longest_side(polygon, crs)
        assert abs((found["azimuth_deg"].iloc[row] - azimuth + 90) % 180 - 90) < 1.0
        assert found["length_m"].iloc[row] == pytest.approx(length, abs=1.0)


OBJECTS = oriented.normalise(
    [
        [40, 40, 50, 16, 30],
        [310, 60, 50, 14, -40],  # in two scenes
        [320, 220, 60, 12, 80],  # in two scenes
        [60, 150, 80, 16, -10],
        [360, 130, 180, 20, -12],  # longer than the scenes' overlap
        [610, 250, 60, 14, 45],
        [590, 100, 150, 22, 20],  # over a border at which scenes abut
        [200, 230, 200, 18, 5],  # longer than a tile
        [480, 230, 30, 26, 40],
    ]
)
TRUTH = np.asarray(oriented.to_polygons(OBJECTS, Grid(pyproj.CRS(UTM), NORTH_UP, 320, 704)))


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Three scenes, their detections across them in a GeoPackage, and labels."""
    folder, image = tmp_path_factory.mktemp("ground"), paint_turned((320, 704), OBJECTS)
    scenes = []
    for name, first, last in (("a", 0, 384), ("b", 256, 576), ("c", 576, 704)):
        affine = NORTH_UP @ Affine.translation(first, 0)
        part = image[:, :, first:last]
        scenes.append(write_scene(folder / f"{name}.tif", part, affine=affine))
    labels = folder / "labels.gpkg"
    names = ["car"] * len(TRUTH)
    gpd.GeoDataFrame({"class": names}, geometry=list(TRUTH), crs=UTM).to_file(labels)
    found = folder / "found.gpkg"
    detect_to_file(scenes, turned_model(OBJECTS), found, ACROSS, CPU)
    return SimpleNamespace(folder=folder, scenes=scenes, labels=labels, found=found)


def check(path):
    """Each object once, with its direction; every file may be in a CRS of its own."""
    found = read_detections(path).to_crs(UTM)
    rows, iou = pair(TRUTH, found)
    assert sorted(rows) == list(range(len(found))) == list(range(len(TRUTH)))
    assert iou.min() > 0.85
    assert {"azimuth_deg", "length_m", "width_m"} <= set(found.columns)
    return found.iloc[rows]


def test_scenes_across_are_from_disk_what_they_are_in_memory(ground, tmp_path):
    found = check(ground.found)
    assert found["joined"].sum() == 3
    model = turned_model(OBJECTS)
    in_memory = detect(ground.scenes, model, ACROSS, CPU)
    on_disk = read_detections(ground.found)
    assert in_memory.geometry.geom_equals_exact(on_disk.geometry, 1e-9).all()
    np.testing.assert_allclose(in_memory["azimuth_deg"], on_disk["azimuth_deg"])
    alone = tmp_path / "alone.gpkg"
    detect_to_file(ground.scenes, model, alone, TILES, CPU)
    assert len(read_detections(alone)) > len(TRUTH)
    assert main(["merge", str(alone), "--out", str(tmp_path / "merged.gpkg")]) == 0
    # As merging the files of each scene does.
    assert check(tmp_path / "merged.gpkg").geometry.geom_equals_exact(found.geometry, 1e-6).all()


@pytest.mark.parametrize("name", ["o.gpkg", "o.shp", "o.fgb", "o.parquet", "o.geojson", "o/"])
def test_every_format_goes_through_the_commands_that_read_it(ground, tmp_path, name):
    path = f"{tmp_path}/{name}"
    assert main(["filter", str(ground.found), "--score", "0.5", "--out", path]) == 0
    found = check(path)
    again = str(tmp_path / "again.gpkg")
    assert main(["merge", path, "--out", again]) == 0
    np.testing.assert_allclose(check(again)["length_m"], found["length_m"], rtol=1e-6)
    scores = evaluate(path, ground.labels, EvaluateOptions(resamples=0)).overall
    assert (scores.ap50, scores.ap75) == (1.0, 1.0)
    assert scores.angle_error_deg == pytest.approx(0, abs=0.05)
    density, tiles = tmp_path / "d.tif", tmp_path / "t.pmtiles"
    assert main(["preview", path, "--density", "20m", "--out", str(density)]) == 0
    with rasterio.open(density) as dataset:
        assert dataset.read().sum() == len(TRUTH)
    assert main(["tiles", path, "--out", str(tiles)]) == 0
    web = gpd.read_file(tiles)
    assert len(web) >= len(TRUTH)
    assert set(np.round(web["azimuth_deg"])) == set(np.round(found["azimuth_deg"]))


def test_reports_and_pictures_show_turned_boxes(ground, tmp_path):
    common = [str(ground.found), str(ground.labels), "--class-column", "class"]
    pages = ["--report", str(tmp_path / "report"), "--scenes", str(ground.scenes[0])]
    fewer = tmp_path / "fewer.gpkg"
    gpd.read_file(ground.labels).iloc[2:].to_file(fewer)
    assert main(["evaluate", str(ground.found), str(fewer), *pages]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'class="false" d="M' in page
    # Corners of the object at 40, 40 that no label has; an upright box would have two x alone.
    outline = page.split('class="false" d="M')[1].split("Z")[0]
    assert len({corner.split(",")[0] for corner in outline.split()}) == 4
    lost = gpd.read_file(tmp_path / "report" / "errors.gpkg", layer="false_positive")
    assert len(lost) == 2
    out = tmp_path / "compared.json"
    assert main(["compare", common[0], *common, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["a"]["overall"]["angle_error_deg"] < 0.05
    picture = tmp_path / "preview.png"
    line = ["preview", str(ground.found), str(ground.scenes[0]), "--crops", "0"]
    assert main([*line, "--out", str(picture)]) == 0
    assert imread(picture).shape[2] >= 3


def test_a_review_of_turned_boxes_is_estimated_from(ground, tmp_path):
    from geo_retina import EstimateOptions, enter_labels, estimate

    path = tmp_path / "reviewed.gpkg"
    path.write_bytes(ground.found.read_bytes())
    line = ["review", str(path), "--cells", "40", "--budget", "5", "--cell-size", "40m"]
    assert main(line) == 0
    entered = enter_labels(path, ground.labels, class_column="class")
    assert entered.accepted > 0
    assert (entered.rejected, entered.added) == (0, 0)
    cases = gpd.read_file(path, layer="review")
    assert (cases.geometry.area < 0.99 * cases.geometry.envelope.area).any()
    counted = estimate(path, EstimateOptions())
    assert counted.overall.detected == len(TRUTH)


@pytest.mark.parametrize("line", [["merge"], ["filter", "--score", "0.6"]])
def test_azimuths_that_are_no_numbers_are_one_sentence(ground, tmp_path, capsys, line):
    path = tmp_path / "a.gpkg"
    path.write_bytes(ground.found.read_bytes())
    rows = gpd.read_file(path, layer="detections").assign(azimuth_deg="north")
    rows.to_file(path, layer="detections", engine="pyogrio")
    command, *options = line
    out = tmp_path / "b.geojson"
    assert main([command, str(path), *options, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "the column azimuth_deg of the detections holds" in said
    assert "expected degrees as numbers" in said
    assert not out.exists()


def test_training_takes_turned_boxes_of_a_review(ground, tmp_path):
    """Ground beside an accepted box, within its hull, was not looked at."""
    path = tmp_path / "reviewed.gpkg"
    path.write_bytes(ground.found.read_bytes())
    line = ["review", str(path), "--cells", "0", "--budget", "9", "--cell-size", "40m"]
    assert main(line) == 0
    edit(path, "UPDATE review SET status = 'accepted'")
    data = DataOptions(scenes=(str(ground.scenes[0]),), review=str(path))
    (here,) = load_training_set(data, oriented=True).scenes
    shown = OBJECTS[[0, 1, 2, 3, 4, 7]]  # on the first scene
    nearest = np.hypot(*(here.rotated_px[:, None, :2] - shown[:, :2]).T).argmin(axis=0)
    assert len(set(nearest)) == len(nearest) >= 4
    off = here.rotated_px[:, 4] - shown[nearest, 4]
    assert np.abs((off + 90) % 180 - 90).max() < 0.1
    # The object at 40, 40: its middle, and a corner of its hull.
    corner = oriented.hull(OBJECTS[:1])[0, [0, 3]] + [2, -2]
    points = np.array([[40.0, 40.0], corner])
    assert here.holds(points).tolist() == [True, False]
    (upright,) = load_training_set(data).scenes
    assert upright.holds(points).tolist() == [True, True]
