"""From a GeoTIFF to a GeoPackage, against the bare network on the same machine in the same run.

    python benchmarks/end_to_end.py --out benchmarks/results
    python benchmarks/end_to_end.py --small-scenes 400 --out benchmarks/results

Draws a scene, times `detect_to_file`, times the network and its decoding alone on noise of the same
tile size, before each time, and prints both as pixels through the network in a second. The ratio
is what reading, placing, merging, writing and starting Dask leave; alone the network computes every
box, which a run on a CPU does where there are objects. "cpu_ratio" is the same of CPU
time, all threads together, which other work on the machine hardly changes.

Where the time goes is told by stages, which several threads pass at once, so that they add up to
more than the whole. What is waited for is "idle", the share of the time from the first batch to the
last in which no batch was on the device. On a GPU, stages end when the host goes on, and the wait
for the device is in "decode".

With ``--small-scenes`` the same pixels come once more as so many files, to tell what opening costs.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from reports import Row, arguments, head, keep, model_named, parse, table, write_scene

import geo_retina
from geo_retina import detector
from geo_retina.engine import (
    Engine,
    openvino_predictor,
    place_here,
    resolve_runtime,
    torch_predictor,
)
from geo_retina.engine.batching import Batching
from geo_retina.engine.openvino_predictor import OpenVinoPredictor
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.run import blocks
from geo_retina.scene import Scene

STAGES = ("read", "upload", "cut", "forward", "decode", "merge", "write")
COLUMNS = (
    "scenes",
    "bare_mpx_s",
    "network_mpx_s",
    "scene_mpx_s",
    "ratio",
    "cpu_ratio",
    "idle",
    *STAGES,
)
"""Stages in seconds."""


def main() -> None:
    args = _arguments()
    model = model_named(args.model)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder, "scene.tif"), args.size)
        for sources in [scene] + ([_chips(scene, args)] if args.small_scenes else []):
            for _ in range(args.repeats):
                rows.append(measure(sources, model, Path(folder, "out.gpkg"), args))
                table(rows[-1:], COLUMNS)
    print()
    table(rows, COLUMNS)
    detect = _detect_options(model, args)
    what = {"model": args.model, "size_px": args.size, "runtime": detect.runtime}
    what |= {"precision": detect.precision, "runs": rows}
    keep(args, f"end-to-end-{Path(args.model).stem}", head(args) | what)


def measure(scenes: Path, model: geo_retina.Model, out: Path, args: argparse.Namespace) -> Row:
    """Measure one run, after the bare network."""
    detect = _detect_options(model, args)
    run = geo_retina.RunOptions(
        device=args.device, batch=args.batch, block_px=args.block, threads=args.readers
    )
    plans, _ = geo_retina.plan_scenes(scenes, model.card, detect, run)
    ready = Engine(model, detect, device=args.device, batch=args.batch)
    tile_px = plans[0].tiles.tile_px
    with cpu_seconds() as bare_cpu:
        bare, _ = ready.measure(tile_px, threads=args.readers, repeats=args.bare_repeats)
    with stages(args.device) as clock, cpu_seconds() as cpu:
        report = geo_retina.detect_to_file(scenes, model, out, detect, run)
    out.unlink()
    slots = ready.slots_for(args.readers)
    alone_px = (args.bare_repeats + 1) * slots * ready.batch_size(tile_px) * tile_px**2
    network_px = sum(len(plan.tiles) * plan.tiles.tile_px**2 for plan in plans)
    whole = network_px / report.seconds
    return {
        "scenes": len(plans),
        "tile_px": plans[0].tiles.tile_px,
        "pixel_factor": network_px / report.pixels,
        "detections": report.detections,
        "seconds": report.seconds,
        "bare_mpx_s": bare / 1e6,
        "network_mpx_s": whole / 1e6,
        "scene_mpx_s": report.pixels / report.seconds / 1e6,
        "ratio": whole / bare,
        "cpu_ratio": (network_px / cpu[0]) / (alone_px / bare_cpu[0]),
        "idle": clock.idle(),
        **{stage: clock.seconds[stage] for stage in STAGES},
    }


class Clock:
    """Seconds by stage, over all threads, and when the device had work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.busy: list[tuple[float, float]] = []
        self.lock = threading.Lock()

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a call so that its time counts for a stage."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                end = time.perf_counter()
                with self.lock:
                    self.seconds[stage] += end - start
                    if stage == "batch":
                        self.busy.append((start, end))

        return wrapped

    def idle(self) -> float:
        """Share of the time from the first batch to the last in which none was on the device."""
        spans = sorted(self.busy)
        covered, until = 0.0, spans[0][0]
        for start, end in spans:
            covered += max(0.0, end - max(start, until))
            until = max(until, end)
        return 1 - covered / (until - spans[0][0])


@contextmanager
def cpu_seconds() -> Iterator[list[float]]:
    """Measure this process's CPU time inside, all threads together; known once it is left."""
    spent: list[float] = []
    start = time.process_time()
    yield spent
    spent.append(time.process_time() - start)


@contextmanager
def stages(device: str) -> Iterator[Clock]:
    """Time the stages of runs in this process."""
    clock = Clock()
    places = [
        (Scene, "read", "read"),
        (Engine, "_upload", "upload"),
        (Engine, "_images", "cut"),
        (Batching, "predict", "batch"),
        (RetinaNet, "forward", "forward"),
        (RetinaNet, "forward_at", "forward"),
        (OpenVinoPredictor, "_outputs", "forward"),
        (torch_predictor, "decode", "decode"),
        (openvino_predictor, "decode", "decode"),
        (blocks, "merge_block", "merge"),
        (detector, "write_outputs", "write"),
    ]
    patches = [
        mock.patch.object(place, name, clock.timed(stage, getattr(place, name)))
        for place, name, stage in places
    ]
    for patch in patches:
        patch.start()
    try:
        yield clock
    finally:
        for patch in patches:
            patch.stop()
        if device.startswith("cuda"):
            torch.cuda.synchronize()


def _detect_options(model: geo_retina.Model, args: argparse.Namespace) -> geo_retina.DetectOptions:
    """Say what is detected, and how it is computed here."""
    options = geo_retina.DetectOptions(force=True, precision=args.precision)
    return resolve_runtime(options, model, [place_here(args.device)])


def _chips(scene: Path, args: argparse.Namespace) -> Path:
    """Cut the scene into that many GeoTIFFs in a folder, JPEG as such chips often are."""
    import rasterio
    from rasterio.windows import Window, transform

    folder = scene.parent / "chips"
    folder.mkdir()
    per_side = max(1, round(args.small_scenes**0.5))
    side = args.size // per_side
    with rasterio.open(scene) as source:
        how = {"driver": "GTiff", "compress": "jpeg", "photometric": "ycbcr", "tiled": True}
        how |= {"count": source.count, "dtype": source.dtypes[0], "crs": source.crs}
        how |= {"width": side, "height": side, "blockxsize": 256, "blockysize": 256}
        for i in range(per_side**2):
            window = Window(i % per_side * side, i // per_side * side, side, side)
            place = transform(window, source.transform)
            with rasterio.open(folder / f"{i:05}.tif", "w", transform=place, **how) as chip:
                chip.write(source.read(window=window))
    return folder


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the scene")
    parser.add_argument("--model", default="small", help="preset, bundled model or file")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, int8 or auto")
    parser.add_argument("--batch", type=int, help="tiles at once; left out, the device's")
    parser.add_argument("--block", type=int, default=4096, help="side of the blocks read")
    parser.add_argument("--readers", type=int, default=2, help="blocks in flight")
    parser.add_argument("--small-scenes", type=int, default=0, help="the same as so many files")
    parser.add_argument("--bare-repeats", type=int, default=5)
    return parse(parser)


if __name__ == "__main__":
    main()
