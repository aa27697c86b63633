"""``geo-retina merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.options import MergeOptions

MERGING = Parameter(name="*", group=Group("Merging", sort_key=1))

_DEFAULTS = MergeOptions()


def merge(
    runs: Annotated[list[Path], Parameter(name="RUN...")],
    /,
    *,
    out: _flags.Outs,
    crs: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    discard_review: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[MergeOptions, MERGING] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Make one set of objects of runs over neighbouring or overlapping scenes.

    On one grid boxes are compared in its pixels and fragments at borders are joined; across
    grids, such as two UTM zones, polygons are compared in an equal-area CRS.

    Args:
        runs: Vector files that `detect` wrote, or folders of them.
        out: File to write; its ending says the format. Given several times, several files.
        crs: CRS of the output, such as EPSG:4326; left out, that of the runs.
        overwrite: Replace an existing output; what a person entered in its review is carried over.
        discard_review: When replacing, discard what a person entered.
        options: When two detections are one object.
        reporting: How the command reports.
    """
    from geo_retina.postprocess import combine_runs

    _voice.check_json(reporting, overwrite=overwrite)
    report = combine_runs(
        runs, out, options, crs=crs, overwrite=overwrite, discard_review=discard_review
    )
    how = "on one grid" if report.exact else "across grids, by areas of polygons"
    _voice.say(
        f"{_report.plural(report.written, 'object')} of {report.read:,}, compared {how}: "
        f"{report.suppressed:,} seen better by another scene, {report.joined:,} joined of parts"
    )
    _voice.say(f"written to {', '.join(map(str, report.outs))}, in {report.crs}")
    _voice.result(reporting, vars(report))
