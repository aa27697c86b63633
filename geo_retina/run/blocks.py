"""Carry out task batches on Dask: one task is one unit, end to end inside one worker.

Pixels never travel. A task reads its block, detects, and returns a small table; what goes wrong
inside it is caught there and returned, so that one bad block costs only its own ground. Units of
a scheduler that is lost are submitted again to the one that takes its place.
"""

from __future__ import annotations

import dataclasses
import queue
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import Detections
from geo_retina.engine import BlockDetections, BlockPixels, Stopped
from geo_retina.errors import RunError, SceneMismatchError, one_sentence
from geo_retina.grid import Block, Window, area_of
from geo_retina.merge import merge_block
from geo_retina.model import Model
from geo_retina.options import DetectOptions, MergeOptions, RunOptions
from geo_retina.resampling import Rescaling
from geo_retina.run.cluster import EngineKey, engine_here, find_dashboard, workers
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.memory import release_memory
from geo_retina.run.plan import BlockJob, TaskBatch
from geo_retina.scene import LostPart, Mosaic, Scene, read_pieces

if TYPE_CHECKING:
    from distributed import Client, Future

_POLL_S = 1.0
"""How often a run looks whether there are workers at all."""

_ANSWER_S = 10.0
"""How long a scheduler may take to say which workers it has."""

_stopped: set[str] = set()
"""Runs of this process whose tasks are cancelled."""


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


def _detect_batch(
    task_batch: TaskBatch, key: EngineKey, retries: int, run_id: str
) -> list[BlockResult]:
    """Carry out a task: read, detect, merge, and return the result of every block."""
    failed: dict[int, str] = {}
    blocks: dict[int, BlockPixels] = {}
    lost: dict[int, tuple[LostPart, ...]] = {}
    found: dict[int, BlockDetections] = {}
    for i, job in enumerate(task_batch.jobs):
        try:
            if isinstance(job.scene, Scene) and job.scene.is_blank(job.block.window):
                found[i], lost[i] = _nothing_in(job.block), ()
                continue
            blocks[i], lost[i] = _read_block(job, retries, run_id)
        except Exception as error:
            failed[i] = one_sentence(error)
    if blocks:
        try:
            results = _retried(
                lambda: engine_here(key).detect(
                    list(blocks.values()), stopped=lambda: run_id in _stopped
                ),
                retries,
            )
            found |= zip(blocks, results, strict=True)
        except Exception as error:
            failed |= dict.fromkeys(blocks, one_sentence(error))
    blocks.clear()
    records = [
        _done(job, found[i], lost[i], key.options.merge) if i in found else _failed(job, failed[i])
        for i, job in enumerate(task_batch.jobs)
    ]
    release_memory()
    return records


def _nothing_in(block: Block) -> BlockDetections:
    """Skip all tiles of a block."""
    tiles = len(block.tile_rows) * len(block.tile_cols)
    return BlockDetections(Detections.empty(), tiles=0, skipped=tiles, truncated=0)


def _retried(work: Callable[[], Any], retries: int) -> Any:
    for _ in range(retries):
        try:
            return work()
        except Stopped:
            raise
        except Exception:
            continue
    return work()


def _read_block(
    job: BlockJob, retries: int, run_id: str
) -> tuple[BlockPixels, tuple[LostPart, ...]]:
    """Read a block, or what of it can be read, and name what cannot.

    Raises:
        Exception: nothing of it can be read, or its values are not the model's.
    """
    window, rescaling = job.block.window, None
    lost: tuple[LostPart, ...] = ()
    try:
        pixels, valid, rescaling = _retried(lambda: _read_window(job.scene, window), retries)
    except Exception:
        pixels, valid, lost = read_pieces(job.scene, window, go_on=partial(_go_on, run_id))
        if area_of(part.window for part in lost) == window.height * window.width:
            raise
    _check_range(job, pixels, valid if rescaling is None else rescaling.source_valid)
    tiles = job.tiles.tiles_of(job.block)
    block = BlockPixels(pixels, valid, window, job.tiles, tiles, job.scene.values, rescaling)
    return block, lost


def _read_window(
    scene: Scene | Mosaic, window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_], Rescaling | None]:
    """Read a window, or what it is computed from; its validity; and how, where it is computed."""
    if not isinstance(scene, Scene) or scene.source is None:
        return *scene.read(window), None
    pixels, rescaling = scene.read_source(window)
    return pixels, rescaling.valid, rescaling


def _go_on(run_id: str) -> None:
    """Give up a block that nobody wants any longer."""
    if run_id in _stopped:
        raise Stopped


def _check_range(job: BlockJob, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Refuse a block whose values leave the range that a sample of its scene was found in."""
    scenes = job.scene.scenes if isinstance(job.scene, Mosaic) else [job.scene]
    for scene in scenes:
        if scene.taken_in is None:
            continue
        seen = pixels[:, valid]
        values = seen if job.scene.values is None else job.scene.values(seen)
        if scene.taken_in.is_left(values):
            raise SceneMismatchError(
                f"{scene.path} has {scene.value_dtype} values of {values.min():.6g} to "
                f"{values.max():.6g} here, outside the model's {scene.taken_in}; stretch the scene "
                "to the model's range with DetectOptions.stretch=(2, 98), declare its nodata "
                "value with gdal_edit.py -a_nodata, or use its values as they are with "
                "DetectOptions.force=True"
            )


def _done(
    job: BlockJob, found: BlockDetections, lost: tuple[LostPart, ...], options: MergeOptions
) -> BlockResult:
    settled, undecided = merge_block(found.detections, job.tiles, job.block, options)
    return BlockResult(
        job.scene_index,
        job.block.index,
        job.block.window,
        settled,
        found.tiles,
        found.skipped,
        found.truncated,
        reduced_batch=found.reduced_batch,
        undecided=undecided,
        lost=lost,
        out_of_range=found.out_of_range,
    )


def _failed(job: BlockJob, error: str) -> BlockResult:
    return BlockResult(
        job.scene_index, job.block.index, job.block.window, Detections.empty(), error=error
    )


class Tally:
    """Counts what one try of a run does, over all its rounds of units.

    Args:
        before_px: pixels of ground that earlier tries covered.
        tell: called before the first unit of a round and after every unit.
    """

    def __init__(self, before_px: int = 0, tell: Callable[[Progress], None] | None = None) -> None:
        self.state = Progress(0, 0, before_px, before_px, pixels_before=before_px)
        self.had_workers = False
        self._tell = tell
        self._start = time.monotonic()

    def expect(self, task_batches: Sequence[TaskBatch]) -> None:
        """Add task batches that are now known to be needed."""
        self._add(task_batches=len(task_batches), pixels=sum(map(_pixels, task_batches)))

    def met(self, dashboard: str | None) -> None:
        """Note that workers are there: from now on a lost scheduler is worth waiting for."""
        self.had_workers = True
        self.state = dataclasses.replace(self.state, dashboard=dashboard)
        self._say()

    def finished(self, task_batch: TaskBatch, records: Sequence[BlockResult]) -> None:
        """Count a finished task batch and the results of its blocks."""
        self._add(
            task_batches_done=1,
            pixels_done=_pixels(task_batch),
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


def run_task_batches(
    task_batches: Sequence[TaskBatch],
    model: Model,
    options: DetectOptions,
    run: RunOptions,
    tally: Tally,
) -> Generator[tuple[int, list[BlockResult]], None, None]:
    """Carry out units, in any order, a bounded number of them in flight.

    Args:
        task_batches: the work.
        model: network and card.
        options: what changes the result.
        run: how it is carried out.
        tally: counts them; one for all rounds of a try.

    Yields:
        Index of a finished unit, and what became of each of its parts.

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
            for task_batch, records in _in_flight(client, list(todo.values()), key, run):
                del todo[task_batch.index]
                yield task_batch.index, records
                tally.finished(task_batch, records)


def _pixels(task_batch: TaskBatch) -> int:
    cores = (job.tiles.core_of(job.block) for job in task_batch.jobs)
    return sum(core.height * core.width for core in cores)


def _in_flight(
    client: Client, task_batches: Sequence[TaskBatch], key: EngineKey, run: RunOptions
) -> Iterator[tuple[TaskBatch, list[BlockResult]]]:
    """Submit a new task for every one that finishes, so that memory stays bounded.

    Ends early where the scheduler was lost, with which its tasks go.
    """
    waiting = iter(task_batches)
    batch_of: dict[str, TaskBatch] = {}
    finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
    run_id = uuid.uuid4().hex

    def submit() -> None:
        # Asked anew each time, as workers come and go.
        limit = max(2, _threads(client) + 1)
        while len(batch_of) < limit and (task_batch := next(waiting, None)) is not None:
            future = client.submit(_detect_batch, task_batch, key, run.retries, run_id, pure=False)
            batch_of[future.key] = task_batch
            future.add_done_callback(finished.put)

    try:
        submit()
        while batch_of:
            future = _next(client, finished, run.patience_s)
            if future.cancelled():
                return
            task_batch = batch_of.pop(future.key)
            error = future.exception()
            if error is None:
                records = future.result()
            else:  # a worker was lost, several times over
                records = [_failed(job, one_sentence(error)) for job in task_batch.jobs]
            future.release()
            yield task_batch, records
            submit()
    except OSError:
        if run.scheduler is None:
            raise
        return  # a scheduler that is gone takes no more tasks
    finally:
        if batch_of:
            _stopped.add(run_id)


def _threads(client: Client) -> int:
    """Count the threads of all workers; 0 where the scheduler does not say, as it is gone."""
    try:
        threads: dict[str, int] = client.sync(
            client.scheduler.ncores, workers=None, callback_timeout=_ANSWER_S
        )
    except (OSError, TimeoutError):
        return 0
    return sum(threads.values())


def _next(client: Client, finished: queue.SimpleQueue[Future], patience_s: float) -> Future:
    """Wait for a task to finish, as long as there is somebody to do it."""
    seen = time.monotonic()
    while True:
        try:
            return finished.get(timeout=_POLL_S)
        except queue.Empty:
            if _threads(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > patience_s:
                raise RunError(
                    f"no worker was connected to the scheduler for {patience_s:g} s; start "
                    "workers, and the same command goes on from what is finished"
                ) from None
