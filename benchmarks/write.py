"""How fast detections become files, and how much memory that takes.

    python benchmarks/write.py                        # a million objects, every format
    python benchmarks/write.py --count 10000000 --format .gpkg .parquet folder

Objects are drawn at random in scenes of a million each. Placing them on the ground (corners,
sizes in metres, WKB) and writing them are timed apart. Rates are by the wall's clock and by this
process's CPU time, all threads together, which other work on the machine disturbs less. Peak
memory is that of a process of its own for each format.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from affine import Affine
from machines import machine

from geo_retina.detections import Detections
from geo_retina.grid import Grid
from geo_retina.vector import detections_table, write_vector

SCENE_OBJECTS = 1_000_000
CRS = pyproj.CRS("EPSG:32632")
CLASSES = ("car", "ship", "plane")
FORMATS = (".gpkg", ".parquet", "folder", ".fgb", ".geojson", ".shp")
"""Endings; ``folder`` is a folder of GeoParquet files by place."""


def main() -> None:
    args = _arguments()
    if args.one:
        print(json.dumps(measure(args.format[0], args.count, args.folder)))
        return
    print(", ".join(map(str, machine().values())), "cores")
    print(f"{args.count:,} objects; objects a second")
    print(f"{'':>9} {'placing':>21} {'writing':>21}")
    print(
        f"{'format':>9} {'wall':>10} {'CPU':>10} {'wall':>10} {'CPU':>10} {'MB':>7} {'peak MB':>8}"
    )
    for suffix in args.format:
        found = _in_a_process(suffix, args)
        seconds = (*found["place"], *found["write"])
        rates = "".join(f"{args.count / each:>11,.0f}" for each in seconds)
        print(f"{suffix:>9}{rates} {found['bytes'] / 1e6:>7,.0f} {found['peak_mb']:>8,.0f}")


def measure(suffix: str, count: int, folder: Path) -> dict[str, Any]:
    """Measure the seconds of placing and of writing, wall and CPU, and what it took."""
    spent = {"draw": np.zeros(2), "place": np.zeros(2)}
    with tempfile.TemporaryDirectory(dir=folder) as where:
        path = Path(where) / f"objects{suffix.removeprefix('folder')}"
        start = _clocks()
        rows = write_vector(path, _tables(count, spent), crs=CRS, overwrite=False)
        write = _clocks() - start - spent["draw"] - spent["place"]
        assert rows == count
        size = sum(part.stat().st_size for part in path.parent.rglob("*") if part.is_file())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    place, write = spent["place"].tolist(), write.tolist()
    return {"place": place, "write": write, "bytes": size, "peak_mb": peak_mb}


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _tables(count: int, spent: dict[str, np.ndarray]) -> Iterator[pa.Table]:
    """Yield one scene after the other, noting the time of drawing and of placing."""
    for number, first in enumerate(range(0, count, SCENE_OBJECTS)):
        start = _clocks()
        found = _objects(min(SCENE_OBJECTS, count - first), seed=number)
        affine = Affine(0.3, 0, 500_000 + 30_000 * number, 0, -0.3, 5_300_000)
        grid = Grid(CRS, affine, 100_000, 100_000)
        spent["draw"] += _clocks() - start
        start = _clocks()
        table = detections_table(
            found, grid, classes=CLASSES, scene=f"scene_{number}", to_file=Affine.identity()
        )
        spent["place"] += _clocks() - start
        yield table


def _objects(count: int, seed: int) -> Detections:
    """Make detections in the order of tiles, as a merge leaves them."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 99_900, (count, 2))
    tile = (low[:, 1] // 768 * 131 + low[:, 0] // 768).astype(np.int64)
    order = np.argsort(tile, kind="stable")
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (count, 2))], axis=1)[order]
    scores, labels = rng.random(count), rng.integers(0, len(CLASSES), count)
    cut, joined = np.zeros(count, np.uint8), np.zeros(count, bool)
    return Detections(boxes, scores, labels, tile[order], cut, joined)


def _in_a_process(suffix: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", "--format", suffix, "--count", str(args.count)]
    command += ["--folder", str(args.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--format", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
