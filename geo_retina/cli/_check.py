"""``geo-retina check-labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _voice
from geo_retina.cli._option_names import TrainingConfig


def check_labels(
    config: TrainingConfig,
    /,
    *,
    out: Path | None = None,
    changes: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=False)] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Check what a training would work with: labels, sizes, split, samples.

    Args:
        config: YAML file with the options of the training run.
        out: Folder for the report, and for pictures of samples and scenes with their labels.
        changes: A key that differs from the file, such as `split.block_m=50`; may be repeated.
        overwrite: Replace an earlier report.
        reporting: How the command reports.
    """
    from geo_retina.config import load_train_options

    options = load_train_options(config, changes or ())  # first: it fails fast
    _voice.check_json(reporting, overwrite=overwrite)
    from geo_retina.training import check_labels as check

    report = check(options, out, overwrite=overwrite)
    _voice.say(report.text())
    if out is None:
        _voice.say("\nsee the labels on their imagery with --out FOLDER")
    else:
        _voice.say(
            f"\nwritten to {out}: report.txt, report.json, samples.png, scenes.png, sizes.png"
        )
    _voice.result(reporting, {"out": out, **report.to_dict()})
