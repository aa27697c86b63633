"""How far a run is, and where the time of its workers goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from geo_retina.run.blocks import Outcome, Stages
from geo_retina.run.plan import TaskBatch


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        task_batches_done: tasks finished.
        task_batches: tasks of the run, as far as they are known: what lies around an area of
            interest may turn out to be needed too.
        pixels_done: pixels of the ground of finished blocks, each counted once, those of an
            earlier try of this run included.
        pixels: pixels of the ground of all blocks.
        pixels_before: of ``pixels_done``, those of an earlier try.
        detections: found so far by this try, before blocks are merged with each other.
        failed: blocks that failed so far, in whole or in part.
        seconds: since this try began.
        dashboard: address of Dask's status page, where there is one.
    """

    task_batches_done: int
    task_batches: int
    pixels_done: int
    pixels: int
    pixels_before: int = 0
    detections: int = 0
    failed: int = 0
    seconds: float = 0.0
    dashboard: str | None = None

    @property
    def px_per_s(self) -> float:
        """Pixels of ground in a second, over this try."""
        return (self.pixels_done - self.pixels_before) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate; None before the first block."""
        rate = self.px_per_s
        return (self.pixels - self.pixels_done) / rate if rate else None


@dataclass(frozen=True)
class Workload:
    """Where the time of the workers of a run went, in seconds of their threads.

    Attributes:
        available: that there were, from the first task to the last.
        reading: blocks.
        turn: waiting for the device, while other threads computed on it.
        detecting: on the device, and placing boxes.
        merging: the tiles of a block.
        pixels: of the ground that was done meanwhile.
    """

    available: float = 0.0
    reading: float = 0.0
    turn: float = 0.0
    detecting: float = 0.0
    merging: float = 0.0
    pixels: int = 0

    @property
    def idle(self) -> float:
        """Seconds without a task: waiting for the scheduler, or for others at the end.

        On a CPU, batches of another thread's block may have been computed on its cores meanwhile.
        """
        return max(0.0, self.available - self._working)

    @property
    def busy(self) -> float | None:
        """Share of the time in which threads had a task; None where nothing was done."""
        return min(1.0, self._working / self.available) if self.available else None

    @property
    def _working(self) -> float:
        return self.reading + self.turn + self.detecting + self.merging

    def after(self, stages: Stages, pixels: int) -> Workload:
        """Add a task."""
        spent = {name: getattr(self, name) + more for name, more in stages._asdict().items()}
        return dataclasses.replace(self, **spent, pixels=self.pixels + pixels)


class Tally:
    """Counts what one try of a run does, over all its rounds of units.

    Args:
        before_px: pixels of ground that earlier tries covered.
        tell: called before the first unit of a round and after every unit.
    """

    def __init__(self, before_px: int = 0, tell: Callable[[Progress], None] | None = None) -> None:
        self.state = Progress(0, 0, before_px, before_px, pixels_before=before_px)
        self.work = Workload()
        self.had_workers = False
        self._tell = tell
        self._start = time.monotonic()

    def expect(self, task_batches: Sequence[TaskBatch]) -> None:
        """Add task batches that are now known to be needed."""
        self._add(task_batches=len(task_batches), pixels=sum(map(pixels_of, task_batches)))

    def met(self, dashboard: str | None) -> None:
        """Note that workers are there: from now on a lost scheduler is worth waiting for."""
        self.had_workers = True
        self.state = dataclasses.replace(self.state, dashboard=dashboard)
        self._say()

    def offered(self, thread_seconds: float) -> None:
        """Add time of threads that could have worked."""
        available = self.work.available + thread_seconds
        self.work = dataclasses.replace(self.work, available=available)

    def finished(self, task_batch: TaskBatch, outcome: Outcome) -> None:
        """Count a finished task batch and the results of its blocks."""
        records, pixels = outcome.records, pixels_of(task_batch)
        self.work = self.work.after(outcome.stages, pixels)
        self._add(
            task_batches_done=1,
            pixels_done=pixels,
            detections=sum(len(each.detections) + len(each.undecided) for each in records),
            failed=sum(not record.is_whole for record in records),
        )
        self._say()

    def _add(self, **more: int) -> None:
        changes: dict[str, Any] = {k: getattr(self.state, k) + v for k, v in more.items()}
        self.state = dataclasses.replace(self.state, **changes)

    def _say(self) -> None:
        seconds = time.monotonic() - self._start
        self.state = dataclasses.replace(self.state, seconds=seconds)
        if self._tell is not None:
            self._tell(self.state)


def pixels_of(task_batch: TaskBatch) -> int:
    """Count the pixels of ground that are the blocks' own."""
    cores = (job.tiles.core_of(job.block) for job in task_batch.jobs)
    return sum(core.height * core.width for core in cores)
