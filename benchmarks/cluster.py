"""What a run over many scenes costs the client and the scheduler, and how busy its workers are.

    python benchmarks/cluster.py --scenes 500 --workers 16 --seconds 1
    python benchmarks/cluster.py --scenes 100 --workers 16 --seconds 4

A real scheduler in a process of its own, and workers that are threads of a third, whose network
only waits. Scenes are small files with 3 x 3 blocks of one tile. From the first finished block to
the last, the processor time of client and scheduler is read from the system, and the workers are
busy as long as their networks wait: reading, sending and idling all count against them.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from reports import draw_copies, head, keep
from stub_workers import waiting

import geo_retina

TILE_PX, SIDE_PX, BLOCKS = 96, 224, 9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0, help="what a block takes")
    parser.add_argument("--per-tile", type=int, default=200, help="boxes found in a tile")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        row = measure(Path(name), args)
    print(
        f"{row['blocks']:,} blocks in {row['seconds']:.1f} s, workers {row['busy']:.1%} busy; "
        f"client {row['client_ms']:.2f} ms and scheduler {row['scheduler_ms']:.2f} ms a block; "
        f"{row['ledger_files']:,} files"
    )
    keep(args, "cluster", {**head(args), **row})


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Carry out a run, and return what it cost."""
    scenes = draw_copies(folder / "scenes", args.scenes, SIDE_PX)
    address, scheduler, workers = start(args.workers)
    model = waiting(args.seconds, args.per_tile)
    options = geo_retina.DetectOptions(tile_px=TILE_PX, overlap_px=32, force=True)
    run = geo_retina.RunOptions(block_px=128, scheduler=address, keep=True)
    seen: list[tuple[float, float, float, int]] = []

    def look(state: geo_retina.Progress) -> None:
        if not state.task_batches_done or (
            seen and time.monotonic() - seen[-1][0] < 0.2 and state.task_batches_done < total
        ):
            return
        used = sum(scheduler.cpu_times()[:2])
        seen.append((time.monotonic(), time.process_time(), used, state.task_batches_done))

    total = args.scenes * BLOCKS
    out = folder / "out.parquet"
    try:
        geo_retina.detect_to_file(scenes, model, out, options, run, progress=look)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    (begin, client, used, first), (end, client_end, used_end, last) = seen[0], seen[-1]
    assert last == total, f"{last} of {total} blocks are one task each"
    done = last - first
    return {
        "blocks": total,
        "workers": args.workers,
        "block_seconds": args.seconds,
        "seconds": end - begin,
        "busy": done * args.seconds / (args.workers * (end - begin)),
        "client_ms": 1e3 * (client_end - client) / done,
        "scheduler_ms": 1e3 * (used_end - used) / done,
        "ledger_files": len(list((folder / "out.parquet.run").glob("unit-*.parquet"))),
    }


def start(workers: int) -> tuple[str, psutil.Popen, list[psutil.Popen]]:
    """Start a scheduler and workers, and wait until they know each other."""
    from distributed import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": f"{Path(geo_retina.__file__).parents[1]}:{here}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    command = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port]
    scheduler = psutil.Popen([*command, "--no-dashboard"], **quiet)
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, str(here / "stub_workers.py"), address, "--count", str(workers)]
    started = [psutil.Popen(command, **quiet)]
    with Client(address, timeout=600) as client:
        client.wait_for_workers(workers, timeout=900)
    return address, scheduler, started


if __name__ == "__main__":
    main()
