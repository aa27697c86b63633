"""``geo-retina import``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geo_retina.cli import _flags, _inspect, _report, _voice
from geo_retina.options import ImportOptions


def import_(
    checkpoint: Annotated[Path, Parameter(name="CHECKPOINT")],
    /,
    *,
    out: Path,
    options: Annotated[ImportOptions, _flags.IMPORT],
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Make a model of a RetinaNet that torchvision or DeepForest trained.

    Args:
        checkpoint: File ending .pt, .pth, .ckpt or .safetensors; no code in it is run.
        out: Model file to write, ending .safetensors.
        options: What the checkpoint does not say about itself.
        overwrite: Replace an existing output.
        reporting: How the command reports.
    """
    from geo_retina.model import check_model_output, import_checkpoint

    _voice.check_json(reporting, overwrite=overwrite)
    check_model_output(out, overwrite=overwrite)
    model = import_checkpoint(checkpoint, options)
    model.save(out, half=False, overwrite=overwrite)
    _voice.say(_report.columns(_inspect.describe_card(model.card)))
    _voice.say(f"written to {out}; train starts from it with weights: {out.name}")
    _voice.result(reporting, {"out": out, "card": json.loads(model.card.to_json())})
