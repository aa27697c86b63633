"""What one task does, end to end inside one worker: read blocks, detect, merge, tell.

Pixels never travel. A task returns a small table; what goes wrong inside it is caught there and
returned, so that one bad block costs only its own ground.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.detections import Detections
from geo_retina.engine import BlockDetections, BlockPixels, Stopped
from geo_retina.errors import SceneMismatchError, one_sentence
from geo_retina.grid import Block, Window, area_of
from geo_retina.merge import merge_block
from geo_retina.options import MergeOptions
from geo_retina.resampling import Rescaling
from geo_retina.run.cluster import EngineKey, engine_here
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.memory import release_memory
from geo_retina.run.plan import BlockJob, TaskBatch
from geo_retina.scene import LostPart, Mosaic, Scene, read_pieces

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
    task_batch: TaskBatch = pickle.loads(packed)
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
    was_read = time.perf_counter()
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
    detected = time.perf_counter()
    records = [
        _done(job, found[i], lost[i], key.options.merge)
        if i in found
        else failed_block(job, failed[i])
        for i, job in enumerate(task_batch.jobs)
    ]
    release_memory()
    turn = max((each.turn_s for each in found.values()), default=0.0)
    stages = Stages(
        reading=was_read - start,
        turn=turn,
        detecting=detected - was_read - turn,
        merging=time.perf_counter() - detected,
    )
    return Outcome(records, stages)


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


def failed_block(job: BlockJob, error: str) -> BlockResult:
    """Record that all of a block failed."""
    return BlockResult(
        job.scene_index, job.block.index, job.block.window, Detections.empty(), error=error
    )
