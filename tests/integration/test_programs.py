"""Programs that run the command: they stop it, and stop listening to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from support.fields import field
from support.stubs import paint, slow_command, tiny_model, write_scene
from support.tiny_training import tiny

from geo_retina.config import dump_options

BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48], [350, 250, 357, 256]])


@pytest.fixture
def detect(tmp_path):
    """A run of some seconds that reports in events."""
    scene = write_scene(tmp_path / "a.tif", paint((300, 400), BOXES))
    weights = tiny_model().save(tmp_path / "m.safetensors")
    flags = "--device cpu --batch 1 --tile-px 96 --score 0.005 --max-per-tile 20 --precision fp32"
    files = ["--model", weights, "--out", tmp_path / "out.gpkg", "--block-px", "128"]
    line = ["detect", scene, *files, *flags.split(), "--progress", "json"]
    return [sys.executable, "-c", slow_command(0.1), *map(str, line)]


def start(command, **streams):
    # Tests that were started in the background are deaf to Ctrl-C, and so would their children be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **{**pipes, **streams})
    signal.signal(signal.SIGINT, before)
    return process


def await_parts(process, folder: Path) -> None:
    while not list(folder.glob("unit-*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def close_stdin(process):
    process.stdin.close()
    process.stdin = None


def terminate(process):
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("stop", [close_stdin, terminate])
def test_a_stopped_run_says_so_in_its_last_event_and_goes_on_later(detect, tmp_path, stop):
    process = start([*detect, "--stop-with-stdin"])
    await_parts(process, tmp_path / "out.gpkg.run")
    stop(process)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    told = events(out)
    assert told[0]["event"] == "started"
    last = told[-1]
    assert (last["event"], last["code"], last["result"]) == ("finished", 130, None)
    assert "the same command continues from there" in last["error"]
    assert "Traceback" not in err
    if stop is terminate:
        return  # both leave the same behind
    done = subprocess.run(detect, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = events(done.stdout)
    progress = [each for each in told if each["event"] == "progress"]
    assert progress[0]["pixels_before"] > 0
    assert progress[-1]["fraction"] == 1
    assert told[-1]["result"]["not_covered"] == []
    assert told[-1]["result"]["outs"] == [str(tmp_path / "out.gpkg")]


def test_a_run_whose_events_nobody_reads_ends_with_its_result(detect, tmp_path):
    process = start(detect, stdin=subprocess.DEVNULL)  # its end stops nobody who did not ask
    assert json.loads(process.stdout.readline())["event"] == "started"
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=120)
    assert process.returncode == 141
    assert list(gpd.read_file(tmp_path / "out.gpkg", layer="scanned")["scene"])


def test_a_training_stops_when_it_is_told_to_and_resumes(tmp_path):
    scene, labels = field(tmp_path, side=200)[:2]
    config = tmp_path / "train.yaml"
    config.write_text(dump_options(tiny(scene, labels, epochs=6)))
    model = tmp_path / "m.safetensors"
    command = [sys.executable, "-m", "geo_retina", "train", str(config), "--out", str(model)]
    command += ["--progress", "json"]
    process = start(command)
    told = []
    for line in process.stdout:
        told.append(json.loads(line))
        if told[-1]["event"] == "progress" and told[-1]["epoch"] == 2:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert events(out)[-1]["code"] == 130
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = events(done.stdout)
    first = next(each for each in told if each["event"] == "progress")
    assert first["epoch"] > 1
    assert told[-1]["result"]["card"]["classes"] == ["object"]
    assert model.exists()
