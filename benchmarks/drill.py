"""A long run in which everything breaks: its result is the unbroken one's, byte for byte.

    python benchmarks/drill.py --scenes 3000 --workers 8 --seconds 0.2 --every 20

A scheduler, workers and client, each a process of its own, on the loopback interface; scenes of
4 x 4 blocks and a stub in place of the network. A worker is killed at random every so often, and a
new one takes its place; one is stopped in the middle and never answers again; the scheduler is
killed and started again when a half is done; the client is killed, as by ``kill -9``, at a quarter
and at three quarters, and the same command goes on. Then the same is detected in one process that
nothing disturbs, and the features of the two files are compared. Exit code 1 where they differ.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from reports import draw_copies
from stub_workers import waiting

import geo_retina

TILE_PX, SIDE_PX = 96, 288  # 4 x 4 tiles, each a block
HERE = Path(__file__).resolve().parent
TTL = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}
"""How long a worker may be silent before its tasks go to others; Dask's own is five minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out the drill; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.2, help="what a block takes")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between killed workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)  # scenes, output, address
    args = parser.parse_args(arguments)
    if args.client:
        detect(*args.client, args.seconds)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_copies(folder / "scenes", args.scenes, SIDE_PX)
        start = time.monotonic()
        deaths = broken(folder, args)
        print(f"{args.scenes * 16:,} blocks in {time.monotonic() - start:.0f} s with {deaths}")
        detect(folder / "scenes", folder / "unbroken.parquet", "", 0.0)
        expected, found = (
            pq.read_table(folder / f"{kind}.parquet") for kind in ("unbroken", "broken")
        )
    is_same = expected.replace_schema_metadata().equals(found.replace_schema_metadata())
    print(f"{expected.num_rows:,} objects, {found.num_rows:,} in the broken run: same is {is_same}")
    return 0 if is_same else 1


def detect(scenes: str | Path, out: str | Path, address: str, seconds: float) -> None:
    """Detect, on a scheduler or in this process, and leave word of how far it is."""
    model = replace(geo_retina.load_model("demo"), predictor=waiting(seconds, 20))
    options = geo_retina.DetectOptions(tile_px=TILE_PX, overlap_px=32, force=True)
    run = geo_retina.RunOptions(device="cpu", block_px=128, scheduler=address or None, retries=3)
    told = Path(f"{out}.progress")

    def tell(state: geo_retina.Progress) -> None:
        told.write_text(str(state.pixels_done / state.pixels))

    report = geo_retina.detect_to_file(scenes, model, out, options, run, progress=tell)
    assert report.complete, report.failures


def broken(folder: Path, args: argparse.Namespace) -> str:
    """Carry out a run while its processes die, and return what died."""
    rng = random.Random(args.seed)
    out = folder / "broken.parquet"
    told = Path(f"{out}.progress")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    listen = ["-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    work = [str(HERE / "stub_workers.py"), address]
    go_on = [__file__, "--seconds", str(args.seconds), "--client", str(folder / "scenes")]
    go_on += [str(out), address]
    scheduler, client = start(listen), start(go_on)
    workers = [start(work) for _ in range(args.workers)]
    stopped: subprocess.Popen[bytes] | None = None
    events = [(0.25, "client"), (0.4, "worker"), (0.5, "scheduler"), (0.75, "client")]
    killed, last = 0, time.monotonic()
    try:
        while (code := client.poll()) is None:
            time.sleep(0.1)
            done = float(told.read_text() or 0) if told.exists() else 0.0
            if events and done >= events[0][0]:
                what = events.pop(0)[1]
                if what == "client":
                    kill(client)
                    client = start(go_on)
                elif what == "worker":
                    stopped = workers.pop()
                    stopped.send_signal(signal.SIGSTOP)
                else:
                    kill(scheduler)
                    scheduler = start(listen)
            if time.monotonic() - last > args.every:
                kill(workers.pop(rng.randrange(len(workers))))
                killed, last = killed + 1, time.monotonic()
            workers = [each for each in workers if each.poll() is None]
            workers += [start(work) for _ in range(args.workers - len(workers))]
    finally:
        for process in (client, scheduler, *workers, *([stopped] if stopped else [])):
            kill(process)
    assert code == 0, f"the client ended with {code}"
    assert not events, f"the run ended before {events}"
    return f"{killed} workers killed, one stopped, the scheduler killed once, the client twice"


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process of this Python."""
    path = f"{Path(geo_retina.__file__).parents[1]}:{HERE}"
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **TTL, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=quiet, stderr=quiet)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that cannot refuse, also one that is stopped."""
    process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
