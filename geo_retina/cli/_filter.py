"""``geo-retina filter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.options import FilterOptions

CHOICE = Parameter(name="*", group=Group("What to keep", sort_key=1))

_DEFAULTS = FilterOptions()


def filter_(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    /,
    *,
    out: _flags.Outs,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    discard_review: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[FilterOptions, CHOICE] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Keep detections by score, class and place, without running the network again.

    Detect with `--min-score` to have low scores to choose among. A run made at the threshold
    itself could differ slightly where tiles meet.

    Args:
        detections: Vector file that `detect` wrote, or a folder of them.
        out: File to write; its ending says the format. Given several times, several files.
        overwrite: Replace an existing output; what a person entered in its review is carried over.
        discard_review: When replacing, discard what a person entered.
        options: What to keep.
        reporting: How the command reports.
    """
    from geo_retina.postprocess import SEAM_NOTE, filter_detections

    _voice.check_json(reporting, overwrite=overwrite)
    report = filter_detections(
        detections, out, options, overwrite=overwrite, discard_review=discard_review
    )
    _voice.say(f"{report.kept:,} of {_report.plural(report.read, 'object')} kept")
    if len(report.counts) > 1:
        rows = {name: f"{count:>9,}" for name, count in report.counts.items()}
        _voice.say(_report.columns(rows, indent="  "))
    _voice.say(f"written to {', '.join(map(str, report.outs))}")
    if report.raised:
        _report.warn(f"note: {SEAM_NOTE}")
    _voice.result(reporting, vars(report))
