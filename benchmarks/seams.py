"""What tiling changes: a tiled run against one look of the same network at the whole image.

    python benchmarks/seams.py --out benchmarks/results/2026-11-22-seams-drawn.json
    python benchmarks/seams.py --image "$GEO_RETINA_DATA/neon_crowns/yell_528000.tif" \
        --model neon.safetensors --out benchmarks/results/2026-11-22-seams-yell.json

Runs the network once over the whole image, which is the truth, and once over tiles, then merges
what the tiles found by several rules. Objects are those at the model's thresholds; a counterpart
may have any score from 0.05 on, so that an object that crosses the threshold is not called lost.
Without --image a crowded scene is drawn. Whole images take 400 bytes of memory a pixel.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from comparing import compare, match
from machines import machine
from receptive import EXACT, depth_of_edges
from rivals import centre_owner, greedy_union, score_nms

import geo_retina
from geo_retina.detections import Detections
from geo_retina.engine import BlockPixels, Engine
from geo_retina.grid import TilePlan, Window, plan_tiles
from geo_retina.merge import merge_tiles
from geo_retina.model import OVERLAPS_PER_TILE
from geo_retina.options import DetectOptions, MergeOptions
from geo_retina.run import plan_scene

LOW_SCORE = 0.05
RULES = {
    "geo-retina": merge_tiles,
    "geo-retina, rank owner": lambda d, plan: merge_tiles(d, plan, MergeOptions(rank="owner")),
    "geo-retina, no join": lambda d, plan: merge_tiles(d, plan, MergeOptions(join=False)),
    "score-ordered NMS": score_nms,
    "greedy union (SAHI's default)": greedy_union,
    "centre ownership": centre_owner,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="left out, one is drawn")
    parser.add_argument("--model", default="demo", help="bundled model or file")
    parser.add_argument("--size", type=int, default=2048, help="side of the part that is looked at")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    result = {
        **machine(),
        "torch": torch.__version__,
        "precision": args.precision,
    }
    with tempfile.TemporaryDirectory() as folder:
        image = args.image
        if image is None:
            image = Path(folder, "drawn.tif")
            options = geo_retina.SynthOptions(
                height=args.size, width=args.size, seed=21, density=1200, nodata_corner=False
            )
            geo_retina.draw_scene(image, options)
        result |= study(image, args)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def study(path: Path, args: argparse.Namespace) -> dict:
    """Compare at the default overlap, at one smaller than objects, and at twice the radius."""
    model = geo_retina.load_model(args.model)
    options = DetectOptions(
        score=LOW_SCORE, precision=args.precision, candidates=1_000_000, max_per_tile=1_000_000
    )
    scene = plan_scene(str(path), model.card, options, block_px=1 << 30).scene
    pixels, valid = scene.read(Window(0, 0, args.size, args.size))
    depth = depth_of_edges(model, pixels)
    print(f"{path.stem}: pixels from a tile's edge to where it changes nothing by more than", depth)
    engine = Engine(model, options, batch=1)
    start = time.process_time()
    side = args.size
    truth = detect(engine, pixels, valid, TilePlan(side, side, side, side))
    print(f"whole image: {len(truth)} from {LOW_SCORE} on, {time.process_time() - start:.0f} s")
    stride, default = model.card.stride_px, model.card.overlap_px
    largest = max(model.card.tile_px, OVERLAPS_PER_TILE * default)
    smaller = int(model.card.object_px[1]) // stride * stride
    plans = {
        "default": plan_tiles((side, side), tile_px=largest, overlap_px=default, stride_px=stride),
        "smaller than objects": fitting(side, smaller, stride),
        "twice the depth": fitting(side, 2 * depth[EXACT], stride),
    }
    return {
        "image": path.stem,
        "side_px": side,
        "model": model.card.name,
        "object_px": model.card.object_px,
        "edge_depth_px": depth,
        "runs": [tiled(engine, pixels, valid, truth, *which) for which in plans.items()],
    }


def fitting(side: int, overlap_px: int, stride: int) -> TilePlan:
    """Plan the fewest pixels whose tiles end exactly with a square image.

    Beyond it tiles see padding that the whole image does not have, which is no matter of seams.
    """
    plans = [
        TilePlan(side, side, tile_px, tile_px - overlap_px)
        for tile_px in range(max(512, overlap_px + stride), side, stride)
        if (side - overlap_px) % (tile_px - overlap_px) == 0
    ]
    return min(plans, key=lambda plan: len(plan) * plan.tile_px**2)


def detect(engine: Engine, pixels: np.ndarray, valid: np.ndarray, plan: TilePlan) -> Detections:
    """Detect in all tiles, without merging."""
    block = BlockPixels(pixels, valid, plan.blocks(1 << 30)[0].window, plan, list(plan))
    return engine.detect([block])[0].detections


def tiled(
    engine: Engine,
    pixels: np.ndarray,
    valid: np.ndarray,
    truth: Detections,
    name: str,
    plan: TilePlan,
) -> dict:
    """Measure the differences of each rule, at one tiling."""
    found = detect(engine, pixels, valid, plan)
    print(
        f"  {name}: {len(plan)} tiles of {plan.tile_px} px, overlap {plan.overlap_px} px, "
        f"{len(found)} detections"
    )
    rows = {}
    for rule, function in RULES.items():
        rows[rule] = differences(engine, truth, found, plan, function)
        print(f"    {rule:32}", rows[rule])
    return {
        "name": name,
        "tile_px": plan.tile_px,
        "overlap_px": plan.overlap_px,
        "tiles": len(plan),
        "rules": rows,
    }


def differences(
    engine: Engine, truth: Detections, found: Detections, plan: TilePlan, rule: object
) -> dict:
    """Count lost objects at the low score, doubled ones and fragments at the threshold."""
    thresholds = np.array(engine.card.thresholds)
    wanted = truth.scores >= thresholds[truth.labels]
    low = rule(found, plan)
    high = rule(found.take(found.scores >= thresholds[found.labels]), plan)
    by_label = [
        (
            compare(*_of(truth, wanted, label), *_of(low, np.zeros(len(low), bool), label)),
            compare(*_of(truth, wanted, label), *_of(high, np.ones(len(high), bool), label)),
        )
        for label in range(len(thresholds))
    ]
    rows = {"objects": sum(a.objects for a, _ in by_label)}
    rows["lost"] = sum(a.lost for a, _ in by_label)
    for key in ("doubled", "fragments", "others"):
        rows[key] = sum(asdict(b)[key] for _, b in by_label)
    rows["lost_at_threshold"] = sum(b.lost for _, b in by_label)
    pairs, _ = match(truth.boxes_px[wanted], high.boxes_px, least_iou=0.3)
    same = np.abs(truth.boxes_px[wanted][pairs[:, 0]] - high.boxes_px[pairs[:, 1]]).max(axis=1)
    rows["identical"] = int((same < 0.01).sum())  # rounding differs with the size of the input
    rows["most_px"] = float(same.max()) if len(same) else 0.0
    return rows


def _of(d: Detections, mask: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    at = d.labels == label
    return d.boxes_px[at], mask[at]


if __name__ == "__main__":
    main()
