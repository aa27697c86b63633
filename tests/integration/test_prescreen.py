"""A first look at coarser pixels: what it screens out, and that all else is as without it."""

from __future__ import annotations

import dataclasses

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from rasterio.enums import Resampling
from support.stubs import NORTH_UP, ROTATED, paint, stub_model, tiny_card, write_scene

from geo_retina import (
    DetectOptions,
    Part,
    RunOptions,
    combine_runs,
    detect,
    detect_part,
    detect_to_file,
    freeze_run,
    gather_parts,
    plan_scenes,
)
from geo_retina.errors import ModelError, OptionError, RunError, SceneError
from geo_retina.model import Card, Prescreen
from geo_retina.run import blocks
from geo_retina.scene import Scene, coarsen

FIRST = Prescreen(factor=4, score=0.6, thresholds=(0.5, 0.5))
OPTIONS = DetectOptions(tile_px=128, overlap_px=32)
LOOKING_FIRST = dataclasses.replace(OPTIONS, prescreen=True)
CPU = RunOptions(device="cpu", block_px=256)
SHAPE = (700, 900)
NEAR, FAR, THIN = (230, 230, 262, 258), (620, 482, 644, 508), (820, 100, 850, 102)
"""Two objects that four pixels made one still show, and one that is too thin for that."""


def model(**first):
    return stub_model(prescreen=dataclasses.replace(FIRST, **first))


def drawn(path, *boxes, affine=NORTH_UP, **how):
    return write_scene(path, paint(SHAPE, np.array(boxes)), affine=affine, **how)


def boxes_px(found):
    px = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
    return found[px].to_numpy().astype(int).tolist()


def test_what_shows_in_coarser_pixels_is_found_as_without_a_first_look(tmp_path):
    scene = drawn(tmp_path / "a.tif", NEAR, FAR, THIN, affine=ROTATED)
    before = detect(scene, model(), OPTIONS, CPU)
    after = detect(scene, model(), LOOKING_FIRST, CPU)
    assert len(before) == 3
    thin = [box == list(THIN) for box in boxes_px(before)]
    kept = before[~np.array(thin)].reset_index(drop=True)
    assert_geodataframe_equal(kept.drop(columns="id"), after.drop(columns="id"))


def test_ground_that_is_screened_out_is_named_and_counted(tmp_path):
    scene, out = drawn(tmp_path / "a.tif", NEAR), tmp_path / "a.gpkg"
    report = detect_to_file(scene, model(), out, LOOKING_FIRST, CPU)
    tiles = plan_scenes(scene, tiny_card(), OPTIONS, CPU)[0][0].tiles
    seeing = [
        tile for tile in tiles
        if tile.window.row <= NEAR[1] and tile.window.col <= NEAR[0]
        and tile.window.row + 128 >= NEAR[3] and tile.window.col + 128 >= NEAR[2]
    ]  # fmt: skip
    seen_px = sum(tile.core.height * tile.core.width for tile in seeing)
    assert report.tiles == len(seeing) > 0
    assert report.screened_tiles == len(tiles) - len(seeing)
    assert (report.outside_tiles, report.skipped_tiles) == (0, 0)
    assert report.screened_pixels == SHAPE[0] * SHAPE[1] - seen_px
    assert report.pixels == SHAPE[0] * SHAPE[1]
    ground = gpd.read_file(out, layer="scanned").set_index("screened")
    pixel_m2 = abs(NORTH_UP.determinant)
    assert ground.geometry[True].area == pytest.approx(report.screened_pixels * pixel_m2)
    assert ground.geometry[False].area == pytest.approx(seen_px * pixel_m2)
    assert ground.geometry[False].covers(gpd.read_file(out, layer="detections").geometry[0])


def test_without_a_first_look_no_ground_is_screened_out(tmp_path):
    out = tmp_path / "a.gpkg"
    report = detect_to_file(drawn(tmp_path / "a.tif", NEAR), model(), out, OPTIONS, CPU)
    assert report.screened_tiles == report.screened_pixels == 0
    assert gpd.read_file(out, layer="scanned").screened.tolist() == [False]


@pytest.mark.parametrize("factor", [2, 4])
def test_what_is_screened_out_does_not_depend_on_blocks(tmp_path, factor):
    scene = drawn(tmp_path / "a.tif", NEAR, FAR, (3, 3, 40, 40), (850, 660, 880, 690))
    found, ground = [], []
    for block_px in (128, 320, 4096):
        out = tmp_path / f"{block_px}.gpkg"
        run = dataclasses.replace(CPU, block_px=block_px)
        report = detect_to_file(scene, model(factor=factor), out, LOOKING_FIRST, run)
        assert 0 < report.screened_tiles < report.screened_tiles + report.tiles
        found.append(gpd.read_file(out, layer="detections"))
        ground.append(gpd.read_file(out, layer="scanned").set_index("screened").geometry[True])
    for other in (1, 2):
        assert_geodataframe_equal(found[0], found[other])
        assert shapely.equals(ground[0], ground[other])
    assert len(found[0]) == 4


def test_only_tiles_that_are_left_are_read(tmp_path, monkeypatch):
    scene = drawn(tmp_path / "a.tif", NEAR)
    read = []
    plain = Scene.read

    def noting(self, window):
        read.append((self.grid.width, window))
        return plain(self, window)

    monkeypatch.setattr(Scene, "read", noting)
    assert len(detect(scene, model(), LOOKING_FIRST, CPU)) == 1
    own = [window for width, window in read if width == SHAPE[1]]
    assert 0 < sum(window.height * window.width for window in own) < 6 * 128**2
    coarse = [window for width, window in read if width == SHAPE[1] // 4]
    assert sum(window.height * window.width for window in coarse) < SHAPE[0] * SHAPE[1] / 6


@pytest.mark.parametrize("kind", ["overviews", "degrees", "scaled", "nodata", "float"])
def test_every_sort_of_scene_has_coarser_pixels(tmp_path, kind):
    pixels = paint(SHAPE, np.array([NEAR, FAR]))
    options, how = {}, {}
    if kind == "degrees":
        how = {"affine": Affine(5e-6, 0, 15.0, 0, -4.5e-6, 0.5), "crs": "EPSG:4326"}
    if kind == "scaled":
        options = {"gsd_m": 0.45}
    if kind == "nodata":
        pixels[:, :, 300:420] = 0
        how = {"nodata": 0}
    card = {"gsd_range_m": (0.3, 1.0), "prescreen": FIRST}
    if kind == "float":
        pixels = pixels.astype(np.float32)
        pixels[0, :9, :30] = np.nan
        options = {"force": True}
    scene = write_scene(tmp_path / "a.tif", pixels, **how)
    if kind == "overviews":
        with rasterio.open(scene, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
    its = stub_model(**card)
    before = detect(scene, its, dataclasses.replace(OPTIONS, **options), CPU)
    after = detect(scene, its, dataclasses.replace(LOOKING_FIRST, **options), CPU)
    assert len(before) == 2
    assert_geodataframe_equal(before, after)


def test_coarser_pixels_lie_where_the_finer_ones_do(tmp_path):
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pixels = np.stack([rows / 4, cols / 4, rows * 0]).astype(np.uint8)
    plans, _ = plan_scenes(write_scene(tmp_path / "a.tif", pixels), tiny_card(), OPTIONS, CPU)
    coarse = coarsen(plans[0].scene, 4)
    assert coarse.grid.shape == (175, 225)
    found, valid = coarse.read(coarse.grid.window)
    assert valid.all()
    own_rows, own_cols = np.mgrid[:175, :225]
    assert np.abs(found[0].astype(int) - own_rows).max() <= 1
    assert np.abs(found[1].astype(int) - own_cols).max() <= 1
    np.testing.assert_allclose(
        coarse.grid.pixels_to_crs(np.array([10.0, 20.0])),
        plans[0].scene.grid.pixels_to_crs(np.array([40.0, 80.0])),
    )


def test_a_block_whose_coarser_pixels_cannot_be_read_is_detected_on_as_a_whole(
    tmp_path, monkeypatch
):
    scene = drawn(tmp_path / "a.tif", NEAR, FAR, THIN)
    before = detect(scene, model(), OPTIONS, CPU)

    def broken(job, card):
        raise SceneError("no overview")

    monkeypatch.setattr(blocks, "read_coarse", broken)
    assert_geodataframe_equal(before, detect(scene, model(), LOOKING_FIRST, CPU))


def test_damage_under_a_tile_that_is_left_costs_no_other_ground(tmp_path, monkeypatch):
    scene, out = drawn(tmp_path / "a.tif", NEAR, FAR), tmp_path / "a.gpkg"
    plain = Scene.read

    def damaged(self, window):
        broken = (630, 500)  # x, y of a pixel of the file, in the second object
        x_min, y_min, x_max, y_max = window.box_px
        is_own = self.grid.width == SHAPE[1]
        if is_own and x_min <= broken[0] < x_max and y_min <= broken[1] < y_max:
            raise SceneError("a block of the file is damaged")
        return plain(self, window)

    monkeypatch.setattr(Scene, "read", damaged)
    report = detect_to_file(scene, model(), out, LOOKING_FIRST, CPU)
    assert not report.complete
    assert list(NEAR) in boxes_px(gpd.read_file(out, layer="detections"))
    missing = gpd.read_file(out, layer="not_covered").union_all()
    left = gpd.read_file(out, layer="scanned").union_all()
    assert missing.area == pytest.approx(report.not_covered_pixels * abs(NORTH_UP.determinant))
    assert missing.area < 0.02 * left.area
    assert missing.intersection(left).area == pytest.approx(0)


def test_parts_and_a_run_that_goes_on_look_first_too(tmp_path, monkeypatch):
    scene = drawn(tmp_path / "a.tif", NEAR, FAR)
    monkeypatch.setattr("geo_retina.run.frozen_plan.load_model", lambda name: model())
    monkeypatch.setattr("geo_retina.run.run_plan.load_model", lambda name: model())
    whole = detect_to_file(scene, "m", tmp_path / "one.gpkg", LOOKING_FIRST, CPU)
    plan = freeze_run(scene, "m", LOOKING_FIRST, CPU)
    out = tmp_path / "many.gpkg"
    for number in (1, 2):
        detect_part(plan, Part(number, 2), out, CPU)
    gathered = gather_parts(out)
    assert (gathered.tiles, gathered.screened_tiles) == (whole.tiles, whole.screened_tiles)
    for layer in ("detections", "scanned"):
        a, b = (gpd.read_file(path, layer=layer) for path in (tmp_path / "one.gpkg", out))
        assert_geodataframe_equal(a, b)


def test_a_run_without_a_first_look_does_not_go_on_with_one(tmp_path):
    scene, out = drawn(tmp_path / "a.tif", NEAR), tmp_path / "a.gpkg"
    detect_to_file(scene, model(), out, LOOKING_FIRST, dataclasses.replace(CPU, keep=True))
    again = dataclasses.replace(CPU, update=True)
    with pytest.raises(RunError, match="prescreen"):
        detect_to_file(scene, model(), out, OPTIONS, again)
    other = model(score=0.7)
    with pytest.raises(RunError, match="model"):
        detect_to_file(scene, other, out, LOOKING_FIRST, again)


def test_merged_files_keep_what_was_screened_out(tmp_path):
    outs = []
    for i, object_px in enumerate((NEAR, FAR)):
        affine = Affine.translation(1000 * i, 0) @ NORTH_UP
        scene = drawn(tmp_path / f"{i}.tif", object_px, affine=affine)
        outs.append(tmp_path / f"{i}.gpkg")
        detect_to_file(scene, model(), outs[-1], LOOKING_FIRST, CPU)
    combine_runs(outs, tmp_path / "both.gpkg")
    ground = gpd.read_file(tmp_path / "both.gpkg", layer="scanned")
    assert sorted(zip(ground.scene, ground.screened, strict=True)) == [
        ("0", False), ("0", True), ("1", False), ("1", True)
    ]  # fmt: skip
    assert len(gpd.read_file(tmp_path / "both.gpkg", layer="detections")) == 2


@pytest.mark.parametrize(
    ("first", "options", "match"),
    [
        (None, {}, "calibrating the model"),
        (FIRST, {"score": 0.4}, "from a score of 0.4 on"),
        (FIRST, {"min_score": 0.3, "score": 0.9}, "from a score of 0.3 on"),
    ],
)
def test_a_first_look_that_was_not_measured_is_refused(tmp_path, first, options, match):
    scene = drawn(tmp_path / "a.tif", NEAR)
    with pytest.raises(OptionError, match=match):
        detect(scene, stub_model(prescreen=first),
               dataclasses.replace(LOOKING_FIRST, **options), CPU)  # fmt: skip


def test_a_mosaic_has_no_first_look():
    with pytest.raises(OptionError, match="mosaic"):
        DetectOptions(prescreen=True, mosaic=True)


def test_the_card_keeps_how_to_look_first():
    card = tiny_card(prescreen=FIRST)
    assert Card.from_json(card.to_json()) == card
    assert "prescreen" not in tiny_card().to_json()
    with pytest.raises(ModelError, match="2 or 4"):
        Prescreen(factor=3, score=0.5, thresholds=())
    with pytest.raises(ModelError, match="thresholds for 2 classes"):
        tiny_card(prescreen=dataclasses.replace(FIRST, thresholds=(0.5,)))
