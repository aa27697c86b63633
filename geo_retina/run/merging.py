"""From the blocks of a run to its objects, a row of blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from geo_retina.detections import Detections
from geo_retina.grid import Block, Grid
from geo_retina.merge import in_order, merge_tiles
from geo_retina.options import MergeOptions
from geo_retina.run.detection_run import DetectionRun
from geo_retina.run.ledger.folder import SceneRecord
from geo_retina.run.plan import ScenePlan
from geo_retina.run.provenance import as_counted
from geo_retina.run.tiles_of_interest import on_area
from geo_retina.vector import (
    FIRST_SEEN,
    SCENE_DATE,
    detection_schema,
    detections_table,
    same_days,
    with_days,
    with_probability,
)

if TYPE_CHECKING:
    import pyarrow as pa

_TABLE_ROWS = 1 << 16
"""Polygons made at once; each takes a kilobyte."""


def merged_tables(run: DetectionRun) -> Iterator[pa.Table]:
    """Stream tables of merged detections, by scene and position; holds one at a time."""
    yield from empty_tables(run)
    for scene_plan, found in scene_objects(run):
        yield objects_table(run, scene_plan, found)


def empty_tables(run: DetectionRun) -> Iterator[pa.Table]:
    """Give the columns, as they are those of the first table, which may be the only one."""
    card = run.plan.model.card
    oriented = card.network.boxes == "oriented"
    dates = run.plan.date_columns
    calibrated = bool(card.score_maps)
    yield detection_schema(oriented=oriented, calibrated=calibrated, dates=dates).empty_table()


def scene_objects(run: DetectionRun) -> Iterator[tuple[ScenePlan, Detections]]:
    """Merge each scene of a run and hand out its objects in parts, by scene and position."""
    plan, options = run.plan, run.plan.options
    for record in run.records:
        scene_plan = plan.by_index[record.scene_index]
        for merged in merge_scene(record, scene_plan, options.merge):
            if scene_plan.area_px is not None:
                chosen = on_area(merged, scene_plan.area_px, options.aoi_rule)
                merged = merged.take(chosen)
            for start in range(0, len(merged), _TABLE_ROWS):
                yield scene_plan, merged.part(start, min(start + _TABLE_ROWS, len(merged)))


def objects_table(
    run: DetectionRun, scene_plan: ScenePlan, found: Detections, *, joined_on: Grid | None = None
) -> pa.Table:
    """Place objects of one scene on the ground, as rows of the output.

    Args:
        run: theirs.
        scene_plan: of the scene.
        found: the objects, with ``first_seen`` where the output has it.
        joined_on: the grid they are on, of objects that lie in several files; left out, the
            scene's.
    """
    plan, card = run.plan, run.plan.model.card
    table = detections_table(
        found,
        joined_on or scene_plan.scene.grid,
        classes=card.classes,
        scene=plan.names[scene_plan.index],
        to_file=None if joined_on else scene_plan.scene.grid_to_file,
        crs=plan.crs,
    )
    days = {SCENE_DATE: same_days(scene_plan.scene.day, len(found))}
    if found.first_seen is not None:
        days[FIRST_SEEN] = found.first_seen
    table = with_days(table, {name: days[name] for name in plan.date_columns})
    if card.score_maps:
        table = with_probability(table, card.probabilities(found.scores, found.labels))
    return as_counted(table, scene_plan, plan.crs)


def merge_scene(
    record: SceneRecord, plan: ScenePlan, options: MergeOptions
) -> Iterator[Detections]:
    """Decide what the blocks left open, and hand out everything in order.

    Memory holds what is open in the whole scene, which grows with the seams between blocks, and
    what is settled in one row of blocks.

    Args:
        record: the scene's blocks, each merged in itself.
        plan: the plan that its blocks are of.
        options: those that the blocks were merged with.

    Yields:
        The scene's objects by rows of blocks; one after the other they are the merge of
        everything at once, ``in_order``, whatever the size of the blocks.
    """
    rest = merge_tiles(record.undecided(), plan.tiles, options)
    row_of_rest = rest.tile // plan.tiles.cols
    found = [plan.block(result.block) for result in record.results]
    for start, stop in _bands(found):
        blocks = {block.index for block in found if start <= block.tile_rows.start < stop}
        decided = rest.take((row_of_rest >= start) & (row_of_rest < stop))
        yield in_order(Detections.concat([record.settled(blocks), decided]))


def _bands(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """Find the first row of tiles and the one after the last of each band that no block leaves.

    Rows of blocks, where these are a lattice; blocks of an area may overlap in their rows.
    """
    bands: list[tuple[int, int]] = []
    for rows in sorted((block.tile_rows.start, block.tile_rows.stop) for block in blocks):
        if bands and rows[0] < bands[-1][1]:
            bands[-1] = bands[-1][0], max(bands[-1][1], rows[1])
        else:
            bands.append(rows)
    return bands
