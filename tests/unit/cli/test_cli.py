"""Parsing, exit codes and what is said; the library is replaced, so nothing heavy loads."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import fields
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from geo_retina import options as all_options
from geo_retina.cli import _report, app, main
from geo_retina.cli._option_names import flag_name
from geo_retina.errors import OutputError, SceneError
from geo_retina.options import (
    DetectOptions,
    EvaluateOptions,
    MergeOptions,
    RunOptions,
    SynthOptions,
)
from geo_retina.run import Workload


def parse(line: str) -> dict[str, object]:
    """The keyword arguments that a command line gives its command."""
    _, bound, _ = app.parse_args(line.split(), exit_on_error=False, print_error=False)
    return bound.arguments


def report(**changes):
    values = {
        "out": Path("out.gpkg"),
        "outs": (Path("out.gpkg"),),
        "detections": 1200,
        "counts": {"house": 1000, "car": 200},
        "crs": "EPSG:32632",
        "scenes": 2,
        "pixels": 5_000_000,
        "seconds": 2.5,
        "reduced_batch": None,
        "tiles": 40,
        "skipped_tiles": 0,
        "truncated_tiles": 0,
        "out_of_range_tiles": 0,
        "not_covered_pixels": 0,
        "outside_tiles": 0,
        "outside_scenes": 0,
        "screened_tiles": 0,
        "screened_pixels": 0,
        "failures": (),
        "complete": True,
        "notes": (),
        "stretches": {},
        "km2": 0.4,
        "km2_per_hour": 576.0,
        "work": Workload(available=10.0, reading=1.0, turn=0.5, detecting=6.0, merging=0.5),
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def detector(monkeypatch):
    """A detector that records how it was called and returns or raises what the test sets."""
    fake = SimpleNamespace(calls=[], result=report(), error=None)

    def detect_to_file(scenes, model, out, options, run, *, crs, progress):
        fake.calls.append(SimpleNamespace(**locals()))
        if fake.error is not None:
            raise fake.error
        return fake.result

    monkeypatch.setitem(
        sys.modules, "geo_retina.detector", SimpleNamespace(detect_to_file=detect_to_file)
    )
    return fake


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


DETECT = ["detect", "a.tif", "--model", "m", "--out", "out.gpkg"]


def test_defaults_are_those_of_the_dataclasses(detector, here):
    assert main(DETECT) == 0
    (call,) = detector.calls
    assert call.options == DetectOptions()
    assert call.run == RunOptions()
    assert (call.scenes, call.model, call.out, call.crs) == (
        ["a.tif"],
        "m",
        [Path("out.gpkg")],
        None,
    )
    assert callable(call.progress)  # lines, as this is not a terminal


def test_flags_reach_the_options():
    values = parse(
        "detect a.tif b.tif --model m --out o.gpkg --score 0.3 --bands 4 1 2 --gsd 0.6m --force "
        "--tile-px 512 --precision fp32 --merge.iou 0.5 --merge.no-join --workers 2 --overwrite"
    )
    assert values["scenes"] == ["a.tif", "b.tif"]
    assert values["options"] == DetectOptions(
        score=0.3,
        bands=(4, 1, 2),
        gsd_m=0.6,
        force=True,
        tile_px=512,
        precision="fp32",
        merge=MergeOptions(iou=0.5, join=False),
    )
    assert values["run"] == RunOptions(workers=2, overwrite=True)


@pytest.mark.parametrize("given", ["4 1 2", "4,1,2"])
def test_bands_as_a_list(given):
    values = parse(f"detect --bands {given} --model m --out o.gpkg a.tif")
    assert values["options"].bands == (4, 1, 2)
    assert values["scenes"] == ["a.tif"]


@pytest.mark.parametrize("given", ["6m", "6", "6.0m", "0.006e3"])
def test_radius_with_and_without_its_unit(given):
    values = parse(f"evaluate d.gpkg l.gpkg --radius {given} --where split='val'")
    assert values["options"] == EvaluateOptions(radius_m=6.0, where="split='val'")


@pytest.mark.parametrize("command", ["detect", "plan", "evaluate"])
def test_help_tells_every_option_with_its_default(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    shown = (EvaluateOptions,) if command == "evaluate" else (DetectOptions, RunOptions)
    for options in shown:
        for field in fields(options):
            assert f"--{flag_name(field.name)}" in text
    if command == "detect":
        assert f"[default: {RunOptions().block_px}]" in text
        assert "A detection suppresses a lower-ranked one of another tile" in text
        assert "outside the model's range" in text  # a docstring of two lines, as one


@pytest.mark.parametrize("line", [["--help"], []])
def test_help_names_all_commands(line, capsys):
    assert main(line) == 0
    text = capsys.readouterr().out
    places = [
        text.index(f"│ {c} ")
        for c in [
            *("demo", "detect", "train", "import", "evaluate", "compare", "preview"),
            *("models", "info", "plan"),
        ]
    ]
    assert places == sorted(places)
    assert "--debug" in text


def test_version(capsys):
    import geo_retina

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == geo_retina.__version__


def test_config_lies_between_flags_and_defaults(detector, here):
    Path("c.yaml").write_text(
        "score: 0.25\ngsd_m: 0.5\nbands: [3, 2, 1]\nmerge: {edge_px: 6, join: false}\nbatch: 7\n"
    )
    flags = ["--config", "c.yaml", "--score", "0.5", "--merge.join", "--threads", "3"]
    assert main([*DETECT, *flags]) == 0
    (call,) = detector.calls
    assert call.options == DetectOptions(
        score=0.5, gsd_m=0.5, bands=(3, 2, 1), merge=MergeOptions(edge_px=6.0, join=True)
    )
    assert call.run == RunOptions(batch=7, threads=3)


def test_a_flag_with_its_default_value_still_beats_the_file(detector, here):
    Path("c.yaml").write_text("candidates: 9\nmerge: {join: false}\noverwrite: true\n")
    assert main([*DETECT, "--config", "c.yaml", "--candidates", "4000", "--no-overwrite"]) == 0
    assert detector.calls[0].options == DetectOptions(merge=MergeOptions(join=False))
    assert detector.calls[0].run == RunOptions()


def test_resolved_config_is_left_beside_the_output_and_reads_back(detector, here):
    assert main([*DETECT, "--score", "0.4", "--bands", "1,2,3", "--batch", "2"]) == 0
    beside = here / "out.gpkg.config.yaml"
    assert "# model: m" in beside.read_text()
    assert main([*DETECT, "--config", str(beside)]) == 0
    first, second = detector.calls
    assert (first.options, first.run) == (second.options, second.run)
    assert sorted(p.name for p in here.iterdir()) == [beside.name]


def test_the_config_beside_the_output_tells_the_crs(detector, here):
    beside = here / "out.gpkg.config.yaml"
    assert main([*DETECT, "--crs", "EPSG:4326"]) == 0
    assert "# crs: EPSG:4326\n" in beside.read_text()
    assert main([*DETECT, "--config", str(beside)]) == 0
    assert "# crs: left out, so that of the scenes\n" in beside.read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("detcet a.tif", 'Unknown command "detcet". Did you mean "detect"?'),
        ("detect a.tif --model m --out o --scroe 0.5", "--scroe. Did you mean --score?"),
        ("detect a.tif --model m --out o --merge.iuo 1", "--merge.iuo. Did you mean --merge.iou?"),
        ("detect a.tif --model m", "--out"),
        ("detect --model m --out o", "SCENE"),
        ("detect a.tif --model m --out o --score high", '--score: unable to convert "high"'),
        ("detect a.tif --model m --out o --score 3", "--score is 3.0, expected 0 to 1"),
        ("detect a.tif --model m --out o --merge.iou 3", "--merge.iou is 3.0, expected 0 to 1"),
        ("detect a.tif --model m --out o --batch 0", "--batch is 0, expected 1 or more"),
        ("detect a.tif --model m --out o --tile-px 12.5", '--tile-px: unable to convert "12.5"'),
        ("detect a.tif --model m --out o --precision int4", '"auto", "fp32", "bf16", "fp16"'),
        ("detect a.tif --model m --out o --config no.yaml", "config no.yaml does not exist"),
        ("detect a.tif --model m --out o --config bad.yaml", "did you mean score?"),
        ("train no.yaml --out m.safetensors", "config no.yaml does not exist"),
        ("evaluate d l --radius 6km", '--radius: unable to convert "6km"'),
        ("evaluate d l --radius 6m --in-box", "exclude each other"),
        ("evaluate d l --iou 2", "--iou is 2.0, expected 0 to 1"),
        ("demo --size 10", "--size"),
        ("info", "FILE"),
        ("models b", "b"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(line, said, here, capsys):
    Path("bad.yaml").write_text("scroe: 0.5\n")
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("geo-retina: ")
    assert err.count("\n") == 1
    assert [p.name for p in here.iterdir()] == ["bad.yaml"]


def test_failure_is_one_sentence_and_exit_code_1(detector, here, capsys):
    detector.error = SceneError("a.tif does not exist")
    assert main(DETECT) == 1
    assert capsys.readouterr().err == "geo-retina: a.tif does not exist\n"
    assert list(here.iterdir()) == []


def test_debug_shows_the_traceback_wherever_it_stands(detector, here, capsys):
    detector.error = SceneError("a.tif does not exist")
    for line in (["--debug", *DETECT], [*DETECT, "--debug"]):
        assert main(line) == 1
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.endswith("geo-retina: a.tif does not exist\n")


def test_a_fault_of_ours_is_told_without_a_traceback(detector, here, capsys):
    detector.error = ZeroDivisionError("division by zero")
    assert main(DETECT) == 1
    err = capsys.readouterr().err
    assert err.startswith("geo-retina: unexpected ZeroDivisionError: division by zero")
    assert err.count("\n") == 1


def test_interrupt(detector, here, capsys):
    detector.error = KeyboardInterrupt()
    assert main(DETECT) == 130
    assert "interrupted; what is finished lies in out.gpkg.run, and" in capsys.readouterr().err


def test_summary(detector, here, capsys):
    screened = {"screened_tiles": 30, "screened_pixels": 4_000_000}
    detector.result = report(skipped_tiles=1, truncated_tiles=3, out_of_range_tiles=1, **screened)
    assert main(DETECT) == 0
    out, err = capsys.readouterr()
    assert "30 tiles, 80.0% of the ground, screened out by a first look\n" in out
    assert "1,200 objects in 2 scenes, 5.0 Mpx in 2.5 s (2.00 Mpx/s)" in out
    assert "  house      1,000\n  car          200\n" in out
    assert (
        "576 km2 an hour; threads spent 10% reading, 5% waiting for the device, 60% detecting, "
        "5% merging, 20% without a block of their own\n"
    ) in out
    assert "written to out.gpkg, in EPSG:32632" in out
    assert err.startswith("geo-retina: 3 tiles reached a limit and may hold more objects")
    assert "1 tile had values far outside" in err


def test_ground_not_covered_is_exit_code_3(detector, here, capsys):
    window = SimpleNamespace(box_px=(0, 64, 32, 96))
    failures = (
        SimpleNamespace(scene="a.tif", error="a.tif is not a raster", window=None),
        SimpleNamespace(scene="b.tif", error="read failed", window=window),
    )
    missing = {"failures": failures, "complete": False, "not_covered_pixels": 1_250_000}
    detector.result = report(**missing, work=Workload(), km2_per_hour=None)
    assert main(DETECT) == 3
    out, err = capsys.readouterr()
    assert "1.25 Mpx (20.00%) could not be covered\n" in out
    assert "threads spent" not in out
    assert "geo-retina: not covered: a.tif is not a raster\n" in err
    assert "not covered: b.tif, columns 0 to 32, rows 64 to 96: read failed\n" in err


def test_many_failures_are_not_all_listed(capsys):
    failures = [SimpleNamespace(scene=f"{i}", error="bad", window=None) for i in range(50)]
    _report.warn_of_failures(failures)
    err = capsys.readouterr().err
    assert err.count("\n") == 21
    assert "30 further parts" in err


@pytest.fixture
def half_way():
    from geo_retina.run import Progress

    return Progress(
        task_batches_done=1, task_batches=2, pixels_done=60_000_000, pixels=110_000_000,
        pixels_before=10_000_000, detections=1234, failed=1, seconds=25.0,
        dashboard="http://127.0.0.1:8787/status",
    )  # fmt: skip


def test_progress_is_a_bar_at_a_terminal_that_redraws(half_way, monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not _report.is_watched()
    monkeypatch.setenv("TERM", "xterm")
    with _report.progress("auto") as show:
        show(half_way)
    assert half_way.dashboard in screen.getvalue()
    assert "55 %" in screen.getvalue()


def test_progress_is_a_line_a_minute_elsewhere(half_way, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(_report.time, "monotonic", lambda: now[0])
    with _report.progress("auto") as show:
        for now[0] in (30.0, 59.0, 60.0, 61.0, 119.0, 121.0):
            show(half_way)
    assert capsys.readouterr().err.splitlines() == [_report.progress_text(half_way)] * 2


def test_training_is_told_after_each_epoch_and_once_a_minute(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(_report.time, "monotonic", lambda: now[0])
    show = _report.TrainingLine()
    for now[0], step in ((10, 50), (61, 60), (70, 70), (80, 100)):
        scores = {"f1": 0.5} if step == 100 else {}
        show(
            SimpleNamespace(
                epoch=2,
                epochs=9,
                step=step,
                steps=100,
                losses={"loss": 0.25},
                scores=scores,
                seconds_left=90.0,
            )
        )
    assert capsys.readouterr().err.splitlines() == [
        "epoch 2 of 9, step 60 of 100, loss 0.25, 1 min 30 s left",
        "epoch 2 of 9, loss 0.25, f1 0.5, 1 min 30 s left",
    ]


def test_progress_says_how_much_how_fast_and_how_long(half_way):
    assert _report.progress_text(half_way) == (
        "60 of 110 Mpx, 1,234 found, 1 block failed, 2.00 Mpx/s, 25.0 s left"
    )


def test_progress_for_machines_is_one_object_a_line(half_way, capsys):
    with _report.progress("json") as show:
        show(half_way)
        show(dataclasses.replace(half_way, pixels_done=10_000_000, seconds=0.0))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["event"] == "progress"
    assert (first["pixels_done"], first["detections"], first["failed"]) == (60_000_000, 1234, 1)
    assert (first["px_per_s"], first["seconds_left"]) == (2_000_000, 25.0)
    assert second["seconds_left"] is None


@pytest.fixture
def evaluation(monkeypatch):
    """Scores without a library behind them."""
    calls = []
    scores = SimpleNamespace(table=lambda: "F1 0.5", to_dict=lambda: {"f1": 0.5})

    def evaluate(detections, labels, options):
        calls.append((detections, labels, options))
        return scores

    monkeypatch.setitem(sys.modules, "geo_retina.evaluation", SimpleNamespace(evaluate=evaluate))
    return calls


def test_evaluate(evaluation, here, capsys):
    assert main(["evaluate", "d.gpkg", "l.gpkg", "--in-box", "--json", "scores.json"]) == 0
    assert evaluation == [(Path("d.gpkg"), Path("l.gpkg"), EvaluateOptions(in_box=True))]
    assert json.loads((here / "scores.json").read_text())["f1"] == 0.5
    assert "F1 0.5" in capsys.readouterr().out


def test_evaluate_records_what_was_compared(evaluation, here):
    flags = "--where split='val' --ground g.gpkg --scene-column tile --class-column kind --score .3"
    line = f"evaluate d.gpkg l.gpkg --json scores.json {flags}"
    assert main(line.split()) == 0
    record = json.loads((here / "scores.json").read_text())
    assert (record["detections"], record["labels"]) == ("d.gpkg", "l.gpkg")
    assert EvaluateOptions(**record["options"]) == EvaluateOptions(
        where="split='val'", ground="g.gpkg", scene_column="tile", class_column="kind", score=0.3
    )


def test_evaluate_overwrites_only_when_told(evaluation, here, capsys):
    target = here / "scores.json"
    target.write_text("mine")
    assert main(["evaluate", "d.gpkg", "l.gpkg", "--json", "scores.json"]) == 1
    assert target.read_text() == "mine"
    assert "scores.json exists; give --overwrite" in capsys.readouterr().err
    assert evaluation == []  # refused before the work
    assert main(["evaluate", "d.gpkg", "l.gpkg", "--json", "scores.json", "--overwrite"]) == 0
    assert json.loads(target.read_text())["f1"] == 0.5
    assert main(["evaluate", "d.gpkg", "l.gpkg", "--json", "missing/scores.json"]) == 1
    assert "folder missing of scores.json does not exist" in capsys.readouterr().err


def test_train(monkeypatch, here, capsys):
    calls = []

    def train(options, out, *, overwrite, resume, progress):
        calls.append((options, out, overwrite, resume, progress))
        raise OutputError("m.safetensors exists; give --overwrite or another name")

    monkeypatch.setitem(sys.modules, "geo_retina.training", SimpleNamespace(train=train))
    Path("c.yaml").write_text("data: {scenes: [a.tif], labels: b.gpkg}")
    line = "train --set epochs=3 c.yaml --set loss.box_weight=1.5 --out m.safetensors --resume"
    assert main(line.split()) == 1
    ((options, out, overwrite, resume, progress),) = calls
    assert callable(progress)
    assert (options.epochs, options.loss.box_weight) == (3, 1.5)
    assert (out, overwrite, resume) == (Path("m.safetensors"), False, True)


def test_an_interrupted_training_says_how_to_go_on(monkeypatch, here, capsys):
    def train(options, out, **how):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "geo_retina.training", SimpleNamespace(train=train))
    Path("c.yaml").write_text("data: {scenes: [a.tif], labels: b.gpkg}")
    assert main(["train", "c.yaml", "--out", "m.safetensors"]) == 130
    assert "--resume continues" in capsys.readouterr().err


def test_only_metres_and_seconds_lose_their_suffix():
    names = {f.name for o in vars(all_options).values() if isinstance(o, type) for f in _fields(o)}
    changed = {n for n in names if flag_name(n) != n.replace("_", "-")}
    assert changed == {n for n in names if n.endswith(("_m", "_s"))}


def _fields(options: type) -> tuple:
    return fields(options) if hasattr(options, "__dataclass_fields__") else ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.12, "8.1 s"), (200.4, "3 min 20 s"), (59.96, "1 min 00 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert _report.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(1.5e9, "1.5 GB"), (9.996e8, "1.0 GB"), (2e6, "2 MB")])
def test_size(count, text):
    assert _report.size(count) == text


def test_demo_leaves_a_folder_of_others_alone(here, capsys):
    (here / "mine").mkdir()
    (here / "mine" / "scene.tif").write_text("mine")
    assert main(["demo", "--out", "mine"]) == 1
    assert "holds files that no demo made, such as scene.tif" in capsys.readouterr().err
    assert (here / "mine" / "scene.tif").read_text() == "mine"


def test_demo_size_is_that_of_the_options():
    assert SynthOptions().height == SynthOptions().width
    _, bound, _ = app.parse_args(["demo"], exit_on_error=False, print_error=False)
    bound.apply_defaults()
    assert bound.arguments["size"] == SynthOptions().height


def test_the_entry_point_ends_the_process_with_the_exit_code():
    code = "import sys; from geo_retina.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "detect", "--nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--nonsense" in done.stderr
