"""A long run in which everything breaks: its result is the unbroken one's, byte for byte.

    python benchmarks/drill.py --scenes 3000 --workers 8 --seconds 0.2 --every 20

A scheduler, workers and client, each a process of its own, on the loopback interface; scenes of
4 x 4 blocks and a stub in place of the network. A worker is killed at random every so often, and a
new one takes its place; one is stopped in the middle and never answers again, or, with
``--network`` (Linux, as root), where each worker has a network namespace of its own, the cable to
one is cut; the scheduler is killed and started again when a half is done; the client is killed, as
by ``kill -9``, at a quarter and at three quarters, and the same command goes on. Then the same is
detected in one process that nothing disturbs, and the features of the two files are compared. Exit
code 1 where they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from namespaces import Hub, leave_network, wait_for
from reports import draw_copies, head, keep
from stub_workers import serve, waiting

import geo_retina

IMPORTED = ("distributed", "geo_retina.detector", "geo_retina.run.cluster", "geo_retina.vector")
TILE_PX, SIDE_PX = 96, 288  # 4 x 4 tiles, each a block
HERE = Path(__file__).resolve().parent
PATHS = f"{Path(geo_retina.__file__).parents[1]}:{HERE}"


def main(arguments: list[str] | None = None) -> int:
    """Carry out the drill; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.2, help="what a block takes")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between killed workers")
    parser.add_argument(
        "--silent",
        type=int,
        default=15,
        help="seconds that a worker may be silent before its tasks go to others; Dask's own is 300",
    )
    parser.add_argument("--network", action="store_true", help="cut a worker off, as root")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(device="cpu")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_copies(folder / "scenes", args.scenes, SIDE_PX)
        os.environ |= {
            "PYTHONPATH": PATHS,
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{args.silent}s",
        }
        start = time.monotonic()
        deaths = broken(folder, args)
        seconds = time.monotonic() - start
        print(f"{args.scenes * 16:,} blocks in {seconds:.0f} s with {deaths}")
        detect(folder / "scenes", folder / "unbroken.parquet", "", 0.0)
        expected, found = (
            pq.read_table(folder / f"{kind}.parquet") for kind in ("unbroken", "broken")
        )
    is_same = expected.replace_schema_metadata().equals(found.replace_schema_metadata())
    print(f"{expected.num_rows:,} objects, {found.num_rows:,} in the broken run: same is {is_same}")
    names = ("scenes", "workers", "every", "silent", "network", "seed")
    row = {name: getattr(args, name) for name in names} | {"block_seconds": args.seconds}
    row |= {"blocks": args.scenes * 16, "seconds": seconds, "died": deaths}
    row |= {"objects": expected.num_rows, "is_same": is_same}
    keep(args, "drill", {**head(args), **row})
    return 0 if is_same else 1


def detect(scenes: str | Path, out: str | Path, address: str, seconds: float) -> None:
    """Detect, on a scheduler or in this process, and leave word of how far it is."""
    model = waiting(seconds, 20)
    options = geo_retina.DetectOptions(tile_px=TILE_PX, overlap_px=32, force=True)
    run = geo_retina.RunOptions(device="cpu", block_px=128, scheduler=address or None, retries=3)
    told = Path(f"{out}.progress")

    def tell(state: geo_retina.Progress) -> None:
        told.write_text(str(state.pixels_done / state.pixels))

    report = geo_retina.detect_to_file(scenes, model, out, options, run, progress=tell)
    assert report.complete, report.failures


class Staff:
    """Starts processes: forked from one that has imported all, so that they work at once."""

    def __init__(self, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["drill", *IMPORTED])
        self.logs = {kind: folder / f"{kind}.log" for kind in ("scheduler", "worker", "client")}

    def start(self, kind: str, *arguments: Any) -> BaseProcess:
        """Start a process, whose words are added to a file."""
        work = {"scheduler": listen, "worker": serve_one, "client": detect}[kind]
        process = self._context.Process(
            target=logged, args=(self.logs[kind], work, *arguments), daemon=True
        )
        process.start()
        return process


def logged(log: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Work in a process of its own, whose words go to a file."""
    with log.open("ab") as words:
        for stream in (1, 2):
            os.dup2(words.fileno(), stream)
    work(*arguments)


def listen(host: str, port: int) -> None:
    """Be a scheduler."""
    from distributed import Scheduler

    async def serve() -> None:
        async with Scheduler(host=host, port=port, dashboard=False) as scheduler:
            await scheduler.finished()

    asyncio.run(serve())


def serve_one(host: str, port: int, has_network: bool) -> None:
    """Be a worker, in a network namespace of its own where asked for."""
    if has_network:
        leave_network()
        wait_for(host, port)
    asyncio.run(serve(f"tcp://{host}:{port}", 1))


def broken(folder: Path, args: argparse.Namespace) -> str:
    """Carry out a run while its processes die, and return what died."""
    rng = random.Random(args.seed)
    out = folder / "broken.parquet"
    told = Path(f"{out}.progress")
    hub = Hub() if args.network else None
    host = hub.address if hub else "127.0.0.1"
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    staff = Staff(folder)
    client_for = ("client", folder / "scenes", out, f"tcp://{host}:{port}", args.seconds)
    scheduler, client = staff.start("scheduler", host, port), staff.start(*client_for)

    def start_worker() -> BaseProcess:
        worker = staff.start("worker", host, port, hub is not None)
        if hub:
            hub.connect(worker)
        return worker

    workers = [start_worker() for _ in range(args.workers)]
    stopped: BaseProcess | None = None
    events = [(0.25, "client"), (0.4, "worker"), (0.5, "scheduler"), (0.75, "client")]
    start = last = time.monotonic()
    killed = 0
    try:
        while client.exitcode is None:
            time.sleep(0.1)
            done = share_in(told)
            if events and done >= events[0][0]:
                what = events.pop(0)[1]
                print(f"{done:.0%} done after {time.monotonic() - start:.0f} s: {what}", flush=True)
                if what == "client":
                    kill(client)
                    client = staff.start(*client_for)
                elif what == "worker":
                    stopped = workers.pop()
                    if hub:
                        hub.cut(stopped)
                    else:
                        os.kill(stopped.pid or 0, signal.SIGSTOP)
                else:
                    kill(scheduler)
                    scheduler = staff.start("scheduler", host, port)
            if time.monotonic() - last > args.every:
                kill(workers.pop(rng.randrange(len(workers))))
                killed, last = killed + 1, time.monotonic()
            workers = [each for each in workers if each.exitcode is None]
            workers += [start_worker() for _ in range(args.workers - len(workers))]
    finally:
        for process in (client, scheduler, *workers, *([stopped] if stopped else [])):
            kill(process)
    if client.exitcode:
        ends = [f"the {kind}s said: {log.read_text()[-4000:]}" for kind, log in staff.logs.items()]
        sys.exit("\n".join([*ends, f"the client ended with {client.exitcode}"]))
    assert not events, f"the run ended before {events}"
    silenced = "one cut off" if hub else "one stopped"
    return f"{killed} workers killed, {silenced}, the scheduler killed once, the client twice"


def share_in(told: Path) -> float:
    """Read how far a client is, which may be writing just now."""
    try:
        return float(told.read_text())
    except (OSError, ValueError):
        return 0.0


def kill(process: BaseProcess) -> None:
    """End a process that cannot refuse, also one that is stopped."""
    process.kill()
    process.join()


if __name__ == "__main__":
    sys.exit(main())
