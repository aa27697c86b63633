"""The drill of benchmarks/drill.py, in small: real processes that are killed while they work."""

from __future__ import annotations

import dataclasses
import importlib
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from support.cluster import Cluster
from support.stubs import paint, tiny_model, write_scene

from geo_retina.detector import detect
from geo_retina.options import DetectOptions, RunOptions

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_run_in_which_everything_breaks_ends_as_an_unbroken_one(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    drill = importlib.import_module("drill")
    flags = {"--scenes": 6, "--workers": 2, "--seconds": 0.2, "--every": 20}
    assert drill.main([str(word) for pair in flags.items() for word in pair]) == 0
    told = capsys.readouterr().out
    assert "the scheduler killed once, the client twice" in told
    assert "same is True" in told
    assert " 0 objects" not in told


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* tiles reached a limit:UserWarning")
def test_a_worker_that_hangs_keeps_no_run_from_beginning(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "20s")
    boxes = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48]])
    scene = write_scene(tmp_path / "a.tif", paint((300, 400), boxes))
    options = DetectOptions(tile_px=96, score=0.005, max_per_tile=20)  # auto asks workers too
    here = RunOptions(device="cpu", block_px=128, threads=1)
    cluster = Cluster(tmp_path)
    try:
        cluster.start_scheduler()
        for _ in range(2):
            cluster.start_worker()
        with Client(cluster.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
        cluster.workers[0].send_signal(signal.SIGSTOP)
        far = dataclasses.replace(here, scheduler=cluster.address, patience_s=300.0)
        remote = detect(scene, tiny_model(), options, far)
    finally:
        cluster.stop()
    local = detect(scene, tiny_model(), options, here)
    assert len(local) > 0
    assert remote.equals(local)
