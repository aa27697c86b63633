"""Scenes that are added to a run: as if all had been detected at once, but for the work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from support.stubs import LOADED_BY_RUNS, load_stub_model, paint, tiny_model, write_scene

from geo_retina.cli import main

CPU = ["--device", "cpu", "--quiet", "--block-px", "128", "--tile-px", "96", "--overlap-px", "32"]


def _draw(path: Path, seed: int) -> None:
    corner = np.stack(np.meshgrid(range(0, 280, 40), range(0, 200, 40)), axis=-1).reshape(-1, 2)
    boxes = np.hstack([corner + 2 + seed % 4, corner + 20])
    place = Affine(0.5, 0, 400_000 + 500 * seed, 0, -0.5, 5_000_000)
    write_scene(path, paint((220, 300), boxes), affine=place)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    (tmp_path / "s").mkdir()
    for name, seed in (("b", 0), ("d", 1)):
        _draw(tmp_path / "s" / f"{name}.tif", seed)
    tiny_model().save(tmp_path / "m.safetensors")
    return tmp_path


def detect(*words: str) -> int:
    return main(["detect", *words, "--model", "m.safetensors", "--score", "0.5", *CPU])


def units(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("unit-*.parquet"))}


def test_new_scenes_alone_are_detected(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    before = units(here / "a.gpkg.run")
    assert before
    # Before, between and after the scenes of the first run.
    for name, seed in (("a", 2), ("c", 3), ("e", 4)):
        _draw(here / "s" / f"{name}.tif", seed)
    assert detect("s", "--out", "a.gpkg", "--update") == 0, capsys.readouterr().err
    after = units(here / "a.gpkg.run")
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)

    order = [f"s/{name}.tif" for name in "bdace"]
    assert detect(*order, "--out", "b.gpkg") == 0
    updated, whole = (gpd.read_file(name) for name in ("a.gpkg", "b.gpkg"))
    assert len(updated) > 100
    assert_geodataframe_equal(updated, whole)
    scanned = [gpd.read_file(name, layer="scanned") for name in ("a.gpkg", "b.gpkg")]
    assert_geodataframe_equal(*scanned)


def test_a_run_is_updated_again_and_again(here):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    for seed in (2, 3):
        _draw(here / "s" / f"e{seed}.tif", seed)
        assert detect("s", "--out", "a.gpkg", "--update") == 0
        assert gpd.read_file("a.gpkg")["scene"].nunique() == seed + 1
    # Nothing new is no error.
    before = units(here / "a.gpkg.run")
    assert detect("s", "--out", "a.gpkg", "--update") == 0
    assert units(here / "a.gpkg.run") == before


def test_an_update_goes_on_where_it_was_stopped(here):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    _draw(here / "s" / "e.tif", 2)
    assert detect("s", "--out", "a.gpkg", "--update") == 0
    # As a process leaves it that is killed before the new scene's blocks are written.
    newest = max((here / "a.gpkg.run").glob("unit-*.parquet"))
    newest.unlink()
    assert detect("s", "--out", "a.gpkg", "--update") == 0
    assert gpd.read_file("a.gpkg")["scene"].nunique() == 3


def test_scenes_that_are_gone_or_changed_are_refused_by_name(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    before = Path("a.gpkg").read_bytes()
    manifest = (here / "a.gpkg.run" / "manifest.json").read_text()
    shutil.move("s/b.tif", "b.tif")
    assert detect("s", "--out", "a.gpkg", "--update") == 1
    said = capsys.readouterr().err
    assert "s/b.tif" in said
    assert "not given any more" in said
    shutil.move("b.tif", "s/b.tif")
    os.utime("s/b.tif", ns=(1, 1))
    _draw(here / "s" / "e.tif", 2)
    assert detect("s", "--out", "a.gpkg", "--update") == 1
    assert "s/b.tif (the file was replaced)" in capsys.readouterr().err
    assert Path("a.gpkg").read_bytes() == before
    now = json.loads((here / "a.gpkg.run" / "manifest.json").read_text())
    assert now == json.loads(manifest)


def test_other_options_are_no_update(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    assert detect("s", "--out", "a.gpkg", "--update", "--nms-iou", "0.7") == 1
    assert "nms_iou" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--update"], "a.gpkg.run does not exist"),
        (["--update", "--restart"], "--update and --restart are both given"),
        (["--update", "--part", "1/2"], "--update"),
    ],
)
def test_what_cannot_be_updated_is_said(here, capsys, flags, said):
    assert detect("s", "--out", "a.gpkg") == 0
    capsys.readouterr()
    assert detect("s", "--out", "a.gpkg", *flags) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_mosaic_is_not_updated(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep", "--mosaic") == 0
    assert detect("s", "--out", "a.gpkg", "--update", "--mosaic") in (1, 2)
    assert "mosaic" in capsys.readouterr().err


def test_a_finished_run_that_was_kept_is_not_repeated_by_mistake(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    assert detect("s", "--out", "a.gpkg", "--keep") == 1
    assert "exists" in capsys.readouterr().err


def test_a_file_that_somebody_changed_is_not_replaced(here, capsys):
    assert detect("s", "--out", "a.gpkg", "--keep") == 0
    os.utime("a.gpkg", ns=(1, 1))
    _draw(here / "s" / "e.tif", 2)
    assert detect("s", "--out", "a.gpkg", "--update") == 1
    assert "exists" in capsys.readouterr().err
    assert detect("s", "--out", "a.gpkg", "--update", "--overwrite") == 0
    assert gpd.read_file("a.gpkg")["scene"].nunique() == 3
