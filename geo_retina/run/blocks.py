"""What one task does, end to end inside one worker: read blocks, detect, merge, tell.

Pixels never travel. A task returns a small table; what goes wrong inside it is caught there and
returned, so that one bad block costs only its own ground.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import Detections
from geo_retina.engine import BlockDetections, BlockPixels, Stopped
from geo_retina.errors import SceneMismatchError, one_sentence
from geo_retina.grid import Window, area_of
from geo_retina.merge import merge_block
from geo_retina.options import MergeOptions
from geo_retina.resampling import Rescaling
from geo_retina.run.cluster import EngineKey, engine_here
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.memory import release_memory
from geo_retina.run.plan import BlockJob
from geo_retina.run.prescreening import Left, all_of, join, look_first, read_coarse
from geo_retina.scene import LostPart, Mosaic, Scene, read_pieces

_T = TypeVar("_T")

_stopped: set[str] = set()
"""Runs of this process whose tasks are cancelled."""


class Stages(NamedTuple):
    """Seconds that a thread of a worker spent on a task, by what it did or waited for."""

    reading: float = 0.0
    turn: float = 0.0
    """Waiting for the device, while others compute on it."""
    detecting: float = 0.0
    merging: float = 0.0


class Outcome(NamedTuple):
    """What became of a task batch.

    Attributes:
        records: of its blocks, in order.
        stages: where its time went.
    """

    records: list[BlockResult]
    stages: Stages = Stages()


def stop_run(run_id: str) -> None:
    """Tell tasks of a run in this process that nobody wants them any longer."""
    _stopped.add(run_id)


def detect_batch(packed: bytes, key: EngineKey, retries: int, run_id: str) -> Outcome:
    """Carry out a task: read, detect, merge, and return the result of every block.

    Args:
        packed: a task batch, pickled once, as a scheduler between would rebuild what is in it.
        key: of the engine.
        retries: times that what fails is tried again.
        run_id: of the run, which may be stopped.
    """
    start = time.perf_counter()
    how = _How(key, retries, run_id)
    jobs: tuple[BlockJob, ...] = pickle.loads(packed).jobs
    failed: dict[int, str] = {}
    left: dict[int, Left] = {}
    for i, job in enumerate(jobs):
        try:
            left[i] = all_of(job)
        except Exception as error:
            failed[i] = one_sentence(error)
    first = _look_first(jobs, left, failed, how) if key.options.prescreen else Stages()
    blocks: list[tuple[int, BlockPixels]] = []
    lost: dict[int, tuple[LostPart, ...]] = {}
    for i in [i for i in left if i not in failed and left[i].parts]:
        try:
            read, left[i], lost[i] = _read_left(jobs[i], left[i], how)
            blocks += [(i, part) for part in read]
        except Exception as error:
            failed[i] = one_sentence(error)
    was_read = time.perf_counter()
    found = {i: each.blank_tiles for i, each in left.items()}
    turn = 0.0
    if blocks:
        try:
            results = how.retried(
                lambda: engine_here(key).detect(
                    [part for _, part in blocks], stopped=how.is_stopped
                )
            )
            for (i, _), result in zip(blocks, results, strict=True):
                found[i].append(result)
            turn = max(result.turn_s for result in results)
        except Exception as error:
            failed |= dict.fromkeys((i for i, _ in blocks), one_sentence(error))
    blocks.clear()
    detected = time.perf_counter()
    records = [
        failed_block(job, failed[i])
        if i in failed
        else _done(job, join(found[i]), left[i], lost.get(i, ()), key.options.merge)
        for i, job in enumerate(jobs)
    ]
    release_memory()
    stages = Stages(
        reading=was_read - start - first.turn - first.detecting,
        turn=first.turn + turn,
        detecting=first.detecting + detected - was_read - turn,
        merging=time.perf_counter() - detected,
    )
    return Outcome(records, stages)


@dataclass(frozen=True)
class _How:
    """How a task is carried out; see ``detect_batch``."""

    key: EngineKey
    retries: int
    run_id: str

    def is_stopped(self) -> bool:
        """Tell whether nobody wants the result any longer."""
        return self.run_id in _stopped

    def go_on(self) -> None:
        """Give up a block that nobody wants any longer."""
        if self.is_stopped():
            raise Stopped

    def retried(self, work: Callable[[], _T]) -> _T:
        """Do something again where it fails."""
        for _ in range(self.retries):
            try:
                return work()
            except Stopped:
                raise
            except Exception:
                continue
        return work()


def _look_first(
    jobs: Sequence[BlockJob], left: dict[int, Left], failed: dict[int, str], how: _How
) -> Stages:
    """Screen tiles out by a first look; of blocks whose coarser pixels fail, none.

    Args:
        jobs: of a task.
        left: what of them is to be detected on; is made less.
        failed: what went wrong, by the position of the job; is added to.
        how: the task is carried out.

    Returns:
        Where the time went.
    """
    start = was_read = time.perf_counter()
    looks: dict[int, BlockPixels] = {}
    try:
        engine = engine_here(how.key)
        for i in [i for i, each in left.items() if each.parts and jobs[i].coarse is not None]:
            try:
                looks[i] = how.retried(partial(read_coarse, jobs[i], engine.card))
                _check_range(jobs[i], looks[i].pixels, looks[i].valid)
            except Exception:  # reading the block itself will tell
                looks.pop(i, None)
        was_read = time.perf_counter()
        screened = how.retried(lambda: look_first(looks, jobs, engine, how.is_stopped))
    except Exception as error:
        failed |= dict.fromkeys(looks or left, one_sentence(error))
        return Stages(reading=was_read - start, detecting=time.perf_counter() - was_read)
    left |= screened
    turn = max((each.turn_s for each in screened.values()), default=0.0)
    detecting = time.perf_counter() - was_read - turn
    return Stages(reading=was_read - start, turn=turn, detecting=detecting)


def _read_left(
    job: BlockJob, left: Left, how: _How
) -> tuple[list[BlockPixels], Left, tuple[LostPart, ...]]:
    """Read what is left of a block, or all of it that can be read where some cannot."""
    if left.parts != (job.block,):
        try:
            read = [_read_block(replace(job, block=part), how) for part in left.parts]
            if not any(lost for _, lost in read):
                return [pixels for pixels, _ in read], left, ()
        except Exception:  # what of a block cannot be read is told of it as a whole
            pass
        left = all_of(job)
    pixels, lost = _read_block(job, how)
    return [pixels], left, lost


def _read_block(job: BlockJob, how: _How) -> tuple[BlockPixels, tuple[LostPart, ...]]:
    """Read a block, or what of it can be read, and name what cannot.

    Raises:
        Exception: nothing of it can be read, or its values are not the model's.
    """
    window, rescaling = job.block.window, None
    lost: tuple[LostPart, ...] = ()
    try:
        pixels, valid, rescaling = how.retried(lambda: _read_window(job.scene, window))
    except Exception:
        pixels, valid, lost = read_pieces(job.scene, window, go_on=how.go_on)
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
    job: BlockJob,
    found: BlockDetections,
    left: Left,
    lost: tuple[LostPart, ...],
    options: MergeOptions,
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
        screened=left.screened,
    )


def failed_block(job: BlockJob, error: str) -> BlockResult:
    """Record that all of a block failed."""
    return BlockResult(
        job.scene_index, job.block.index, job.block.window, Detections.empty(), error=error
    )
