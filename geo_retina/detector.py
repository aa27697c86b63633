"""The public verbs: ``detect`` in memory, ``detect_to_file`` streaming to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj

from geo_retina.boxes import to_polygons
from geo_retina.engine import choose_device
from geo_retina.errors import OptionError, RunError
from geo_retina.model import Model, load_model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import (
    Failure,
    Ledger,
    PartRecord,
    Progress,
    ScenePlan,
    SceneRecord,
    manifest_for,
    merge_scene,
    pack_units,
    plan_scenes,
    run_units,
)
from geo_retina.scene import absolute, find_scenes, fingerprint, scene_names
from geo_retina.vector import (
    check_output,
    detections_table,
    file_crs,
    outline_table,
    to_geodataframe,
    write_vector,
)

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa

_TABLE_ROWS = 1 << 16
"""Polygons made at once; each takes a kilobyte."""

FALLBACK_CRS = "EPSG:4326"
"""Where detections go whose scenes are in several CRSs."""


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        out: the file written.
        detections: objects in it.
        counts: objects per class.
        crs: CRS of the file.
        scenes: scenes detected, in whole or in part.
        pixels: pixels of the ground that was covered, each counted once.
        seconds: wall time.
        tiles: tiles that went through the network.
        skipped_tiles: tiles without a valid pixel.
        truncated_tiles: tiles that reached the limit of candidates or detections.
        joined: objects made of fragments at seams.
        reduced_batch: tiles through the network at once, where a device's memory made that fewer
            than planned; else None.
        failures: ground that is not covered.
    """

    out: Path
    detections: int
    counts: dict[str, int]
    crs: str
    scenes: int
    pixels: int
    seconds: float
    tiles: int
    skipped_tiles: int
    truncated_tiles: int
    joined: int
    reduced_batch: int | None
    failures: tuple[Failure, ...]

    @property
    def complete(self) -> bool:
        """Whether all ground was covered."""
        return not self.failures


def detect(
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    options: DetectOptions | None = None,
    run: RunOptions | None = None,
    *,
    crs: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> gpd.GeoDataFrame:
    """Find objects, in memory.

    Args:
        scenes: files, folders or globs.
        model: a model, a model file, or the name of a bundled model.
        options: what changes the result.
        run: how it is carried out.
        crs: CRS of the result; left out, the scenes' own, or EPSG:4326 where they differ.
        progress: called after every finished unit of work.

    Returns:
        One row per object in the order of the scenes, then of position: geometry, class,
        score, scene, tile, cut, joined, and the box in the file's own pixels.

    Raises:
        GeoRetinaError: a scene or the model cannot be used, or some ground was not covered;
            ``detect_to_file`` keeps what was found elsewhere.
    """
    options, run = options or DetectOptions(), run or RunOptions()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = _prepare(scenes, model, options, run, folder=Path(folder) / "run", crs=crs)
        stack.callback(work.ledger.close)
        work.carry_out(progress)
        tables = list(work.tables())
        if work.failures:
            first = work.failures[0]
            raise RunError(
                f"{len(work.failures)} parts of the scenes could not be covered, the first is "
                f"{first.scene}: {first.error}; detect_to_file keeps what was found elsewhere"
            )
    return to_geodataframe(tables, work.crs)


def detect_to_file(  # noqa: PLR0913 - what, with what, where to, and two option values
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    out: str | Path,
    options: DetectOptions | None = None,
    run: RunOptions | None = None,
    *,
    crs: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Find objects and write them, scene by scene, to a vector file.

    What is finished is kept in the folder ``OUT.run`` until the file is written, so that the
    same call goes on where an interrupted one stopped.

    Args:
        scenes: files, folders or globs.
        model: a model, a model file, or the name of a bundled model.
        out: file ending .gpkg, .shp, .geojson or .parquet.
        options: what changes the result.
        run: how it is carried out.
        crs: CRS of the file; left out, the scenes' own, or EPSG:4326 where they differ.
        progress: called after every finished unit of work.

    Returns:
        What was done; ``failures`` names ground that is not covered, which is also written to
        ``OUT.not_covered.gpkg``.

    Raises:
        GeoRetinaError: nothing could be done: no scene or model can be used, every block
            failed, the output exists or cannot be written, or an earlier run of it differs.
            An older output is left as it was.
    """
    start = time.perf_counter()
    out = Path(out)
    options, run = options or DetectOptions(), run or RunOptions()
    folder = out.with_name(f"{out.name}.run")
    found = None if run.restart else Ledger.peek(folder)
    own = found is not None and found.get("written") == fingerprint(str(out))
    check_output(out, overwrite=run.overwrite or own)
    if found is not None:
        run = dataclasses.replace(run, block_px=found["block_px"])
    work = _prepare(scenes, model, options, run, folder=folder, crs=crs)
    with contextlib.closing(work.ledger):
        if not work.carry_out(progress):
            raise work.failed_everywhere()
        overwrite = run.overwrite or own
        rows = write_vector(out, work.tables(), crs=work.crs, overwrite=overwrite)
        _write_not_covered(out, work.failures, work.crs)
        work.ledger.log.info("wrote %d objects to %s", rows, out)
        if work.failures:
            work.ledger.update({"written": fingerprint(str(out))})
        elif not run.keep:
            work.ledger.remove()
    return work.report(out, rows, time.perf_counter() - start)


@dataclass(eq=False)
class _Work:
    """One run, from its plan to its tables; tallies fill as the tables are read."""

    model: Model
    options: DetectOptions
    run: RunOptions
    plans: dict[int, ScenePlan]
    failures: list[Failure]
    ledger: Ledger
    crs: pyproj.CRS

    def __post_init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self.reduced_batch: int | None = None
        self.counts = np.zeros(len(self.model.card.classes), np.int64)

    def carry_out(self, progress: Callable[[Progress], None] | None) -> int:
        """Detect every block that the ledger does not hold yet; counts those it holds then."""
        done = self.ledger.parts_done()
        finished = len(done)
        todo = [
            part
            for plan in self.plans.values()
            for part in plan.parts
            if (part.scene_index, part.block.index) not in done
        ]
        units = pack_units(todo, self.run.block_px, first=self.ledger.next_unit())
        log = self.ledger.log
        log.info("%d blocks to do in %d units, %d are done", len(todo), len(units), finished)
        for failure in self.failures:
            log.warning("%s cannot be used: %s", failure.scene, failure.error)
        results = run_units(
            units,
            self.model,
            self.options,
            self.run,
            progress,
            before_px=self._pixels(done),
        )
        # Closed at once when something goes wrong here, so that workers stop.
        with contextlib.closing(results):
            for unit, records in results:
                self.ledger.write(unit, records)
                self._log(unit, records)
                finished += sum(record.error is None for record in records)
        return finished

    def _pixels(self, parts: Set[tuple[int, int]]) -> int:
        """Pixels of ground of blocks, by scene and block, each counted once."""
        cores = [
            self.plans[scene].tiles.core_of(self.plans[scene].blocks[block])
            for scene, block in parts
            if scene in self.plans
        ]
        return sum(core.height * core.width for core in cores)

    def _log(self, unit: int, records: list[PartRecord]) -> None:
        log = self.ledger.log
        found = sum(len(each.detections) + len(each.undecided) for each in records)
        log.info("unit %d: %d blocks, %d detections", unit, len(records), found)
        for record in records:
            path = self.plans[record.scene_index].scene.path
            if record.error is not None:
                log.warning("%s, block %d: %s", path, record.block, record.error)
            if record.reduced_batch is not None:
                log.warning("device memory: batches of %d tiles", record.reduced_batch)

    def failed_everywhere(self) -> RunError:
        """Where every block failed there is no result, and an older one is worth more."""
        errors = [part.error for record in self.ledger.scenes() for part in record.parts]
        errors += [failure.error for failure in self.failures]
        return RunError(
            f"nothing could be detected, the first error of {len(errors)} is: {errors[0]}; once it "
            "is mended, the same command tries again"
        )

    def tables(self) -> Iterator[pa.Table]:
        """Tables of merged detections, by scene and position; holds one at a time."""
        planned = list(self.plans.values())
        names = scene_names([plan.scene.path for plan in planned])
        name_of = {plan.index: name for plan, name in zip(planned, names, strict=True)}
        for record in self.ledger.scenes():
            plan = self.plans.get(record.scene_index)
            if plan is None:  # it was readable when this run began, and is not now
                continue
            self._count(record, plan)
            for merged in merge_scene(record, plan, self.options.merge):
                self.counts += np.bincount(merged.labels, minlength=len(self.counts))
                self.tally["joined"] += int(merged.joined.sum())
                for start in range(0, len(merged), _TABLE_ROWS):
                    yield detections_table(
                        merged.part(start, min(start + _TABLE_ROWS, len(merged))),
                        plan.scene.grid,
                        classes=self.model.card.classes,
                        scene=name_of[plan.index],
                        to_file=plan.scene.grid_to_file,
                        crs=self.crs,
                    )

    def _count(self, record: SceneRecord, plan: ScenePlan) -> None:
        for part in record.parts:
            core = plan.tiles.core_of(plan.blocks[part.block])
            if part.error is not None:
                self.failures.append(Failure(plan.scene.path, part.error, plan, core))
                continue
            self.tally["pixels"] += core.height * core.width
            for name in ("tiles", "skipped", "truncated"):
                self.tally[name] += getattr(part, name)
            if part.reduced_batch is not None:
                self.reduced_batch = min(part.reduced_batch, self.reduced_batch or (1 << 30))
        self.tally["scenes"] += any(part.error is None for part in record.parts)

    def report(self, out: Path, rows: int, seconds: float) -> RunReport:
        """Sum up, once the tables have been read."""
        crs = file_crs(out, self.crs) or self.crs
        authority = crs.to_authority()
        return RunReport(
            out=out,
            detections=rows,
            counts=dict(zip(self.model.card.classes, self.counts.tolist(), strict=True)),
            crs=":".join(authority) if authority else crs.name,
            scenes=self.tally["scenes"],
            pixels=self.tally["pixels"],
            seconds=seconds,
            tiles=self.tally["tiles"],
            skipped_tiles=self.tally["skipped"],
            truncated_tiles=self.tally["truncated"],
            joined=self.tally["joined"],
            reduced_batch=self.reduced_batch,
            failures=tuple(self.failures),
        )


def _prepare(
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    options: DetectOptions,
    run: RunOptions,
    *,
    folder: Path,
    crs: str | None,
) -> _Work:
    """Check everything that can be checked before the first block, then open the ledger."""
    if run.scheduler is None:
        choose_device(run.device)
    loaded = model if isinstance(model, Model) else load_model(model)
    paths = find_scenes(scenes)
    full_paths = [absolute(path) for path in paths]
    # Workers of a cluster may run in another folder.
    seen = paths if run.scheduler is None else full_paths
    plans, failures = plan_scenes(seen, loaded.card, options, run)
    output_crs = _choose_crs(crs, plans)
    manifest = manifest_for(
        full_paths,
        {full_paths[plan.index]: fingerprint(plan.scene.path) for plan in plans},
        loaded.fingerprint,
        options,
        run.block_px,
    )
    ledger = Ledger.open(folder, manifest, restart=run.restart)
    by_index = {plan.index: plan for plan in plans}
    return _Work(loaded, options, run, by_index, failures, ledger, output_crs)


def _choose_crs(wanted: str | None, plans: Sequence[ScenePlan]) -> pyproj.CRS:
    """The CRS asked for, the scenes' common one, or the fallback."""
    if wanted is not None:
        try:
            return pyproj.CRS.from_user_input(wanted)
        except pyproj.exceptions.CRSError:
            raise OptionError(
                f"{wanted} is not a CRS that PROJ knows, wanted for example EPSG:4326"
            ) from None
    found = [plan.scene.grid.crs for plan in plans]
    if all(crs == found[0] for crs in found):
        assert found[0] is not None  # scenes without a CRS are refused
        return found[0]
    return pyproj.CRS.from_user_input(FALLBACK_CRS)


def not_covered_path(out: Path) -> Path:
    """Where the ground that a run did not cover is written."""
    return out.with_name(f"{out.name}.not_covered.gpkg")


def _write_not_covered(out: Path, failures: Sequence[Failure], crs: pyproj.CRS) -> None:
    path = not_covered_path(out)
    if not failures:
        path.unlink(missing_ok=True)  # of an earlier try of this output
        return
    tables: list[Any] = []
    for failure in failures:
        polygons = np.array([None], dtype=object)
        source = crs
        if failure.plan is not None:
            grid = failure.plan.scene.grid
            window = failure.window or grid.window
            polygons = to_polygons(np.array([window.box_px], np.float64), grid)
            source = grid.crs or crs
        columns = {"scene": [failure.scene], "error": [failure.error]}
        tables.append(outline_table(polygons, columns, source, crs))
    write_vector(path, tables, crs=crs, overwrite=True, layer="not_covered")
