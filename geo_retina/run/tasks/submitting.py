"""Send task batches to workers in their order, a bounded number at once, and collect results.

Tasks are sent off and collected in groups, as either costs a scheduler and its client about as much
for fifty short ones as for one. Units of a scheduler that is lost are submitted again to the one
that takes its place.
"""

from __future__ import annotations

import pickle
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from geo_retina.errors import one_sentence
from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run.blocks import Outcome, detect_batch, failed_block, stop_run
from geo_retina.run.cluster import (
    EngineKey,
    find_dashboard,
    foreign_scheduler,
    is_unread,
    without_workers,
    workers,
)
from geo_retina.run.plan import TaskBatch
from geo_retina.run.tasks.tally import Tally, pixels_of

if TYPE_CHECKING:
    from distributed import Client, Future

Finished = list[tuple[TaskBatch, Outcome]]

_POLL_S = 1.0
"""How often a run looks which workers there are."""

_ANSWER_S = 10.0
"""How long a scheduler may take to say which workers it has."""

_PER_THREAD = 4
"""Tasks that a scheduler holds for each thread: one is done, one waits beside it, others may come
to an end before the client has looked."""

_MOST_TASKS = 4096
"""Tasks that a scheduler holds at once, however many threads there are."""

_GROUP_BYTES = 4 << 20
"""Tasks are sent off together up to about this size; Dask warns of 10 MB."""

_LAST_PER_THREAD = 2
"""Tasks for each thread at the end of the work, of which the largest come first."""

_FIRST_ALONE = 32
"""Results are handed on one by one at first; a short run loses nothing that is finished."""

_GROUP_S, _GROUP = 0.25, 64
"""Later so many seconds' results come together, and at most so many of them."""


def run_task_batches(
    task_batches: Sequence[TaskBatch],
    model: Model,
    options: DetectOptions,
    run: RunOptions,
    tally: Tally,
) -> Generator[Finished, None, None]:
    """Carry out units, begun in the order given, a bounded number of them in flight.

    Args:
        task_batches: the work.
        model: network and card.
        options: what changes the result.
        run: how it is carried out.
        tally: counts them; one for all rounds of a try.

    Yields:
        Units that finished, one or several together, and what became of each.

    Raises:
        RunError: the scheduler asked for cannot be reached, or there was no worker for longer
            than ``run.patience_s``.
    """
    if not task_batches:
        return
    todo = {task_batch.index: task_batch for task_batch in task_batches}
    tally.expect(task_batches)
    while todo:  # again only where a scheduler was lost
        # A scheduler that never was there is a mistake.
        patience_s = run.patience_s if tally.had_workers else 0.0
        with workers(model, run, options, patience_s=patience_s) as (client, name, devices):
            tally.met(find_dashboard(client, run))
            key = EngineKey(name, options, devices, run.batch)
            for finished in _in_flight(client, list(todo.values()), key, run, tally):
                for task_batch, _ in finished:
                    del todo[task_batch.index]
                yield finished
                for task_batch, outcome in finished:
                    tally.finished(task_batch, outcome)


def _in_flight(
    client: Client, task_batches: Sequence[TaskBatch], key: EngineKey, run: RunOptions, tally: Tally
) -> Iterator[Finished]:
    """Send tasks off as others finish, so that memory stays bounded.

    Ends early where the scheduler was lost, with which its tasks go.
    """
    run_id = uuid.uuid4().hex
    send = partial(detect_batch, key=key, retries=run.retries, run_id=run_id)
    flight = _Flight(client, send, run.patience_s, tally)
    try:
        flight.add(task_batches)
        while flight.batch_of:
            finished = flight.collect()
            if finished:
                yield finished
            if flight.is_lost:
                return
    except OSError:
        if run.scheduler is None:
            raise
        return  # a scheduler that is gone takes no more tasks
    finally:
        flight.settle()
        if flight.batch_of:
            stop_run(run_id)


class _Flight:
    """Tasks on their way to the workers of a scheduler, and back.

    Attributes:
        batch_of: task batches whose results were not collected yet, by the key of their task.
        is_lost: whether the scheduler, and its tasks with it, are gone.
    """

    def __init__(
        self,
        client: Client,
        send: Callable[[bytes], Outcome],
        patience_s: float,
        tally: Tally,
    ) -> None:
        self.batch_of: dict[str, TaskBatch] = {}
        self.is_lost = False
        self._client, self._send = client, send
        self._patience_s, self._tally = patience_s, tally
        self._waiting: deque[TaskBatch] = deque()
        self._finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._running = self._collected = 0
        self._threads, self._looked = _threads(client), time.monotonic()
        self._handed_on = -_GROUP_S

    def add(self, task_batches: Sequence[TaskBatch]) -> None:
        """Add work; what it ends with is ordered so that no long task is alone at the end."""
        end = len(task_batches) - _LAST_PER_THREAD * self._threads
        last = sorted(task_batches[max(0, end) :], key=pixels_of, reverse=True)
        self._waiting.extend([*task_batches[: max(0, end)], *last])
        self._refill()

    def settle(self) -> None:
        """Count the time of the threads of all workers until now."""
        now = time.monotonic()
        self._tally.offered(self._threads * (now - self._looked))
        self._looked = now

    def _look(self) -> int:
        """Count the threads of all workers, which come and go."""
        self.settle()
        self._threads = _threads(self._client)
        return self._threads

    def collect(self) -> Finished:
        """Wait for a task to finish, or for those that finish within a short while."""
        futures = [self._next()]
        until = self._handed_on + _GROUP_S
        while self._collected >= _FIRST_ALONE and self._running and len(futures) < _GROUP:
            try:
                left = until - time.monotonic()
                futures.append(self._taken(self._finished.get(timeout=max(0.0, left))))
            except queue.Empty:
                break
        results = self._results(futures)
        self._collected += len(results)
        self._handed_on = time.monotonic()
        return results

    def _next(self) -> Future:
        """Wait for a task to finish, as long as there is somebody to do it."""
        seen = time.monotonic()
        while True:
            try:
                return self._taken(self._finished.get(timeout=_POLL_S))
            except queue.Empty:
                if self._look():
                    seen = time.monotonic()
                    self._refill()
                elif time.monotonic() - seen > self._patience_s:
                    raise without_workers(self._patience_s) from None

    def _taken(self, future: Future) -> Future:
        self._running -= 1
        if time.monotonic() - self._looked > _POLL_S:
            self._look()
        self._refill()
        return future

    def _refill(self) -> None:
        """Send off as many tasks as the workers want soon, unless these are few."""
        limit = min(_MOST_TASKS, _PER_THREAD * max(1, self._threads))
        room = min(limit - self._running, len(self._waiting))
        if room < min(limit // _PER_THREAD, len(self._waiting)) or not room:
            return
        while room:
            group: list[TaskBatch] = []
            packed: list[bytes] = []
            while room and sum(map(len, packed)) < _GROUP_BYTES:
                group.append(self._waiting.popleft())
                packed.append(pickle.dumps(group[-1], pickle.HIGHEST_PROTOCOL))
                room -= 1
            futures = self._client.map(self._send, packed, pure=False)
            self._running += len(group)
            for task_batch, future in zip(group, futures, strict=True):
                self.batch_of[future.key] = task_batch
                future.add_done_callback(self._finished.put)

    def _results(self, futures: Sequence[Future]) -> Finished:
        done = {future.key: future for future in futures if future.status == "finished"}
        found = self._client.gather(done, errors="skip") if done else {}
        results: Finished = []
        for future in futures:
            outcome = found.get(future.key)
            if outcome is None and future.cancelled():
                self.is_lost = True
                continue
            task_batch = self.batch_of.pop(future.key)
            if outcome is None and (error := future.exception()) is not None:
                if is_unread(error):
                    raise foreign_scheduler(self._client.scheduler.address) from error
                # a worker was lost, several times over
                lost = [failed_block(job, one_sentence(error)) for job in task_batch.jobs]
                outcome = Outcome(lost)
            results.append((task_batch, outcome or future.result()))
            future.release()
        return results


def _threads(client: Client) -> int:
    """Count the threads of all workers; 0 where the scheduler does not say, as it is gone."""
    try:
        threads: dict[str, int] = client.sync(
            client.scheduler.ncores, workers=None, callback_timeout=_ANSWER_S
        )
    except (OSError, TimeoutError):
        return 0
    return sum(threads.values())
