"""How long a run over thousands of scenes takes to be planned, and to go on when half is done.

    python benchmarks/resume.py --scenes 3125

Each scene is a small file of 4 x 4 blocks; 3,125 are 50,000 blocks. The plan is frozen and written
as ``geo-retina plan --out`` does. Then a folder is made in which every other block is done, a file
each as long blocks have, or with ``--together`` 64 a file; and the run goes on until its first task
would be sent off. Wall and processor time are given, as the machine may be shared, and the peak of
memory of the process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from reports import draw_copies, head, keep

import geo_retina
from geo_retina.detections import Detections
from geo_retina.run import BlockResult, open_ledger, plan_run
from geo_retina.run.plan import pack_task_batches
from geo_retina.run.resuming import Outputs

TILE_PX, SIDE_PX = 96, 288


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=3125)
    parser.add_argument("--rows", type=int, default=100, help="detections of a block that is done")
    parser.add_argument("--together", type=int, default=1, help="blocks in a file of the folder")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        row = measure(Path(name), args)
    for step in ("plan", "resume"):
        print(
            f"{step}: {row[f'{step}_s']:.1f} s, of which {row[f'{step}_cpu_s']:.1f} s of processor"
        )
    print(f"{row['blocks']:,} blocks, peak {row['peak_bytes'] / 1e9:.2f} GB")
    keep(args, "resume", {**head(args), **row})


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Plan a run, do half of it, and go on."""
    scenes = draw_copies(folder / "scenes", args.scenes, SIDE_PX)
    model = geo_retina.load_model("demo")
    options = geo_retina.DetectOptions(tile_px=TILE_PX, overlap_px=32, force=True)
    run = geo_retina.RunOptions(device="cpu", block_px=128)
    row: dict[str, float] = {"scenes": args.scenes, "rows": args.rows, "together": args.together}

    with Clock(row, "plan"):
        frozen = geo_retina.freeze_run(scenes, model="demo", options=options, run=run)
        frozen.write(folder / "plan.json")
    row["blocks"] = sum(len(unit) for unit in frozen.units)
    row["plan_bytes"] = (folder / "plan.json").stat().st_size

    outputs = Outputs(folder / "out.run")
    plan = plan_run(scenes, model, options, run, outputs=outputs, crs=None)
    jobs = [job for each in plan.scene_plans for job in each.jobs][::2]
    found = some(args.rows)
    with closing(open_ledger(plan)) as ledger:
        for start in range(0, len(jobs), args.together):
            part = jobs[start : start + args.together]
            results = [
                BlockResult(job.scene_index, job.block.index, job.block.window, found, 1)
                for job in part
            ]
            ledger.write(start, results)

    with Clock(row, "resume"):
        again = plan_run(scenes, model, options, run, outputs=outputs, crs=None)
        with closing(open_ledger(again)) as ledger:
            done = ledger.blocks_done()
            todo = [
                job
                for each in again.scene_plans
                for job in each.jobs
                if (job.scene_index, job.block.index) not in done
            ]
            batches = pack_task_batches(todo, run.block_px, first=ledger.next_task_batch())
    assert len(done) + len(batches) == row["blocks"]
    row["peak_bytes"] = peak_bytes()
    return row


class Clock:
    """Measures wall and processor time of a step."""

    def __init__(self, row: dict[str, float], step: str) -> None:
        self._row, self._step = row, step

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, used = self._start
        self._row[f"{self._step}_s"] = time.perf_counter() - wall
        self._row[f"{self._step}_cpu_s"] = time.process_time() - used


def some(count: int) -> Detections:
    """Make detections of one tile."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, TILE_PX - 20, (count, 2))
    empty = Detections.empty()
    return replace(
        empty,
        boxes_px=np.concatenate([corner, corner + 10], axis=1),
        scores=rng.uniform(0.3, 1.0, count).astype(empty.scores.dtype),
        labels=np.zeros(count, empty.labels.dtype),
        tile=np.zeros(count, empty.tile.dtype),
        cut=np.zeros(count, empty.cut.dtype),
        joined=np.zeros(count, empty.joined.dtype),
    )


def peak_bytes() -> int:
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
