"""Dates of scenes, and since when an object is known that scenes of several dates show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from support.stubs import NORTH_UP, UTM, paint, stub_model, tiny_model, white_parts, write_scene

from geo_retina.detector import detect, detect_to_file, freeze_run
from geo_retina.options import DetectOptions, FilterOptions, RunOptions
from geo_retina.postprocess import combine_runs, filter_detections
from geo_retina.run import Outputs, plan_part, read_plan
from geo_retina.vector import read_detections
from geo_retina.vector.formats import FORMATS

CPU = RunOptions(device="cpu", block_px=256)
ACROSS = DetectOptions(across_scenes=True)
MODEL = stub_model(white_parts)

OLD, NEW = date(2018, 7, 1), date(2022, 5, 19)
ONLY_OLD, BOTH, NEW_ONLY, LONG = [20, 20, 32, 30], [340, 40, 352, 55], [360, 90, 372, 99], 120
UNDATED = [5_120, 20, 5_130, 34]
"""What the first scene alone shows, what both do, what was built since, and the row of an object
over both; and what a scene without a date shows."""


def write_items(path: Path, days: dict[str, str | None]) -> Path:
    """Write an item collection of scenes in its folder."""
    features = [
        {
            "type": "Feature",
            "id": name,
            "properties": {"datetime": day and f"{day}T12:00:00Z"},
            "assets": {"image": {"href": f"{name}.tif", "type": "image/tiff"}},
        }
        for name, day in days.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def folder(tmp_path):
    """Scenes of 400 columns that share 100 of them, and one apart."""
    long = [200, LONG, 500, LONG + 14]
    for name, first, boxes in (
        ("old", 0, [ONLY_OLD, BOTH, long]),
        ("new", 300, [BOTH, NEW_ONLY, long]),
        ("apart", 5_000, [UNDATED]),
    ):
        image = paint((200, 5_400), np.array(boxes))[:, :, first : first + 400]
        write_scene(tmp_path / f"{name}.tif", image, affine=NORTH_UP @ Affine.translation(first, 0))
    return tmp_path


def seen(frame) -> dict[tuple[float, float], tuple[object, object]]:
    """Scene's date and first date by corner of each object, in pixels of the first scene."""
    corner = [~NORTH_UP @ (each.bounds[0], each.bounds[3]) for each in frame.geometry]
    days = [
        [None if pd.isna(day) else pd.Timestamp(day).date() for day in frame[name]]
        for name in ("scene_date", "first_seen")
    ]
    rows = zip(corner, *days, strict=True)
    return {(round(x), round(y)): (own, first) for (x, y), own, first in rows}


def expected(survivor: date) -> dict[tuple[int, int], tuple[object, object]]:
    """Expect of all scenes, where of what both show the one of some date stays."""
    return {
        (20, 20): (OLD, OLD),
        (340, 40): (survivor, OLD),
        (360, 90): (NEW, NEW),
        (200, LONG): (survivor, OLD),
        (5_120, 20): (None, None),
    }


DAYS = {"new": f"{NEW}", "old": f"{OLD}", "apart": None}


def test_an_object_has_the_date_of_its_scene_and_of_the_earliest_that_shows_it(folder):
    newest_first = write_items(folder / "items.json", DAYS)
    found = detect(newest_first, MODEL, ACROSS, CPU)
    assert found["joined"].sum() == 1
    assert seen(found) == expected(NEW)
    assert [*found.columns[3:6]] == ["scene", "scene_date", "first_seen"]
    oldest_first = write_items(folder / "turned.json", dict(reversed(DAYS.items())))
    assert seen(detect(oldest_first, MODEL, ACROSS, CPU)) == expected(OLD)


def test_without_merging_across_scenes_there_is_no_first_date(folder):
    found = detect(write_items(folder / "items.json", DAYS), MODEL, run=CPU)
    assert "first_seen" not in found
    assert found.groupby("scene")["scene_date"].first().to_dict() == {
        "apart": None, "new": NEW, "old": OLD,
    }  # fmt: skip
    no_days = write_items(folder / "items.json", dict.fromkeys(DAYS))
    assert not {"scene_date", "first_seen"} & {*detect(no_days, MODEL, ACROSS, CPU).columns}


def test_an_update_keeps_the_date_on_which_an_object_was_first_seen(folder):
    out = folder / "trees.gpkg"
    items = write_items(folder / "items.json", {"old": f"{OLD}"})
    detect_to_file(items, MODEL, out, ACROSS, replace(CPU, keep=True))
    assert {first for _, first in seen(gpd.read_file(out)).values()} == {OLD}
    write_items(items, DAYS)
    detect_to_file(items, MODEL, out, ACROSS, replace(CPU, update=True))
    assert seen(gpd.read_file(out)) == expected(OLD)
    at_once = write_items(folder / "once.json", {"old": f"{OLD}", **DAYS})
    detect_to_file(at_once, MODEL, folder / "once.gpkg", ACROSS, CPU)
    assert_geodataframe_equal(gpd.read_file(out), gpd.read_file(folder / "once.gpkg"))
    scanned = gpd.read_file(out, layer="scanned").set_index("scene")["scene_date"]
    assert scanned.dropna().dt.date.to_dict() == {"old": OLD, "new": NEW}


def test_parts_know_the_dates_of_their_plan(folder):
    tiny_model().save(folder / "m.safetensors")
    items = write_items(folder / "items.json", DAYS)
    options = replace(ACROSS, force=True)
    freeze_run(items, folder / "m.safetensors", options, CPU).write(folder / "plan.json")
    items.unlink()
    frozen = read_plan(folder / "plan.json")
    plan = plan_part(frozen, CPU, outputs=Outputs(folder / "run"), only=frozenset(frozen.used))
    assert [each.scene.day for each in plan.scene_plans] == [NEW, OLD, None]


def test_every_format_keeps_dates_through_merge_and_filter(folder):
    outs = [folder / f"found{ending}" for ending in (*FORMATS, "")]
    detect_to_file(write_items(folder / "items.json", DAYS), MODEL, outs, run=CPU)
    for out in outs:
        merged, again, chosen = (out.with_stem(f"{kind}_{out.stem}") for kind in "mac")
        combine_runs([out], merged, crs=UTM)
        combine_runs([merged], again)
        filter_detections(again, chosen, FilterOptions(score=0.5))
        assert seen(read_detections(chosen).to_crs(UTM)) == expected(NEW), out


def test_a_file_may_tell_its_own_date(folder):
    with rasterio.open(folder / "old.tif", "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2018-07-01 10:30:00")
        dataset.update_tags(TIFFTAG_DATETIME="2019:01:01 00:00:00")  # when it was written
    found = detect(folder / "old.tif", MODEL, run=CPU)
    assert {*found["scene_date"]} == {OLD}
    # What a catalogue tells counts.
    items = write_items(folder / "items.json", {"old": "2017-01-01"})
    assert {*detect(items, MODEL, run=CPU)["scene_date"]} == {date(2017, 1, 1)}
    mosaic = [write_items(folder / "items.json", DAYS), folder / "new.tif"]
    assert "scene_date" not in detect(mosaic, MODEL, DetectOptions(mosaic=True), CPU)
