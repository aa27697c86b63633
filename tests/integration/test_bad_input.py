"""What users get wrong: one sentence that says so, an exit code, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely import Point, box
from support.stubs import LOADED_BY_RUNS, UTM, load_stub_model, paint, tiny_model, write_scene

from geo_retina.cli import main

BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130]])
CPU = ["--device", "cpu", "--block-px", "256"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a scene, a model and labels that are all right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    write_scene(tmp_path / "good.tif", paint((150, 200), BOXES))
    tiny_model().save(tmp_path / "model.safetensors")
    write_labels("labels.gpkg")
    return tmp_path


def write_labels(path: str, **changes: object) -> None:
    values = {
        "data": {"kind": ["car", "tree"]},
        "geometry": [
            box(400_005, 4_999_989, 400_015, 4_999_994),
            Point(400_052, 4_999_942).buffer(5),
        ],
        "crs": UTM,
    }
    gpd.GeoDataFrame(**{**values, **changes}).to_file(path)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.fixture
def refused(folder, capsys):
    """Runs a command that must fail with one sentence and leave the folder as it was."""

    def _refused(line: list[str], *said: str, code: int = 1) -> None:
        before = contents(folder)
        assert main(line) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("geo-retina: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert "unexpected" not in err
        for words in said:
            assert words in err
        after = contents(folder)
        assert sorted(after) == sorted(before)
        assert after == before

    return _refused


def detect(*scenes: str, out: str = "out.gpkg", model: str = "model.safetensors") -> list[str]:
    return ["detect", *scenes, "--model", model, "--out", out, *CPU]


def evaluate(*arguments: str) -> list[str]:
    return ["evaluate", *arguments]


@pytest.fixture
def train(folder):
    """The command line of a training run whose data are as given."""

    def _train(**data: object) -> list[str]:
        import yaml

        values = {"scenes": ["good.tif"], "labels": "labels.gpkg", **data}
        Path("config.yaml").write_text(yaml.safe_dump({"data": values, "pretrained": False}))
        return ["train", "config.yaml", "--out", "trained.safetensors"]

    return _train


def test_the_good_files_are_good(folder, capsys):
    assert main(detect("good.tif")) == 0
    assert len(gpd.read_file("out.gpkg")) == len(BOXES)
    assert main(evaluate("out.gpkg", "labels.gpkg")) == 0


# Scenes


def test_missing_scene(refused):
    refused(detect("nowhere.tif"), "nowhere.tif", "does not exist")
    refused(["info", "nowhere.tif"], "nowhere.tif")
    refused(["plan", "nowhere.tif", "--model", "model.safetensors"], "nowhere.tif")


def test_not_a_raster(refused):
    Path("text.tif").write_text("this is no picture")
    refused(detect("text.tif"), "text.tif", "not a raster")
    refused(["info", "text.tif"], "text.tif", "not a raster")


def test_folder_without_rasters(refused):
    Path("empty").mkdir()
    refused(detect("empty"), "empty", "holds no raster")


def test_scene_without_crs(refused):
    write_scene(Path("nocrs.tif"), paint((150, 200), BOXES), crs=None)
    refused([*detect("nocrs.tif"), "--crs", "EPSG:4326"], "nocrs.tif", "no CRS", "-a_srs")
    refused(detect("nocrs.tif", out="out.geojson"), "out.geojson", "no CRS", ".gpkg")


def test_wrong_band_count(refused):
    write_scene(Path("two.tif"), paint((150, 200), BOXES, bands=2))
    refused(detect("two.tif"), "two.tif", "2 bands", "3", "--bands")
    refused([*detect("good.tif"), "--bands", "1,2"], "--bands")
    refused([*detect("good.tif"), "--bands", "1,2,9"], "9", "--bands")


def test_wrong_data_type(refused):
    write_scene(Path("wide.tif"), paint((150, 200), BOXES).astype(np.uint16) * 40)
    refused(detect("wide.tif"), "wide.tif", "uint16", "uint8", "--force")


# Models


def test_missing_model(refused):
    refused(detect("good.tif", model="nowhere.safetensors"), "nowhere.safetensors")
    refused(detect("good.tif", model="no-such-model"), "no-such-model")
    refused(["info", "nowhere.safetensors"], "nowhere.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_corrupt_model(refused, kept):
    Path("bad.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:kept])
    refused(detect("good.tif", model="bad.safetensors"), "bad.safetensors")
    refused(["info", "bad.safetensors"], "bad.safetensors")


def test_a_model_that_is_something_else(refused):
    refused(detect("good.tif", model="good.tif"), "good.tif")


# Outputs


def test_existing_output(refused, capsys):
    Path("out.gpkg").write_text("mine")
    refused(detect("good.tif"), "out.gpkg", "exists", "--overwrite")
    assert main([*detect("good.tif"), "--overwrite"]) == 0
    assert len(gpd.read_file("out.gpkg")) == len(BOXES)


def test_failure_keeps_the_output_that_was_to_be_replaced(refused):
    Path("out.gpkg").write_text("mine")
    refused([*detect("nowhere.tif"), "--overwrite"], "nowhere.tif")


@pytest.mark.parametrize("out", ["missing/out.gpkg", "out.doc", "labels.gpkg/out.gpkg"])
def test_output_that_cannot_be(refused, out):
    refused(detect("good.tif", out=out), out.rpartition("/")[2] if "." in out else out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_unwritable_folder(refused, folder):
    (folder / "locked").mkdir(mode=0o500)
    refused(detect("good.tif", out="locked/out.gpkg"), "locked")


def test_unknown_output_crs(refused):
    refused([*detect("good.tif"), "--crs", "EPSG:999999"], "EPSG:999999", code=2)


def test_existing_model_output(refused, train):
    Path("trained.safetensors").write_text("mine")
    refused(train(), "trained.safetensors", "exists", "--overwrite")


# Labels


def both(train, **data: object) -> list[list[str]]:
    """Training on labels, and scoring against them."""
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in data.items() if k != "labels"]
    labels = str(data.get("labels", "labels.gpkg"))
    return [train(**data), evaluate("labels.gpkg", labels, *flags)]


def test_missing_labels(refused, train):
    for line in both(train, labels="nowhere.gpkg"):
        refused(line, "nowhere.gpkg")


def test_labels_that_are_no_layer(refused, train):
    Path("text.gpkg").write_text("this is no layer")
    for line in both(train, labels="text.gpkg"):
        refused(line, "text.gpkg")


def test_empty_label_layer(refused, train):
    write_labels("empty.gpkg", data={"kind": []}, geometry=[])
    for line in both(train, labels="empty.gpkg"):
        refused(line, "empty.gpkg")


def test_label_layer_without_crs(refused, train):
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        write_labels("nocrs.gpkg", crs=None)
    for line in both(train, labels="nocrs.gpkg"):
        refused(line, "nocrs.gpkg", "CRS", "-a_srs")


def test_unknown_class_column(refused, train):
    for line in both(train, class_column="species"):
        refused(line, "labels.gpkg", "species", "kind")


def test_unknown_scene_column(refused, train):
    for line in both(train, scene_column="tile_name"):
        refused(line, "labels.gpkg", "tile_name", "kind")


def test_bad_filter(refused, train):
    for line in both(train, where="species is oak"):
        refused(line, "labels.gpkg", "species is oak")


def test_points_without_a_size(refused, train):
    write_labels("points.gpkg", geometry=[Point(400_010, 4_999_992), Point(400_052, 4_999_942)])
    refused(train(labels="points.gpkg"), "points.gpkg", "point_size_m")


def test_labels_elsewhere(refused, train):
    write_labels("far.gpkg", geometry=[box(0, 0, 5, 5), box(9, 9, 12, 12)])
    refused(train(labels="far.gpkg"), "far.gpkg")


def test_missing_detections(refused):
    refused(evaluate("nowhere.gpkg", "labels.gpkg"), "nowhere.gpkg")


# Configs


def test_unknown_config_key(refused, train):
    refused(train(labelz="x"), "config.yaml", "data.labelz", "did you mean data.labels?", code=2)
    Path("detect.yaml").write_text("scroe: 0.5")
    refused([*detect("good.tif"), "--config", "detect.yaml"], "did you mean score?", code=2)


def test_options_that_do_not_go_together(refused):
    flags = ["--tile-px", "128", "--overlap-px", "120"]
    refused([*detect("good.tif"), *flags], "120", code=2)
    line = ["detect", "good.tif", "--model", "model.safetensors", "--out", "out.gpkg"]
    refused([*line, "--device", "abacus"], "abacus", code=2)


# One bad scene among many


def truncated(path: str) -> None:
    """A GeoTIFF that opens, but whose later blocks are not there."""
    rng = np.random.default_rng(0)
    write_scene(Path(path), rng.integers(0, 255, (3, 150, 200), np.uint8))
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("how", ["no raster", "two bands", "truncated"])
def test_one_bad_scene_among_many(capsys, how):
    if how == "no raster":
        Path("bad.tif").write_text("this is no picture")
    elif how == "two bands":
        write_scene(Path("bad.tif"), paint((150, 200), BOXES, bands=2))
    else:
        truncated("bad.tif")
    write_scene(Path("zgood.tif"), paint((150, 200), BOXES[:1]))
    assert main(detect("good.tif", "bad.tif", "zgood.tif")) == 3
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "not covered: " in err
    assert "bad.tif" in err
    assert "2 scenes" in out or how == "truncated"
    found = gpd.read_file("out.gpkg")
    assert sorted(found["scene"][found["scene"] != "bad"]) == ["good", "good", "zgood"]
    missing = gpd.read_file("out.gpkg", layer="not_covered")
    in_bad = found[found["scene"] == "bad"]
    assert in_bad.empty or how == "truncated"  # of which all is detected that can be read
    assert not in_bad.centroid.within(missing.union_all()).any()
    assert set(missing["scene"]) == {"bad.tif"}
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_the_same_command_again_retries_what_failed(capsys):
    Path("bad.tif").write_text("this is no picture")
    assert main(detect("good.tif", "bad.tif")) == 3
    write_scene(Path("bad.tif"), paint((150, 200), BOXES[:1]))
    assert main(detect("good.tif", "bad.tif")) == 0
    assert sorted(gpd.read_file("out.gpkg")["scene"]) == ["bad", "good", "good"]
    assert not Path("out.gpkg.run").exists()
    assert len(gpd.read_file("out.gpkg", layer="not_covered")) == 0


def test_no_good_scene_at_all(refused):
    Path("bad.tif").write_text("this is no picture")
    Path("worse.tif").write_text("this neither")
    refused(detect("bad.tif", "worse.tif"), "bad.tif", "not a raster")
