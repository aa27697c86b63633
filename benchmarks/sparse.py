"""Detecting on a large scene that is nearly empty: a sparse GeoTIFF with one patch of ground.

    python benchmarks/sparse.py --threads 1 --out benchmarks/results

What it takes is neither network nor reading but what is done for each block of ground that the
file does not hold, and for each unit of a run; the demo model detects on the patch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import rasterio
from rasterio.windows import Window
from reports import Row, arguments, head, keep, parse, spent, table, write_scene

import geo_retina

COLUMNS = ("size_px", "ground_px", "wall_s", "cpu_s", "detections", "skipped_tiles")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=60_000, help="rows and columns of the scene")
    parser.add_argument("--ground", type=int, default=1024, help="side of its patch of ground")
    parser.add_argument("--file-block", type=int, default=256, help="side of the file's blocks")
    args = parse(parser)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "sparse.tif"), args)
        rows = [measure(path, args) for _ in range(args.repeats)]
    table(rows, COLUMNS)
    keep(args, "sparse", head(args) | {"file_block_px": args.file_block, "runs": rows})


def write(path: Path, args: argparse.Namespace) -> Path:
    """Write a scene of which only a patch in the middle is stored."""
    ground = write_scene(path.with_name("ground.tif"), args.ground)
    with rasterio.open(ground) as dataset:
        pixels, profile = dataset.read(), dataset.profile
    profile |= {"width": args.size, "height": args.size, "sparse_ok": True}
    profile |= {"blockxsize": args.file_block, "blockysize": args.file_block}
    start = (args.size - args.ground) // 2
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels, window=Window(start, start, args.ground, args.ground))
    return path


def measure(path: Path, args: argparse.Namespace) -> Row:
    """Detect from file to file once."""
    out = path.with_suffix(".gpkg")
    run = geo_retina.RunOptions(overwrite=True, device=args.device)
    model = geo_retina.load_model("demo")
    reports: list[geo_retina.RunReport] = []
    time = spent(
        lambda: reports.append(geo_retina.detect_to_file(path, model, out, run=run)),
        args.device,
        1,
        warm=0,
    )
    row: Row = {"size_px": args.size, "ground_px": args.ground}
    row |= {"wall_s": time.wall_s, "cpu_s": time.cpu_s}
    [report] = reports
    return row | {"detections": report.detections, "skipped_tiles": report.skipped_tiles}


if __name__ == "__main__":
    main()
