"""Reading blocks with their halo, by compression and layout, against a plain rasterio read.

    python benchmarks/read.py --out benchmarks/results

A drawn scene is written in several layouts. "aligned" reads each pixel once, in windows that follow
the file's own blocks, with rasterio and nothing else; "halo" reads the blocks that a run would
read, which overlap, through ``Scene.read``, with the mask of valid pixels. Each thread has handles
of its own. Rates count the pixels that were asked for; nothing is in GDAL's cache at the beginning,
while the system has the file in memory. A ratio of one: the halo costs its own pixels only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import rasterio.windows
from reports import Row, arguments, head, keep, parse, spent, table, write_scene

import geo_retina
from geo_retina.grid import Window, plan_tiles
from geo_retina.run.plan import blocks_for

COLUMNS = ("layout", "block_px", "threads", "mb", "aligned_mpx_s", "halo_mpx_s", "ratio")
COLUMNS += ("aligned_mpx_cpu_s", "halo_mpx_cpu_s", "cpu_ratio")

TILED: dict[str, Any] = {"driver": "GTiff", "TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled-none": TILED,
    "tiled-zstd": TILED | {"COMPRESS": "ZSTD", "PREDICTOR": 2},
    "tiled-deflate": TILED | {"COMPRESS": "DEFLATE", "PREDICTOR": 2},
    "cog-jpeg": {"driver": "COG", "COMPRESS": "JPEG", "BLOCKSIZE": 512},
    "striped-deflate": {"driver": "GTiff", "COMPRESS": "DEFLATE"},
    "striped-none": {"driver": "GTiff"},
    "one-tile-deflate": {"driver": "GTiff", "TILED": "YES", "COMPRESS": "DEFLATE"},
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=8192, help="rows and columns of the scene")
    parser.add_argument("--block", type=int, nargs="+", default=[4096])
    parser.add_argument("--layout", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2], help="threads that read")
    parser.add_argument("--overlap", type=int, default=64)
    args = parse(parser)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = write_scene(Path(folder, "scene.tif"), args.size)
        for layout in args.layout:
            path = write(source, Path(folder, f"{layout}.tif"), layout, args.size)
            for block_px in args.block:
                rows += [measure(path, layout, block_px, n, args) for n in args.readers]
            path.unlink()
    table(rows, COLUMNS)
    keep(args, "read", head(args) | {"size_px": args.size, "runs": rows})


def write(source: Path, path: Path, layout: str, size: int) -> Path:
    """Write the scene in a layout."""
    how = dict(LAYOUTS[layout])
    if layout.startswith("one-tile"):
        side = -(-size // 16) * 16
        how |= {"BLOCKXSIZE": side, "BLOCKYSIZE": side}
    rasterio.shutil.copy(source, path, **how)
    return path


def measure(path: Path, layout: str, block_px: int, threads: int, args: argparse.Namespace) -> Row:
    """Measure the rates of both ways of reading over the whole scene."""
    scene = geo_retina.open_scene(path)
    plan = plan_tiles(
        (args.size, args.size), tile_px=1024, overlap_px=args.overlap, stride_px=32, exact=True
    )
    halo = [block.window for block in blocks_for(scene, plan, block_px)]
    aligned = windows_of(path, block_px)

    def plain(windows: Iterable[Window]) -> None:
        with rasterio.open(path, sharing=False) as dataset:
            for row, col, height, width in windows:
                dataset.read(window=rasterio.windows.Window(col, row, width, height))

    def ours(windows: Iterable[Window]) -> None:
        for window in windows:
            scene.read(window)

    row: Row = {"layout": layout, "block_px": block_px, "threads": threads}
    row["mb"] = path.stat().st_size / 1e6
    for name, windows, work in (("aligned", aligned, plain), ("halo", halo, ours)):
        time = spent(lambda w=windows, f=work: _shared(f, w, threads), "cpu", args.repeats)
        pixels = sum(window.height * window.width for window in windows) / 1e6
        row |= {f"{name}_mpx_s": pixels / time.wall_s, f"{name}_mpx_cpu_s": pixels / time.cpu_s}
    row["ratio"] = row["halo_mpx_s"] / row["aligned_mpx_s"]
    row["cpu_ratio"] = row["halo_mpx_cpu_s"] / row["aligned_mpx_cpu_s"]
    return row


def windows_of(path: Path, block_px: int) -> list[Window]:
    """Partition a file along its own blocks into windows of about ``block_px`` squared."""
    with rasterio.open(path) as dataset:
        high, wide = dataset.block_shapes[0]
        height, width = dataset.shape
    step_x = min(width, -(-block_px // wide) * wide)
    step_y = max(1, block_px**2 // step_x // high) * high
    return [
        Window(row, col, min(step_y, height - row), min(step_x, width - col))
        for row in range(0, height, step_y)
        for col in range(0, width, step_x)
    ]


def _shared(
    work: Callable[[Iterable[Window]], None], windows: Sequence[Window], threads: int
) -> None:
    """Let new threads take one window after the other; their handles end with them."""
    left = iter(windows)  # of a list, so that threads may share it
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [left] * threads))


if __name__ == "__main__":
    main()
