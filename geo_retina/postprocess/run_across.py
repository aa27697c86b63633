"""The scenes of one run, merged with each other while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from geo_retina.boxes import shift
from geo_retina.detections import Detections
from geo_retina.files import scratch_beside
from geo_retina.postprocess.across import AcrossScenes, Found, merge_across
from geo_retina.postprocess.combining import without_ground
from geo_retina.postprocess.lattices import Lattices, lattices_of
from geo_retina.run import (
    DetectionRun,
    ScenePlan,
    empty_tables,
    explain,
    merged_tables,
    objects_table,
    scene_objects,
)
from geo_retina.vector import Companions, same_days


@dataclass(frozen=True, eq=False)
class RunOutput:
    """What a run writes.

    Attributes:
        tables: its objects, to be read once.
        companions: what explains them.
    """

    tables: Iterator[pa.Table]
    companions: Companions


@contextmanager
def run_output(run: DetectionRun, beside: Path) -> Iterator[RunOutput]:
    """Merge what a run found: scene by scene, and across scenes where that is asked for.

    Args:
        run: that was carried out.
        beside: a file beside which there is space for what waits to be decided.
    """
    if not run.plan.options.across_scenes:
        yield RunOutput(merged_tables(run), explain(run))
        return
    with scratch_beside(beside) as scratch:
        work = _RunAcross.of(run, scratch)
    about = explain(run)
    assert about.scanned is not None  # a run always says
    missing = without_ground(about.not_covered, about.scanned)
    yield RunOutput(work.tables(), replace(about, not_covered=missing))


@dataclass(frozen=True, eq=False)
class _RunAcross:
    """All scenes of a run, and what became of their detections.

    Attributes:
        run: that was carried out.
        plans: scenes of which anything was scanned.
        lattices: that they are on.
        across: what became of their detections, in the order of ``scene_objects``.
    """

    run: DetectionRun
    plans: list[ScenePlan]
    lattices: Lattices
    across: AcrossScenes

    @classmethod
    def of(cls, run: DetectionRun, scratch: Path) -> _RunAcross:
        """Merge each scene, and these with each other."""
        plans = [
            run.plan.by_index[record.scene_index]
            for record in run.records
            if any(result.error is None for result in record.results)
        ]
        lattices = lattices_of([each.scene.grid for each in plans], np.arange(len(plans)))
        number = {each.index: k for k, each in enumerate(plans)}

        def read() -> Iterator[Detections]:
            for plan, found in scene_objects(run):
                scene = number[plan.index]
                x, y = lattices.scenes.windows[scene, :2].tolist()
                yield _dated(_moved(found, scene, x, y), run, plan)

        across = merge_across([Found(read)], lattices, run.plan.options.merge, scratch)
        return cls(run, plans, lattices, across)

    def tables(self) -> Iterator[pa.Table]:
        """Stream the objects that stay, scene by scene, then those joined across scenes."""
        yield from empty_tables(self.run)
        row = 0
        for plan, found in scene_objects(self.run):
            stays = self.across.stays(row, row + len(found))
            found = _dated(found, self.run, plan)
            if found.first_seen is not None:
                found = replace(found, first_seen=self.across.first_seen(found.first_seen, row))
            row += len(found)
            yield objects_table(self.run, plan, found.take(stays))
        joined = self.across.joined
        for scene in np.unique(joined.tile).tolist():
            own = joined.take(joined.tile == scene)
            own = replace(own, tile=np.full(len(own), -1))  # no one tile
            grid = self.lattices.grid_of(scene)
            yield objects_table(self.run, self.plans[scene], own, joined_on=grid)


def _dated(found: Detections, run: DetectionRun, plan: ScenePlan) -> Detections:
    """Give detections the day of their scene, where any scene of the run has one."""
    if not run.plan.date_columns:
        return found
    return replace(found, first_seen=same_days(plan.scene.day, len(found)))


def _moved(found: Detections, scene: int, x: float, y: float) -> Detections:
    """Move detections to the pixels of a lattice, in which their scene begins at x, y."""
    rotated_px = found.rotated_px
    if rotated_px is not None:
        rotated_px = rotated_px + np.array([x, y, 0, 0, 0])
    tile = np.full(len(found), scene)
    return replace(found, boxes_px=shift(found.boxes_px, x, y), rotated_px=rotated_px, tile=tile)
