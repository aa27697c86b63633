"""The public verbs: ``detect`` in memory, ``detect_to_file`` streaming to a file."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import (
    Outputs,
    Progress,
    RunReport,
    carry_out,
    check_all_covered,
    check_any_covered,
    explain,
    find_earlier,
    leave_ledger,
    limit_notes,
    merged_tables,
    notes_on,
    open_ledger,
    plan_run,
    report_on,
)
from geo_retina.vector import to_geodataframe, write_outputs

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["RunReport", "detect", "detect_to_file"]


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
            tables = list(merged_tables(detection_run))
    totals = detection_run.totals
    noted = [scene for scene in plan.scenes if scene.crs is None or scene.taken_in]
    limits = limit_notes(totals.truncated_tiles, totals.reduced_batch)
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
        out: file ending .gpkg, .shp, .geojson, .parquet or .fgb, or several of them.
        options: what changes the result.
        run: how it is carried out.
        crs: CRS of the file; left out, the scenes' own, or EPSG:4326 where they differ.
        progress: called after every finished unit of work.

    Returns:
        What was done; ``failures`` names ground that is not covered. A GeoPackage has it as its
        layer ``not_covered``, the ground that was looked at as ``scanned``, and how all came
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
    outs = [Path(o) for o in ([out] if isinstance(out, (str, Path)) else out)]
    outputs = find_earlier(outs, run)
    plan = plan_run(scenes, model, options, run, outputs=outputs, crs=crs)
    with closing(open_ledger(plan)) as ledger:
        detection_run = carry_out(plan, ledger, progress)
        check_any_covered(detection_run)
        written = write_outputs(
            outputs.targets,
            merged_tables(detection_run),
            explain(detection_run),
            crs=plan.crs,
            classes=plan.model.card.classes,
            geometry=run.geometry,
        )
        ledger.log.info("wrote %d objects to %s", written.rows, ", ".join(map(str, outs)))
        complete = not detection_run.failures
        leave_ledger(ledger, outputs, complete=complete, keep=run.keep)
    return report_on(detection_run, written, time.perf_counter() - start)
