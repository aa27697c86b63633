"""``geo-retina train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _inspect, _report


def train(
    config: Annotated[Path, Parameter(name="CONFIG")],
    /,
    *,
    out: Path,
    changes: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=False)] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a model from scenes and a label layer, as a YAML file says.

    Args:
        config: YAML file with the options of the training run.
        out: Model file to write, ending .safetensors.
        changes: A key that differs from the file, such as `loss.gamma=1.5`; may be repeated.
        overwrite: Replace an existing output.
    """
    from geo_retina.config import load_train_options

    options = load_train_options(config, changes or ())  # first: it fails fast
    from geo_retina.training import train as run_training

    model = run_training(options, out, overwrite=overwrite, progress=sys.stderr.isatty())
    print(_report.columns(_inspect.describe_card(model.card)))
    print(f"written to {out}; the resolved config and a plot of the training lie beside it")
