"""Compute slots: how many blocks compute on a device at once, and with how many threads."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import torch

_TURNS = {"cpu": 2, "mps": 1, "cuda": 2}
"""Threads that compute at once, by kind of device. While one waits for its boxes and places them,
another keeps a GPU busy; and two batches that have half of a CPU's cores each wait less at the end
of every layer than one batch that has them all."""


class ComputeSlots:
    """Lets few threads compute on a device at once.

    On a GPU every turn has a stream of its own. On a CPU the turns of this process, of all
    engines, share its cores, by PyTorch's number of threads: one that the caller starts while
    they compute may begin with a share.

    Args:
        device: where they compute.
        count: how many at once.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self._cores = _cores if device.type == "cpu" else None
        self.left = count
        self._free: queue.SimpleQueue[torch.cuda.Stream | None] = queue.SimpleQueue()
        self._withdrawing = threading.Lock()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other streams will use the weights
        for _ in range(self.left):
            self._free.put(torch.cuda.Stream(device) if device.type == "cuda" else None)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait until this thread may compute."""
        stream = self._free.get()
        try:
            with (
                torch.inference_mode(),
                torch.cuda.stream(stream) if stream else nullcontext(),
                self._cores.used() if self._cores else nullcontext(),
            ):
                yield
        finally:
            self._free.put(stream)

    def share(self) -> None:
        """Take what is this thread's of a CPU now; others may have come or gone."""
        if self._cores:
            self._cores.share()

    def withdraw(self) -> bool:
        """Leave the device to this thread and its followers; false where one had it already."""
        with self._withdrawing:
            if self.left == 1:
                return False
            self.left -= 1
        self._free.get()  # when another thread has ended its turn
        return True


def slots_of(device: torch.device, dtype: torch.dtype) -> int:
    """Count the batches that PyTorch should compute at once on a device.

    Only in bf16 are a CPU's results the same with any number of cores; otherwise there is one
    turn, so that a run can be repeated.
    """
    if device.type != "cpu":
        return _TURNS[device.type]
    # Whoever gives a process one core means one.
    return min(_TURNS["cpu"], _cores.count) if dtype is torch.bfloat16 else 1


class _Cores:
    """The cores that PyTorch may use in this process, divided among the threads that compute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: list[int] = []
        self._count = 1

    @property
    def count(self) -> int:
        with self._lock:
            return self._count if self._users else _threads_of_a_new_one()

    @contextmanager
    def used(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._count = _threads_of_a_new_one()
            self._users.append(threading.get_ident())
        try:
            yield
        finally:
            with self._lock:
                self._users.remove(threading.get_ident())
                torch.set_num_threads(self._count)  # what threads yet to come begin with

    def share(self) -> None:
        with self._lock:
            each, over = divmod(self._count, len(self._users))
            mine = max(1, each + (self._users.index(threading.get_ident()) < over))
            if torch.get_num_threads() != mine:  # of this thread
                torch.set_num_threads(mine)


def _threads_of_a_new_one() -> int:
    """Count PyTorch's threads in a thread that begins now; this one may have begun with a share."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


_cores = _Cores()


def _start_afresh() -> None:
    """Give a forked child cores that no thread of its parent uses."""
    global _cores
    _cores = _Cores()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_afresh)
