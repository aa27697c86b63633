"""Cost of making objects one across thousands of scenes, as of a state in NAIP.

    python benchmarks/across_scenes.py --detections 2e6 6e6 20e6

Quarter quads of 3.75 minutes, in the UTM zone of their middle and at 0.6 m, reach about 150 m
beyond their own ground on all sides, as those of NAIP do: neighbours overlap by 300 m, and where
zones meet, by polygons of two lattices. Objects are drawn on the ground; each quad sees those in
its window with jitter, misses and scores of its own. No image, no network and no file of
detections: what is measured is ``merge_across``, with the disk that it needs for itself. Each size
runs in a process of its own. Drawing is subtracted from the processor time; peak memory has all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyproj
from affine import Affine
from machines import machine

from geo_retina.detections import Detections
from geo_retina.grid import Grid
from geo_retina.options import MergeOptions
from geo_retina.postprocess.across import LEAF_ROWS, Found, merge_across
from geo_retina.postprocess.lattices import Lattices, lattices_of

SIDE_DEG = 1 / 16
BEYOND_M = 150.0
GSD_M = 0.6
WEST, SOUTH = -123.3125, 34.0
MISSES, JITTER_PX, EDGE_PX = 0.05, 1.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detections", type=float, nargs="+", default=[2e6, 6e6, 20e6])
    parser.add_argument("--rows", type=int, default=105, help="rows and columns of quads")
    parser.add_argument("--leaf", type=int, default=LEAF_ROWS, help="detections decided together")
    parser.add_argument("--dated", action="store_true", help="quads of three years, in turn")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(merge_quads(args.rows, args.detections[0], args.leaf, args.dated)))
        return
    rows = []
    for count in args.detections:
        command = [sys.executable, __file__, "--one", "--rows", str(args.rows)]
        command += ["--leaf", str(args.leaf), "--detections", str(count)]
        command += ["--dated"] if args.dated else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    result = {
        **machine(),
        "runs": rows,
        "slope": slope(rows[0], rows[-1]) if len(rows) > 1 else None,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(result["slope"])


def slope(first: dict[str, float], last: dict[str, float]) -> dict[str, float]:
    """Tell what each further million of detections costs, and what 200 million would."""
    millions = (last["detections"] - first["detections"]) / 1e6
    keys = ("cpu_s", "peak_mb", "disk_mb")
    per = {key: (last[key] - first[key]) / millions for key in keys}
    further = 200 - last["detections"] / 1e6
    at_200 = {f"{key}_at_200": last[key] + further * each for key, each in per.items()}
    return {key: round(value, 2) for key, value in {**per, **at_200}.items()}


class Quads:
    """Quarter quads in rows and columns, and the objects on their ground."""

    def __init__(self, rows: int, per_quad: float) -> None:
        self.rows, self.per_quad = rows, per_quad
        self.grids = [self._grid(*divmod(k, rows)) for k in range(rows * rows)]

    def _grid(self, row: int, col: int) -> Grid:
        west, south = WEST + col * SIDE_DEG, SOUTH + row * SIDE_DEG
        crs = zone_of(west + SIDE_DEG / 2)
        lon, lat = west + SIDE_DEG * CORNERS[:, 0], south + SIDE_DEG * CORNERS[:, 1]
        x, y = to_zone(crs).transform(lon, lat)
        left, top = np.floor((min(x) - BEYOND_M) / GSD_M), np.ceil((max(y) + BEYOND_M) / GSD_M)
        width = int((max(x) + BEYOND_M) / GSD_M - left)
        height = int(top - (min(y) - BEYOND_M) / GSD_M)
        return Grid(crs, Affine(GSD_M, 0, left * GSD_M, 0, -GSD_M, top * GSD_M), height, width)

    @lru_cache(maxsize=400)  # noqa: B019 - one of these lives as long as the process
    def objects(self, row: int, col: int) -> np.ndarray:
        """Draw (N, 4) longitudes, latitudes, widths and heights in pixels of a quad's objects."""
        rng = np.random.default_rng(row * 100_000 + col)
        count = rng.poisson(self.per_quad * rng.gamma(2.0, 0.5))
        corner = np.array([WEST + col * SIDE_DEG, SOUTH + row * SIDE_DEG])
        places = corner + SIDE_DEG * rng.random((count, 2))
        return np.hstack([places, rng.uniform(8, 20, (count, 2))])

    def seen(self, scene: int) -> Detections:
        """Simulate what is detected in one quad, in its own pixels."""
        row, col = divmod(scene, self.rows)
        around = [
            self.objects(r, c)
            for r in range(max(row - 1, 0), min(row + 2, self.rows))
            for c in range(max(col - 1, 0), min(col + 2, self.rows))
        ]
        grid = self.grids[scene]
        low = np.array([WEST + (col - 0.08) * SIDE_DEG, SOUTH + (row - 0.08) * SIDE_DEG])
        near = [
            each[((each[:, :2] > low) & (each[:, :2] < low + 1.16 * SIDE_DEG)).all(axis=1)]
            for each in around
        ]
        lon, lat, width, height = np.concatenate(near).T
        centre = grid.crs_to_pixels(np.stack(to_zone(grid.crs).transform(lon, lat), axis=-1))
        half = np.stack([width, height], axis=1) / 2
        rng = np.random.default_rng(scene)
        boxes = np.hstack([centre - half, centre + half])
        boxes += JITTER_PX * rng.standard_normal(boxes.shape)
        window = np.array([0.0, 0, grid.width, grid.height])
        boxes = np.clip(boxes, 0, [grid.width, grid.height] * 2)
        seen = (boxes[:, 2:] - boxes[:, :2] >= 3).all(axis=1) & (rng.random(len(boxes)) > MISSES)
        boxes = boxes[seen]
        cut = (np.abs(boxes - window) <= EDGE_PX) @ np.array([16, 32, 64, 128])
        scores = rng.uniform(0.3, 0.95, len(boxes))
        nothing = np.zeros(len(boxes))
        return Detections(boxes, scores, nothing, nothing + scene, cut, nothing)  # type: ignore[arg-type]


CORNERS = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])


@lru_cache
def zone_of(lon: float) -> pyproj.CRS:
    return pyproj.CRS.from_epsg(26900 + int((lon + 180) // 6) + 1)


@lru_cache
def to_zone(crs: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4269", crs, always_xy=True)


def merge_quads(rows: int, detections: float, leaf: int, dated: bool) -> dict[str, float]:
    """Merge what all quads see; memory before is what the libraries and the quads take."""
    quads = Quads(rows, 0.85 * detections / rows**2)
    drawing = 0.0
    start = time.process_time()
    lattices = lattices_of(quads.grids, np.arange(len(quads.grids)))

    def read() -> Iterator[Detections]:
        nonlocal drawing
        for scene in range(len(quads.grids)):
            before = time.process_time()
            found = in_lattice(quads.seen(scene), lattices)
            if dated:
                day = 17_000 + 730 * (scene % 3)
                found = replace(found, first_seen=np.full(len(found), day))
            drawing += time.process_time() - before
            yield found

    before_mb = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        across = merge_across([Found(read)], lattices, MergeOptions(), Path(folder), leaf_rows=leaf)
        disk = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "quads": len(quads.grids),
        "lattices": len(lattices.grids),
        "detections": across.read,
        "suppressed": across.suppressed,
        "joined": len(across.joined),
        "dated": dated,
        "cpu_s": round(time.process_time() - start - drawing, 1),
        "drawing_s": round(drawing, 1),
        "before_mb": round(before_mb, 1),
        "peak_mb": round(peak_mb(), 1),
        "disk_mb": round(disk / 1e6, 1),
    }


def in_lattice(found: Detections, lattices: Lattices) -> Detections:
    """Move a scene's boxes to the pixels of its lattice."""
    corner = lattices.scenes.windows[found.tile][:, [0, 1, 0, 1]]
    return Detections(
        found.boxes_px + corner, found.scores, found.labels, found.tile, found.cut, found.joined
    )


def peak_mb() -> float:
    """Read the most memory that this process has held."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
