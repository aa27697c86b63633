"""``geo-retina train`` and ``geo-retina check-labels``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _inspect, _report, _voice
from geo_retina.cli._option_names import TrainingConfig


def train(
    config: TrainingConfig,
    /,
    *,
    out: Path,
    changes: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=False)] = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Train a model from scenes and a label layer, as a YAML file says.

    Args:
        config: YAML file with the options of the training run.
        out: Model file to write, ending .safetensors.
        changes: A key that differs from the file, such as `loss.box=giou`; may be repeated. Paths
            are taken from the current folder, those in the file from its own.
        resume: Go on with a run that did not finish; its state is in `OUT.train`.
        overwrite: Replace an existing output, and a run that did not finish.
        reporting: How the command reports.
    """
    from geo_retina.config import load_train_options

    options = load_train_options(config, changes or ())  # first: it fails fast
    _voice.check_json(reporting, overwrite=overwrite)
    from geo_retina.run.memory import keep_freed_memory
    from geo_retina.training import train as run_training

    keep_freed_memory()
    try:
        model = run_training(
            options,
            out,
            overwrite=overwrite,
            resume=resume,
            progress=_report.training_progress(reporting.progress),
        )
    except KeyboardInterrupt:
        _report.warn("the epochs that ended are kept; --resume continues from there")
        raise
    _voice.say(_report.columns(_inspect.describe_card(model.card)))
    _voice.say(
        f"written to {out}; the resolved config and a plot of the training lie beside it, "
        f"logs and pictures in {out.name}.train"
    )
    _voice.result(reporting, {"out": out, "card": json.loads(model.card.to_json())})


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
