"""What commands say to programs: events, results, and what this version offers."""

import json
import pickle
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

import geo_retina
from geo_retina.cli import _report, _streams, _voice, app, main

LONG = (
    *(
        "check-labels",
        "compare",
        "demo",
        "detect",
        "estimate",
        "evaluate",
        "export-chips",
        "filter",
    ),
    *("import", "info", "merge", "models", "plan", "preview", "review", "train"),
)


def events(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def evaluation(monkeypatch, tmp_path):
    """Scores without a library behind them."""
    monkeypatch.chdir(tmp_path)
    scores = SimpleNamespace(
        table=lambda: "F1 0.5", to_dict=lambda: {"f1": 0.5, "ap": float("nan")}
    )
    library = SimpleNamespace(evaluate=lambda *_: scores)
    monkeypatch.setitem(sys.modules, "geo_retina.evaluation", library)
    return scores


EVALUATE = ["evaluate", "d.gpkg", "l.gpkg"]


def test_a_command_begins_tells_and_ends_in_lines_of_json(evaluation, capsys):
    assert main([*EVALUATE, "--progress", "json"]) == 0
    out, err = capsys.readouterr()
    started, message, finished = events(out)
    assert started == {
        "event": "started",
        "protocol": _voice.PROTOCOL,
        "geo_retina": geo_retina.__version__,
        "command": "evaluate",
    }
    assert message == {"event": "message", "level": "info", "text": "F1 0.5"}
    assert (finished["event"], finished["code"], finished["error"]) == ("finished", 0, None)
    assert finished["result"]["f1"] == 0.5
    assert finished["result"]["ap"] is None  # JSON has no NaN
    assert finished["result"]["options"]["iou"] == 0.5
    assert err == ""


@pytest.mark.parametrize("flags", [["--json", "-"], ["--json=-"]])
def test_a_dash_is_standard_output_and_people_read_the_other(evaluation, capsys, flags):
    assert main([*EVALUATE, *flags]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["f1"] == 0.5
    assert err == "F1 0.5\n"


def test_a_file_whose_name_begins_with_a_dash_is_no_flag(evaluation, monkeypatch):
    given = []
    library = SimpleNamespace(evaluate=lambda *files: given.extend(files[:2]) or evaluation)
    monkeypatch.setitem(sys.modules, "geo_retina.evaluation", library)
    assert main(["evaluate", "-12_5.gpkg", "l.gpkg", "--json", "-new.json"]) == 0
    assert Path(given[0]) == Path("-12_5.gpkg")
    assert json.loads(Path("-new.json").read_text())["f1"] == 0.5
    assert main(["evaluate", "-x", "l.gpkg"]) == 2


def test_a_dash_among_events_adds_nothing_to_them(evaluation, capsys):
    assert main([*EVALUATE, "--json", "-", "--progress=json"]) == 0
    assert [each["event"] for each in events(capsys.readouterr().out)] == [
        *("started", "message", "finished")
    ]


def test_a_file_and_events_hold_the_same_result(evaluation, capsys):
    assert main([*EVALUATE, "--json", "s.json", "--progress", "json"]) == 0
    told = events(capsys.readouterr().out)
    assert json.loads(Path("s.json").read_text()) == told[-1]["result"]
    assert main([*EVALUATE, "--json", "s.json", "--progress", "json"]) == 1
    last = events(capsys.readouterr().out)[-1]
    assert (last["code"], last["result"]) == (1, None)
    assert "s.json exists; give --overwrite" in last["error"]


def test_wrong_usage_is_an_event_too(capsys):
    assert main(["detcet", "--progress", "json"]) == 2
    out, err = capsys.readouterr()
    (last,) = events(out)
    assert (last["event"], last["command"], last["code"]) == ("finished", None, 2)
    assert 'Did you mean "detect"?' in last["error"]
    assert err == f"geo-retina: {last['error']}\n"


def test_one_command_leaves_nothing_to_the_next(evaluation, capsys):
    main([*EVALUATE, "--progress", "json"])
    capsys.readouterr()
    assert main(EVALUATE) == 0
    assert capsys.readouterr().out == "F1 0.5\n"


def test_warnings_are_told_to_both(capsys):
    with _voice.speaking(["--progress", "json"]):
        _report.warn("look here")
    out, err = capsys.readouterr()
    assert events(out) == [{"event": "message", "level": "warning", "text": "look here"}]
    assert err == "geo-retina: look here\n"


def test_a_quiet_command_sends_no_events(evaluation, capsys):
    with _voice.speaking(["detect", "--progress", "json", "--quiet"]):
        _voice.send("progress", fraction=0.5)
    assert capsys.readouterr().out == ""


class Broken(StringIO):
    """A stream that takes some lines and then no more."""

    def __init__(self, takes, error):
        super().__init__()
        self.takes, self.error = takes, error

    def write(self, text):
        if self.getvalue().count("\n") >= self.takes:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141),
        (_streams.OutputFault(28, "No space left on device"), 1),
    ],
)
def test_a_stream_that_takes_no_more_costs_no_result(evaluation, capsys, monkeypatch, error, code):
    monkeypatch.setattr("sys.stdout", Broken(1, error))
    assert main([*EVALUATE, "--progress", "json", "--json", "s.json"]) == code
    assert json.loads(Path("s.json").read_text())["f1"] == 0.5
    told = capsys.readouterr().err
    assert ("No space left on device" in told) == (code == 1)


def test_progress_of_a_training_has_a_fraction(capsys):
    from geo_retina.training.progress_lines import TrainProgress

    show = _report.TrainingEvents()
    for step in (0, 60, 100):  # the one in between comes within a second
        show(TrainProgress(2, 4, step, 100, {"loss": 0.25}, {}, 90.0))
    first, last = events(capsys.readouterr().out)
    assert (first["fraction"], last["fraction"]) == (0.25, 0.5)
    assert (last["epoch"], last["losses"], last["seconds_left"]) == (2, {"loss": 0.25}, 90.0)
    assert last["text"] == _report.training_text(
        TrainProgress(2, 4, 100, 100, {"loss": 0.25}, {}, 90.0)
    )


@pytest.mark.parametrize(
    ("how", "is_bar", "is_told"),
    [("bar", True, False), ("none", False, False), ("lines", False, True), ("json", False, True)],
)
def test_a_training_is_shown_as_asked(how, is_bar, is_told):
    shown = _report.training_progress(how)
    assert (shown is True, callable(shown)) == (is_bar, is_told)
    assert type(pickle.loads(pickle.dumps(shown))) is type(shown)  # as several devices need


def test_api_tells_protocol_commands_with_their_flags_and_models(capsys):
    assert main(["--api"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["protocol"], told["geo_retina"]) == (_voice.PROTOCOL, geo_retina.__version__)
    assert set(told["commands"]) == {name for name in app if not name.startswith("-")}
    assert {"--model", "--out", "--gsd", "--merge.iou", "--overwrite"} <= set(
        told["commands"]["detect"]
    )
    (trees,) = (model for model in told["models"] if model["name"] == "trees-naip")
    assert trees["bands"] == ["red", "green", "blue", "nir"]
    assert trees["gsd_m"] == pytest.approx(0.3)
    assert trees["licence"] == "CC-BY-4.0"
    assert "devices" not in told


def test_api_tells_devices_and_versions_where_asked(capsys):
    assert main(["--api", "--devices"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "cpu" in {device["name"] for device in told["devices"]}
    assert told["packages"]["rasterio"]


@pytest.mark.parametrize("command", LONG)
def test_every_command_that_reports_does_so_in_one_way(command, capsys):
    main(["--api"])
    flags = json.loads(capsys.readouterr().out)["commands"][command]
    assert {"--progress", "--json", "--stop-with-stdin"} <= set(flags)
