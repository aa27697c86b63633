"""A network with a cable for every process, so that one can be cut; Linux, as root.

The process that makes it leaves the machine's network for one of its own, which nothing outside
can reach, and so do those that it starts.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from multiprocessing.process import BaseProcess

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h
_WAIT_S = 30


class Hub:
    """Connects processes that each have a network namespace of their own."""

    address = "10.99.0.1"

    def __init__(self) -> None:
        leave_network()
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "hub", "type", "bridge")
        _ip("address", "add", f"{self.address}/16", "dev", "hub")
        _ip("link", "set", "hub", "up")
        self._connected = 0

    def connect(self, process: BaseProcess) -> None:
        """Lay a cable to a process, once it has left this network."""
        assert process.pid is not None
        end = time.monotonic() + _WAIT_S
        while os.stat(f"/proc/{process.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            if time.monotonic() > end:
                raise TimeoutError(f"process {process.pid} did not leave the network")
            time.sleep(0.02)
        self._connected += 1
        block, host = divmod(self._connected, 250)
        ours, there = _cable(process), str(process.pid)
        _ip("link", "add", ours, "type", "veth", "peer", "name", "cable", "netns", there)
        _ip("link", "set", ours, "master", "hub", "up")
        address = f"10.99.{block + 1}.{host + 1}/16"
        _ip("address", "add", address, "dev", "cable", inside=there)
        for name in ("lo", "cable"):
            _ip("link", "set", name, "up", inside=there)

    def cut(self, process: BaseProcess) -> None:
        """Let nothing more through to a process, or from it; neither side is told."""
        _ip("link", "set", _cable(process), "down")


def leave_network() -> None:
    """Move this process into a network namespace of its own, where nothing is connected."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "no network namespace can be made; be root for this")


def wait_for(host: str, port: int) -> None:
    """Wait until a server can be reached: the cable may not be laid yet."""
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def _cable(process: BaseProcess) -> str:
    return f"to-{process.pid}"


def _ip(*words: str, inside: str | None = None) -> None:
    """Run ``ip``, where asked for in the namespace of another process."""
    prefix = ["nsenter", f"--target={inside}", "--net"] if inside else []
    subprocess.run([*prefix, "ip", *words], check=True)
