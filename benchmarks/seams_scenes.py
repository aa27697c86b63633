"""Scenes merged one by one and then with each other, beside one merge of all their tiles.

    python benchmarks/seams_scenes.py --out benchmarks/results/2026-11-28-seams-scenes.json

The objects and the stand-in detector of seams_simulated.py: 4 x 4 scenes of 2048 px, each with
tiles of 512 px that overlap by 64 px, while scenes overlap by 64 px, abut, or leave a gap of 3 px.
The tiles' detections are the same either way. Counts are over the objects that the tiles saw
between them; *differ* are objects of the one result that the other lacks, box for box.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from comparing import compare
from machines import machine
from seams_simulated import LEAST_IOU, SCENES, SIDE_PX, STEP_PX, TILE_PX, seen_between_them
from simulation import Sight, see

from geo_retina.boxes import Boxes
from geo_retina.detections import INNER_SIDES, Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import Scenes, merge_scenes, merge_tiles
from geo_retina.options import MergeOptions

PER_SIDE, SCENE_PX = 4, 2048


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rows = []
    for name, objects in SCENES.items():
        for overlap in (64, 0, -3):
            for way, counts in compared(objects, overlap).items():
                rows.append({"objects": name, "overlap_px": overlap, "way": way, **counts})
                print(rows[-1], flush=True)
    result = {
        **machine(),
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def compared(objects: Boxes, overlap_px: int) -> dict[str, dict]:
    """Compare merging by scene and then between scenes with merging all at once."""
    step = SCENE_PX - overlap_px
    plan = TilePlan(SCENE_PX, SCENE_PX, TILE_PX, STEP_PX)
    tiles, each, of_tiles, windows, which = [], [], [], [], []
    for number in range(PER_SIDE**2):
        row, col = divmod(number, PER_SIDE)
        corner = np.array([col, row, col, row]) * step
        found, of_object = see_part(objects, corner, plan, seed=number)
        merged = merge_tiles(found, plan)
        each.append(moved(merged, corner, np.full(len(merged), number)))
        as_scene = replace(found, cut=((found.cut | found.cut >> 4) & INNER_SIDES) << 4)
        tiles.append(moved(as_scene, corner, found.tile + number * len(plan)))
        of_tiles.append(plan.windows_px(np.arange(len(plan))) + corner)
        windows.append(np.array([0, 0, SCENE_PX, SCENE_PX]) + corner)
        which.append(of_object)
    seen, of_object = Detections.concat(tiles), np.concatenate(which)
    results = {
        "scene by scene": between(Detections.concat(each), np.array(windows)),
        "all tiles at once": between(seen, np.concatenate(of_tiles)),
    }
    wanted = seen_between_them(objects, seen, of_object)
    as_sets = {way: set(map(bytes, result.boxes_px)) for way, result in results.items()}
    counts = {}
    for way, result in results.items():
        everything = np.ones(len(result), bool)
        difference = compare(objects, wanted, result.boxes_px, everything, least_iou=LEAST_IOU)
        others = set.union(*(boxes for other, boxes in as_sets.items() if other != way))
        differ = len(as_sets[way] - others)
        counts[way] = {"count": len(result), "differ": differ, **asdict(difference)}
    return counts


def see_part(objects: Boxes, corner: np.ndarray, plan: TilePlan, seed: int):  # type: ignore[no-untyped-def]
    """Simulate what a scene's tiles detect of the objects in it, and name those objects."""
    inside = (objects[:, :2] < corner[2:] + SCENE_PX) & (objects[:, 2:] > corner[:2])
    at = np.flatnonzero(inside.all(axis=1))
    found, of_part = see(objects[at] - corner, plan, Sight(), MergeOptions().edge_px, seed)
    return found, at[of_part]


def moved(found: Detections, corner: np.ndarray, tile: np.ndarray) -> Detections:
    return replace(found, boxes_px=found.boxes_px + corner, tile=tile)


def between(found: Detections, windows: np.ndarray) -> Detections:
    """Merge one set of objects of all sources."""
    merged = merge_scenes(found, Scenes.of_one_lattice(windows))
    return Detections.concat([found.take(merged.stays), merged.joined])


assert PER_SIDE * SCENE_PX == SIDE_PX

if __name__ == "__main__":
    main()
