"""What the benchmarks of speed share: arguments, clocks, networks, and how results are kept."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machines import machine

from geo_retina import PRESETS, Card, Model, SynthOptions, draw_scene, load_model
from geo_retina.model import Band, Radiometry, build_network

Row = dict[str, Any]

SOURCE_PX = 4096


def arguments(doc: str) -> argparse.ArgumentParser:
    """Make a parser with the flags that every benchmark of speed has; ``doc`` is its help."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="times that each is measured")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU; left out, its choice")
    parser.add_argument(
        "--out", type=Path, help="JSON file to write, or a folder, where its name tells the rest"
    )
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and let PyTorch use as many threads as were asked for."""
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def draw_copies(folder: Path, count: int, side_px: int) -> list[Path]:
    """Draw a small scene into a new folder, and copies of it, for runs that a stub carries out."""
    folder.mkdir()
    paths = [folder / f"{i:05d}.tif" for i in range(count)]
    draw_scene(paths[0], SynthOptions(height=side_px, width=side_px, seed=4))
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    return paths


def head(args: argparse.Namespace) -> Row:
    """Record when, on what, and with what a speed was measured."""
    return {
        **machine(args.device),
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }


def keep(args: argparse.Namespace, name: str, result: Row) -> None:
    """Write a result, if a place for it was given."""
    if args.out is None:
        return
    path = args.out
    if path.suffix != ".json":
        path.mkdir(parents=True, exist_ok=True)
        words = re.sub(r"[^a-z0-9]+", "-", result["hardware"].lower()).strip("-")
        path = path / f"{result['date']}-{words}-{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"written: {path}")


def table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print rows under the names of their columns."""
    cells = [list(columns)] + [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Spent:
    """Time of a call: the median of several, by the wall's clock and by this process's CPU."""

    wall_s: float
    cpu_s: float


def spent(call: Callable[[], object], device: str, repeats: int, *, warm: int = 1) -> Spent:
    """Time a call after it ran ``warm`` times unmeasured."""
    for _ in range(warm):
        call()
    walls, cpus = [], []
    for _ in range(repeats):
        _finish(device)
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        _finish(device)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Spent(statistics.median(walls), statistics.median(cpus))


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def model_named(name: str) -> Model:
    """Build ``paper`` with random weights, ``small`` like the demo model, or load a model."""
    if name == "small":
        return load_model("demo")
    if name not in PRESETS:
        return load_model(name)
    card = Card(
        name=name,
        classes=("object",),
        bands=tuple(Band(band, i) for i, band in enumerate(("red", "green", "blue"), 1)),
        radiometry=Radiometry("uint8", (127.5,) * 3, (127.5,) * 3),
        gsd_m=0.3,
        gsd_range_m=(0.1, 1.0),
        tile_px=1024,
        object_px=(8.0, 20.0, 40.0),
        network=PRESETS[name],
        thresholds=(0.5,),
    )
    torch.manual_seed(0)
    network = build_network(card.network, in_channels=3, classes=1)
    return Model(network.eval(), card)


def write_scene(path: Path, size: int, **how: Any) -> Path:
    """Write a GeoTIFF of ``size`` px a side, tiled and ZSTD unless ``how`` says otherwise.

    A drawn scene of up to 4096 px that comes again and again, as drawing more would take longer
    than detecting it.
    """
    import rasterio
    from rasterio.windows import Window

    source = path.with_name("source.tif")
    side = min(size, SOURCE_PX)
    synth = SynthOptions(height=side, width=side, nodata_corner=False, seed=9)
    draw_scene(source, synth)
    with rasterio.open(source) as dataset:
        pixels, profile = dataset.read(), dataset.profile
    source.unlink()
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    profile |= {"compress": "zstd", "predictor": 2, "num_threads": "all_cpus", **tiled, **how}
    profile |= {"width": size, "height": size}
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, size, side):
            for col in range(0, size, side):
                high, wide = min(side, size - row), min(side, size - col)
                dataset.write(pixels[:, :high, :wide], window=Window(col, row, wide, high))
    return path


def matmul_roof(device: str, dtype: torch.dtype, repeats: int) -> float:
    """Measure the operations in a second of a square matrix product, the best of several.

    On a CPU in a second of one of its threads, which other work on the machine hardly changes.
    """
    is_gpu = device.startswith("cuda")
    side = 8192 if is_gpu else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = [spent(lambda: a @ b, device, 1) for _ in range(max(3, repeats))]
    return 2 * side**3 / min(time.wall_s if is_gpu else time.cpu_s for time in times)
