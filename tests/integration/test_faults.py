"""What goes wrong in a long run, one thing a test, and what exactly is left then."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import geopandas as gpd
import numpy as np
import pytest
import torch
from support.cluster import Cluster
from support.rasters import break_block
from support.stubs import paint, slow_command, stub_model, tiny_model, white_rectangles, write_scene

from geo_retina.detector import detect, detect_to_file
from geo_retina.engine import BlockPixels, Engine
from geo_retina.errors import OutputError, RunError
from geo_retina.grid import Window, plan_tiles
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import plan_scenes
from geo_retina.scene import Scene, open_scene

# An untrained network finds more in a tile than its limit.
pytestmark = pytest.mark.filterwarnings("ignore:.* tiles reached a limit:UserWarning")

OPTIONS = DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision="fp32")
RUN = RunOptions(device="cpu", block_px=128, threads=1)
BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48], [350, 250, 357, 256]])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", paint((300, 400), BOXES))


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.start_scheduler()
    yield cluster
    cluster.stop()


def on(cluster: Cluster, **changes) -> RunOptions:
    return dataclasses.replace(RUN, scheduler=cluster.address, **changes)


def once(action, at=1):
    """A progress callback that acts when so many units are done."""
    done = []

    def callback(progress):
        if progress.task_batches_done >= at and not done:
            done.append(progress)
            action()

    return callback


def test_a_worker_that_is_killed_costs_nothing(tmp_path, scene, cluster):
    model = tiny_model()
    cluster.start_worker()
    cluster.start_worker()
    kill = once(cluster.workers[0].kill)
    remote = detect(scene, model, OPTIONS, on(cluster), progress=kill)
    assert cluster.workers[0].wait() == -signal.SIGKILL
    local = detect(scene, model, OPTIONS, RUN)
    assert len(local) > 0
    assert remote.equals(local)


def test_without_a_cluster_a_run_stops_and_can_go_on_without_it(tmp_path, scene, cluster):
    model = tiny_model()
    out = tmp_path / "out.gpkg"
    cluster.start_worker()
    seen, task_batches = [], len(plan_scenes(scene, model.card, OPTIONS, RUN)[0][0].blocks)

    def kill(progress):
        seen.append(progress.task_batches_done)
        if progress.task_batches_done == 2:
            cluster.stop()

    run = on(cluster, patience_s=2.0)
    with pytest.raises(RunError, match=r"no worker was connected|no Dask scheduler answers"):
        detect_to_file(scene, model, out, OPTIONS, run, progress=kill)
    assert not out.exists()
    again = []
    report = detect_to_file(scene, model, out, OPTIONS, RUN, progress=again.append)
    assert report.complete
    assert again[0].task_batches + max(seen) == task_batches
    found = detect(scene, model, OPTIONS, RUN)
    assert report.detections == len(found) > 0


def test_without_any_worker_a_run_does_not_wait_for_ever(monkeypatch):
    from types import SimpleNamespace

    from geo_retina.run.tasks import submitting
    from geo_retina.run.tasks.tally import Tally

    monkeypatch.setattr(submitting, "_POLL_S", 0.01)
    scheduler = SimpleNamespace(ncores=None)
    idle = SimpleNamespace(scheduler=scheduler, sync=lambda *_, **__: {}, status="running")
    flight = submitting._Flight(idle, lambda _: None, 0.05, Tally())
    with pytest.raises(RunError, match=r"no worker was connected to the scheduler for 0\.05 s"):
        flight.collect()


def test_a_scheduler_that_is_restarted_gets_the_rest_of_the_work(scene, cluster):
    model = tiny_model()
    cluster.start_worker()

    def restart():
        cluster.stop()
        cluster.start_scheduler()
        cluster.start_worker()

    states = []
    kill = once(restart)

    def progress(state):
        states.append(state)
        kill(state)

    remote = detect(scene, model, OPTIONS, on(cluster, patience_s=120.0), progress=progress)
    assert remote.equals(detect(scene, model, OPTIONS, RUN))
    counts = [state.task_batches_done for state in states]
    assert counts == sorted(counts)
    assert counts[-1] == states[-1].task_batches  # each unit was counted once


def test_a_block_that_always_fails_costs_only_its_ground(tmp_path, scene, monkeypatch):
    whole, tries = Scene.read, []

    def broken(self, window):
        if (window.row, window.col) == (0, 0):
            tries.append(window)
            raise OSError("bad sector")
        return whole(self, window)

    def seams(self, window):
        return [], []  # the block cannot be read in pieces

    monkeypatch.setattr(Scene, "read", broken)
    monkeypatch.setattr(Scene, "seams", seams)
    out = tmp_path / "out.gpkg"
    run = dataclasses.replace(RUN, retries=2)
    options = DetectOptions(tile_px=96)
    report = detect_to_file(scene, stub_model(), out, options, run)
    assert len(tries) == 4  # the last as the only piece
    assert [failure.error for failure in report.failures] == ["OSError: bad sector"]
    log = (tmp_path / "out.gpkg.run" / "run.log").read_text()
    assert "WARNING" in log
    assert "block 0: OSError: bad sector" in log
    covered = report.pixels + report.failures[0].window.height * report.failures[0].window.width
    assert covered == 300 * 400
    monkeypatch.undo()
    healed = detect_to_file(scene, stub_model(), out, options, run)
    assert (healed.complete, healed.detections) == (True, 4)


@pytest.mark.parametrize("block_px", [128, 4096])
def test_a_broken_file_block_costs_only_its_ground(tmp_path, scene, block_px):
    """What is found around it is found around ground without data, as an oracle."""
    repaired, run = scene.read_bytes(), dataclasses.replace(RUN, block_px=block_px)
    model, options = tiny_model(), dataclasses.replace(OPTIONS, tile_px=96)
    break_block(scene, row=1, col=2)
    out = tmp_path / "out.gpkg"
    report = detect_to_file(scene, model, out, options, run)
    assert not report.complete
    assert (report.not_covered_pixels, report.pixels) == (64 * 64, 300 * 400 - 64 * 64)
    missing = gpd.read_file(out, layer="not_covered")
    scanned = gpd.read_file(out, layer="scanned")
    assert missing.error.str.contains("IReadBlock failed").all()
    assert missing.area.sum() == pytest.approx(32 * 32)
    hole = missing.union_all()
    assert hole.bounds == pytest.approx((400_064, 4_999_936, 400_096, 4_999_968))
    assert scanned.union_all().intersection(hole).area == pytest.approx(0)
    assert scanned.area.sum() == pytest.approx((300 * 400 - 64 * 64) / 4)

    pixels = paint((300, 400), BOXES)
    pixels[:, 64:128, 128:192] = 0
    without = write_scene(tmp_path / "without.tif", pixels, nodata=0)
    expected = detect(without, model, options, run)
    found = gpd.read_file(out, layer="detections")
    assert len(found) == len(expected) > 0
    assert found.geometry.geom_equals(expected.geometry.to_crs(found.crs)).all()
    assert report.skipped_tiles == 0

    stat = os.stat(scene)
    scene.write_bytes(repaired)  # the same file again, which can be read now
    os.utime(scene, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    states = []
    healed = detect_to_file(scene, model, out, options, run, progress=states.append)
    assert healed.complete
    assert (healed.not_covered_pixels, healed.pixels) == (0, 300 * 400)
    if block_px == 128:
        assert 0 < states[-1].task_batches < 24  # only the blocks that had lost a part
    unbroken = detect(scene, model, options, run)
    assert gpd.read_file(out, layer="detections").geometry.geom_equals(unbroken.geometry).all()


def whole(path) -> BlockPixels:
    """A scene as one block of tiles."""
    opened = open_scene(path, bands=(1, 2, 3))
    plan = plan_tiles(opened.grid.shape, tile_px=96, overlap_px=32, stride_px=32)
    window = Window(0, 0, *opened.grid.shape)
    return BlockPixels(*opened.read(window), window, plan, list(plan))


@pytest.mark.parametrize("count", [1, 3])
def test_too_little_device_memory_makes_batches_smaller(scene, count):
    sizes = []

    def small_device(tiles_NCHW):
        sizes.append(len(tiles_NCHW))
        if len(tiles_NCHW) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return white_rectangles(tiles_NCHW)

    run = dataclasses.replace(RUN, batch=8, block_px=4096)
    options = DetectOptions(tile_px=96)
    planned = detect(scene, stub_model(), options, run)
    out = scene.with_suffix(".gpkg")
    report = detect_to_file(scene, stub_model(small_device), out, options, run)
    assert report.reduced_batch == {1: 1, 3: 2}[count]
    assert report.detections == len(planned) == 4
    assert 2 <= sizes.count(8) <= 4  # in both turns, beside another batch and alone


@pytest.mark.parametrize("batch", [1, 8])
def test_a_device_too_small_for_two_batches_at_once_serves_one(scene, batch):
    sizes = []

    def busy_device(tiles_NCHW):
        sizes.append(len(tiles_NCHW))
        if engine.slots == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return white_rectangles(tiles_NCHW)

    engine = Engine(stub_model(busy_device), DetectOptions(tile_px=96), batch=batch)
    block = whole(scene)
    found = engine.detect([block])[0]
    assert found.reduced_batch is None  # nothing was halved
    assert len(found.detections) >= 4
    assert sizes[0] == sizes[1] == min(batch, len(block.tiles))
    assert engine.slots == 1
    assert engine.detect([block])[0].detections == found.detections  # that one is free again


def test_two_threads_that_are_short_of_memory_at_once_lose_nothing(scene):
    together = threading.Barrier(2)
    sizes = []

    def busy_device(tiles_NCHW):
        sizes.append(len(tiles_NCHW))
        if len(sizes) <= 2:
            together.wait(timeout=60)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return white_rectangles(tiles_NCHW)

    engine = Engine(stub_model(busy_device), DetectOptions(tile_px=96), batch=1)
    block = whole(scene)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(engine.detect, [[block], [block]])
    assert one[0].detections == other[0].detections
    assert len(one[0].detections) >= 4
    assert one[0].reduced_batch is None
    assert engine.slots == 1


def test_one_tile_that_does_not_fit_is_not_covered(tmp_path, scene):
    def no_memory(tiles_NCHW):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RunError, match="can't allocate memory"):
        detect_to_file(scene, stub_model(no_memory), tmp_path / "out.gpkg", OPTIONS, RUN)


def test_an_output_folder_that_vanishes_is_one_sentence(tmp_path, scene):
    folder = tmp_path / "results"
    folder.mkdir()
    vanish = once(lambda: shutil.rmtree(folder))
    with pytest.raises(OutputError, match="cannot be written"):
        detect_to_file(
            scene,
            stub_model(),
            folder / "out.gpkg",
            DetectOptions(tile_px=96),
            RUN,
            progress=vanish,
        )


@pytest.mark.parametrize("when", ["ledger", "output"])
def test_a_full_disk_loses_nothing(small_disk, scene, when):
    options = DetectOptions(tile_px=96)
    out = small_disk / "out.gpkg"
    run = dataclasses.replace(RUN, overwrite=True)
    detect_to_file(scene, stub_model(), out, options, run)
    before = out.read_bytes()
    filler = small_disk / "filler"

    def fill():
        with filler.open("wb") as file:
            free = os.statvfs(small_disk)
            leave = 0 if when == "ledger" else 48 * 1024  # units are a few kB, a GeoPackage more
            file.write(b"x" * max(0, free.f_bavail * free.f_frsize - leave))

    with pytest.raises(OutputError, match=r"(?i)no space|full|cannot be written"):
        detect_to_file(scene, stub_model(), out, options, run, progress=once(fill))
    assert out.read_bytes() == before
    assert [name for name in os.listdir(small_disk) if name.startswith(".")] == []
    filler.unlink()
    states = []
    report = detect_to_file(scene, stub_model(), out, options, run, progress=states.append)
    assert report.detections == 4
    if when == "ledger":
        assert states[0].pixels_before > 0


IN_COMMAND = dataclasses.replace(RUN, threads=2, batch=1)


@pytest.fixture
def command(tmp_path, scene):
    weights = tiny_model().save(tmp_path / "m.safetensors")
    flags = "--tile-px 96 --score 0.005 --max-per-tile 20 --precision fp32 --block-px 128"
    program = [sys.executable, "-c", slow_command(0.2), "detect", scene, "--model", weights]
    out = tmp_path / "out.gpkg"
    return [
        *map(str, program),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--batch",
        "1",
        *flags.split(),
    ]


def begin(command, tmp_path):
    """Start a run, and wait until something is finished but not all."""
    # Tests that were started in the background are deaf to Ctrl-C, and so would their children be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    folder = tmp_path / "out.gpkg.run"
    while not list(folder.glob("unit-*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def rows(path):
    frame = gpd.read_file(path)
    return frame.drop(columns="geometry"), frame.geometry.to_wkb()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_soon_and_says_how_to_go_on(tmp_path, scene, command, sign):
    process = begin(command, tmp_path)
    process.send_signal(sign)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted" in text
    assert "the same command continues" in text
    assert "Traceback" not in text
    states = []
    out = tmp_path / "out.gpkg"
    detect_to_file(
        scene, tmp_path / "m.safetensors", out, OPTIONS, IN_COMMAND, progress=states.append
    )
    assert states[0].pixels_before > 0
    assert not (tmp_path / "out.gpkg.run").exists()


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path, scene, command):
    weights = tmp_path / "m.safetensors"
    unbroken = tmp_path / "unbroken.gpkg"
    detect_to_file(scene, weights, unbroken, OPTIONS, IN_COMMAND)
    out = tmp_path / "out.gpkg"
    for delay in (0.0, 0.25):
        process = begin(command, tmp_path)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert not out.exists()
    other = dataclasses.replace(IN_COMMAND, threads=3, block_px=4096)
    detect_to_file(scene, weights, out, OPTIONS, other)
    expected, found = rows(unbroken), rows(out)
    assert len(found[0]) > 0
    assert found[0].equals(expected[0])
    assert found[1].equals(expected[1])


def test_two_runs_on_one_output_do_not_mix(tmp_path, scene, command):
    process = begin(command, tmp_path)
    with pytest.raises(RunError, match="another run is writing to"):
        detect_to_file(
            scene, tmp_path / "m.safetensors", tmp_path / "out.gpkg", OPTIONS, IN_COMMAND
        )
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text


def test_threads_of_a_stopped_run_end(scene):
    begun = threading.Event()
    batches = []

    def slow(tiles_NCHW):
        begun.set()
        batches.append(time.monotonic())
        time.sleep(0.1)
        return white_rectangles(tiles_NCHW)

    def stop():
        assert begun.wait(30)
        raise KeyboardInterrupt

    start = time.monotonic()
    run = dataclasses.replace(RUN, batch=1, block_px=128)
    with pytest.raises(KeyboardInterrupt):
        detect(scene, stub_model(slow), DetectOptions(tile_px=96), run, progress=once(stop, at=1))
    stopped = len(batches)
    time.sleep(0.5)
    assert len(batches) <= stopped + 1, time.monotonic() - start
