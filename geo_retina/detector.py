"""The public verbs: ``detect`` in memory, ``detect_to_file`` streaming to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.errors import OptionError, RunError
from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import (
    Progress,
    RunReport,
    limit_notes,
    notes_on,
    prepare,
    read_manifest,
    run_folder,
)
from geo_retina.scene import fingerprint
from geo_retina.vector import Target, check_target, to_geodataframe, write_outputs

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

    Example:
        >>> from geo_retina import DetectOptions, RunOptions, detect
        >>> found = detect("scene.tif", "demo", DetectOptions(score=0.6), RunOptions(device="cpu"))
        >>> sorted(found["class"].unique())
        ['tree', 'vehicle']
    """
    options, run = options or DetectOptions(), run or RunOptions()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        detection_run = prepare(
            scenes, model, options, run, outs=[Path(folder) / "found.parquet"], crs=crs
        )
        stack.callback(detection_run.ledger.close)
        detection_run.carry_out(progress)
        tables = list(detection_run.tables())
        if detection_run.failures:
            first = detection_run.failures[0]
            raise RunError(
                f"{len(detection_run.failures)} parts of the scenes could not be covered, the "
                f"first is {first.scene}: {first.error}; detect_to_file keeps what was found "
                "elsewhere"
            )
    noted = [scene for scene in detection_run.scenes if scene.crs is None or scene.taken_in]
    limits = limit_notes(detection_run.tally["truncated"], detection_run.reduced_batch)
    for note in (*notes_on(noted), *limits):
        warnings.warn(note, stacklevel=2)
    return to_geodataframe(tables, detection_run.crs)


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

    Example:
        >>> from geo_retina import RunOptions, detect_to_file
        >>> report = detect_to_file("scene.tif", "demo", "found.gpkg", run=RunOptions(device="cpu"))
        >>> report.complete, report.crs
        (True, 'EPSG:32632')
    """
    start = time.perf_counter()
    outs = [Path(o) for o in ([out] if isinstance(out, (str, Path)) else out)]
    options, run = options or DetectOptions(), run or RunOptions()
    if not outs or len({o.resolve() for o in outs}) < len(outs):
        raise OptionError(f"{len(outs)} outputs were named, expected one or several different ones")
    found = None if run.restart else read_manifest(run_folder(outs[0]))
    own = {} if found is None else found.get("written", {})
    foreign = [o for o in outs if own.get(str(o.resolve())) != fingerprint(str(o))]
    targets = [Target(o, run.overwrite or o not in foreign, run.discard_review) for o in outs]
    replaces = any(o.exists() for o in foreign)
    for target in targets:
        check_target(target, run.geometry)
    if found is not None:
        run = dataclasses.replace(run, block_px=found["block_px"])
    detection_run = prepare(scenes, model, options, run, outs=outs, crs=crs)
    with contextlib.closing(detection_run.ledger):
        # A scene that cannot be read may be the one that shows the area, and an older file may
        # hold what was found there.
        if not detection_run.carry_out(progress) and (
            detection_run.is_wanted or (detection_run.failures and replaces)
        ):
            raise detection_run.failed_everywhere()
        rows = write_outputs(
            targets,
            detection_run.tables(),
            detection_run.companions,
            crs=detection_run.crs,
            classes=detection_run.model.card.classes,
            geometry=run.geometry,
        )
        detection_run.ledger.log.info("wrote %d objects to %s", rows, ", ".join(map(str, outs)))
        if detection_run.failures:
            detection_run.ledger.update(
                {"written": {str(o.resolve()): fingerprint(str(o)) for o in outs}}
            )
        elif not run.keep:
            detection_run.ledger.remove()
    return detection_run.report(outs, rows, time.perf_counter() - start)
