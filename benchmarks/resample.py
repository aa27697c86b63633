"""Reading scenes on a grid that is a plain scaling of their file's, against GDAL's warper.

    python benchmarks/resample.py --out benchmarks/results

A drawn scene is read in blocks with their halo, as a run reads it, resampled by a factor a side
(0.5: twice as many pixels a side). "warped" is GDAL's warper, through which these scenes went
until version 0.2; "ours" reads the file's own pixels and interpolates them on the host, as is done
where the network computes on a CPU. Both are measured in turns, in one process and one thread.
Rates count pixels of the grid; ``greys`` is the greatest difference between the two.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from reports import Row, arguments, head, keep, parse, spent, table, write_scene

import geo_retina
from geo_retina.grid import plan_tiles
from geo_retina.run.plan import blocks_for
from geo_retina.scene import Scene, inspect_file
from geo_retina.scene.warping import view_of

COLUMNS = ("layout", "factor", "grid_mpx", "warped_mpx_cpu_s", "ours_mpx_cpu_s", "ratio", "greys")
LAYOUTS: dict[str, dict[str, Any]] = {"plain": {"compress": None, "predictor": 1}, "zstd": {}}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the scene")
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--factor", type=float, nargs="+", default=[0.5, 0.4, 0.8, 1.25])
    parser.add_argument("--layout", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    args = parse(parser)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for layout in args.layout:
            path = write_scene(Path(folder, f"{layout}.tif"), args.size, **LAYOUTS[layout])
            own_m = geo_retina.open_scene(path).grid.gsd_m
            for factor in args.factor:
                scene = geo_retina.open_scene(path, gsd_m=own_m * factor)
                rows.append({"layout": layout, "factor": factor} | measure(scene, args))
    table(rows, COLUMNS)
    keep(args, "resample", head(args) | {"size_px": args.size, "runs": rows})


def measure(scene: Scene, args: argparse.Namespace) -> Row:
    """Measure both ways of reading a scene, in turns."""
    file = inspect_file(scene.path)
    warped = dataclasses.replace(
        scene,
        source=None,
        view=view_of(file, scene.bands, scene.grid, scene.grid_to_file),
        nodatas=file.nodatas_of(scene.bands, is_own=False),
    )
    tiles = plan_tiles(scene.grid.shape, tile_px=1024, overlap_px=64, stride_px=32, exact=True)
    windows = [block.window for block in blocks_for(scene, tiles, args.block)]
    mpx = sum(window.height * window.width for window in windows) / 1e6
    first = windows[0]._replace(height=512, width=512)
    greys = np.abs(scene.read(first)[0].astype(int) - warped.read(first)[0]).max()
    times: dict[str, list[float]] = {"warped": [], "ours": []}
    for _ in range(args.repeats):
        for name, each in (("warped", warped), ("ours", scene)):
            once = spent(lambda s=each: [s.read(w)[1].size for w in windows], "cpu", 1, warm=0)
            times[name].append(mpx / once.cpu_s)
    row: Row = {"grid_mpx": mpx, "greys": int(greys)}
    row |= {f"{name}_mpx_cpu_s": float(np.median(rates)) for name, rates in times.items()}
    return row | {"ratio": row["ours_mpx_cpu_s"] / row["warped_mpx_cpu_s"]}


if __name__ == "__main__":
    main()
