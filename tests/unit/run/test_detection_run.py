"""A run as a value: planned, carried out and totalled before anything of it is written."""

from __future__ import annotations

import dataclasses
from contextlib import closing, contextmanager

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from support.stubs import NORTH_UP, UTM, stub_model, tiny_model, white_rectangles, write_scene

from geo_retina.detections import Detections
from geo_retina.detector import detect, detect_to_file
from geo_retina.errors import RunError
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import (
    Outputs,
    carry_out,
    explain,
    limit_notes,
    merged_tables,
    open_ledger,
    plan_run,
)
from geo_retina.run.detection_run import total
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.ledger.folder import SceneRecord
from geo_retina.run.tasks.tally import Workload
from geo_retina.scene import Scene
from geo_retina.vector import read_metadata

OPTIONS = DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision="fp32")
RUN = RunOptions(device="cpu", block_px=160, threads=1, retries=0)


def noise(shape, seed):
    return np.random.default_rng(seed).integers(0, 255, (3, *shape)).astype(np.uint8)


@pytest.fixture
def scenes(tmp_path):
    """Two scenes, the second with a strip without data, and a file that is none."""
    pixels = noise((200, 260), 2)
    pixels[:, :, 130:] = 0
    (tmp_path / "c.tif").write_text("no raster")
    write_scene(tmp_path / "a.tif", noise((180, 300), 1))
    write_scene(tmp_path / "b.tif", pixels, nodata=0)
    return [tmp_path / name for name in ("a.tif", "b.tif", "c.tif")]


def fail_at(monkeypatch, name, corner):
    whole = Scene.read

    def read(self, window):
        if str(self.path).endswith(name) and (window.row, window.col) == corner:
            raise OSError("bad sector")
        return whole(self, window)

    monkeypatch.setattr(Scene, "read", read)
    monkeypatch.setattr(Scene, "seams", lambda *_: ([], []))  # nor can it be read in pieces


@contextmanager
def carried_out(scenes, folder, progress=None, options=OPTIONS):
    """Carry out a run whose ledger is open within."""
    model, outputs = tiny_model(), Outputs(folder)
    plan = plan_run(scenes, model, options, RUN, outputs=outputs, crs=None)
    with closing(open_ledger(plan)) as ledger:
        yield carry_out(plan, ledger, progress)


def test_totals_are_complete_before_a_table_is_read(tmp_path, scenes, monkeypatch):
    fail_at(monkeypatch, "a.tif", (0, 0))
    with carried_out(scenes, tmp_path / "run") as run:
        first, second = run.plan.scene_plans
        assert [failure.scene for failure in run.failures] == [str(scenes[2]), str(scenes[0])]
        lost = run.failures[1].window
        totals = run.totals
        assert totals.blocks == len(first.blocks) + len(second.blocks) - 1
        assert totals.pixels == 180 * 300 + 200 * 260 - lost.height * lost.width
        lost_tiles = len(first.tiles.tiles_of(first.blocks[0]))
        planned = len(first.tiles) + len(second.tiles)
        assert totals.tiles + totals.skipped_tiles == planned - lost_tiles
        step, tile = second.tiles.step_px, second.tiles.tile_px
        empty_cols = sum(col * step >= 130 for col in range(second.tiles.cols))
        assert totals.skipped_tiles == second.tiles.rows * empty_cols > 0
        assert tile < 130
        assert totals.truncated_tiles == totals.tiles  # noise fills every tile up to its limit
        assert (totals.scenes, totals.outside_tiles, totals.outside_scenes) == (2, 0, 0)


def test_tiles_out_of_the_range_of_integers_are_counted_and_told(scenes, tmp_path):
    def find(tiles_NCHW):
        marks = torch.ones(len(tiles_NCHW), dtype=torch.bool)
        return white_rectangles(tiles_NCHW)._replace(out_of_range_N=marks)

    out = tmp_path / "out.gpkg"
    report = detect_to_file(scenes[0], stub_model(find), out, OPTIONS, RUN)
    assert report.out_of_range_tiles == report.tiles > 1
    assert read_metadata(out)["out_of_range_tiles"] == str(report.tiles)
    (note,) = limit_notes(report)
    assert note.startswith(f"{report.tiles} tiles had values far outside")
    with pytest.warns(UserWarning, match="far outside .* integers were measured on"):
        detect(scenes[0], stub_model(find), OPTIONS, RUN)


def test_reading_the_tables_changes_nothing_of_a_run(tmp_path, scenes, monkeypatch):
    fail_at(monkeypatch, "a.tif", (0, 0))
    with carried_out(scenes[:2], tmp_path / "run") as run:
        before = run.totals, run.failures, explain(run)
        tables = pa.concat_tables(merged_tables(run))
        assert pa.concat_tables(merged_tables(run)).equals(tables)
        assert tables.num_rows > 0
        after = run.totals, run.failures, explain(run)
    assert after[:2] == before[:2]
    assert after[2].scanned.equals(before[2].scanned)
    assert after[2].not_covered.equals(before[2].not_covered)
    assert after[2].not_covered.num_rows == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.failures = ()


@pytest.mark.parametrize(
    ("profile", "whole"),
    [
        ({}, True),
        ({"nodata": 0}, False),
        ({"dtype": "float32"}, False),
        ({"sparse_ok": True}, False),
    ],
)
def test_scanned_ground_says_whether_all_of_it_is_there(tmp_path, profile, whole):
    """Nodata, NaN and missing blocks are in its outline, so another run may fill it."""
    pixels = noise((256, 256), 0).clip(1).astype(profile.get("dtype", "uint8"))
    shape = {"count": 3, "height": 256, "width": 256, "dtype": "uint8"}
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    place = {"crs": UTM, "transform": NORTH_UP}
    rows = 128 if "sparse_ok" in profile else 256
    with rasterio.open(tmp_path / "a.tif", "w", **{**shape, **tiled, **place, **profile}) as file:
        file.write(pixels[:, :rows], window=((0, rows), (0, 256)))
    options = dataclasses.replace(OPTIONS, force=True)
    with carried_out([tmp_path / "a.tif"], tmp_path / "run", options=options) as run:
        assert explain(run).scanned["whole"].to_pylist() == [whole]


def test_a_run_that_goes_on_has_the_totals_of_one_that_was_not_stopped(tmp_path, scenes):
    with carried_out(scenes, tmp_path / "whole") as whole:
        expected = pa.concat_tables(merged_tables(whole))
    states = []

    def stop(state):
        if state.task_batches_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), carried_out(scenes, tmp_path / "run", stop):
        pass
    with carried_out(scenes, tmp_path / "run", states.append) as resumed:
        assert states[0].pixels_before > 0
        assert resumed.totals == whole.totals
        assert pa.concat_tables(merged_tables(resumed)).equals(expected)


def test_what_a_scene_left_that_is_gone_is_no_result(tmp_path, scenes, monkeypatch):
    """Its blocks are finished, but all of the scene that can be read fails."""
    out = tmp_path / "out.gpkg"
    run = dataclasses.replace(RUN, block_px=4096, overwrite=True)
    first, second = scenes[:2]
    fail_at(monkeypatch, "b.tif", (0, 0))
    assert not detect_to_file([first, second], tiny_model(), out, OPTIONS, run).complete
    out.write_text("older")
    first.rename(tmp_path / "a.moved")
    first.write_text("no raster")
    with pytest.raises(RunError, match=r"nothing could be detected, .* bad sector"):
        detect_to_file([first, second], tiny_model(), out, OPTIONS, run)
    assert out.read_text() == "older"


def test_a_member_that_tiles_beside_the_area_show_is_counted_once(tmp_path):
    """Border objects may need single tiles beside the area, and those show further members."""
    for name, col in (("a", 0), ("b", 300)):
        affine = NORTH_UP @ Affine.translation(col, 0)
        write_scene(tmp_path / f"{name}.tif", noise((200, 300), col), affine=affine)
    area = shapely.box(*(NORTH_UP @ (20, 180)), *(NORTH_UP @ (200, 20)))
    gpd.GeoDataFrame(geometry=[area], crs=UTM).to_file(tmp_path / "area.gpkg")
    options = dataclasses.replace(OPTIONS, mosaic=True, aoi=str(tmp_path / "area.gpkg"))
    outputs = Outputs(tmp_path / "run")
    scenes = [tmp_path / "a.tif", tmp_path / "b.tif"]
    plan = plan_run(scenes, tiny_model(), options, RUN, outputs=outputs, crs=None)
    (mosaic,) = plan.scene_plans
    assert len(mosaic.blocks) < len(mosaic.tiles.blocks(RUN.block_px))
    beside = len(mosaic.blocks) + mosaic.tiles.cols - 1  # the last tile of the first row
    for more, expected in ([], (1, 1)), ([beside], (2, 0)):
        results = tuple(
            BlockResult(0, index, mosaic.block(index).window, Detections.empty(), tiles=1)
            for index in (*range(len(mosaic.blocks)), *more)
        )
        totals = total(plan, [SceneRecord(0, results, {}, None)], Workload()).totals
        assert (totals.scenes, totals.outside_scenes) == expected
