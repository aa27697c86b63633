"""A Dask cluster of real processes to test with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import geo_retina

SOURCE = Path(geo_retina.__file__).parents[1]


class Cluster:
    """A scheduler and workers, each a process of its own.

    Args:
        folder: where the processes run.
        host: address that the scheduler listens on.
        protocol: tcp or tls.
        flags: further flags of both commands.
        inside: commands before the scheduler's and the workers', such as ``ip netns exec a``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        protocol: str = "tcp",
        flags: Sequence[str] = (),
        inside: tuple[Sequence[str], Sequence[str]] = ((), ()),
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.address = f"{protocol}://{host}:{self.port}"
        self.folder, self.host, self.flags, self.inside = folder, host, flags, inside
        self.protocol = protocol
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_scheduler(self) -> None:
        flags = ["--port", self.port, "--host", self.host, "--protocol", self.protocol]
        self.scheduler = self._start(self.inside[0], "scheduler", *flags)

    def start_worker(self, host: str | None = None) -> None:
        flags = ["--nthreads", "1", "--no-nanny", "--host", host or self.host]
        self.workers.append(self._start(self.inside[1], "worker", self.address, *flags))

    def stop(self) -> None:
        for process in [self.scheduler, *self.workers]:
            if process is not None:
                process.kill()
                process.wait()
        self.workers.clear()

    def _start(self, inside: Sequence[str], *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*inside, sys.executable, "-m", "dask", *command, "--no-dashboard", *self.flags],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
