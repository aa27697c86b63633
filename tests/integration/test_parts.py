"""Parts of a run, done apart from each other and gathered: the result is that of one run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from shapely import box
from support.stubs import LOADED_BY_RUNS, load_stub_model, paint, tiny_model, write_scene

from geo_retina import FrozenPlan, RunOptions, freeze_run, read_plan
from geo_retina.cli import main
from geo_retina.errors import SceneError
from geo_retina.run.ledger.folder import Ledger
from geo_retina.run.ledger.manifest import read_manifest
from geo_retina.scene import Scene

FLAGS = ["--block-px", "128", "--tile-px", "96", "--overlap-px", "32", "--score", "0.5"]
CPU = ["--device", "cpu", "--quiet"]


def _boxes(seed: int) -> np.ndarray:
    """Rectangles on a lattice, so that none touch; seams cut many of them."""
    rng = np.random.default_rng(seed)
    corner = np.stack(np.meshgrid(range(0, 280, 40), range(0, 200, 40)), axis=-1).reshape(-1, 2)
    corner = corner + rng.integers(2, 8, corner.shape)
    return np.hstack([corner, corner + rng.integers(6, 26, corner.shape)])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for place in (LOADED_BY_RUNS, "geo_retina.run.frozen_plan.load_model"):
        monkeypatch.setattr(place, load_stub_model)
    (tmp_path / "s").mkdir()
    for i in range(3):
        place = Affine(0.5, 0, 400_000 + 500 * i, 0, -0.5, 5_000_000)
        write_scene(tmp_path / "s" / f"{i}.tif", paint((220, 300), _boxes(i)), affine=place)
    tiny_model().save(tmp_path / "m.safetensors")
    return tmp_path


def plan(*flags: str) -> int:
    return main(["plan", "s", "--model", "m.safetensors", "--out", "plan.json", "--no-cost",
                 "--device", "cpu", *FLAGS, *flags])  # fmt: skip


def part(which: str, *flags: str, out: str = "many.gpkg") -> int:
    return main(["detect", "--plan", "plan.json", "--part", which, "--out", out, *CPU, *flags])


def whole(*flags: str, out: str = "one.gpkg") -> gpd.GeoDataFrame:
    line = ["detect", "s", "--model", "m.safetensors", "--out", out, *CPU, *FLAGS, *flags]
    assert main(line) == 0
    return gpd.read_file(out, layer="detections")


def assert_same(one: str, other: str) -> None:
    for layer in ("detections", "scanned"):
        mine, its = (gpd.read_file(path, layer=layer) for path in (one, other))
        assert len(mine)
        assert_geodataframe_equal(mine, its)


def test_parts_in_any_order_give_the_result_of_one_run(here):
    whole()
    assert plan() == 0
    assert [part(f"{number}/4") for number in (3, 1, 4, 2)] == [0] * 4
    assert not Path("many.gpkg").exists()
    assert sorted(os.listdir("many.gpkg.run")) == [f"part-{i}-of-4" for i in range(1, 5)]
    assert main(["gather", "many.gpkg", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")
    assert not Path("many.gpkg.run").exists()


def test_without_a_plan_file_each_part_makes_the_same_plan(here):
    of = 4
    whole()
    line = ["detect", "s", "--model", "m.safetensors", "--out", "many.gpkg", *CPU, *FLAGS]
    assert {main([*line, "--part", f"{number}/{of}"]) for number in range(1, of + 1)} == {0}
    assert main(["gather", "many.gpkg", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")


def test_objects_at_the_border_of_an_area_are_those_of_one_run(here):
    area = gpd.GeoDataFrame(
        geometry=[box(400_030, 4_999_920, 400_570, 4_999_985)], crs="EPSG:32633"
    )
    area.to_file("area.gpkg")
    whole("--aoi", "area.gpkg")
    assert plan("--aoi", "area.gpkg") == 0
    assert [part(f"{number}/3") for number in (1, 2, 3)] == [0] * 3
    assert main(["gather", "many.gpkg", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")


def test_parts_of_other_machines_are_gathered_from_their_folders(here, tmp_path, monkeypatch):
    whole()
    assert plan() == 0
    for number in (1, 2, 3):
        folder = here / f"machine-{number}"
        folder.mkdir()
        shutil.copy("plan.json", folder)
        monkeypatch.chdir(folder)
        assert part(f"{number}/3") == 0
        monkeypatch.chdir(here)
    folders = [f"machine-{n}/many.gpkg.run" for n in (1, 2)]
    folders.append("machine-3/many.gpkg.run/part-3-of-3")
    assert main(["gather", "many.gpkg", *folders, *CPU]) == 0
    assert len(gpd.read_file("many.gpkg", layer="detections"))
    mine, its = (gpd.read_file(f, layer="detections") for f in ("one.gpkg", "many.gpkg"))
    assert_geodataframe_equal(mine, its)
    assert Path(folders[2]).exists()  # removed only where they are the run's own


def test_missing_and_unfinished_parts_are_named(here, capsys):
    assert plan() == 0
    assert part("2/4") == part("3/4") == 0
    assert main(["gather", "many.gpkg"]) == 1
    assert "2 of 4 parts were not found: 1/4, 4/4" in capsys.readouterr().err
    assert part("1/4") == part("4/4") == 0
    units = sorted(Path("many.gpkg.run/part-3-of-4").glob("unit-*.parquet"))
    units[0].unlink()  # as if it had been killed before
    assert main(["gather", "many.gpkg"]) == 1
    assert "1 of 4 parts are not finished: 3/4" in capsys.readouterr().err
    assert not Path("many.gpkg").exists()
    assert part("3/4") == 0
    assert main(["gather", "many.gpkg", *CPU]) == 0


def test_a_part_done_twice_counts_once_if_both_found_the_same(here, capsys):
    whole()
    assert plan() == 0
    assert part("1/2") == part("2/2") == part("2/2", out="again.gpkg") == 0
    twin = Path("again.gpkg.run/part-2-of-2")
    assert main(["gather", "many.gpkg", str(twin), "--keep", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")
    # A machine whose arithmetic differs: one score of one block is another.
    file = next(f for f in sorted(twin.glob("unit-*.parquet")) if pq.read_table(f).num_rows)
    table = pq.read_table(file)
    scores = table["scores"].to_numpy().copy()
    scores[0] += 0.01
    place = table.schema.get_field_index("scores")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(scores)), file)
    assert main(["gather", "many.gpkg", str(twin), "--overwrite", *CPU]) == 1
    assert "was detected twice with different results" in capsys.readouterr().err
    (twin / "manifest.json").write_text("{")
    assert main(["gather", "many.gpkg", str(twin), "--overwrite", *CPU]) == 1
    assert "part-2-of-2 lacks a manifest.json that can be read" in capsys.readouterr().err


def test_a_block_that_fails_is_told_and_retried_by_its_part(here, monkeypatch, capsys):
    expected = whole()
    assert plan() == 0
    assert part("1/2") == 0
    read = Scene.read

    def fail(scene, window):
        if scene.path.endswith("2.tif") and window.row == 0 and window.col == 0:
            raise SceneError("2.tif cannot be read here")
        return read(scene, window)

    with monkeypatch.context() as patched:
        patched.setattr(Scene, "read", fail)
        assert part("2/2") == 3
    assert "2.tif cannot be read here" in capsys.readouterr().err
    assert main(["gather", "many.gpkg", *CPU]) == 3
    assert len(gpd.read_file("many.gpkg", layer="not_covered"))
    assert len(gpd.read_file("many.gpkg", layer="detections")) < len(expected)
    assert part("2/2") == 0
    assert main(["gather", "many.gpkg", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")


def test_a_scene_that_vanishes_after_planning_is_not_covered(here):
    assert plan() == 0
    Path("s/2.tif").rename("hidden.tif")
    assert [part(f"{number}/3") for number in (1, 2, 3)] == [0, 0, 3]
    assert main(["gather", "many.gpkg", *CPU]) == 3
    assert list(gpd.read_file("many.gpkg", layer="not_covered")["scene"]) == [
        str(here / "s" / "2.tif")
    ]
    Path("hidden.tif").rename("s/2.tif")
    whole()
    assert part("3/3") == 0
    assert main(["gather", "many.gpkg", *CPU]) == 0
    assert_same("one.gpkg", "many.gpkg")


def test_a_scene_that_only_later_can_be_used_is_still_told_as_missing(here):
    Path("s/3.tif").write_text("no picture")
    assert plan() == 3
    assert part("1/1") == 0
    shutil.copy("s/0.tif", "s/3.tif")
    assert main(["gather", "many.gpkg", *CPU]) == 3
    assert list(gpd.read_file("many.gpkg", layer="not_covered")["scene"]) == ["s/3.tif"]


def test_what_differs_from_the_plan_is_refused_by_name(here, capsys):
    assert plan() == 0
    for flags, said in (
        (["--score", "0.4"], "options.score: 0.5, now 0.4"),
        (["--crs", "EPSG:4326"], "in crs"),
    ):
        assert part("1/2", *flags) == 2
        assert said in capsys.readouterr().err
    assert (
        main(["detect", "s/1.tif", "--plan", "plan.json", "--part", "1/2", "--out", "o.gpkg"]) == 2
    )
    assert "scenes: 3 items, now 1 items" in capsys.readouterr().err
    assert part("1/2", *FLAGS) == 0  # the same as planned
    write_scene(Path("s/1.tif"), paint((220, 300), _boxes(7)))
    assert part("2/2") == 1
    assert f"{here / 's' / '1.tif'} (the file was replaced)" in capsys.readouterr().err


def test_parts_of_different_plans_or_counts_are_not_mixed(here, capsys):
    assert plan() == 0
    assert part("1/2") == part("2/2") == 0
    assert part("1/3") == 0
    assert main(["gather", "many.gpkg"]) == 1
    assert "part.of: 2, now 3" in capsys.readouterr().err


def test_a_run_of_the_whole_does_not_discard_parts(here, capsys):
    assert plan() == 0
    assert part("1/2") == 0
    line = ["detect", "s", "--model", "m.safetensors", "--out", "many.gpkg", *CPU, *FLAGS]
    for flags in ([], ["--restart"], ["--overwrite"]):
        assert main([*line, *flags]) == 1
        assert "holds parts of a run, such as part-1-of-2" in capsys.readouterr().err
    assert list(Path("many.gpkg.run/part-1-of-2").glob("unit-*"))


def test_a_part_that_is_being_detected_is_left_alone(here, capsys):
    assert plan() == 0
    assert part("1/1") == 0
    folder = Path("many.gpkg.run/part-1-of-1")
    ledger = Ledger.open(folder, read_manifest(folder))
    for line in (lambda: part("1/1"), lambda: main(["gather", "many.gpkg"])):
        assert line() == 1
        assert "another run is writing to" in capsys.readouterr().err
    ledger.close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--part", "0/3"], "the part is 0/3"),
        (["--part", "4/3"], "expected a number from 1 to 3"),
        (["--part", "three"], "such as 3/40"),
        ([], "--part 1/40"),
    ],
)
def test_a_part_that_makes_no_sense_is_wrong_usage(here, capsys, flags, said):
    assert plan() == 0
    capsys.readouterr()
    assert main(["detect", "--plan", "plan.json", "--out", "o.gpkg", *CPU, *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "geo-retina plan", "version": 1}', "\x00"])
def test_a_damaged_plan_is_one_sentence(here, capsys, text):
    Path("plan.json").write_text(text)
    assert part("1/2") == 1
    assert "plan.json cannot be read as a plan" in capsys.readouterr().err


def test_a_plan_is_read_as_it_was_written(here):
    assert plan("--merge.iou", "0.3", "--bands", "3,2,1") == 0
    found = read_plan("plan.json")
    found.write(Path("again.json"))
    assert json.loads(Path("again.json").read_text()) == json.loads(Path("plan.json").read_text())
    assert found.options.bands == (3, 2, 1)


def test_parts_share_the_ground_and_not_what_is_none(here):
    """Half of the scene is nodata, so that it is not half of the work."""
    pixels = np.full((3, 2048, 2048), 90, np.uint8)
    pixels[:, :1024] = 0
    write_scene(here / "half.tif", pixels, nodata=0)
    run = RunOptions(device="cpu", block_px=192)
    frozen: FrozenPlan = freeze_run("half.tif", tiny_model_file(here), run=run)
    shares = [frozen.share(number, 4) for number in (1, 2, 3, 4)]
    assert [unit for share in shares for unit in share] == list(frozen.units)
    ground = [sum(b.pixels * b.valid for u in share for b in u) for share in shares]
    assert sum(ground) == pytest.approx(2048 * 1024, rel=0.05)
    assert max(ground) < 1.35 * sum(ground) / 4
    assert sum(b.pixels for u in frozen.units for b in u) == 2048**2


def tiny_model_file(folder: Path) -> str:
    return str(folder / "m.safetensors")


def test_a_plan_names_the_arithmetic_that_auto_stands_for(tmp_path):
    write_scene(tmp_path / "a.tif", paint((220, 300), _boxes(0)))
    model = tiny_model().save(tmp_path / "m.safetensors")
    frozen = freeze_run(tmp_path / "a.tif", model, run=RunOptions(device="cpu"))
    assert frozen.options.precision in ("fp32", "bf16")
    assert frozen.options.runtime == "torch"
