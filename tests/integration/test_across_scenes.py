"""Scenes that overlap or abut, detected in one run: objects come out once."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from support.stubs import NORTH_UP, paint, stub_model, white_parts, write_scene

from geo_retina.detector import detect, detect_part, detect_to_file, freeze_run, gather_parts
from geo_retina.errors import OptionError
from geo_retina.options import DetectOptions, MergeOptions, RunOptions
from geo_retina.postprocess import combine_runs
from geo_retina.run import Part
from geo_retina.vector import read_metadata

CPU = RunOptions(device="cpu", block_px=256)
ACROSS = DetectOptions(across_scenes=True)
GROUND = (300, 700)
OBJECTS = np.array(
    [
        [10, 12, 30, 22],
        [330, 40, 350, 52],  # in both
        [355, 200, 361, 221],  # in both
        [250, 100, 480, 118],  # longer than the overlap
        [600, 250, 622, 262],
    ]
)
EXPECTED = {tuple(map(float, box)) for box in OBJECTS}


LOOKED_AT: list[int] = []


def look(tiles):
    """Find every white rectangle, and note that somebody looked."""
    LOOKED_AT.append(len(tiles))
    return white_parts(tiles)


MODEL = stub_model(look)


@pytest.fixture
def folder(tmp_path):
    """Two scenes that share 100 columns, and beside them a third that abuts."""
    image = paint(GROUND, OBJECTS)
    for name, first, last in (("a", 0, 400), ("b", 300, 560), ("c", 560, 700)):
        affine = NORTH_UP @ Affine.translation(first, 0)
        write_scene(tmp_path / f"{name}.tif", image[:, :, first:last], affine=affine)
    return tmp_path


def boxes(frame: gpd.GeoDataFrame) -> list[tuple[float, ...]]:
    """Bounds in pixels of the first scene."""
    places = []
    for polygon in frame.geometry:
        xy = np.array([~NORTH_UP @ corner for corner in polygon.exterior.coords])
        places.append((*xy.min(axis=0).round(3).tolist(), *xy.max(axis=0).round(3).tolist()))
    return places


def test_objects_come_out_once(folder):
    scenes = [folder / f"{name}.tif" for name in "abc"]
    alone = detect_to_file(scenes, MODEL, folder / "alone.gpkg", run=CPU)
    assert alone.detections > len(OBJECTS)
    report = detect_to_file(scenes, MODEL, folder / "once.gpkg", ACROSS, CPU)
    assert report.complete
    found = gpd.read_file(folder / "once.gpkg", layer="detections")
    assert len(found) == report.detections == len(OBJECTS)
    assert set(boxes(found)) == EXPECTED
    assert found["joined"].sum() == report.joined == 1
    assert list(found["joined"])[-1]
    in_memory = detect(scenes, MODEL, ACROSS, CPU)
    assert in_memory.geometry.geom_equals_exact(found.geometry, 1e-9).all()
    # As merging the files of each scene does; and merging what is merged changes nothing.
    merged = combine_runs([folder / "alone.gpkg"], folder / "merged.gpkg")
    assert (merged.written, merged.joined) == (len(OBJECTS), 1)
    assert set(boxes(gpd.read_file(folder / "merged.gpkg", layer="detections"))) == EXPECTED
    again = combine_runs([folder / "once.gpkg"], folder / "again.gpkg")
    assert (again.written, again.suppressed, again.joined) == (len(OBJECTS), 0, 0)
    about = json.loads(read_metadata(folder / "once.gpkg")["options"])
    assert about["across_scenes"] is True


def test_scenes_that_are_far_apart_keep_all(tmp_path):
    image = paint((300, 400), OBJECTS[:2])
    for name, x in (("a", 0), ("b", 5_000)):
        affine = NORTH_UP @ Affine.translation(x, 0)
        write_scene(tmp_path / f"{name}.tif", image, affine=affine)
    scenes = [tmp_path / "a.tif", tmp_path / "b.tif"]
    found = detect(scenes, MODEL, ACROSS, CPU)
    assert found.equals(detect(scenes, MODEL, run=CPU))


def test_an_unfinished_run_may_go_on_across_scenes(folder):
    """Blocks are the same either way: only what is made of them differs."""
    scenes = [folder / f"{name}.tif" for name in "abc"]
    out = folder / "kept.gpkg"
    detect_to_file(scenes, MODEL, out, run=replace(CPU, keep=True))
    LOOKED_AT.clear()
    report = detect_to_file(scenes, MODEL, out, ACROSS, replace(CPU, overwrite=True))
    assert not LOOKED_AT
    assert report.detections == len(OBJECTS)


def test_ground_that_another_scene_shows_is_covered(folder):
    scenes = [folder / f"{name}.tif" for name in "abc"]
    (folder / "b.tif").write_bytes((folder / "b.tif").read_bytes()[:-300])
    report = detect_to_file(scenes, MODEL, folder / "part.gpkg", ACROSS, CPU)
    assert not report.complete
    missing = gpd.read_file(folder / "part.gpkg", layer="not_covered")
    scanned = gpd.read_file(folder / "part.gpkg", layer="scanned")
    assert not missing.geometry.dropna().intersects(scanned.geometry.union_all().buffer(-1)).any()


def test_parts_are_gathered_across_scenes(folder):
    scenes = [folder / f"{name}.tif" for name in "abc"]
    plan = freeze_run(scenes, "demo", replace(ACROSS, force=True, gsd_m=0.5), CPU)
    out = folder / "parts.gpkg"
    for number in (1, 2):
        detect_part(plan, Part(number, 2), out, CPU)
    report = gather_parts(out, run=CPU)
    options = replace(ACROSS, force=True, gsd_m=0.5)
    whole = detect_to_file(scenes, "demo", folder / "whole.gpkg", options, CPU)
    assert report.detections == whole.detections


def test_what_cannot_be_one_across_scenes(tmp_path):
    with pytest.raises(OptionError, match="one scene of all"):
        DetectOptions(across_scenes=True, mosaic=True)
    with pytest.raises(OptionError, match="for tiles only"):
        DetectOptions(across_scenes=True, merge=MergeOptions(rank="score"))
    image = paint((300, 400), OBJECTS[:2])
    for name in "ab":
        write_scene(tmp_path / f"{name}.tif", image, crs=None)
    options = replace(ACROSS, pixel_m=0.5)
    with pytest.raises(OptionError, match="has no CRS, so nothing says where it lies"):
        detect([tmp_path / "a.tif", tmp_path / "b.tif"], MODEL, options, CPU)
