"""How long `evaluate` takes for very many objects, and how much memory.

    python benchmarks/evaluate.py --out benchmarks/results/2026-11-22-cpu-evaluate.json

Draws labels over a square of ground and detections near most of them, besides some false ones,
writes both as files, and evaluates each case in a process of its own: boxes that stand along the
axes of the detections' CRS; labels in another CRS, which turns them; and points by distance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from machines import machine

import geo_retina

CRS, OTHER_CRS = "EPSG:32633", "EPSG:4326"
ORIGIN_XY = np.array([500_000.0, 5_300_000.0])
CASES = {
    "boxes": {"cell_m": 100.0},
    "boxes, 10 classes": {"cell_m": 100.0, "class_column": "class"},
    "boxes turned by another CRS": {},
    "points within 3 m": {"radius_m": 3.0},
    "points within 6 m": {"radius_m": 6.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--density", type=float, default=100.0, help="labels on a hectare")
    parser.add_argument("--suffix", choices=[".parquet", ".gpkg"], default=".parquet")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(**json.loads(args.one))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = draw(Path(folder), args.labels, args.density, args.suffix)
        for case in args.cases:
            labels = files["turned" if "turned" in case else case.split()[0].rstrip(",")]
            given = {"found": str(files["found"]), "labels": str(labels), "options": CASES[case]}
            command = [sys.executable, __file__, "--one", json.dumps(given)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"case": case, **json.loads(done.stdout)})
            last = rows[-1]
            print(
                f"{case:<28} {last['seconds']:6.1f} s, {last['cpu_seconds']:.1f} s of CPU, "
                f"{last['peak_gib']:.2f} GiB, F1 {last['f1']:.4f}",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(describe(args, rows), indent=1) + "\n", "utf-8")


def draw(folder: Path, count: int, density: float, suffix: str) -> dict[str, Path]:
    """Write detections, box labels, the same in another CRS, and point labels."""
    rng = np.random.default_rng(0)
    side_m = (count / density) ** 0.5 * 100
    centres = rng.uniform(0, side_m, (count, 2)) + ORIGIN_XY
    half = rng.uniform(2, 5, (count, 2))
    boxes = np.concatenate([centres - half, centres + half], axis=1)
    classes = np.array([f"class {k}" for k in range(10)], dtype=object)[
        rng.integers(10, size=count)
    ]
    near = np.flatnonzero(rng.random(count) < 0.85)
    found = np.concatenate(
        [boxes[near] + rng.normal(0, 0.7, (len(near), 4)), boxes[: count - len(near)]]
    )
    found[len(near) :] += np.tile(rng.uniform(-50, 50, (count - len(near), 2)), 2)
    pixels = (found - np.tile(ORIGIN_XY, 2)) / 0.3
    names = ("x_min_px", "y_min_px", "x_max_px", "y_max_px")
    tables = {
        "found": gpd.GeoDataFrame(
            {
                "class": np.concatenate([classes[near], classes[: count - len(near)]]),
                "score": np.clip(
                    rng.normal(0.5, 0.15, count) + 0.1 * (np.arange(count) < len(near)), 0, 1
                ),
                "scene": "scene",
                **{name: pixels[:, k] for k, name in enumerate(names)},
            },
            geometry=shapely.box(*found.T),
            crs=CRS,
        ),
        "boxes": gpd.GeoDataFrame({"class": classes}, geometry=shapely.box(*boxes.T), crs=CRS),
        "points": gpd.GeoDataFrame({"class": classes}, geometry=shapely.points(centres), crs=CRS),
    }
    tables["turned"] = tables["boxes"].to_crs(OTHER_CRS)
    files = {name: folder / f"{name}{suffix}" for name in tables}
    for name, table in tables.items():
        table.to_parquet(files[name]) if suffix == ".parquet" else table.to_file(files[name])
    return files


def measure(found: str, labels: str, options: dict[str, object]) -> dict[str, float]:
    """Evaluate once, in this process alone."""
    start, cpu = time.perf_counter(), time.process_time()
    got = geo_retina.evaluate(found, labels, geo_retina.EvaluateOptions(**options))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_gib()
    assert got.f1 is not None
    return {
        "detections": got.overall.detections,
        "labels": got.overall.labels,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_gib": round(peak, 2),
        "f1": got.f1,
    }


def peak_gib() -> float:
    """Read the most memory that this process held; getrusage would give its parent's too."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def describe(args: argparse.Namespace, rows: list[dict[str, object]]) -> dict[str, object]:
    return {
        **machine(),
        "files": args.suffix,
        "labels_per_hectare": args.density,
        "runs": rows,
    }


if __name__ == "__main__":
    main()
