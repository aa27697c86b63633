"""``geo-retina import``, ``calibrate`` and ``quantize``: models from others, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _inspect, _report, _voice
from geo_retina.errors import OptionError
from geo_retina.options import CalibrateOptions, DataOptions, ImportOptions

CHOICE = Parameter(name="*", group=Group("What is chosen", sort_key=1))

_DEFAULTS = CalibrateOptions()


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
    layer: str | None = None,
    where: str | None = None,
    class_column: str | None = None,
    scene_column: str | None = None,
    point_size_m: float | None = None,
    ground: str | None = None,
    bands: tuple[int, ...] | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
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
        layer: Layer of the labels' file; needed where it holds several.
        where: Attribute filter on the labels, as in SQL's WHERE.
        class_column: Column with the class names; left out, all are of the only class.
        scene_column: Column that names the stem of the scene file a label belongs to.
        point_size_m: Side of the square around point labels; left out, the model's usual object.
        ground: Polygons of the ground that was labelled; left out, all of the scenes.
        bands: The files' bands (from 1) that the model sees; left out, as its card says.
        overwrite: Replace an existing output.
        options: What is chosen anew.
        reporting: How the command reports.
    """
    from geo_retina.calibration import calibrate as fit

    _voice.check_json(reporting, overwrite=overwrite)
    data = DataOptions(
        scenes=tuple(scenes),
        labels=labels or (),
        review=review,
        layer=layer,
        where=where,
        class_column=class_column,
        scene_column=scene_column,
        point_size_m=point_size_m,
        ground=ground,
        bands=bands,
    )
    report = fit(model, data, out, options, overwrite=overwrite)
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
    out: Path,
    layer: str | None = None,
    where: str | None = None,
    class_column: str | None = None,
    ground: str | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Measure what 8-bit integers stand for in a model, and what they cost on labelled ground.

    `detect` on a CPU is faster in integers; it needs the extra cpu.

    Args:
        model: Name of a bundled model, or a model file.
        scenes: Files, folders or globs of scenes like those that the model will see.
        labels: Vector file of objects that the model was not trained on; left out, the cost stays
            unknown, and auto in floating point.
        out: Model file to write, ending .safetensors.
        layer: Layer of the labels' file; needed where it holds several.
        where: Attribute filter on the labels, as in SQL's WHERE.
        class_column: Column with the class names; left out, all are of the only class.
        ground: Polygons of the ground that was labelled; left out, all of the scenes.
        force: Write the file although integers cost much.
        overwrite: Replace an existing output.
        reporting: How the command reports.
    """
    from geo_retina.calibration import quantize_model

    _voice.check_json(reporting, overwrite=overwrite)
    about = {"layer": layer, "where": where, "class_column": class_column, "ground": ground}
    given = [name for name, value in about.items() if value is not None]
    if given and labels is None:
        raise OptionError(f"the argument {given[0]} is given without labels; name them too")
    labelled = None
    if labels is not None:
        labelled = DataOptions(
            scenes=tuple(scenes),
            labels=labels,
            layer=layer,
            where=where,
            class_column=class_column,
            ground=ground,
        )
    card, cost = quantize_model(
        model, scenes, out, labelled=labelled, force=force, overwrite=overwrite
    )
    if cost is not None:
        _voice.say(cost.text())
    _voice.say(f"written to {out}")
    _voice.result(reporting, {"out": out, "card": json.loads(card.to_json())})
