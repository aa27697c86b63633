"""``geo-retina evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _flags, _report
from geo_retina.options import EvaluateOptions

_DEFAULTS = EvaluateOptions()


def evaluate(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    labels: Annotated[Path, Parameter(name="LABELS")],
    /,
    *,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _DEFAULTS,
) -> None:
    """Score detections against labels, in map coordinates.

    Polygon labels are matched by overlap, point labels by distance, for example
    `--radius 6m`, or with `--in-box`.

    Args:
        detections: Vector file that `detect` wrote.
        labels: Vector file with the true objects.
        json_file: Write all numbers to this file too, with what was compared and how.
        overwrite: Replace that file.
        options: How detections are matched with labels.
    """
    from geo_retina.evaluation import evaluate as score

    if json_file is not None:
        _report.check_text_output(json_file, overwrite=overwrite)
    evaluation = score(detections, labels, options)
    print(evaluation.table())
    if json_file is not None:
        compared = {"detections": str(detections), "labels": str(labels)}
        numbers = {**compared, "options": asdict(options), **evaluation.to_dict()}
        _report.write_text(json_file, json.dumps(numbers, indent=2) + "\n")
        print(f"written to {json_file}")
