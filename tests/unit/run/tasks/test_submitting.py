"""How tasks are sent off and collected, with a scheduler that is a stub."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from geo_retina.grid import plan_tiles
from geo_retina.run.blocks import Outcome, Stages
from geo_retina.run.plan import BlockJob, TaskBatch
from geo_retina.run.tasks import submitting
from geo_retina.run.tasks.tally import Tally, Workload

TILES = plan_tiles((96, 96 + 63 * 64), tile_px=96, overlap_px=32, stride_px=32, exact=True)


class Task:
    """What a client gives for a task; done at once, unless its scheduler goes before."""

    def __init__(self, scheduler: Scheduler, key: int, packed: bytes) -> None:
        self.scheduler, self.key, self.packed = scheduler, str(key), packed
        self.status, self.callbacks = "pending", []

    def add_done_callback(self, callback) -> None:
        self.callbacks.append(callback)

    def cancelled(self) -> bool:
        return self.status == "cancelled"

    def exception(self):
        return RuntimeError("killed three workers") if self.status == "error" else None

    def release(self) -> None:
        self.scheduler.held.pop(self.key)


class Scheduler:
    """A client and its scheduler, which finishes its oldest tasks whenever it is looked at."""

    status = "running"

    def __init__(self, threads: int, at_once: int = 1) -> None:
        self.threads, self.at_once = threads, at_once
        self.held: dict[str, Task] = {}
        self.most = self.groups = self.gathers = 0
        self.begun: list[int] = []
        self.end: dict[int, str] = {}
        self.scheduler = SimpleNamespace(ncores=None)

    def sync(self, *_, **__):
        return {"worker": self.threads}

    def map(self, function, packed, *, pure):
        assert not pure
        self.groups += 1
        tasks = [Task(self, len(self.begun) + i, each) for i, each in enumerate(packed)]
        self.begun += [pickle.loads(each).index for each in packed]
        self.held |= {task.key: task for task in tasks}
        self.most = max(self.most, len(self.held))
        return tasks

    def gather(self, tasks, *, errors):
        assert errors == "skip"
        self.gathers += 1
        return {key: Outcome([], Stages(1, 2, 3, 4)) for key in tasks}

    def finish_some(self) -> None:
        pending = [task for task in self.held.values() if task.status == "pending"]
        for task in pending[: self.at_once]:
            task.status = self.end.get(pickle.loads(task.packed).index, "finished")
            for callback in task.callbacks:
                callback(task)


class Finished:
    """A queue that lets the scheduler go on when somebody waits for it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.tasks = scheduler, []

    def put(self, task) -> None:
        self.tasks.append(task)

    def get(self, timeout):
        if not self.tasks and timeout > 0:
            self.scheduler.finish_some()
        if not self.tasks:
            raise submitting.queue.Empty
        return self.tasks.pop(0)


def batches(count: int, tiles=lambda i: 1) -> list[TaskBatch]:
    scene = SimpleNamespace(path="a.tif")
    return [
        TaskBatch(
            i, tuple(BlockJob(0, scene, TILES, TILES.block_of(k, k)) for k in range(tiles(i)))
        )
        for i in range(count)
    ]


def fly(scheduler: Scheduler, monkeypatch, work: list[TaskBatch]):
    tally = Tally()
    monkeypatch.setattr(submitting.queue, "SimpleQueue", lambda: Finished(scheduler))
    flight = submitting._Flight(scheduler, lambda _: None, 1.0, tally)
    flight.add(work)
    while flight.batch_of:
        yield [(batch.index, outcome) for batch, outcome in flight.collect()]
        if flight.is_lost:
            return


@pytest.mark.parametrize(("threads", "most"), [(1, 4), (16, 64), (3000, 4096)])
def test_a_scheduler_holds_a_few_tasks_a_thread_and_never_too_many(monkeypatch, threads, most):
    scheduler = Scheduler(threads, at_once=threads)
    work = batches(2 * most)
    groups = list(fly(scheduler, monkeypatch, work))
    assert sorted(index for group in groups for index, _ in group) == list(range(len(work)))
    assert most // 2 <= scheduler.most <= most + submitting._GROUP
    assert not scheduler.held
    assert scheduler.groups <= len(work) / min(threads, submitting._GROUP) + 2


def test_results_come_one_by_one_at_first_and_then_together(monkeypatch):
    scheduler = Scheduler(16, at_once=16)
    groups = [len(group) for group in fly(scheduler, monkeypatch, batches(400))]
    first = submitting._FIRST_ALONE
    assert groups[:first] == [1] * first
    assert max(groups) <= submitting._GROUP
    assert scheduler.gathers == len(groups) < 400 / 8


def test_tasks_begin_in_order_and_end_with_the_shortest(monkeypatch):
    scheduler = Scheduler(2)
    work = batches(20, tiles=lambda i: 1 + i % 5)
    list(fly(scheduler, monkeypatch, work))
    last = submitting._LAST_PER_THREAD * 2
    assert scheduler.begun[:-last] == list(range(20 - last))
    assert [1 + i % 5 for i in scheduler.begun[-last:]] == [5, 4, 3, 2]


def test_a_task_that_kills_its_workers_fails_alone(monkeypatch):
    scheduler = Scheduler(4)
    scheduler.end = {7: "error"}
    found = dict(each for group in fly(scheduler, monkeypatch, batches(20)) for each in group)
    assert sorted(found) == list(range(20))
    [record] = found[7].records
    assert record.error == "RuntimeError: killed three workers"
    assert all(found[i].records == [] for i in found if i != 7)


def test_what_a_lost_scheduler_had_finished_is_kept(monkeypatch):
    scheduler = Scheduler(8, at_once=8)
    scheduler.end = dict.fromkeys(range(50, 100), "cancelled")
    found = [index for group in fly(scheduler, monkeypatch, batches(100)) for index, _ in group]
    assert sorted(found) == list(range(50))


def test_the_time_of_workers_is_shared_out():
    work = Workload(available=100.0)
    assert (work.busy, Workload().busy) == (0.0, None)
    work = work.after(Stages(10, 5, 40, 1), 7).after(Stages(2, 0, 20, 2), 3)
    assert (work.reading, work.turn, work.detecting, work.merging) == (12, 5, 60, 3)
    assert (work.idle, work.busy, work.pixels) == (20, 0.8, 10)
    late = Workload(available=10.0).after(Stages(detecting=12), 1)
    assert (late.idle, late.busy) == (0, 1)
