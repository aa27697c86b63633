"""How programs are run in the world: closed streams, full disks, forks, threads, broken files."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely import box
from support.stubs import LOADED_BY_RUNS, UTM, load_stub_model, paint, tiny_model, write_scene

from geo_retina.cli import main
from geo_retina.detector import detect, detect_to_file
from geo_retina.engine import TorchPredictor
from geo_retina.errors import RunError
from geo_retina.options import DetectOptions, RunOptions

BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130]])
RUN = RunOptions(device="cpu")
CODE = "import sys; from geo_retina.cli import main; sys.exit(main())"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "a.tif", paint((150, 200), BOXES))
    tiny_model().save(tmp_path / "m.safetensors")
    return tmp_path


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)


@pytest.mark.parametrize(
    ("streams", "code"),
    [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1)],
)
def test_streams_that_are_closed_or_full_cost_no_result(here, streams, code):
    line = f"'{sys.executable}' -c '{CODE}' detect a.tif --model m.safetensors --out o.gpkg"
    done = subprocess.run(f"{line} --device cpu {streams}", shell=True, capture_output=True)
    assert done.returncode == code, done.stderr
    assert list(gpd.read_file("o.gpkg", layer="scanned")["scene"])
    if code:
        assert b"standard output cannot be written (No space left on device)" in done.stderr
        assert len(done.stderr.splitlines()) == 1


_FORKED = """
import multiprocessing, sys
import geo_retina

def child(queue):
    try:
        queue.put(len(geo_retina.detect("a.tif", "m.safetensors")) >= 0)
    except geo_retina.GeoRetinaError as error:
        queue.put(str(error))

if sys.argv[1] == "loaded":
    geo_retina.load_model("m.safetensors")
else:
    geo_retina.detect("a.tif", "m.safetensors")
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,), daemon=True)
process.start()
print(queue.get(timeout=90))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize(("before", "said"), [("loaded", "True"), ("detected", '"spawn"')])
def test_a_forked_child_works_or_says_spawn(here, before, said):
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, before], capture_output=True, text=True, timeout=120
    )
    assert said in done.stdout, done.stderr


_TERMINATED = """
import os, signal
import geo_retina

signal.signal(signal.SIGTERM, signal.default_int_handler)
reading, writing = os.pipe()
child = os.fork()
while not child:
    try:
        os.write(writing, b".")
        signal.pause()
    except KeyboardInterrupt:
        pass  # as code in C, which never looks
os.read(reading, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_ends_when_it_is_told_to():
    done = subprocess.run(
        [sys.executable, "-c", _TERMINATED], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "-15\n", done.stderr


def test_threads_of_a_caller_leave_the_log_silent(here):
    code = (
        "import geo_retina\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        "    list(pool.map(lambda _: geo_retina.detect('a.tif', 'm.safetensors'), range(3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_models_in_threads_find_what_each_finds_alone(here):
    models = [tiny_model(seed=seed) for seed in (1, 2)]
    options = DetectOptions(score=0.005, precision="fp32", max_per_tile=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise reaches limits
        alone = [detect("a.tif", model, options, RUN) for model in models]
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda m: detect("a.tif", m, options, RUN), models))
    for one, other in zip(alone, both, strict=True):
        assert len(one)
        assert one.equals(other)


def test_detect_warns_of_tiles_that_reached_a_limit(here):
    options = DetectOptions(score=0.001, max_per_tile=2)
    with pytest.warns(UserWarning, match=r"reached a limit .* DetectOptions\.candidates"):
        detect("a.tif", tiny_model(), options, RUN)


def test_limits_grow_with_a_tiles_area():
    model, options = tiny_model(), DetectOptions(candidates=100, max_per_tile=7)
    predictor = TorchPredictor(model, options, device="cpu")
    side = model.card.tile_px
    found = {
        times: (limits.candidates, limits.max_per_image)
        for times in (1, 2, 4)
        for limits in [predictor.settings_for((side * times // 2, side * times // 2))]
    }
    assert found == {1: (100, 7), 2: (100, 7), 4: (400, 28)}


def _vrt(path: Path, source: Path) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><SimpleSource><SourceFilename relativeToVRT="0"'
        f">{source}</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="200" rasterYSize="150"><SRS>{UTM}</SRS><GeoTransform>400000,'
        f"0.5,0,5000000,0,-0.5</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.mark.parametrize("kind", ["vrt", "vrt in vrt", "truncated"])
def test_the_cause_beneath_a_failed_read_is_told_everywhere(here, kind):
    """In a process of its own, as a command has it."""
    cause = "gone.tif: No such file"
    bad = _vrt(here / "bad.vrt", here / "gone.tif")
    if kind == "vrt in vrt":
        bad = _vrt(here / "outer.vrt", bad)
    elif kind == "truncated":
        data = (here / "a.tif").read_bytes()
        bad, cause = here / "half.tif", "got"
        bad.write_bytes(data[: len(data) // 2])
    line = ["detect", "a.tif", bad.name, "--model", "m.safetensors", "--out", "o.gpkg"]
    command = [sys.executable, "-c", CODE, *line, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    errors = gpd.read_file("o.gpkg", layer="not_covered")["error"]
    assert len(set(errors)) == 1  # however many blocks of the file are gone
    log = (here / "o.gpkg.run" / "run.log").read_text()
    for text in (done.stderr, *errors, log):
        assert cause in text
        assert "previous exception" not in text


def test_overwrite_keeps_an_older_result_where_only_an_unreadable_scene_may_show_the_area(
    here, stub
):
    detect_to_file("a.tif", "m.safetensors", "o.gpkg", run=RUN)
    before = Path("o.gpkg").read_bytes()
    gpd.GeoDataFrame(geometry=[box(600_000, 4_000_000, 600_010, 4_000_010)], crs=UTM).to_file(
        "far.gpkg"
    )
    Path("b.tif").write_bytes(b"no raster")
    options = DetectOptions(aoi="far.gpkg")
    again = RunOptions(device="cpu", overwrite=True)
    with pytest.raises(RunError, match="nothing could be detected"):
        detect_to_file(["a.tif", "b.tif"], "m.safetensors", "o.gpkg", options, again)
    assert Path("o.gpkg").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("where", ["scene", "folder", "output"])
def test_names_that_are_not_utf8_are_one_sentence(here, where, capsys):
    name = os.fsdecode(b"caf\xe9")
    scene, out = {
        "scene": (f"{name}.tif", "o.gpkg"),
        "folder": (".", "o.gpkg"),
        "output": ("a.tif", f"{name}.gpkg"),
    }[where]
    if where != "output":
        Path(f"{name}.tif").write_bytes(Path("a.tif").read_bytes())
    assert main(["detect", scene, "--model", "m.safetensors", "--out", out]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "is not UTF-8" in said
    assert "rename" in said
