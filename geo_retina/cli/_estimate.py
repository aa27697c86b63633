"""``geo-retina estimate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _report
from geo_retina.options import EstimateOptions

COUNTING = Parameter(name="*", group=Group("What is counted", sort_key=1))

_DEFAULTS = EstimateOptions()


def estimate(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    /,
    *,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EstimateOptions, COUNTING] = _DEFAULTS,
) -> None:
    """Estimate how many objects there are, with a 95 % interval.

    Detections are put right by the cells of use count that somebody completed in the layers that
    `review` adds. Before any is completed, `--target 5%` says about how many it will take.

    Args:
        detections: GeoPackage that `detect` wrote and `review` prepared.
        json_file: Write all numbers to this file too, with what was counted and how.
        overwrite: Replace this file.
        options: What is counted, and how.
    """
    from geo_retina.estimation import estimate as count

    if json_file is not None:
        _report.check_text_output(json_file, overwrite=overwrite)
    estimated = count(detections, options)
    print(estimated.table())
    if json_file is not None:
        about = {"detections": str(detections), "options": asdict(options)}
        text = json.dumps({**about, **estimated.to_dict()}, indent=2)
        _report.write_text(json_file, text + "\n")
        print(f"written to {json_file}")
