"""``geo-retina import``, ``calibrate`` and ``quantize``: models from others, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _inspect, _report, _voice
from geo_retina.errors import OptionError
from geo_retina.options import CalibrateOptions, ImportOptions, QuantizeOptions

CHOICE = Parameter(name="*", group=Group("What is chosen", sort_key=2))

MEASURE = Parameter(name="*", group=Group("What is measured", sort_key=2))

_DEFAULTS = CalibrateOptions()
_MEASURED = QuantizeOptions()


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


def calibrate(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    scenes: list[str],
    labels: str | None = None,
    review: str | None = None,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reading: Annotated[_flags.LabelFlags, _flags.LABELS] = _flags.AS_THEY_ARE,
    options: Annotated[CalibrateOptions, CHOICE] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Fit a model's thresholds, suppression and scores to a few labelled scenes.

    Its weights stay. `detect` with the new model writes the column `probability` beside `score`.

    Args:
        model: Name of a bundled model, or a model file.
        scenes: Files, folders or globs of the labelled scenes.
        labels: Vector file with one polygon or point per object.
        review: In place of labels, a GeoPackage under review: its completed cells of use learn.
        out: Model file to write, ending .safetensors.
        overwrite: Replace an existing output.
        reading: How labels and scenes are read.
        options: What is chosen anew.
        reporting: How the command reports.
    """
    from geo_retina.calibration import calibrate as fit

    _voice.check_json(reporting, overwrite=overwrite)
    report = fit(model, reading.data(scenes, labels, review), out, options, overwrite=overwrite)
    _voice.say(report.text())
    _voice.say(f"written to {out}")
    card = json.loads(report.card.to_json())
    _voice.result(reporting, {"out": out, **report.to_dict(), "card": card})


def quantize(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    scenes: list[str],
    labels: str | None = None,
    labelled_scenes: list[str] | None = None,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reading: Annotated[_flags.LabelFlags, _flags.LABELS] = _flags.AS_THEY_ARE,
    options: Annotated[QuantizeOptions, MEASURE] = _MEASURED,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Measure what 8-bit integers stand for in a model, and what they cost on labelled ground.

    `detect` on a CPU is faster in integers; it needs the extra cpu.

    Args:
        model: Name of a bundled model, or a model file.
        scenes: Files, folders or globs of scenes like those that the model will see.
        labels: Vector file of objects that the model was not trained on; left out, the cost stays
            unknown, and auto in floating point.
        labelled_scenes: Files, folders or globs of the labels' scenes; left out, those of scenes.
        out: Model file to write, ending .safetensors.
        overwrite: Replace an existing output.
        reading: How labels and scenes are read.
        options: What is measured.
        reporting: How the command reports.
    """
    from geo_retina.calibration import quantize_model

    _voice.check_json(reporting, overwrite=overwrite)
    given = {"labelled_scenes": labelled_scenes, **vars(reading)}
    for name, value in given.items():
        if value is not None and labels is None:
            raise OptionError(f"the argument {name} is given without labels; name them too")
    labelled = None if labels is None else reading.data(labelled_scenes or scenes, labels)
    made, cost = quantize_model(model, scenes, out, options, labelled=labelled, overwrite=overwrite)
    if cost is not None:
        _voice.say(cost.text())
    _voice.say(f"written to {out}")
    _voice.result(reporting, {"out": out, "card": json.loads(made.card.to_json())})
