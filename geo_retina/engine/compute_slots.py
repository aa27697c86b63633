"""Compute slots: how many blocks compute on a device at once, and with how many threads."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

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
        self._waiting = _Waiting()
        self._free: queue.SimpleQueue[torch.cuda.Stream | None] = queue.SimpleQueue()
        self._withdrawing = threading.Lock()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other streams will use the weights
        for _ in range(self.left):
            self._free.put(torch.cuda.Stream(device) if device.type == "cuda" else None)

    @contextmanager
    def taken(self) -> Iterator[ExitStack]:
        """Wait until this thread may compute; close what is given to end the turn early."""
        with self._waiting:
            stream = self._free.get()
        with self._turn(stream) as turn:
            yield turn

    def spread(
        self, compute: Callable[[_Item], _Result], items: Iterator[_Item], turn: ExitStack
    ) -> list[_Result]:
        """Compute items in this thread's turn, and on a CPU in turns that nobody else wants.

        Args:
            compute: is called in several threads at once.
            items: each is asked for when a thread has time for it.
            turn: this thread's, which ends here.

        Returns:
            The results, in the order of the items.
        """
        shared = _Shared(compute, items)
        with ThreadPoolExecutor(max(1, self.left)) as pool:
            helpers = []
            try:
                while begun := shared.begin():
                    if shared.has_more and self._cores is not None and self._is_idle():
                        helpers.append(pool.submit(self._help, shared))
                    shared.compute(begun)
            finally:
                shared.stop()
                turn.close()  # a helper whose memory is short waits for this one's
            try:
                while helpers:
                    helpers.pop().result()
            finally:
                helpers.clear()  # an error holds this frame, and a future its error
        return shared.results

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
        with self._waiting:
            self._free.get()  # when another thread has ended its turn
        return True

    def _is_idle(self) -> bool:
        """Tell whether a turn is free that no block waits for."""
        return not self._free.empty() and not self._waiting.count

    @contextmanager
    def _turn(self, stream: torch.cuda.Stream | None) -> Iterator[ExitStack]:
        """Give this thread a turn."""
        with ExitStack() as turn:
            turn.callback(self._free.put, stream)
            turn.enter_context(torch.inference_mode())
            if stream is not None:
                turn.enter_context(torch.cuda.stream(stream))
            if self._cores is not None:
                turn.enter_context(self._cores.used())
            yield turn

    def _help(self, shared: _Shared[_Item, _Result]) -> None:
        """Compute items of another thread for as long as nobody waits for a turn of its own."""
        try:
            stream = self._free.get_nowait()
        except queue.Empty:
            return
        with self._turn(stream):
            while not self._waiting.count and (begun := shared.begin()):
                shared.compute(begun)


class _Shared(Generic[_Item, _Result]):
    """Items that several threads compute, each once."""

    def __init__(self, compute: Callable[[_Item], _Result], items: Iterator[_Item]) -> None:
        self._compute = compute
        self._items = enumerate(items)
        self._lock = threading.Lock()
        self._next = next(self._items, None)
        self._results: dict[int, _Result] = {}

    @property
    def results(self) -> list[_Result]:
        """One of each item, in their order."""
        return [self._results[position] for position in range(len(self._results))]

    @property
    def has_more(self) -> bool:
        """Tell whether there is an item that no thread has begun."""
        return self._next is not None

    def begin(self) -> tuple[int, _Item] | None:
        """Take an item that no thread has begun, and its position."""
        with self._lock:
            begun = self._next
            if begun is not None:
                self._next = next(self._items, None)
            return begun

    def compute(self, begun: tuple[int, _Item]) -> None:
        """Compute an item that this thread has begun; where it fails, no other is begun."""
        position, item = begun
        try:
            self._results[position] = self._compute(item)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let no further item be begun."""
        with self._lock:
            self._next = None


class _Waiting:
    """Counts the threads that wait for a turn."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.count -= 1


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
