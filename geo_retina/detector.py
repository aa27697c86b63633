"""The public verbs: ``detect`` in memory, ``detect_to_file`` to a file, at once or in parts."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.errors import OptionError
from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.postprocess.run_across import run_output
from geo_retina.run import (
    DetectionRun,
    FrozenPlan,
    Ledger,
    Outputs,
    Part,
    PartReport,
    Progress,
    RunReport,
    carry_out,
    carry_out_part,
    check_all_covered,
    check_any_covered,
    find_earlier,
    find_parts,
    freeze_plan,
    gather_into,
    leave_ledger,
    limit_notes,
    notes_on,
    open_ledger,
    open_part,
    plan_part,
    plan_run,
    remove_parts,
    report_on,
    report_on_part,
    run_folder,
)
from geo_retina.scene import mosaic_name
from geo_retina.vector import Target, Written, check_target, to_geodataframe, write_outputs

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "FrozenPlan",
    "Part",
    "PartReport",
    "RunReport",
    "detect",
    "detect_part",
    "detect_to_file",
    "freeze_run",
    "gather_parts",
]


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
        scenes: files, folders, globs, lists or STAC documents.
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

    Warns:
        UserWarning: a tile reached a limit and may hold more objects, a batch did not fit into
            the device's memory, or a scene has no CRS.

    Examples:
        >>> from geo_retina import DetectOptions, RunOptions, detect
        >>> found = detect("scene.tif", "demo", DetectOptions(score=0.6), RunOptions(device="cpu"))
        >>> sorted(found["class"].unique())
        ['tree', 'vehicle']
    """
    options, run = options or DetectOptions(), run or RunOptions()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(Path(folder) / "run")
        plan = plan_run(scenes, model, options, run, outputs=outputs, crs=crs)
        with closing(open_ledger(plan)) as ledger:
            detection_run = carry_out(plan, ledger, progress)
            check_all_covered(detection_run)
            with run_output(detection_run, outputs.folder) as output:
                tables = list(output.tables)
    totals = detection_run.totals
    noted = [scene for scene in plan.scenes if scene.crs is None or scene.taken_in]
    limits = limit_notes(totals)
    for note in (*notes_on(noted), *limits):
        warnings.warn(note, stacklevel=2)
    return to_geodataframe(tables, plan.crs)


def detect_to_file(  # noqa: PLR0913 - what, with what, where to, and two option values
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    out: str | Path | Sequence[str | Path],
    options: DetectOptions | None = None,
    run: RunOptions | None = None,
    *,
    crs: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Find objects and write them, scene by scene, to vector files.

    What is finished is kept in the folder ``OUT.run`` of the first file until all are written,
    so that the same call goes on where an interrupted one stopped.

    Args:
        scenes: files, folders, globs, lists or STAC documents.
        model: a model, a model file, or the name of a bundled model.
        out: file ending .gpkg, .shp, .geojson, .parquet or .fgb, a folder without an ending, or
            several of them.
        options: what changes the result.
        run: how it is carried out.
        crs: CRS of the file; left out, the scenes' own, or EPSG:4326 where they differ.
        progress: called after every finished unit of work.

    Returns:
        What was done; ``failures`` names ground that is not covered. A GeoPackage has it as its
        layer ``not_covered``, the ground that was scanned as ``scanned``, and how all came
        about as the table ``metadata``; beside other formats these are ``OUT.not_covered.gpkg``
        and ``OUT.scanned.gpkg``.

    Raises:
        GeoRetinaError: nothing could be done: no scene or model can be used, every block
            failed, the output exists or cannot be written, or an earlier run of it differs.
            An older output is left as it was.

    Examples:
        >>> from geo_retina import RunOptions, detect_to_file
        >>> report = detect_to_file("scene.tif", "demo", "found.gpkg", run=RunOptions(device="cpu"))
        >>> report.complete, report.crs
        (True, 'EPSG:32632')
    """
    start = time.perf_counter()
    options, run = options or DetectOptions(), run or RunOptions()
    outputs = find_earlier(_paths(out), run)
    plan = plan_run(scenes, model, options, run, outputs=outputs, crs=crs)
    with closing(open_ledger(plan)) as ledger:
        detection_run = carry_out(plan, ledger, progress)
        written = _write(detection_run, ledger)
        complete = not detection_run.failures
        leave_ledger(ledger, outputs, complete=complete, keep=run.keep or run.update)
    return report_on(detection_run, written, time.perf_counter() - start)


def _write(run: DetectionRun, ledger: Ledger) -> Written:
    """Merge and write a run that was carried out.

    Raises:
        RunError: nothing was covered.
    """
    plan = run.plan
    check_any_covered(run)
    with run_output(run, plan.outputs.targets[0].path) as output:
        written = write_outputs(
            plan.outputs.targets,
            output.tables,
            output.companions,
            crs=plan.crs,
            classes=plan.model.card.classes,
            geometry=plan.run.geometry,
        )
    paths = ", ".join(str(target.path) for target in plan.outputs.targets)
    ledger.log.info("wrote %d objects to %s", written.rows, paths)
    return written


def freeze_run(
    scenes: str | Path | Sequence[str | Path],
    model: str | Path,
    options: DetectOptions | None = None,
    run: RunOptions | None = None,
    *,
    crs: str | None = None,
) -> FrozenPlan:
    """Plan a run that several machines share, each of which does a part.

    Args:
        scenes: files, folders, globs, lists or STAC documents.
        model: a model file, or the name of a bundled model.
        options: what changes the result; an ``auto`` precision becomes what it is on this machine.
        run: how it is carried out, of which the size of blocks is kept.
        crs: CRS of the result; left out, the scenes' own, or EPSG:4326 where they differ.

    Returns:
        The plan, for ``detect_part``; its ``write`` makes a file that others can use.

    Raises:
        GeoRetinaError: nothing could be done.

    Examples:
        >>> from pathlib import Path
        >>> from geo_retina import RunOptions, freeze_run
        >>> plan = freeze_run("scene.tif", "demo", run=RunOptions(device="cpu"))
        >>> plan.write(Path("plan.json"))
        >>> [len(plan.share(number, 3)) for number in (1, 2, 3)]
        [0, 1, 0]
    """
    options, run = options or DetectOptions(), run or RunOptions()
    _check_no_update(run)
    plan = plan_run(scenes, model, options, run, outputs=Outputs(Path()), crs=crs)
    return freeze_plan(plan, model, name=mosaic_name(scenes))


def detect_part(
    plan: FrozenPlan,
    part: Part,
    out: str | Path | Sequence[str | Path],
    run: RunOptions | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> PartReport:
    """Detect one of several parts of a run, whose results ``gather_parts`` puts together.

    Nothing is written but the folder ``OUT.run/part-3-of-40``, from which the same call goes on
    where an interrupted one stopped.

    Args:
        plan: the same for all parts.
        part: which one.
        out: the file or files that the whole run is to write.
        run: how it is carried out here.
        progress: called after every finished unit of work.

    Returns:
        What was done; ``failures`` names ground of the part that is not covered, which the same
        call tries again.

    Raises:
        GeoRetinaError: scenes or model are not as planned, or the folder cannot be written.

    Examples:
        >>> from geo_retina import Part, RunOptions, detect_part, freeze_run
        >>> run = RunOptions(device="cpu")
        >>> plan = freeze_run("scene.tif", "demo", run=run)
        >>> report = detect_part(plan, Part(2, 2), "p.gpkg", run)
        >>> report.complete, report.folder.name
        (True, 'part-2-of-2')
    """
    start = time.perf_counter()
    run = run or RunOptions()
    _check_no_update(run)
    outs = _paths(out)
    for path in outs:
        check_target(Target(path, True, run.discard_review), run.geometry)
    folder = run_folder(outs[0]) / part.folder_name
    writing = {
        "beside": [os.path.relpath(path, outs[0].parent) for path in outs[1:]],
        "geometry": run.geometry,
    }
    units = plan.share(part.number, part.of)
    only = frozenset(block.scene for unit in units for block in unit)
    run_plan = plan_part(plan, run, outputs=Outputs(folder), only=only)
    with closing(open_part(plan, run_plan, part, writing, restart=run.restart)) as ledger:
        detection_run = carry_out_part(run_plan, ledger, units, progress)
        return report_on_part(detection_run, folder, part, time.perf_counter() - start)


def gather_parts(
    out: str | Path,
    folders: Sequence[str | Path] = (),
    run: RunOptions | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Put the parts of a run together, and write what one run over all would have written.

    Args:
        out: the file to write, the first where the parts were told several.
        folders: where parts lie: their own folders, or folders that hold some. Those in
            ``OUT.run`` are found by themselves, and removed when all is written.
        run: whether to replace an older output, and to keep the folders; and the device for what
            is detected now, tiles around an area of interest that objects at its border need.
        progress: called after every finished unit of such work.

    Returns:
        What was done, as of ``detect_to_file``; its seconds are those of gathering.

    Raises:
        GeoRetinaError: parts are missing, unfinished or of different runs, scenes or model are
            not as planned, or the output exists or cannot be written.

    Examples:
        >>> from geo_retina import Part, RunOptions, detect_part, freeze_run, gather_parts
        >>> plan, run = freeze_run("scene.tif", "demo"), RunOptions(device="cpu")
        >>> parts = [detect_part(plan, Part(number, 2), "g.gpkg", run) for number in (1, 2)]
        >>> gather_parts("g.gpkg", run=run).complete
        True
    """
    start = time.perf_counter()
    parts = find_parts(Path(out), [Path(folder) for folder in folders])
    outs = [Path(out), *(Path(out).parent / name for name in parts.writing["beside"])]
    run = replace(run or RunOptions(), geometry=parts.writing["geometry"], restart=False)
    outputs = find_earlier(outs, run, gathers=True)
    frozen = parts.frozen
    plan = plan_part(frozen, run, outputs=outputs, only=frozenset(frozen.used))
    plan = replace(plan, unusable=(*frozen.unusable, *plan.unusable))
    with closing(open_ledger(plan)) as ledger:
        gather_into(ledger, parts)
        detection_run = carry_out(plan, ledger, progress, gathered=True)
        written = _write(detection_run, ledger)
        complete = not detection_run.failures
        keep = run.keep or (complete and not remove_parts(outputs.folder))
        leave_ledger(ledger, outputs, complete=complete, keep=keep)
    return report_on(detection_run, written, time.perf_counter() - start)


def _check_no_update(run: RunOptions) -> None:
    if run.update:
        raise OptionError(
            "RunOptions.update is given for a run in parts, whose plan is frozen; add scenes to "
            "the run of an output, or plan anew"
        )


def _paths(out: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(o) for o in ([out] if isinstance(out, (str, Path)) else out)]
