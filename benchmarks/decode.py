"""Decoding and per-tile suppression alone, by the number of candidates.

    python benchmarks/decode.py --out benchmarks/results

Made-up outputs of a network of the bundled model's form, for a batch of tiles: a given number of
anchors in each tile reach the threshold, in clumps as objects have them, the others lie far below.
Millions of tile pixels a second tell how it compares with ``network.py``. ``--boxes`` compares
upright and oriented ones, at as many candidates in the same clumps: ``network_cpu_ms`` is the time
of a network with random weights, and ``path_cpu_ms`` that and decoding together.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

import torch
from reports import Row, arguments, head, keep, model_named, parse, spent, table

from geo_retina.model import build_network
from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.heads import Outputs

COLUMNS = ("model", "boxes", "tile_px", "batch", "candidates", "kept", "ms", "cpu_ms", "mpx_s")
PATH = ("network_cpu_ms", "path_cpu_ms")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", nargs="+", default=["paper", "small"])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--candidates", type=int, nargs="+", default=[0, 100, 1000, 4000], help="in each tile"
    )
    parser.add_argument("--boxes", nargs="+", default=["upright"], choices=["upright", "oriented"])
    args = parse(parser)
    rows = [
        measure(model, boxes, count, args)
        for model in args.model
        for boxes in args.boxes
        for count in args.candidates
    ]
    if len(args.boxes) > 1:
        add_network(rows, args)
    table(rows, COLUMNS + (PATH if len(args.boxes) > 1 else ()))
    keep(args, "decode", head(args) | {"runs": rows})


def measure(model: str, boxes: str, candidates: int, args: argparse.Namespace) -> Row:
    """Time one number of candidates."""
    loaded = model_named(model)
    shape = (args.tile, args.tile)
    anchors = loaded.network.anchors(shape, args.device)
    classes = len(loaded.card.classes)
    outputs = made_up([len(level) for level in anchors], classes, candidates, args)
    if boxes == "oriented":
        outputs = turned(outputs)
    settings = DecodeSettings(thresholds=0.5, candidates=4000, nms_iou=0.5, max_per_image=2000)
    with torch.inference_mode():
        time = spent(lambda: decode(outputs, anchors, shape, settings), args.device, args.repeats)
        found = decode(outputs, anchors, shape, settings)
    return {
        "model": model,
        "boxes": boxes,
        "tile_px": args.tile,
        "batch": args.batch,
        "candidates": candidates,
        "kept": len(found.scores_M) // args.batch,
        "ms": time.wall_s * 1e3,
        "cpu_ms": time.cpu_s * 1e3,
        "mpx_s": args.batch * args.tile**2 / time.wall_s / 1e6,
    }


def add_network(rows: list[Row], args: argparse.Namespace) -> None:
    """Time the networks that would give such outputs, one after the other, kind by kind."""
    shape = (args.batch, 3, args.tile, args.tile)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(args.device, torch.bfloat16, memory_format=torch.channels_last)
    for model in args.model:
        card = model_named(model).card
        networks = {}
        for boxes in args.boxes:
            options = dataclasses.replace(card.network, boxes=boxes)
            built = build_network(options, in_channels=3, classes=len(card.classes)).eval()
            folded = fold_batch_norms(built).to(args.device, torch.bfloat16)
            networks[boxes] = folded.to(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {boxes: [] for boxes in args.boxes}
        with torch.inference_mode():
            for _ in range(args.repeats):  # in turns, as other work on the machine comes and goes
                for boxes, network in networks.items():
                    call = partial(network, images)
                    times[boxes].append(spent(call, args.device, 1, warm=0).cpu_s)
        for row in (row for row in rows if row["model"] == model):
            row["network_cpu_ms"] = min(times[row["boxes"]]) * 1e3
            row["path_cpu_ms"] = row["network_cpu_ms"] + row["cpu_ms"]


def turned(outputs: Outputs) -> Outputs:
    """Give each box an angle, and length and width that differ."""
    generator = torch.Generator().manual_seed(1)
    deltas = []
    for level in outputs.deltas:
        angle = torch.rand(level.shape[:2], generator=generator) * torch.pi
        vectors = [(2 * angle).cos(), (2 * angle).sin(), (4 * angle).cos(), (4 * angle).sin()]
        phases = torch.stack(vectors, dim=-1).to(level)
        long = level + level.new_tensor([0.0, 0.0, 0.5, -0.5])
        deltas.append(torch.cat([long, phases], dim=-1))
    return Outputs(outputs.logits, deltas)


def made_up(sizes: list[int], classes: int, candidates: int, args: argparse.Namespace) -> Outputs:
    """Make up logits and offsets; neighbouring anchors of the finest level reach the threshold."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16
    logits = [
        (torch.randn(args.batch, size, classes, generator=generator) - 9).clamp(max=-3)
        for size in sizes
    ]
    clump = 8
    starts = torch.randint(0, sizes[0] - clump, (args.batch, -(-candidates // clump)))
    for image, at in enumerate(starts):
        where = (at[:, None] + torch.arange(clump)).flatten()[:candidates]
        logits[0][image, where, 0] = 4 * torch.rand(len(where), generator=generator)
    deltas = [torch.randn(args.batch, size, 4, generator=generator) * 0.1 for size in sizes]
    return Outputs(*([t.to(args.device, dtype) for t in part] for part in (logits, deltas)))


if __name__ == "__main__":
    main()
