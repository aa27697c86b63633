"""From a file to a file, with a stub in place of the network's answer and a real one."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import threading
import urllib.request

import geopandas as gpd
import numpy as np
import pytest
import torch
from affine import Affine
from support.reviews import edit, rows_of
from support.stubs import (
    NORTH_UP,
    ROTATED,
    StubPredictor,
    paint,
    stub_model,
    tiny_model,
    white_rectangles,
    write_scene,
)

from geo_retina.boxes import iou, overlapping_pairs
from geo_retina.detector import detect, detect_to_file
from geo_retina.errors import OptionError, OutputError, RunError
from geo_retina.options import DetectOptions, ReviewOptions, RunOptions, SynthOptions
from geo_retina.review import review_detections
from geo_retina.run.cluster import find_dashboard, workers
from geo_retina.scene import Scene
from geo_retina.synth import draw_scene

# An untrained network finds more in a tile than its limit.
pytestmark = pytest.mark.filterwarnings("ignore:.* tiles reached a limit:UserWarning")

CPU = RunOptions(device="cpu", block_px=256)
BOXES = np.array(
    [[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48], [390, 290, 397, 296.0]]
)
PX = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]


@pytest.fixture
def model():
    return stub_model()


def scene(path, boxes=BOXES, **how):
    return write_scene(path, paint((300, 400), boxes), **how)


def by_position(frame) -> np.ndarray:
    values = frame[PX].to_numpy(float)
    return values[np.lexsort(values.T[::-1])]


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".parquet"])
def test_objects_keep_their_edges_through_a_file(tmp_path, model, suffix):
    affine = ROTATED if suffix != ".geojson" else NORTH_UP
    path = scene(tmp_path / "a.tif", affine=affine)
    report = detect_to_file(path, model, tmp_path / f"out{suffix}", run=CPU)
    assert report.complete
    assert report.detections == len(BOXES)
    assert report.counts == {"car": 3, "tree": 1}
    assert report.crs == ("EPSG:4326" if suffix == ".geojson" else "EPSG:32633")
    frame = (gpd.read_parquet if suffix == ".parquet" else gpd.read_file)(report.out)
    placed = frame.to_crs("EPSG:32633").geometry
    inverse = ~affine
    tolerance = 1e-6 if suffix != ".geojson" else 1e-2  # RFC 7946 has degrees, by seven digits
    for polygon in placed:
        corners = np.array([inverse @ xy for xy in polygon.exterior.coords[:-1]])
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        assert np.abs(BOXES - box).max(axis=1).min() < tolerance
    if suffix != ".geojson":
        assert frame.crs.to_epsg() == 32633
    assert sorted(os.listdir(tmp_path / ".."))  # the folder itself is still there
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".") or ".run" in name]


def test_memory_and_file_agree(tmp_path, model):
    path = scene(tmp_path / "a.tif")
    detect_to_file(path, model, tmp_path / "out.gpkg", run=CPU)
    file = gpd.read_file(tmp_path / "out.gpkg")
    memory = detect(path, model, run=CPU)
    np.testing.assert_array_equal(by_position(file), by_position(memory))
    assert {"class", "score", "scene", "tile", "cut", "joined", *PX} <= set(memory.columns)
    assert file["id"].tolist() == list(range(len(BOXES)))
    assert set(file["scene"]) == {"a"}


def test_a_real_network_finds_the_same_in_tiles_as_in_the_whole_image(tmp_path):
    """In fp32 with an ample overlap, as tiles lie on the network's stride grid."""
    path = tmp_path / "a.tif"
    draw_scene(path, SynthOptions(height=640, width=640, seed=77))
    whole = detect(path, "demo", DetectOptions(precision="fp32", tile_px=640), CPU)
    options = DetectOptions(precision="fp32", tile_px=512, overlap_px=384)
    tiled = detect(path, "demo", options, CPU)
    assert len(whole) > 50
    assert len(tiled) == len(whole)
    assert not tiled["joined"].any()
    pairs = overlapping_pairs(whole[PX].to_numpy(), tiled[PX].to_numpy())
    same = iou(whole[PX].to_numpy()[pairs[:, 0]], tiled[PX].to_numpy()[pairs[:, 1]]) > 0.98
    assert same.sum() == len(whole)


def test_scenes_of_two_zones_go_to_one_layer_in_degrees(tmp_path, model):
    scene(tmp_path / "a.tif")
    scene(tmp_path / "b.tif", crs="EPSG:32634")
    report = detect_to_file(tmp_path, model, tmp_path / "out.gpkg", run=CPU)
    assert report.crs == "EPSG:4326"
    frame = gpd.read_file(report.out)
    assert frame.crs.to_epsg() == 4326
    assert frame["scene"].tolist() == ["a"] * 4 + ["b"] * 4
    west = frame[frame["scene"] == "a"].to_crs("EPSG:32633").total_bounds
    east = frame[frame["scene"] == "b"].to_crs("EPSG:32634").total_bounds
    np.testing.assert_allclose(west, east, atol=1e-6)
    asked = detect(tmp_path / "*.tif", model, run=CPU, crs="EPSG:3857")
    assert asked.crs.to_epsg() == 3857
    with pytest.raises(OptionError, match="not a CRS"):
        detect(tmp_path / "*.tif", model, run=CPU, crs="EPSG:nonsense")


def test_boxes_are_in_the_files_pixels_where_it_was_resampled(tmp_path):
    big = BOXES * 4
    path = write_scene(
        tmp_path / "a.tif", paint((1200, 1600), big), affine=Affine(0.125, 0, 4e5, 0, -0.125, 5e6)
    )
    frame = detect(path, stub_model(), run=CPU)
    np.testing.assert_allclose(by_position(frame), by_position_of(big), atol=2)


def by_position_of(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T[::-1])]


def test_an_empty_scene_gives_an_empty_layer(tmp_path, model):
    path = scene(tmp_path / "a.tif", np.empty((0, 4)))
    report = detect_to_file(path, model, tmp_path / "out.gpkg", run=CPU)
    assert report.detections == 0
    frame = gpd.read_file(report.out)
    assert len(frame) == 0
    assert {"class", "score", "id", "scene", *PX} <= set(frame.columns)


def test_empty_tiles_are_skipped_and_counted(tmp_path, model):
    pixels = paint((300, 400), BOXES)
    pixels[:, :, 200:] = 0
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    report = detect_to_file(path, model, tmp_path / "out.gpkg", DetectOptions(tile_px=96), CPU)
    assert report.skipped_tiles > 0
    assert report.detections == 2


def test_an_output_is_not_overwritten_unless_asked(tmp_path, model):
    path = scene(tmp_path / "a.tif")
    out = tmp_path / "out.gpkg"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        detect_to_file(path, model, out, run=CPU)
    assert out.read_text() == "precious"
    detect_to_file(path, model, out, run=dataclasses.replace(CPU, overwrite=True))
    assert len(gpd.read_file(out)) == 4


def test_a_bad_scene_among_good_ones_is_recorded_and_tried_again(tmp_path, model):
    folder = tmp_path / "scenes"
    folder.mkdir()
    scene(folder / "a.tif")
    (folder / "b.tif").write_text("no raster")
    scene(folder / "c.tif")
    out = tmp_path / "out.gpkg"
    report = detect_to_file(folder, model, out, run=CPU)
    assert not report.complete
    assert [f.scene for f in report.failures] == [str(folder / "b.tif")]
    assert report.detections == 8
    missing = gpd.read_file(out, layer="not_covered")
    assert missing["scene"].tolist() == [str(folder / "b.tif")]
    with pytest.raises(RunError, match="could not be covered"):
        detect(folder, model, run=CPU)
    # Once it is repaired, the same call does only what is left, and replaces its own output.
    scene(folder / "b.tif")
    calls = []
    healed = detect_to_file(folder, model, out, run=CPU, progress=calls.append)
    assert healed.complete
    assert healed.detections == 12
    assert gpd.read_file(out)["scene"].tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert calls[-1].pixels - calls[-1].pixels_before == 300 * 400
    assert len(gpd.read_file(out, layer="not_covered")) == 0
    assert sorted(os.listdir(tmp_path)) == ["out.gpkg", "scenes"]


def test_a_block_that_cannot_be_read_costs_only_its_ground(tmp_path, model, monkeypatch):
    path = scene(tmp_path / "a.tif")
    whole = Scene.read

    def broken(self, window):
        if window.row == 0 and window.col == 0:
            raise OSError("bad sector")
        return whole(self, window)

    monkeypatch.setattr(Scene, "read", broken)
    run = dataclasses.replace(CPU, block_px=128)
    report = detect_to_file(path, model, tmp_path / "out.gpkg", DetectOptions(tile_px=96), run)
    assert [f.error for f in report.failures] == ["OSError: bad sector"]
    ground = gpd.read_file(report.out, layer="not_covered").geometry.iloc[0]
    found = gpd.read_file(report.out)
    assert not found.geometry.intersects(ground.buffer(-10)).any()
    assert 0 < len(found) < 4
    monkeypatch.setattr(Scene, "read", whole)
    assert detect_to_file(path, model, report.out, DetectOptions(tile_px=96), run).complete
    assert len(gpd.read_file(report.out)) == 4


def test_where_nothing_could_be_detected_the_old_output_stays(tmp_path):
    path, out = scene(tmp_path / "a.tif"), tmp_path / "out.gpkg"
    out.write_text("precious")
    overwrite = dataclasses.replace(CPU, overwrite=True)
    broken = threading.Event()
    broken.set()

    def find(tiles_NCHW):
        if broken.is_set():
            raise RuntimeError("out of memory\nand a long trace")
        return white_rectangles(tiles_NCHW)

    model = stub_model(find)
    with pytest.raises(RunError, match=r"nothing could be detected.*RuntimeError: out of memory;"):
        detect_to_file(path, model, out, run=overwrite)
    assert out.read_text() == "precious"
    broken.clear()
    assert detect_to_file(path, model, out, run=overwrite).detections == 4
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "out.gpkg"]


def test_runs_in_threads_of_one_process_do_not_disturb_each_other(tmp_path, model):
    from concurrent.futures import ThreadPoolExecutor

    paths = [scene(tmp_path / f"{i}.tif") for i in range(4)]
    run = dataclasses.replace(CPU, block_px=128)
    other = stub_model(seed=1)
    with ThreadPoolExecutor(4) as pool:
        jobs = zip(paths, [model, model, other, model], strict=True)
        found = list(pool.map(lambda job: detect(*job, DetectOptions(tile_px=96), run), jobs))
    assert [len(frame) for frame in found] == [4] * 4


def test_predictors_of_one_name_are_not_mixed_up(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def choosing(label):
        class Choosing(StubPredictor):
            def predict(self, tiles_NCHW, *, all_boxes=False):
                together.wait(timeout=60)
                found = white_rectangles(tiles_NCHW)
                return found._replace(labels_M=torch.full_like(found.labels_M, label))

        return dataclasses.replace(tiny_model(), predictor=Choosing)

    together = threading.Barrier(2)
    path, models = scene(tmp_path / "a.tif"), [choosing(0), choosing(1)]
    assert models[0].fingerprint == models[1].fingerprint
    run = dataclasses.replace(CPU, block_px=4096)
    with ThreadPoolExecutor(2) as pool:
        cars, trees = pool.map(lambda model: detect(path, model, run=run), models)
    assert cars["class"].tolist() == ["car"] * 4
    assert trees["class"].tolist() == ["tree"] * 4


def test_scenes_of_one_stem_are_told_apart(tmp_path, model):
    for year in ("2018", "2020"):
        (tmp_path / year).mkdir()
        scene(tmp_path / year / "a.tif")
    found = detect([tmp_path / "2018", tmp_path / "2020"], model, run=CPU)
    assert found["scene"].nunique() == 2


def test_a_run_goes_on_from_another_folder(tmp_path, model, monkeypatch):
    (tmp_path / "data").mkdir()
    scene(tmp_path / "data" / "a.tif")
    (tmp_path / "data" / "b.tif").write_text("no raster")
    monkeypatch.chdir(tmp_path)
    assert not detect_to_file(["data"], model, "out.gpkg", run=CPU).complete
    scene(tmp_path / "data" / "b.tif")
    monkeypatch.chdir(tmp_path / "data")
    assert detect_to_file(["a.tif", "b.tif"], model, "../out.gpkg", run=CPU).detections == 8


def test_a_read_error_that_heals_is_not_seen(tmp_path, model, monkeypatch):
    path = scene(tmp_path / "a.tif")
    whole, tries = Scene.read, []

    def shaky(self, window):
        tries.append(window)
        if len(tries) == 1:
            raise OSError("try again")
        return whole(self, window)

    monkeypatch.setattr(Scene, "read", shaky)
    assert len(detect(path, model, run=CPU)) == 4


def test_an_interrupted_run_goes_on(tmp_path, model):
    path = scene(tmp_path / "a.tif")
    run = dataclasses.replace(CPU, block_px=128, threads=1)
    options = DetectOptions(tile_px=96)
    seen = []
    one = tmp_path / "one.gpkg"
    unbroken = detect_to_file(path, model, one, options, run, progress=seen.append)
    task_batches = seen[-1].task_batches

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.task_batches_done == 3:
            raise Stop

    out = tmp_path / "two.gpkg"
    with pytest.raises(Stop):
        detect_to_file(path, model, out, options, run, progress=stop)
    assert not out.exists()
    with pytest.raises(RunError, match=r"differs in options\.tile_px: 96, now 128"):
        detect_to_file(path, model, out, DetectOptions(tile_px=128), run)
    seen.clear()
    other = dataclasses.replace(run, threads=3, block_px=4096, batch=1)
    report = detect_to_file(path, model, out, options, other, progress=seen.append)
    assert seen[-1].task_batches == task_batches - 3
    assert report.detections == unbroken.detections
    frames = [gpd.read_file(tmp_path / name) for name in ("one.gpkg", "two.gpkg")]
    assert frames[0].equals(frames[1])


def test_a_killed_process_leaves_a_run_that_goes_on(tmp_path):
    path = scene(tmp_path / "a.tif")
    weights = tiny_model().save(tmp_path / "m.safetensors")
    out = tmp_path / "out.gpkg"
    code = (
        "import os, sys\n"
        "from geo_retina.detector import detect_to_file\n"
        "from geo_retina.options import DetectOptions, RunOptions\n"
        "def kill(p):\n"
        "    if sys.argv[1] == 'kill' and p.task_batches_done == 2: os._exit(137)\n"
        f"r = detect_to_file({str(path)!r}, {str(weights)!r}, {str(out)!r},\n"
        "    DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision='fp32'),\n"
        "    RunOptions(device='cpu', block_px=128), progress=kill)\n"
        "print(r.detections)\n"
    )
    first = subprocess.run([sys.executable, "-c", code, "kill"], capture_output=True)
    assert first.returncode == 137
    assert json.loads((tmp_path / "out.gpkg.run" / "manifest.json").read_text())["block_px"] == 128
    second = subprocess.run([sys.executable, "-c", code, "go"], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    options = DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision="fp32")
    unbroken = detect(path, weights, options, dataclasses.replace(CPU, block_px=128))
    assert int(second.stdout) == len(unbroken) > 0


def test_nothing_listens_beyond_loopback(tmp_path, model):
    import psutil

    path = scene(tmp_path / "a.tif")
    listening = []

    def look(_):
        listening.extend(
            c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"
        )

    detect(path, model, run=CPU, progress=look)
    assert listening  # Dask's own servers, or this test sees nothing
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_the_dashboard_is_where_it_is_said_to_be(monkeypatch):
    """At the address of the machine, which Dask would name, nothing answers."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: True if name == "bokeh" else found(name)
    )
    with workers(tiny_model(), CPU, DetectOptions()) as (client, *_):
        link = find_dashboard(client, CPU)
        assert link.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert answer.status == 200


def test_a_cluster_of_processes_gives_the_same(tmp_path):
    """A scheduler and a worker in processes of their own, the model sent to them."""
    distributed = pytest.importorskip("distributed")
    model = tiny_model()
    path = scene(tmp_path / "a.tif")
    options = DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision="fp32")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as cluster:
        run = dataclasses.replace(CPU, scheduler=cluster.scheduler_address)
        remote = detect(path, model, options, run)
        stub = detect(path, stub_model(), DetectOptions(tile_px=96), run)
    assert by_position(stub).tolist() == by_position_of(BOXES).tolist()
    local = detect(path, model, options, CPU)
    assert len(local) > 0
    assert remote.equals(local)
    with pytest.raises(RunError, match="no Dask scheduler answers"):
        detect(path, model, options, dataclasses.replace(CPU, scheduler="tcp://127.0.0.1:1"))


def test_views_that_a_models_anchors_do_not_share_are_refused(tmp_path):
    model = tiny_model(network=dataclasses.replace(tiny_model().card.network, round_anchors=True))
    path = scene(tmp_path / "a.tif")
    with pytest.raises(OptionError, match="tta is 2, but the anchors"):
        detect(path, model, DetectOptions(tta=2), CPU)
    with pytest.raises(OptionError, match="tta is 3, expected"):
        DetectOptions(tta=3)


def test_a_person_s_entries_outlive_a_new_run(tmp_path, model):
    """Only ``discard_review`` ends them; see also tests/unit/vector/writers."""
    path, out = scene(tmp_path / "a.tif"), tmp_path / "out.gpkg"
    detect_to_file(path, model, out, run=CPU)
    review_detections(out, ReviewOptions(cells=0))
    edit(out, "UPDATE review SET status = 'rejected', note = 'a shadow'")
    before = rows_of(out)
    assert len(before) == len(BOXES)
    again = dataclasses.replace(CPU, overwrite=True)
    detect_to_file(path, model, out, run=again)
    assert rows_of(out) == before
    detect_to_file(path, model, out, run=dataclasses.replace(again, discard_review=True))
    assert "review" not in set(gpd.list_layers(out)["name"])
