"""Carry out a plan: rounds of blocks, recorded in the ledger, until nothing is left to detect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence, Set

import numpy as np

from geo_retina.detections import Detections
from geo_retina.run.detection_run import DetectionRun, total
from geo_retina.run.frozen_plan import PlannedBlock, batches_of
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.ledger.folder import Ledger
from geo_retina.run.plan import BlockJob, TaskBatch, pack_task_batches
from geo_retina.run.run_plan import RunPlan
from geo_retina.run.tasks.submitting import run_task_batches
from geo_retina.run.tasks.tally import Progress, Tally
from geo_retina.run.tiles_of_interest import missing_tiles


def open_ledger(plan: RunPlan) -> Ledger:
    """Open the ledger of a run, new or with what an earlier try finished; it is to be closed.

    Raises:
        RunError: an earlier run of the output differs, or is still going on.
        OutputError: it cannot be written.
    """
    return Ledger.open(
        plan.outputs.folder, plan.manifest, restart=plan.run.restart, extend=plan.run.update
    )


def carry_out(
    plan: RunPlan,
    ledger: Ledger,
    progress: Callable[[Progress], None] | None,
    *,
    gathered: bool = False,
) -> DetectionRun:
    """Detect every block that the ledger does not hold yet.

    Args:
        plan: what to do.
        ledger: of the run; it holds the detections afterwards.
        progress: called after every finished task batch.
        gathered: whether the ledger holds the results of all planned blocks already, so that
            only tiles around an area of interest may be missing.

    Returns:
        The run and its totals. Its detections are read from the ledger's folder, which must stay.

    Raises:
        RunError: there are no workers.
        OutputError: the ledger cannot be written.
    """
    done = ledger.blocks_done()
    ledger.log.info("%d blocks are done", len(done))
    for failure in plan.unusable:
        ledger.log.warning("%s cannot be used: %s", failure.scene, failure.error)
    jobs = [job for scene_plan in plan.scene_plans for job in scene_plan.jobs]
    tally = Tally(_pixels(plan, done), progress)
    if gathered:
        return _finish(plan, ledger, [], tally)
    return _finish(plan, ledger, [job for job in jobs if _key(job) not in done], tally)


def carry_out_part(
    plan: RunPlan,
    ledger: Ledger,
    units: Sequence[Sequence[PlannedBlock]],
    progress: Callable[[Progress], None] | None,
) -> DetectionRun:
    """Detect the blocks of some units of a frozen plan that the ledger does not hold yet.

    Blocks of scenes that cannot be used any longer are recorded as failed. What lies around an
    area of interest is left to whoever gathers the parts.

    Args:
        plan: of the scenes that the units need.
        ledger: of the part.
        units: its share of the work.
        progress: called after every finished task batch.

    Raises:
        RunError: there are no workers.
        OutputError: the ledger cannot be written.
    """
    done = ledger.blocks_done()
    ledger.log.info("%d blocks are done", len(done))
    jobs: dict[tuple[int, int], BlockJob] = {}
    lost: list[BlockResult] = []
    reasons = {each.scene: each.error for each in plan.unusable}
    for block in (block for unit in units for block in unit):
        scene_plan = plan.by_index.get(block.scene)
        if block.key in done:
            continue
        if scene_plan is None:
            error = reasons.get(plan.paths[block.scene], "it cannot be used any longer")
            lost.append(
                BlockResult(block.scene, block.block, block.window, Detections.empty(), error=error)
            )
        else:
            jobs[block.key] = scene_plan.job(scene_plan.block(block.block))
    if lost:
        ledger.log.warning("%d blocks are of scenes that cannot be used", len(lost))
        ledger.write(ledger.next_task_batch(), lost)
    batches = batches_of(units, jobs, first=ledger.next_task_batch())
    tally = Tally(_pixels(plan, done), progress)
    _detect(plan, ledger, batches, tally)
    return total(plan, ledger.scenes(), tally.work)


def _finish(plan: RunPlan, ledger: Ledger, todo: list[BlockJob], tally: Tally) -> DetectionRun:
    """Detect some blocks, then round by round what objects at the border of an area need."""
    asked: set[tuple[int, int]] = set()
    while True:
        batches = pack_task_batches(todo, plan.run.block_px, first=ledger.next_task_batch())
        _detect(plan, ledger, batches, tally)
        asked |= {_key(job) for job in todo}
        todo = [job for job in _needed_at_borders(plan, ledger) if _key(job) not in asked]
        if not todo:
            return total(plan, ledger.scenes(), tally.work)


def _key(job: BlockJob) -> tuple[int, int]:
    return job.scene_index, job.block.index


def _detect(plan: RunPlan, ledger: Ledger, task_batches: Sequence[TaskBatch], tally: Tally) -> None:
    """Detect the blocks of some task batches and record them."""
    count = sum(len(each.jobs) for each in task_batches)
    ledger.log.info("%d blocks to do in %d units", count, len(task_batches))
    results = run_task_batches(task_batches, plan.model, plan.options, plan.run, tally)
    # Closed at once when something goes wrong here, so that workers stop.
    with contextlib.closing(results):
        for finished in results:
            records = [record for _, outcome in finished for record in outcome.records]
            ledger.write(finished[0][0].index, records)
            for task_batch, outcome in finished:
                _log(plan, ledger, task_batch.index, outcome.records)


def _needed_at_borders(plan: RunPlan, ledger: Ledger) -> list[BlockJob]:
    """Find tiles outside the area of interest that decide about objects at its border."""
    if plan.options.aoi is None:
        return []
    jobs = []
    for record in ledger.scenes():
        scene_plan = plan.by_index.get(record.scene_index)
        if scene_plan is None or scene_plan.area_px is None:
            continue
        tiles = scene_plan.tiles
        known = np.zeros((tiles.rows, tiles.cols), np.bool_)
        for result in record.results:
            block = scene_plan.block(result.block)
            rows, cols = block.tile_rows, block.tile_cols
            known[rows.start : rows.stop, cols.start : cols.stop] |= result.error is None
        missing = missing_tiles(
            record.undecided(), tiles, known, scene_plan.area_px, plan.options.merge
        )
        first = len(scene_plan.blocks)
        jobs += [scene_plan.job(scene_plan.block(first + tile)) for tile in missing.tolist()]
    return jobs


def _pixels(plan: RunPlan, blocks: Set[tuple[int, int]]) -> int:
    """Count pixels of ground of blocks, by scene and block, each once."""
    plans = plan.by_index
    cores = [
        plans[scene].tiles.core_of(plans[scene].block(block))
        for scene, block in blocks
        if scene in plans
    ]
    return sum(core.height * core.width for core in cores)


def _log(plan: RunPlan, ledger: Ledger, task_batch: int, records: Sequence[BlockResult]) -> None:
    log = ledger.log
    found = sum(len(each.detections) + len(each.undecided) for each in records)
    log.info("unit %d: %d blocks, %d detections", task_batch, len(records), found)
    for record in records:
        path = plan.by_index[record.scene_index].scene.path
        if record.error is not None:
            log.warning("%s, block %d: %s", path, record.block, record.error)
        for part in record.lost:
            box, why = part.window.box_px, part.error
            log.warning("%s, block %d, pixels %s: %s", path, record.block, box, why)
        if record.reduced_batch is not None:
            log.warning("device memory: batches of %d tiles", record.reduced_batch)
