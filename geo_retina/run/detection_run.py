"""One run: what was planned is carried out, recorded, merged and told."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj

from geo_retina.engine import choose_device
from geo_retina.errors import OptionError, RunError
from geo_retina.forks import check_forked
from geo_retina.geodesy import crs_label
from geo_retina.grid import Block
from geo_retina.model import Model, load_model
from geo_retina.nn.tta import has_tta
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run.block_results import BlockResult
from geo_retina.run.blocks import Progress, Tally, run_task_batches
from geo_retina.run.fitting import notes_on, suited
from geo_retina.run.ledger import Ledger, SceneRecord
from geo_retina.run.manifest import manifest_for
from geo_retina.run.merging import merge_scene
from geo_retina.run.output_crs import choose_output_crs
from geo_retina.run.plan import BlockJob, Failure, ScenePlan, pack_task_batches, plan_scenes
from geo_retina.run.provenance import as_counted, describe_run, not_covered_table, scanned_table
from geo_retina.run.report import RunReport
from geo_retina.run.tiles_of_interest import missing_tiles, on_area
from geo_retina.scene import (
    Scene,
    ValueMap,
    absolute,
    find_scenes,
    fingerprint,
    mosaic_name,
    scene_names,
)
from geo_retina.vector import Companions, check_has_place, detections_table, file_crs, read_area

if TYPE_CHECKING:
    import pyarrow as pa

_TABLE_ROWS = 1 << 16
"""Polygons made at once; each takes a kilobyte."""


@dataclass(eq=False)
class DetectionRun:
    """One run, from its plan to its tables; tallies fill as the tables are read."""

    model: Model
    options: DetectOptions
    run: RunOptions
    plans: dict[int, ScenePlan]
    failures: list[Failure]
    ledger: Ledger
    crs: pyproj.CRS | None

    def __post_init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self.around: defaultdict[int, list[Block]] = defaultdict(list)
        self.reduced_batch: int | None = None
        self.counts = np.zeros(len(self.model.card.classes), np.int64)

    @property
    def scenes(self) -> list[Scene]:
        """Every scene that is looked at, those of mosaics one by one."""
        return _scenes(self.plans.values())

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to detect: not where all scenes lie outside the area."""
        return any(not plan.is_outside for plan in self.plans.values())

    def carry_out(self, progress: Callable[[Progress], None] | None) -> int:
        """Detect every block that the ledger does not hold yet; counts those it holds then."""
        done = self.ledger.blocks_done()
        self.ledger.log.info("%d blocks are done", len(done))
        for failure in self.failures:
            self.ledger.log.warning("%s cannot be used: %s", failure.scene, failure.error)
        finished = len(done)
        todo = [
            part
            for plan in self.plans.values()
            for part in plan.jobs
            if (part.scene_index, part.block.index) not in done
        ]
        asked: set[tuple[int, int]] = set()
        tally = Tally(self._pixels(done), progress)
        while True:
            finished += self._detect(todo, tally)
            asked |= {(part.scene_index, part.block.index) for part in todo}
            needed = self._needed_at_borders()
            todo = [p for p in needed if (p.scene_index, p.block.index) not in asked]
            if not todo:
                return finished

    def _detect(self, todo: list[BlockJob], tally: Tally) -> int:
        """Detect some blocks and record them; counts those that succeeded."""
        finished = 0
        task_batches = pack_task_batches(
            todo, self.run.block_px, first=self.ledger.next_task_batch()
        )
        log = self.ledger.log
        log.info("%d blocks to do in %d units", len(todo), len(task_batches))
        results = run_task_batches(task_batches, self.model, self.options, self.run, tally)
        # Closed at once when something goes wrong here, so that workers stop.
        with contextlib.closing(results):
            for task_batch, records in results:
                self.ledger.write(task_batch, records)
                self._log(task_batch, records)
                finished += sum(record.error is None for record in records)
        return finished

    def _needed_at_borders(self) -> list[BlockJob]:
        """Find tiles outside the area of interest that decide about objects at its border."""
        if self.options.aoi is None:
            return []
        parts = []
        for record in self.ledger.scenes():
            plan = self.plans.get(record.scene_index)
            if plan is None or plan.area_px is None:
                continue
            known = np.zeros((plan.tiles.rows, plan.tiles.cols), np.bool_)
            for done in record.results:
                block = plan.block(done.block)
                rows, cols = block.tile_rows, block.tile_cols
                known[rows.start : rows.stop, cols.start : cols.stop] |= done.error is None
            tiles = missing_tiles(
                record.undecided(), plan.tiles, known, plan.area_px, self.options.merge
            )
            parts += [plan.job(plan.block(len(plan.blocks) + tile)) for tile in tiles.tolist()]
        return parts

    def _pixels(self, parts: Set[tuple[int, int]]) -> int:
        """Count pixels of ground of blocks, by scene and block, each once."""
        cores = [
            self.plans[scene].tiles.core_of(self.plans[scene].block(block))
            for scene, block in parts
            if scene in self.plans
        ]
        return sum(core.height * core.width for core in cores)

    def _log(self, task_batch: int, records: list[BlockResult]) -> None:
        log = self.ledger.log
        found = sum(len(each.detections) + len(each.undecided) for each in records)
        log.info("unit %d: %d blocks, %d detections", task_batch, len(records), found)
        for record in records:
            path = self.plans[record.scene_index].scene.path
            if record.error is not None:
                log.warning("%s, block %d: %s", path, record.block, record.error)
            if record.reduced_batch is not None:
                log.warning("device memory: batches of %d tiles", record.reduced_batch)

    def failed_everywhere(self) -> RunError:
        """Make the error for a run of which every block failed; an older result is worth more."""
        errors = [part.error for record in self.ledger.scenes() for part in record.results]
        errors += [failure.error for failure in self.failures]
        return RunError(
            f"nothing could be detected, the first error of {len(errors)} is: {errors[0]}; once it "
            "is repaired, the same command tries again"
        )

    def tables(self) -> Iterator[pa.Table]:
        """Stream tables of merged detections, by scene and position; holds one at a time."""
        name_of = {plan.index: name for name, plan in self.by_name.items()}
        for record in self.ledger.scenes():
            plan = self.plans.get(record.scene_index)
            if plan is None:  # it was readable when this run began, and is not now
                continue
            self._count(record, plan)
            for merged in merge_scene(record, plan, self.options.merge):
                if plan.area_px is not None:
                    rule = self.options.aoi_rule
                    merged = merged.take(on_area(merged.boxes_px, plan.area_px, rule))
                self.counts += np.bincount(merged.labels, minlength=len(self.counts))
                self.tally["joined"] += int(merged.joined.sum())
                for start in range(0, len(merged), _TABLE_ROWS):
                    table = detections_table(
                        merged.part(start, min(start + _TABLE_ROWS, len(merged))),
                        plan.scene.grid,
                        classes=self.model.card.classes,
                        scene=name_of[plan.index],
                        to_file=plan.scene.grid_to_file,
                        crs=self.crs,
                    )
                    yield as_counted(table, plan, self.crs)

    def _count(self, record: SceneRecord, plan: ScenePlan) -> None:
        for part in record.results:
            core = plan.tiles.core_of(plan.block(part.block))
            if part.error is not None:
                self.failures.append(Failure(plan.scene.path, part.error, plan, core))
                self.tally["failed"] += len(plan.tiles.tiles_of(plan.block(part.block)))
                continue
            self.tally["pixels"] += core.height * core.width
            for name in ("tiles", "skipped", "truncated"):
                self.tally[name] += getattr(part, name)
            if part.reduced_batch is not None:
                self.reduced_batch = min(part.reduced_batch, self.reduced_batch or (1 << 30))
        # Single tiles that were needed beside the area may show scenes that lie outside it.
        self.around[plan.index] = [
            plan.block(part.block) for part in record.results if part.block >= len(plan.blocks)
        ]
        done = [plan.block(part.block) for part in record.results if part.error is None]
        self.tally["scenes"] += len(plan.shown_by(done))

    @property
    def by_name(self) -> dict[str, ScenePlan]:
        """The plans, by the name that their scenes have in the output."""
        planned = list(self.plans.values())
        if self.options.mosaic:
            return {plan.scene.name: plan for plan in planned}
        return dict(zip(scene_names([p.scene.path for p in planned]), planned, strict=True))

    def companions(self) -> Companions:
        """Build the layers and metadata that explain the detections; read the tables before."""
        return Companions(
            scanned=scanned_table(self.by_name, self.failures, self.crs),
            not_covered=not_covered_table(self.failures, self.crs),
            metadata=describe_run(self.model, self.options, [scene.path for scene in self.scenes]),
        )

    def report(self, outs: Sequence[Path], rows: int, seconds: float) -> RunReport:
        """Sum up, once the tables have been read."""
        out = outs[0]
        crs = file_crs(out, self.crs) if self.crs else None
        scenes = self.scenes
        return RunReport(
            out=out,
            detections=rows,
            counts=dict(zip(self.model.card.classes, self.counts.tolist(), strict=True)),
            crs=None if crs is None else crs_label(crs),
            scenes=self.tally["scenes"],
            pixels=self.tally["pixels"],
            seconds=seconds,
            tiles=self.tally["tiles"],
            skipped_tiles=self.tally["skipped"],
            truncated_tiles=self.tally["truncated"],
            outside_tiles=sum(len(plan.tiles) for plan in self.plans.values())
            - self.tally["tiles"]
            - self.tally["skipped"]
            - self.tally["failed"],
            outside_scenes=sum(
                len(plan.scenes) - len(plan.shown_by([*plan.blocks, *self.around[plan.index]]))
                for plan in self.plans.values()
            ),
            joined=self.tally["joined"],
            reduced_batch=self.reduced_batch,
            failures=tuple(self.failures),
            outs=tuple(outs),
            notes=notes_on(scenes),
            stretches=_stretches(scenes) if self.options.stretch else {},
        )


def prepare(
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    options: DetectOptions,
    run: RunOptions,
    *,
    outs: Sequence[Path],
    crs: str | None,
) -> DetectionRun:
    """Check everything that can be checked before the first block, then open the ledger.

    Args:
        scenes: files, folders, globs, lists or STAC documents.
        model: a model, a model file, or the name of a bundled model.
        options: what changes the result.
        run: how it is carried out.
        outs: files to be written; the ledger's folder lies beside the first.
        crs: CRS of the result; None for the scenes' own.

    Returns:
        The work, whose ledger is to be closed.

    Raises:
        GeoRetinaError: nothing can be done, or an earlier run of the output differs.
    """
    if run.scheduler is None:
        check_forked()
        choose_device(run.device)
    loaded = model if isinstance(model, Model) else load_model(model)
    options = suited(options, loaded.card)
    if not has_tta(loaded.network.anchor_grid, options.tta):
        raise OptionError(
            f"DetectOptions.tta is {options.tta}, but the anchors of model {loaded.card.name} "
            "are not the same in all these views; leave it at 1"
        )
    paths = find_scenes(scenes, asset=options.asset)
    full_paths = [absolute(path) for path in paths]
    # Workers of a cluster may run in another folder.
    seen = paths if run.scheduler is None else full_paths
    plans, failures = plan_scenes(seen, loaded.card, options, run, name=mosaic_name(scenes))
    unfit = {failure.scene for failure in failures}
    plans, output_crs = choose_output_crs(crs, plans, failures)
    for out in outs:
        check_has_place(out, output_crs)
    stretches = _stretches(_scenes(plans)) if options.stretch else {}
    manifest = manifest_for(
        full_paths,
        {
            full: _version(path, stretches.get(path))
            for full, path in zip(full_paths, seen, strict=True)
            if path not in unfit
        },
        loaded.fingerprint,
        _by_content(options),
        run.block_px,
    )
    if options.mosaic:  # its grid and tiles are those of just these scenes
        manifest["fixed"]["mosaic_members"] = {
            full: "left out" if path in unfit else "used"
            for full, path in zip(full_paths, seen, strict=True)
        }
    ledger = Ledger.open(run_folder(outs[0]), manifest, restart=run.restart)
    by_index = {plan.index: plan for plan in plans}
    return DetectionRun(loaded, options, run, by_index, failures, ledger, output_crs)


def run_folder(out: Path) -> Path:
    """Name the folder where the ledger of an output lies."""
    return out.with_name(f"{out.name}.run")


def _by_content(options: DetectOptions) -> DetectOptions:
    """Replace the name of the area's file in the options by a hash of what it holds."""
    if options.aoi is None:
        return options
    area = read_area(options.aoi, options.aoi_layer)
    return dataclasses.replace(options, aoi=area.fingerprint, aoi_layer=None)


def _version(path: str, values: ValueMap | None) -> dict[str, Any]:
    """Describe what must be the same of a scene when a run goes on: the file, and its stretch."""
    version = fingerprint(path)
    return version if values is None else {**version, "values": dataclasses.asdict(values)}


def _scenes(plans: Iterable[ScenePlan]) -> list[Scene]:
    return [scene for plan in plans for scene in plan.scenes]


def _stretches(scenes: Sequence[Scene]) -> dict[str, ValueMap]:
    return {scene.path: scene.values for scene in scenes if scene.values is not None}
