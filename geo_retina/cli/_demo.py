"""``geo-retina demo``: the whole way from pixels to scored polygons, on a drawn scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from geo_retina.cli import _report, _voice
from geo_retina.errors import OutputError
from geo_retina.files import write_text
from geo_retina.options import EvaluateOptions, RunOptions, SynthOptions

if TYPE_CHECKING:
    from geo_retina.detector import RunReport
    from geo_retina.evaluation import Evaluation
    from geo_retina.synth import SynthReport

MODEL = "demo"
ORIENTED_MODEL = "demo-oriented"
SEED = 2026
"""Seed of the scene; no bundled model was trained on it."""

SUMMARY = "demo.json"
"""Results of a demo; a folder that holds it was made by one, and may be made again."""

_FOLDER = Path("geo-retina-demo")
_SCENE = SynthOptions()


def demo(
    *,
    out: Path = _FOLDER,
    size: Annotated[int, Parameter(validator=validators.Number(gte=256))] = _SCENE.height,
    seed: int = SEED,
    oriented: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Draw a scene with known objects, detect them, and score what was found.

    Args:
        out: Folder for scene, detections and preview; an earlier demo's is replaced.
        size: Rows and columns of the scene.
        seed: The scene is drawn from this seed; the same seed gives the same scene.
        oriented: Draw lorries, wagons and containers at any angle, and find them as rotated boxes.
        overwrite: Use the folder although it holds files that no demo made.
        reporting: How the command reports.
    """
    scene, truth, found = out / "scene.tif", out / "truth.gpkg", out / "detections.gpkg"
    _voice.check_json(reporting, overwrite=overwrite)
    settings = {"size": size, "seed": seed, "oriented": oriented}
    _claim(out, settings, overwrite=overwrite)
    from geo_retina.detector import detect_to_file
    from geo_retina.evaluation import evaluate
    from geo_retina.synth import draw_scene

    _report.note(f"drawing a scene of {size} x {size} px")
    options = SynthOptions(
        height=size, width=size, seed=seed, content="freight" if oriented else "mixed"
    )
    drawn = draw_scene(scene, options, truth=truth, overwrite=True)
    with _report.progress(reporting.progress) as progress:
        run = RunOptions(overwrite=True, restart=True)
        model = ORIENTED_MODEL if oriented else MODEL
        report = detect_to_file(scene, model, found, run=run, progress=progress)
    evaluation = evaluate(found, truth, EvaluateOptions(class_column="class"))
    _preview(scene, found, out / "preview.png")
    results: dict[str, Any] = {**settings, "seconds": report.seconds}
    results["scores"] = evaluation.to_dict()
    _write_summary(out, results)
    _voice.say(_describe(out, drawn, report, evaluation))
    _report.warn_of_limits(report)
    _report.warn_of_failures(report.failures)
    _voice.result(reporting, {"out": out, **results})
    return 0 if report.complete else 3


def _claim(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder, or take it over where an earlier demo made it.

    Raises:
        OutputError: it holds files that no demo made, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be used: {error.strerror}") from error
    if foreign and SUMMARY not in foreign and not overwrite:
        raise OutputError(
            f"the folder {folder} holds files that no demo made, such as {foreign[0]}; "
            "give --overwrite or another folder with --out"
        )
    _write_summary(folder, settings)


def _write_summary(folder: Path, values: dict[str, Any]) -> None:
    write_text(folder / SUMMARY, json.dumps(values, indent=2) + "\n")


def _preview(scene: Path, found: Path, picture: Path) -> None:
    from geo_retina.plots import draw_preview
    from geo_retina.scene import open_scene
    from geo_retina.vector import read_detections

    _report.note("drawing the preview")
    draw_preview(open_scene(scene), read_detections(found), picture)


def _describe(folder: Path, drawn: SynthReport, report: RunReport, evaluation: Evaluation) -> str:
    counts = {
        name: f"{report.counts.get(name, 0):>7,} found, {there:>7,} really there"
        for name, there in drawn.counts.items()
    }
    files = {
        "detections.gpkg": "what was found; open it in QGIS, over scene.tif",
        "preview.png": "a picture of it, for any viewer",
        "scene.tif": "the drawn scene",
        "truth.gpkg": "the objects that are really there",
    }
    parts = (
        f"{_report.headline(report)}\n{_report.columns(counts, indent='  ')}",
        evaluation.table(),
        f"in {folder}\n{_report.columns(files, indent='  ')}",
    )
    return "\n\n".join(parts)
