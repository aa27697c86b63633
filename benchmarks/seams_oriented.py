"""Oriented boxes at seams: our rule, the same on upright hulls, and rotated NMS by score.

    python benchmarks/seams_oriented.py --seed 301 --out 2026-11-29-seams-oriented.json

Tiles of 512 px with an overlap of 64 px see known objects, alone or parked side by side in rows at
any angle, with 1 px of jitter and 5 % misses, as ``simulation.see_oriented`` says. Counts are over
the objects that the tiles saw between them, by IoU of the rotated rectangles from 0.3 on; angles
are those of matched boxes. The rule's thresholds were chosen with seeds 1 to 4.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from comparing import compare, iou, match
from machines import machine
from rivals import same_class
from simulation import Sight, rows, see_oriented

from geo_retina.boxes import oriented
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import merge_tiles

LEAST_IOU = 0.3
TILE_PX, STEP_PX, SIDE_PX = 512, 448, 8192
Rule = Callable[[Detections, TilePlan], Detections]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=1, help="of the first scene")
    args = parser.parse_args()
    found = []
    for scene, objects in scenes(args.seed).items():
        for rule, function in RULES.items():
            found.append({"scene": scene, "rule": rule, **tried(objects, function)})
            print(found[-1], flush=True)
    result = {
        **machine(),
        "seed": args.seed,
        "rows": found,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def scenes(seed: int) -> dict[str, oriented.Rotated]:
    """Draw the scenes from a seed and those after it; the last has more rows than there is room."""
    long, lorry, wide = (300, 40), (60, 14), (220, 120)
    return {
        "long": rows(576, SIDE_PX, long, in_a_row=1, apart_px=0, seed=seed),
        "rows of long": rows(1944, SIDE_PX, long, in_a_row=6, apart_px=8, seed=seed + 1),
        "rows of lorries": rows(13_900, SIDE_PX, lorry, in_a_row=12, apart_px=4, seed=seed + 2),
        "rows of wide": rows(970, SIDE_PX, wide, in_a_row=3, apart_px=8, seed=seed + 3),
        "wide in rows that cross": rows(2000, SIDE_PX, wide, in_a_row=3, apart_px=8, seed=seed + 3),
    }


def tried(objects: oriented.Rotated, rule: Rule) -> dict:
    """Score what a rule makes of one scene."""
    side = TILE_PX + STEP_PX * math.ceil((SIDE_PX - TILE_PX) / STEP_PX)
    plan = TilePlan(side, side, TILE_PX, STEP_PX)
    found, which = see_oriented(objects, plan, Sight(), 4.0, seed=5)
    merged = rule(found, plan).rotated_px
    assert merged is not None  # rules give back what they were given
    wanted = seen_between_them(objects, found, which)
    difference = compare(objects, wanted, merged, np.ones(len(merged), bool), least_iou=LEAST_IOU)
    pairs, overlap = match(objects, merged, least_iou=LEAST_IOU)
    off = np.abs((merged[pairs[:, 1], 4] - objects[pairs[:, 0], 4] + 90) % 180 - 90)
    return {
        **asdict(difference),
        "mean_iou": round(float(overlap.mean()), 4),
        "angle_median_deg": round(float(np.median(off)), 3),
        "angle_95_deg": round(float(np.percentile(off, 95)), 3),
    }


def on_hulls(detections: Detections, plan: TilePlan) -> Detections:
    """Merge as if boxes were upright; joined ones are then upright too."""
    merged = merge_tiles(replace(detections, rotated_px=None), plan)
    assert detections.rotated_px is not None
    turned = {
        (tile, *box): rotated
        for tile, box, rotated in zip(
            detections.tile.tolist(),
            detections.boxes_px.tolist(),
            detections.rotated_px,
            strict=True,
        )
    }
    upright = oriented.from_upright(merged.boxes_px)
    keys = zip(merged.tile.tolist(), merged.boxes_px.tolist(), merged.joined, upright, strict=True)
    rotated = [own if joined else turned[tile, *box] for tile, box, joined, own in keys]
    return replace(merged, rotated_px=np.array(rotated))


def rotated_nms(detections: Detections, plan: TilePlan, threshold: float = 0.1) -> Detections:
    """Suppress by score over everything, above an IoU of the rotated boxes.

    A tenth is what oriented detectors are run with on DOTA (mmrotate's configs).
    """
    ranked = detections.take(np.lexsort((*detections.boxes_px.T, -detections.scores)))
    assert ranked.rotated_px is not None
    pairs = same_class(ranked)
    overlap = iou(ranked.rotated_px[pairs[:, 0]], ranked.rotated_px[pairs[:, 1]])
    suppressed = np.zeros(len(ranked), bool)
    for i, j in pairs[overlap > threshold].tolist():
        if not suppressed[i]:
            suppressed[j] = True
    return ranked.take(~suppressed)


def seen_between_them(
    objects: oriented.Rotated, found: Detections, which: np.ndarray
) -> np.ndarray:
    """Find (N,) objects that the rectangle along them around all that was detected covers."""
    radians = np.radians(objects[which, 4])
    along = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    axes = (along, along[:, ::-1] * [-1, 1])
    offset = found.corners_px - objects[which, None, :2]
    reach = np.stack([(offset * axis[:, None]).sum(axis=2) for axis in axes], axis=2)
    low, high = np.full((len(objects), 2), np.inf), np.full((len(objects), 2), -np.inf)
    np.minimum.at(low, which, reach.min(axis=1))
    np.maximum.at(high, which, reach.max(axis=1))
    seen = np.isfinite(low).all(axis=1)
    half = objects[seen, 2:4] / 2
    own = np.hstack([-half, half])
    seen[seen] = iou(np.hstack([low[seen], high[seen]]), own) >= LEAST_IOU
    return seen


RULES: dict[str, Rule] = {
    "geo-retina": merge_tiles,
    "geo-retina on upright hulls": on_hulls,
    "rotated NMS by score, IoU 0.1": rotated_nms,
    "rotated NMS by score, IoU 0.5": lambda d, plan: rotated_nms(d, plan, 0.5),
}

if __name__ == "__main__":
    main()
