"""Commands about what was written: how they call the library, and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from geo_retina.cli import app, main
from geo_retina.options import ChipOptions, DataOptions, FilterOptions, MergeOptions


def parse(line: str) -> dict[str, object]:
    _, bound, _ = app.parse_args(line.split(), exit_on_error=False, print_error=False)
    return bound.arguments


def library(monkeypatch, module: str, **functions):
    """In place of a module: functions that record their arguments and return what is given."""
    calls = []

    def recording(result):
        def call(*args, **kwargs):
            calls.append((args, kwargs))
            return result

        return call

    made = {name: recording(result) for name, result in functions.items()}
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(SEAM_NOTE="at seams", **made))
    return calls


def test_several_outputs(monkeypatch):
    line = "detect --model m --out a.gpkg --out b.parquet s.tif --geometry both --min-score 0.1"
    values = parse(line)
    assert values["out"] == [Path("a.gpkg"), Path("b.parquet")]
    assert values["scenes"] == ["s.tif"]
    assert values["run"].geometry == "both"
    assert values["options"].floor == 0.1


def test_filter(monkeypatch, capsys):
    report = SimpleNamespace(
        read=1200,
        kept=30,
        counts={"car": 10, "ship": 20},
        thresholds={"car": 0.4},
        raised=True,
        outs=(Path("b.gpkg"),),
    )
    calls = library(monkeypatch, "geo_retina.postprocess", filter_detections=report)
    line = "filter a.gpkg --score 0.4 --classes car,ship --aoi area.gpkg --aoi-layer x"
    line += " --out b.gpkg --overwrite"
    assert main(line.split()) == 0
    [((path, out, options), named)] = calls
    assert (path, out, named) == (
        Path("a.gpkg"),
        [Path("b.gpkg")],
        {"overwrite": True, "discard_review": False},
    )
    assert options == FilterOptions(
        score=0.4, classes=("car,ship",), aoi="area.gpkg", aoi_layer="x"
    )
    told = capsys.readouterr()
    assert told.out == (
        "30 of 1,200 objects kept\n  car          10\n  ship         20\nwritten to b.gpkg\n"
    )
    assert told.err == "geo-retina: note: at seams\n"
    report.raised = False  # nothing was chosen by score
    assert main(line.split()) == 0
    assert capsys.readouterr().err == ""


def test_merge(monkeypatch, capsys):
    report = SimpleNamespace(
        read=50, written=40, suppressed=8, joined=1, exact=True, crs="EPSG:32632", outs=("c.gpkg",)
    )
    calls = library(monkeypatch, "geo_retina.postprocess", combine_runs=report)
    line = "merge a.gpkg b.gpkg --out c.gpkg --iou 0.3 --no-join --crs EPSG:32632"
    assert main(line.split()) == 0
    [((paths, out, options), named)] = calls
    assert (paths, out) == ([Path("a.gpkg"), Path("b.gpkg")], [Path("c.gpkg")])
    assert options == MergeOptions(iou=0.3, join=False)
    assert named == {"crs": "EPSG:32632", "overwrite": False, "discard_review": False}
    assert "40 objects of 50, compared on one grid: 8 seen better" in capsys.readouterr().out


def test_export_chips(monkeypatch, capsys):
    report = SimpleNamespace(
        out=Path("d"), pictures={"train": 8, "val": 2}, empty=1, objects={"car": 9}, left_out=2
    )
    calls = library(monkeypatch, "geo_retina.export", export_chips=report)
    line = "export-chips a.tif --labels l.gpkg --out d --class-column kind --bands 3,2,1 "
    line += "--point-size 6m --form yolo --chip-px 320 --block 50m"
    assert main(line.split()) == 0
    [((data, out, options), _)] = calls
    assert data == DataOptions(
        scenes=("a.tif",), labels="l.gpkg", class_column="kind", bands=(3, 2, 1), point_size_m=6.0
    )
    assert out == Path("d")
    assert options == ChipOptions(form="yolo", chip_px=320, block_m=50.0)
    told = capsys.readouterr()
    assert "10 pictures (8 train, 2 val)" in told.out
    assert "lower --min-visible" in told.err


def test_export_onnx(monkeypatch, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x" * 3_000_000)
    calls = library(monkeypatch, "geo_retina.export", export_onnx=path)
    assert main(["export-onnx", "demo", "--out", str(path), "--tile-px", "256"]) == 0
    assert calls == [(("demo", path), {"tile_px": 256, "overwrite": False})]
    assert capsys.readouterr().out == f"written to {path}, 3 MB\n"


def test_export_stac(monkeypatch, tmp_path, capsys):
    path = tmp_path / "m.json"
    calls = library(monkeypatch, "geo_retina.export", export_stac=path)
    assert main(["export-stac", "demo", "--out", str(path), "--href", "https://a.org/m"]) == 0
    assert calls == [(("demo", path), {"href": "https://a.org/m", "overwrite": False})]
    assert capsys.readouterr().out == f"written to {path}\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("filter a.gpkg --score 2 --out b.gpkg", "--score is 2.0, expected 0 to 1"),
        ("filter a.gpkg", "--out"),
        ("merge --out b.gpkg", "RUN"),
        ("detect a.tif --model m --out b.gpkg --score 0.1 --min-score 0.2", "below --min-score"),
        ("export-chips a.tif --labels l --out d --chip-px 3", "--chip-px is 3, expected 16 to"),
        ("export-chips a.tif --labels l --out d --bands 0", "--bands is 0, expected 1 or more"),
    ],
)
def test_wrong_usage_is_exit_code_2(line, told, capsys):
    assert main(line.split()) == 2
    assert told in capsys.readouterr().err
