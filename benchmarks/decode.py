"""Decoding and per-tile suppression alone, by the number of candidates.

    python benchmarks/decode.py --out benchmarks/results

Made-up outputs of a network of the bundled model's form, for a batch of tiles: a given number of
anchors in each tile reach the threshold, in clumps as objects have them, the others lie far below.
Millions of tile pixels a second tell how it compares with ``network.py``.
"""

from __future__ import annotations

import argparse

import torch
from reports import Row, arguments, head, keep, model_named, parse, spent, table

from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.heads import Outputs

COLUMNS = ("model", "tile_px", "batch", "candidates", "kept", "ms", "cpu_ms", "mpx_s")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", nargs="+", default=["paper", "small"])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--candidates", type=int, nargs="+", default=[0, 100, 1000, 4000], help="in each tile"
    )
    args = parse(parser)
    rows = [measure(model, count, args) for model in args.model for count in args.candidates]
    table(rows, COLUMNS)
    keep(args, "decode", head(args) | {"runs": rows})


def measure(model: str, candidates: int, args: argparse.Namespace) -> Row:
    """Time one number of candidates."""
    loaded = model_named(model)
    shape = (args.tile, args.tile)
    anchors = loaded.network.anchors(shape, args.device)
    classes = len(loaded.card.classes)
    outputs = made_up([len(level) for level in anchors], classes, candidates, args)
    settings = DecodeSettings(thresholds=0.5, candidates=4000, nms_iou=0.5, max_per_image=2000)
    with torch.inference_mode():
        time = spent(lambda: decode(outputs, anchors, shape, settings), args.device, args.repeats)
        found = decode(outputs, anchors, shape, settings)
    return {
        "model": model,
        "tile_px": args.tile,
        "batch": args.batch,
        "candidates": candidates,
        "kept": len(found.scores_M) // args.batch,
        "ms": time.wall_s * 1e3,
        "cpu_ms": time.cpu_s * 1e3,
        "mpx_s": args.batch * args.tile**2 / time.wall_s / 1e6,
    }


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
