"""A run that was carried out: what became of its blocks, and its totals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from geo_retina.errors import RunError
from geo_retina.grid import area_of
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.ledger.folder import SceneRecord
from geo_retina.run.plan import Failure, ScenePlan
from geo_retina.run.run_plan import RunPlan
from geo_retina.run.tasks.tally import Workload
from geo_retina.scene import LostPart


@dataclass(frozen=True)
class Totals:
    """What all blocks of a run come to.

    Attributes:
        blocks: that were covered, in whole or in part.
        scenes: detected in whole or in part; of a mosaic, its scenes.
        pixels: of the ground that was covered, each counted once.
        tiles: that went through the network.
        skipped_tiles: without a valid pixel.
        truncated_tiles: that reached the limit of candidates or detections.
        outside_tiles: that were not scanned, as they lie outside the area of interest.
        outside_scenes: that lie outside it as a whole.
        reduced_batch: tiles through the network at once, where memory made that fewer.
        out_of_range_tiles: with values far outside those that integers were measured on.
        not_covered_pixels: of the ground of blocks that failed, in whole or in part.
        km2: ground that was covered; None where a scene has no resolution in metres.
        screened_tiles: at which a first look found nothing, so that there was no other one.
        screened_pixels: of the ground that these own; they count as covered.
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
    not_covered_pixels: int = 0
    out_of_range_tiles: int = 0
    km2: float | None = None
    screened_tiles: int = 0
    screened_pixels: int = 0


@dataclass(frozen=True, eq=False)
class DetectionRun:
    """A run that was carried out; its detections lie in the ledger's files until they are merged.

    Attributes:
        plan: what was to be done.
        records: what became of the blocks, by scene in order.
        failures: ground that is not covered: scenes that cannot be used, then blocks, or what of
            them could not be read.
        totals: what all blocks come to. Objects are counted when they are merged and written.
        work: where the time of the workers went.
    """

    plan: RunPlan
    records: tuple[SceneRecord, ...]
    failures: tuple[Failure, ...]
    totals: Totals
    work: Workload


def total(plan: RunPlan, records: Iterable[SceneRecord], work: Workload) -> DetectionRun:
    """Sum up what became of the blocks of a run.

    Args:
        plan: of the run.
        records: of its ledger; those of a scene that was readable when the run began, and is not
            now, are left out.
        work: where the time of the workers went.
    """
    known = tuple(record for record in records if record.scene_index in plan.by_index)
    failures = [*plan.unusable]
    for record in known:
        scene_plan = plan.by_index[record.scene_index]
        for result in record.results:
            for part in _lost_ground(result, scene_plan):
                failures.append(Failure(scene_plan.scene.path, part.error, scene_plan, part.window))
    return DetectionRun(plan, known, tuple(failures), _totals(plan, known), work)


def _lost_ground(result: BlockResult, plan: ScenePlan) -> list[LostPart]:
    """List what of a block's own ground is not covered; the rest of its window is others'."""
    if result.is_whole:
        return []
    core = plan.tiles.core_of(plan.block(result.block))
    if result.error is not None:
        return [LostPart(core, result.error)]
    own = [(part.window.within(core), part.error) for part in result.lost]
    return [LostPart(window, error) for window, error in own if window is not None]


def _unread_tiles(result: BlockResult, plan: ScenePlan) -> int:
    """Count the tiles of a block of which nothing could be read."""
    tiles = plan.tiles.tiles_of(plan.block(result.block)) if result.lost else []
    windows = [part.window for part in result.lost]
    hidden = [filter(None, (each.within(tile.window) for each in windows)) for tile in tiles]
    return sum(
        tile.index not in result.screened
        and area_of(parts) == tile.window.height * tile.window.width
        for tile, parts in zip(tiles, hidden, strict=True)
    )


def _totals(plan: RunPlan, records: Iterable[SceneRecord]) -> Totals:
    blocks = scenes = pixels = lost = tiles = skipped = truncated = failed_tiles = 0
    out_of_range, km2, screened, screened_px = 0, 0.0, 0, 0
    batches = []
    # Single tiles that were needed beside the area may show scenes that lie outside it.
    inside = {each.index: [*each.blocks] for each in plan.scene_plans}
    for record in records:
        scene_plan = plan.by_index[record.scene_index]
        done, before = [], pixels
        for result in record.results:
            block = scene_plan.block(result.block)
            if result.block >= len(scene_plan.blocks):
                inside[scene_plan.index].append(block)
            core = scene_plan.tiles.core_of(block)
            lost_here = area_of(part.window for part in _lost_ground(result, scene_plan))
            lost += lost_here
            if result.error is not None:
                failed_tiles += len(block.tile_rows) * len(block.tile_cols)
                continue
            done.append(block)
            pixels += core.height * core.width - lost_here
            unread = _unread_tiles(result, scene_plan)
            failed_tiles += unread
            tiles += result.tiles
            skipped += result.skipped - unread
            truncated += result.truncated
            out_of_range += result.out_of_range
            screened += len(result.screened)
            screened_px += _owned_px(result, scene_plan)
            batches += [] if result.reduced_batch is None else [result.reduced_batch]
        blocks += len(done)
        km2 += (pixels - before) * (scene_plan.scene.grid.gsd_m or math.nan) ** 2 / 1e6
        scenes += len(scene_plan.shown_by(done))
    planned_tiles = sum(len(each.tiles) for each in plan.scene_plans)
    return Totals(
        blocks=blocks,
        scenes=scenes,
        pixels=pixels,
        tiles=tiles,
        skipped_tiles=skipped,
        truncated_tiles=truncated,
        outside_tiles=planned_tiles - tiles - skipped - screened - failed_tiles,
        outside_scenes=sum(
            len(each.scenes) - len(each.shown_by(inside[each.index])) for each in plan.scene_plans
        ),
        reduced_batch=min(batches, default=None),
        not_covered_pixels=lost,
        out_of_range_tiles=out_of_range,
        km2=km2 if math.isfinite(km2) else None,
        screened_tiles=screened,
        screened_pixels=screened_px,
    )


def _owned_px(result: BlockResult, plan: ScenePlan) -> int:
    """Count the pixels that the tiles own which were screened out of a block."""
    x_min, y_min, x_max, y_max = plan.tiles.cores_px(np.array(result.screened, np.int64)).T
    return int(((x_max - x_min) * (y_max - y_min)).sum())


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
