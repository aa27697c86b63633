"""A scene of 60,000 x 60,000 px (10.8 GB of pixels, a few MB on disk, as it is sparse)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.windows import Window
from support.stubs import NORTH_UP, UTM, paint

SIDE_PX = 60_000
GIB = 1 << 30

SCRIPT = """
import json, sys, time
from pathlib import Path
from geo_retina import DetectOptions, RunOptions, detect_to_file, plan_scenes
from support.stubs import stub_model

scene, aoi, out = sys.argv[1:]
model, run = stub_model(), RunOptions(device="cpu")
start = time.process_time()
(whole,), _ = plan_scenes(scene, model.card, DetectOptions(), run)
planned_s = time.process_time() - start
report = detect_to_file(scene, model, out, DetectOptions(aoi=aoi), run)
print(json.dumps({
    "tiles": len(whole.tiles), "blocks": len(whole.blocks), "planned_s": planned_s,
    "run": report.tiles, "skipped": report.skipped_tiles, "outside": report.outside_tiles,
    "found": report.detections,
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    "peak_bytes": 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]),
}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The scene, with things in one corner of 1,000 px, and an area of 600 px there."""
    folder = tmp_path_factory.mktemp("large")
    boxes = np.array(
        [[x, y, x + 12, y + 20] for x in range(20, 980, 40) for y in range(20, 970, 40)]
    )
    profile = {
        "driver": "GTiff",
        "width": SIDE_PX,
        "height": SIDE_PX,
        "count": 3,
        "dtype": "uint8",
        "crs": UTM,
        "transform": NORTH_UP,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "sparse_ok": True,
        "bigtiff": "YES",
    }
    with rasterio.open(folder / "large.tif", "w", **profile) as dataset:
        dataset.write(paint((1000, 1000), boxes), window=Window(50_000, 40_000, 1000, 1000))
    box_px = np.array([50_200, 40_200, 50_800, 40_800])
    area = shapely.box(*(NORTH_UP @ box_px[[0, 3]]), *(NORTH_UP @ box_px[[2, 1]]))
    gpd.GeoDataFrame(geometry=[area], crs=UTM).to_file(folder / "aoi.gpkg")
    low, high = boxes[:, :2] + [50_000, 40_000], boxes[:, 2:] + [50_000, 40_000]
    expected = ((high >= box_px[:2]) & (low <= box_px[2:])).all(axis=1).sum()
    return folder, int(expected)


def test_a_small_area_of_a_huge_scene_takes_little_memory(large):
    folder, expected = large
    assert (folder / "large.tif").stat().st_size < 10e6
    arguments = [str(folder / name) for name in ("large.tif", "aoi.gpkg", "out.gpkg")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=_environment(),
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["found"] == expected > 100
    assert numbers["peak_bytes"] < 2 * GIB
    assert numbers["run"] + numbers["skipped"] < 200  # of 877,969
    assert numbers["run"] + numbers["skipped"] + numbers["outside"] == numbers["tiles"]
    assert numbers["blocks"] < 500


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
