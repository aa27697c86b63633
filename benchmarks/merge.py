"""Merging by number of detections, beside other ways; and block by block, in bounded memory.

    python benchmarks/merge.py --out benchmarks/results/2026-11-22-merge.json
    python benchmarks/merge.py --partitioned --out benchmarks/results/2026-11-22-merge-blocks.json

Time is the processor's, of one thread, the best of some repeats. Tiles of 512 px that overlap by 64
px see scattered objects of 8 to 18 px with 1 px of jitter and 5 % misses; about half of all
detections lie where tiles overlap.

- geo-retina: the whole `merge`: checks, rank, conflicts, joins, order.
- geo-retina, oriented: the same of as many boxes of these sides at any angle.
- STRtree: the same work with shapely's tree in place of our search for pairs.
- lsnms: suppression by score over all boxes, spatially indexed (needs `pip install lsnms`).
- torchvision: the same with its `nms`, up to --torchvision boxes.

--partitioned merges the blocks of one scene as a run does, through its ledger, with no more than a
block's detections made at a time, and says what stayed open and how much memory that took.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy, torch and numba read it

import argparse
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from machines import machine
from simulation import Sight, see, see_oriented, spread

from geo_retina.boxes import overlapping_pairs
from geo_retina.boxes.oriented import from_upright, normalise
from geo_retina.detections import Detections
from geo_retina.grid import Block, TilePlan
from geo_retina.merge import merge_block, merge_tiles
from geo_retina.options import DetectOptions, MergeOptions
from geo_retina.run import BlockResult, Ledger, ScenePlan, manifest_for, merge_scene

TILE_PX, STEP_PX, CELL_PX = 512, 448, 1024
PER_CELL = 1240  # objects, of which tiles make 1.29 as many detections


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7])
    parser.add_argument("--others", type=float, default=1e6, help="most boxes for other ways")
    parser.add_argument("--torchvision", type=float, default=3e4, help="most boxes for its nms")
    parser.add_argument("--oriented", action="store_true", help="oriented boxes too")
    parser.add_argument("--partitioned", action="store_true", help="block by block instead")
    parser.add_argument("--blocks", type=int, default=20, help="blocks along a side")
    parser.add_argument("--whole", action="store_true", help="with --partitioned: also at once")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    result = {
        **machine(),
        "numpy": np.__version__,
    }
    if args.partitioned:
        result |= by_blocks(args.blocks, whole=args.whole)
    else:
        result["rows"] = [row for count in args.counts for row in timed(int(count), args)]
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def timed(count: int, args: argparse.Namespace) -> list[dict]:
    """Time every method that can take so many."""
    side = int(np.sqrt(count / 1.29 / PER_CELL) * CELL_PX)
    plan = TilePlan(side, side, TILE_PX, STEP_PX)
    found, _ = see(spread(int(count / 1.29), side, (8, 18), seed=0), plan, Sight(), 4.0, seed=1)
    merge_tiles(found.part(0, min(len(found), 5000)), plan)  # imports
    ways: dict[str, Callable[[], Detections | np.ndarray]] = {
        "geo-retina": lambda: merge_tiles(found, plan)
    }
    if args.oriented:
        turned = from_upright(spread(int(count / 1.29), side, (8, 18), seed=0))
        turned[:, 4] = np.random.default_rng(2).uniform(-90, 90, len(turned))
        rotated, _ = see_oriented(normalise(turned), plan, Sight(), 4.0, seed=1)
        merge_tiles(rotated.part(0, min(len(rotated), 5000)), plan)  # imports
        ways["geo-retina, oriented"] = lambda: merge_tiles(rotated, plan)
    if count <= args.others:
        ways["STRtree"] = lambda: by_tree(found, plan)
    if count <= args.others and importlib.util.find_spec("lsnms"):
        ways["lsnms"] = lambda: by_lsnms(found)
        by_lsnms(found.part(0, 100))  # compiles
    if count <= args.torchvision:
        ways["torchvision nms"] = lambda: by_torchvision(found)
    rows = []
    for way, work in ways.items():
        seconds = []
        for _ in range(5 if count <= 1e5 else 2):
            start = time.process_time()
            left = work()
            seconds.append(time.process_time() - start)
        rows.append({"detections": len(found), "way": way, "s": min(seconds), "left": len(left)})
        print(rows[-1], flush=True)
    return rows


def by_tree(found: Detections, plan: TilePlan) -> Detections:
    """Merge by our rule, with pairs from an R-tree."""

    def tree(boxes, group, tile):  # type: ignore[no-untyped-def]
        pairs = overlapping_pairs(boxes)
        i, j = pairs.T
        yield pairs[(tile[i] != tile[j]) & (group[i] == group[j])]

    with (
        mock.patch("geo_retina.merge.selecting.meeting", tree),
        mock.patch("geo_retina.merge.joining.meeting", tree),
    ):
        return merge_tiles(found, plan)


def by_lsnms(found: Detections) -> np.ndarray:
    import lsnms

    return lsnms.nms(found.boxes_px, found.scores.astype(np.float64), iou_threshold=0.4)


def by_torchvision(found: Detections) -> np.ndarray:
    import torch
    from torchvision.ops import nms

    torch.set_num_threads(1)
    return nms(torch.from_numpy(found.boxes_px), torch.from_numpy(found.scores).double(), 0.4)


def by_blocks(per_side: int, *, whole: bool) -> dict:
    """Merge a scene of per_side x per_side blocks of 9 x 9 tiles through a ledger."""
    side = per_side * 9 * STEP_PX + TILE_PX - STEP_PX
    plan = TilePlan(side, side, TILE_PX, STEP_PX)
    blocks = plan.blocks(9 * STEP_PX + TILE_PX - STEP_PX)
    start_mb = peak_mb()
    total = undecided = 0
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_for(["scene"], {}, "model", DetectOptions(), 4096)
        ledger = Ledger.open(Path(folder) / "run", manifest)
        start = time.process_time()
        drawing = 0.0
        for block in blocks:
            before = time.process_time()
            found = seen_in(block, plan)
            drawing += time.process_time() - before
            settled, left = merge_block(found, plan, block)
            total, undecided = total + len(found), undecided + len(left)
            if whole:
                kept.append(found)
            record = BlockResult(0, block.index, block.window, settled, undecided=left)
            ledger.write(block.index, [record])
        [record] = ledger.scenes()
        scene = ScenePlan(0, None, plan, tuple(blocks))  # type: ignore[arg-type]
        parts = merge_scene(record, scene, MergeOptions())
        objects = 0
        pieces = []
        for part in parts:
            objects += len(part)
            if whole:
                pieces.append(part)
        seconds = time.process_time() - start - drawing
        if whole:
            assert merge_tiles(Detections.concat(kept), plan) == Detections.concat(pieces)
    return {
        "blocks": len(blocks),
        "detections": total,
        "detections_mb": round(total * _row_bytes() / 1e6, 1),
        "open": undecided,
        "open_mb": round(undecided * _row_bytes() / 1e6, 1),
        "objects": objects,
        "equal_to_whole": True if whole else None,
        "s": round(seconds, 2),
        "start_mb": round(start_mb, 1),
        "peak_mb": round(peak_mb(), 1),
    }


def seen_in(block: Block, plan: TilePlan) -> Detections:
    """Simulate detections of a block's tiles, of objects drawn anew from their places."""
    window = block.window
    rows = range(window.row // CELL_PX, (window.row + window.height - 1) // CELL_PX + 1)
    cols = range(window.col // CELL_PX, (window.col + window.width - 1) // CELL_PX + 1)
    cells = [
        spread(PER_CELL, CELL_PX, (10, 28), seed=row * 100_000 + col)
        + np.array([col, row, col, row]) * CELL_PX
        for row in rows
        for col in cols
    ]
    objects = np.concatenate(cells)
    objects = objects[(objects[:, 2] <= plan.width) & (objects[:, 3] <= plan.height)]
    found, _ = see(objects, plan, Sight(), 4.0, seed=block.index)
    row, col = np.divmod(found.tile, plan.cols)
    inside = np.isin(row, block.tile_rows) & np.isin(col, block.tile_cols)
    return found.take(inside)


def _row_bytes() -> int:
    return 4 * 8 + 4 + 4 + 8 + 1 + 1


def peak_mb() -> float:
    """Read the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
