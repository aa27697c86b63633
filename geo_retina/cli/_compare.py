"""``geo-retina compare``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _flags, _report
from geo_retina.options import EvaluateOptions

_DEFAULTS = EvaluateOptions()


def compare(
    a: Annotated[Path, Parameter(name="A")],
    b: Annotated[Path, Parameter(name="B")],
    labels: Annotated[Path, Parameter(name="LABELS")],
    /,
    *,
    out: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _DEFAULTS,
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
        json_file: Write all numbers to this file, with what was compared and how.
        overwrite: Replace these files.
        options: How detections are matched with labels.
    """
    from geo_retina.evaluation import compare as score

    if json_file is not None:
        _report.check_text_output(json_file, overwrite=overwrite)
    if out is not None:
        from geo_retina.vector import check_output

        check_output(out, overwrite=overwrite)
    comparison = score(a, b, labels, options)
    print(f"A: {a}\nB: {b}\n{comparison.table()}")
    if json_file is not None:
        compared = {"detections_a": str(a), "detections_b": str(b), "labels_file": str(labels)}
        numbers = {**compared, "options": asdict(options), **comparison.to_dict()}
        _report.write_text(json_file, json.dumps(numbers, indent=2) + "\n")
        print(f"written to {json_file}")
    if out is not None:
        from geo_retina.html_report import write_agreement

        write_agreement(comparison, out, overwrite=overwrite)
        print(f"written to {out}")
