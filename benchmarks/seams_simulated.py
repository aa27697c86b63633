"""Rules of merging on simulated detections, and a sweep over our thresholds.

    python benchmarks/seams_simulated.py --out benchmarks/results/2026-11-22-seams-simulated.json

Tiles of 512 px with an overlap of 64 px see known objects with 1 px of jitter on each side and
5 % misses; the sweep looks at a quarter of each scene. Counts are over the objects that the tiles
saw between them: those that the box around all that was seen of them covers. A box covers an object
from an IoU of 0.3 on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from comparing import compare, match
from machines import machine
from rivals import centre_owner, greedy_union, score_nms
from simulation import Sight, see, spread
from soft_and_fused import fuse, soft_nms

from geo_retina.boxes import Boxes, iou
from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import merge_tiles
from geo_retina.options import MergeOptions

LEAST_IOU = 0.3
TILE_PX, STEP_PX, SIDE_PX = 512, 448, 8192
SCENES: dict[str, Boxes] = {
    # Each in a cell of its own, with a gap to the next.
    "small": spread(23_000, SIDE_PX, (10, 24), seed=1),
    # Cells of 33 px: neighbours overlap, some by half.
    "crowded": spread(63_000, SIDE_PX, (16, 48), seed=2),
    # Cells of 18.6 px, as in an orchard whose crowns overlap.
    "lattice": spread(194_000, SIDE_PX, (22, 24), seed=3),
    # Larger than the overlap, some larger than a tile.
    "large": spread(276, SIDE_PX, (80, 460), seed=4),
}
SWEEP = {
    "iou": (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6),
    "share": (0.3, 0.4, 0.5, 0.6, 0.7, 0.9),
    "edge_px": (0.0, 2.0, 4.0, 6.0, 8.0),
    "join_iou": (0.2, 0.35, 0.5, 0.65, 0.8),
}
Rule = Callable[[Detections, TilePlan], Detections]
RULES: dict[str, Rule] = {
    "geo-retina": merge_tiles,
    "geo-retina, rank owner": lambda d, plan: merge_tiles(d, plan, MergeOptions(rank="owner")),
    "geo-retina, rank score": lambda d, plan: merge_tiles(d, plan, MergeOptions(rank="score")),
    "score-ordered NMS": score_nms,
    "greedy union (SAHI's default)": greedy_union,
    "centre ownership": centre_owner,
    "soft-NMS": soft_nms,
    "weighted box fusion": fuse,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rows = []
    for scene, objects in SCENES.items():
        for rule, function in RULES.items():
            rows.append({"scene": scene, "rule": rule, **tried(objects, function)})
            print(rows[-1])
        for name, values in SWEEP.items():
            for value in values:
                options = replace(MergeOptions(), **{name: value})
                quarter = objects[(objects[:, 2:] <= SIDE_PX / 2).all(axis=1)]
                counts = tried(quarter, lambda d, plan, o=options: merge_tiles(d, plan, o), options)
                rows.append({"scene": scene, name: value, **counts})
                print(rows[-1])
    result = {
        **machine(),
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def tried(objects: Boxes, rule: Rule, options: MergeOptions = MergeOptions()) -> dict:
    """Score what a rule makes of one scene."""
    side = TILE_PX + STEP_PX * math.ceil((objects[:, 2:].max() - TILE_PX) / STEP_PX)
    plan = TilePlan(side, side, TILE_PX, STEP_PX)
    found, which = see(objects, plan, Sight(), options.edge_px, seed=5)
    merged = rule(found, plan)
    wanted = seen_between_them(objects, found, which)
    all_of = np.ones(len(merged), bool)
    difference = compare(objects, wanted, merged.boxes_px, all_of, least_iou=LEAST_IOU)
    _, overlap = match(objects, merged.boxes_px, least_iou=LEAST_IOU)
    return {**asdict(difference), "mean_iou": round(float(overlap.mean()), 4)}


def seen_between_them(objects: Boxes, found: Detections, which: np.ndarray) -> np.ndarray:
    """Find (N,) objects that the box around all that was detected of them covers."""
    around = np.hstack([np.full((len(objects), 2), np.inf), np.full((len(objects), 2), -np.inf)])
    np.minimum.at(around[:, :2], which, found.boxes_px[:, :2])
    np.maximum.at(around[:, 2:], which, found.boxes_px[:, 2:])
    seen = np.isfinite(around).all(axis=1)
    seen[seen] = iou(around[seen], objects[seen]) >= LEAST_IOU
    return seen


if __name__ == "__main__":
    main()
