"""``geo-retina review``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _report, _voice
from geo_retina.options import ReviewOptions

CHOICE = Parameter(name="*", group=Group("What to look at", sort_key=1))

_DEFAULTS = ReviewOptions()


def review(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    /,
    *,
    options: Annotated[ReviewOptions, CHOICE] = _DEFAULTS,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Add to a GeoPackage what a person should look at and correct in a GIS.

    The layer `review` holds doubtful cases, the layer `cells` squares of ground, drawn at random,
    to be checked completely. Running again fills both up; nothing that was entered is changed.

    Args:
        detections: GeoPackage that `detect` wrote; its detections are not touched.
        options: What to look at, and how much.
        overwrite: Replace the file of --json.
        reporting: How the command reports.
    """
    from geo_retina.review import review_detections

    _voice.check_json(reporting, overwrite=overwrite)
    report = review_detections(detections, options)
    reasons = ", ".join(f"{name} {count:,}" for name, count in report.reasons.items())
    rows = {
        "cases": f"{report.cases_open:,} to look at, {report.cases_added:,} of them new"
        + (f" ({reasons})" if reasons else ""),
        "cells": f"{report.cells_open:,} to complete, {report.cells_added:,} of them new, with "
        f"{_report.plural(report.cell_rows, 'new row')}; {report.cells_done:,} done",
        "entered": f"{_report.plural(report.entries, 'row')} by a person, kept as they are",
    }
    _voice.say(_report.columns(rows))
    _voice.say(f"added to {report.path}, layers review and cells")
    for note in report.notes:
        _report.warn(f"note: {note}")
    _voice.result(reporting, vars(report))
