"""``geo-retina compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _flags, _voice
from geo_retina.options import EvaluateOptions

_DEFAULTS = EvaluateOptions()


def compare(
    a: Annotated[Path, Parameter(name="A")],
    b: Annotated[Path, Parameter(name="B")],
    labels: Annotated[Path, Parameter(name="LABELS")],
    /,
    *,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Score two sets of detections against the same labels, side by side.

    Differences are B - A. Their intervals come from draws of ground blocks that are the same
    for both, so they tell whether a difference is more than chance; intervals that hold 0 say
    that it may not be.

    Args:
        a: Vector file that `detect` wrote.
        b: Another one, of the same ground.
        labels: Vector file with the true objects.
        out: GeoPackage for the labels that both, only A, only B or neither found, and for the
            false detections of each.
        overwrite: Replace these files.
        options: How detections are matched with labels.
        reporting: How the command reports.
    """
    from geo_retina.evaluation import compare as score

    _voice.check_json(reporting, overwrite=overwrite)
    if out is not None:
        from geo_retina.vector import check_output

        check_output(out, overwrite=overwrite)
    comparison = score(a, b, labels, options)
    _voice.say(f"A: {a}\nB: {b}\n{comparison.table()}")
    compared = {"detections_a": str(a), "detections_b": str(b), "labels_file": str(labels)}
    _voice.result(reporting, {**compared, "options": asdict(options), **comparison.to_dict()})
    if out is not None:
        from geo_retina.html_report import write_agreement

        write_agreement(comparison, out, overwrite=overwrite)
        _voice.say(f"written to {out}")
