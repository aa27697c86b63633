"""A model in floating point and in 8-bit integers, by CPU time, taking turns in one process.

    pip install "geo-retina[cpu]"
    python benchmarks/integers.py --threads 1 --out benchmarks/results
    python benchmarks/integers.py --model model.safetensors --tile 512

One tile of a drawn scene goes through the predictor that a run would use: network, boxes around
candidates, decoding. Other work on the machine slows all of them down alike, as each round has
every one of them once; ``times`` is against PyTorch in the arithmetic that it chooses here. Ranges
of a network without a quantization are measured on that tile, as they do not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import rasterio
import torch
from reports import Row, arguments, head, keep, model_named, parse, table
from torch import Tensor

from geo_retina import DetectOptions, Model, SynthOptions, draw_scene
from geo_retina.engine import place_here, resolve_runtime
from geo_retina.engine.batching import predict
from geo_retina.engine.runtimes import predictor_of
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.predictor import Numbers, NumbersPredictor
from geo_retina.nn.quantizing import measure
from geo_retina.run.memory import keep_freed_memory

COLUMNS = ("model", "tile_px", "runtime", "precision", "boxes", "mpx_cpu_s", "times")
KINDS = (("torch", "auto"), ("openvino", place_here("cpu").precision), ("openvino", "int8"))


def main() -> None:
    args = _arguments()
    keep_freed_memory()  # as detect does
    result, rows = head(args), []
    for name in args.model:
        for tile_px in args.tile:
            rows += compare(name, tile_px, args.repeats)
            table(rows[-len(KINDS) :], COLUMNS)
    keep(args, "integers", result | {"runs": rows})


def compare(name: str, tile_px: int, repeats: int) -> list[Row]:
    """Let all kinds take turns, and give the medians of their CPU times."""
    model = model_named(name)
    pixels_NCHW, tile_NCHW = drawn_tile(model, tile_px)
    if model.quantization is None:
        folded = fold_batch_norms(model.network).eval()
        model = replace(model, quantization=measure(folded, [tile_NCHW]))
    calls = {kind: _call(model, pixels_NCHW, tile_NCHW, *kind) for kind in KINDS}
    boxes = {kind: call() for kind, call in calls.items()}  # makes graphs, too
    times: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, call in calls.items():
            start = time.process_time()
            call()
            times[kind].append(time.process_time() - start)
    median = {kind: statistics.median(each) for kind, each in times.items()}
    return [
        {
            "model": name,
            "tile_px": tile_px,
            "runtime": kind[0],
            "precision": kind[1],
            "boxes": boxes[kind],
            "cpu_s": median[kind],
            "mpx_cpu_s": tile_px**2 / 1e6 / median[kind],
            "times": median[KINDS[0]] / median[kind],
        }
        for kind in KINDS
    ]


def drawn_tile(model: Model, tile_px: int) -> tuple[Tensor, Tensor]:
    """Draw a tile, with the first band again where a model sees more than three; and normalise."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tile.tif"
        draw_scene(path, SynthOptions(height=tile_px, width=tile_px, nodata_corner=False, seed=9))
        with rasterio.open(path) as file:
            pixels = torch.from_numpy(file.read())
    bands = [min(i, 3) % 3 for i in range(len(model.card.bands))]
    offset, scale = (
        torch.tensor(values)[:, None, None]
        for values in (model.card.radiometry.offset, model.card.radiometry.scale)
    )
    return pixels[bands][None], ((pixels[bands] - offset) / scale)[None].float()


def _call(
    model: Model, pixels_NCHW: Tensor, tile_NCHW: Tensor, runtime: str, precision: str
) -> Callable[[], int]:
    options = DetectOptions(runtime=runtime, precision=precision)  # type: ignore[arg-type]
    options = resolve_runtime(options, model, [place_here("cpu")])
    predictor = predictor_of(model, options)(model, options, device="cpu", batch=1)
    tiles: Tensor | Numbers = tile_NCHW
    if isinstance(predictor, NumbersPredictor) and predictor.takes_numbers:
        tiles = Numbers(pixels_NCHW, torch.ones_like(pixels_NCHW[:, :1], dtype=torch.bool))

    def call() -> int:
        with torch.inference_mode():
            return len(predict(predictor, tiles).scores_M)

    return call


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", nargs="+", default=["paper", "demo", "trees-naip"])
    parser.add_argument("--tile", type=int, nargs="+", default=[1024])
    return parse(parser)


if __name__ == "__main__":
    main()
