"""``geo-retina evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from geo_retina.cli import _flags, _voice
from geo_retina.errors import OptionError
from geo_retina.options import EvaluateOptions

if TYPE_CHECKING:
    from geo_retina.scene import Scene

_DEFAULTS = EvaluateOptions()


def evaluate(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    labels: Annotated[Path, Parameter(name="LABELS")],
    /,
    *,
    report: Path | None = None,
    scenes: list[str] | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Score detections against labels, in map coordinates.

    Polygon labels are matched by overlap, point labels by distance, for example
    `--radius 6m`, or with `--in-box`.

    Args:
        detections: Vector file that `detect` wrote.
        labels: Vector file with the true objects.
        report: Folder for a page of plots and pictures, report.html, and for errors.gpkg, with
            what was found rightly, wrongly and not at all.
        scenes: Images, folders or globs, for pictures of the worst places in the report.
        overwrite: Replace these files.
        options: How detections are matched with labels.
        reporting: How the command reports.
    """
    from geo_retina.evaluation import evaluate as score

    imagery = _prepare_report(report, scenes, overwrite=overwrite)
    _voice.check_json(reporting, overwrite=overwrite)
    evaluation = score(detections, labels, options)
    _voice.say(evaluation.table())
    compared = {"detections": str(detections), "labels": str(labels), "options": asdict(options)}
    _voice.result(reporting, {**compared, **evaluation.to_dict()})
    if report is not None:
        from geo_retina.html_report import write_report

        page = write_report(evaluation, report, about=compared, scenes=imagery, overwrite=overwrite)
        _voice.say(f"written to {page}")


def _prepare_report(
    folder: Path | None, scenes: list[str] | None, *, overwrite: bool
) -> list[Scene]:
    """Refuse what could not be reported, before work is spent on it; gives the imagery."""
    if folder is None:
        if scenes:
            raise OptionError(
                "scenes are for the pictures of a report; name its folder with --report"
            )
        return []
    from geo_retina.html_report import check_report
    from geo_retina.scene import find_scenes, open_picture

    check_report(folder, overwrite=overwrite)
    return [open_picture(path) for path in find_scenes(scenes)] if scenes else []
