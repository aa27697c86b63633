"""A run that was carried out: what became of its blocks, and its totals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geo_retina.errors import RunError
from geo_retina.run.ledger.folder import SceneRecord
from geo_retina.run.plan import Failure
from geo_retina.run.run_plan import RunPlan


@dataclass(frozen=True)
class Totals:
    """What all blocks of a run come to.

    Attributes:
        blocks: that were covered.
        scenes: detected in whole or in part; of a mosaic, its scenes.
        pixels: of the ground that was covered, each counted once.
        tiles: that went through the network.
        skipped_tiles: without a valid pixel.
        truncated_tiles: that reached the limit of candidates or detections.
        outside_tiles: that were not scanned, as they lie outside the area of interest.
        outside_scenes: that lie outside it as a whole.
        reduced_batch: tiles through the network at once, where memory made that fewer.
    """

    blocks: int
    scenes: int
    pixels: int
    tiles: int
    skipped_tiles: int
    truncated_tiles: int
    outside_tiles: int
    outside_scenes: int
    reduced_batch: int | None


@dataclass(frozen=True, eq=False)
class DetectionRun:
    """A run that was carried out; its detections lie in the ledger's files until they are merged.

    Attributes:
        plan: what was to be done.
        records: what became of the blocks, by scene in order.
        failures: ground that is not covered: scenes that cannot be used, then blocks.
        totals: what all blocks come to. Objects are counted when they are merged and written.
    """

    plan: RunPlan
    records: tuple[SceneRecord, ...]
    failures: tuple[Failure, ...]
    totals: Totals


def total(plan: RunPlan, records: Iterable[SceneRecord]) -> DetectionRun:
    """Sum up what became of the blocks of a run.

    Args:
        plan: of the run.
        records: of its ledger; those of a scene that was readable when the run began, and is not
            now, are left out.
    """
    known = tuple(record for record in records if record.scene_index in plan.by_index)
    failures = [*plan.unusable]
    for record in known:
        scene_plan = plan.by_index[record.scene_index]
        for result in record.results:
            if result.error is not None:
                core = scene_plan.tiles.core_of(scene_plan.block(result.block))
                failures.append(Failure(scene_plan.scene.path, result.error, scene_plan, core))
    return DetectionRun(plan, known, tuple(failures), _totals(plan, known))


def _totals(plan: RunPlan, records: Iterable[SceneRecord]) -> Totals:
    blocks = scenes = pixels = tiles = skipped = truncated = failed_tiles = 0
    batches = []
    # Single tiles that were needed beside the area may show scenes that lie outside it.
    inside = {each.index: [*each.blocks] for each in plan.scene_plans}
    for record in records:
        scene_plan = plan.by_index[record.scene_index]
        done = []
        for result in record.results:
            block = scene_plan.block(result.block)
            if result.block >= len(scene_plan.blocks):
                inside[scene_plan.index].append(block)
            if result.error is not None:
                failed_tiles += len(block.tile_rows) * len(block.tile_cols)
                continue
            done.append(block)
            core = scene_plan.tiles.core_of(block)
            pixels += core.height * core.width
            tiles += result.tiles
            skipped += result.skipped
            truncated += result.truncated
            batches += [] if result.reduced_batch is None else [result.reduced_batch]
        blocks += len(done)
        scenes += len(scene_plan.shown_by(done))
    planned_tiles = sum(len(each.tiles) for each in plan.scene_plans)
    return Totals(
        blocks=blocks,
        scenes=scenes,
        pixels=pixels,
        tiles=tiles,
        skipped_tiles=skipped,
        truncated_tiles=truncated,
        outside_tiles=planned_tiles - tiles - skipped - failed_tiles,
        outside_scenes=sum(
            len(each.scenes) - len(each.shown_by(inside[each.index])) for each in plan.scene_plans
        ),
        reduced_batch=min(batches, default=None),
    )


def check_any_covered(run: DetectionRun) -> None:
    """Refuse to write a result without any ground, as an older one is worth more.

    A scene that cannot be read may be the one that shows the area of interest, and an older file
    may hold what was found there.

    Raises:
        RunError: nothing was covered that should have been.
    """
    plan, unusable = run.plan, run.plan.unusable
    if run.totals.blocks or not (plan.is_wanted or (unusable and plan.outputs.replaces)):
        return
    errors = [failure.error for failure in (*run.failures[len(unusable) :], *unusable)]
    raise RunError(
        f"nothing could be detected, the first error of {len(errors)} is: {errors[0]}; once it "
        "is repaired, the same command tries again"
    )


def check_all_covered(run: DetectionRun) -> None:
    """Refuse a result with gaps, where nothing could tell them from ground without objects.

    Raises:
        RunError: some ground was not covered.
    """
    if not run.failures:
        return
    first = run.failures[0]
    raise RunError(
        f"{len(run.failures)} parts of the scenes could not be covered, the first is "
        f"{first.scene}: {first.error}; detect_to_file keeps what was found elsewhere"
    )
