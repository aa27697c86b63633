"""``geo-retina export-chips``, ``export-onnx`` and ``export-stac``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.options import ChipOptions

PICTURES = Parameter(name="*", group=Group("Pictures", sort_key=2))


_DEFAULTS = ChipOptions()


def export_chips(
    scenes: Annotated[list[str], Parameter(name="SCENE...")],
    /,
    *,
    labels: str,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reading: Annotated[_flags.LabelFlags, _flags.LABELS] = _flags.AS_THEY_ARE,
    options: Annotated[ChipOptions, PICTURES] = _DEFAULTS,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Cut scenes and their labels into small pictures for other tools: COCO, YOLO or VOC.

    Args:
        scenes: Files, folders or globs of georeferenced images.
        labels: Vector file with one polygon or point per object.
        out: Folder to make.
        overwrite: Replace a folder that this command made.
        reading: How labels and scenes are read.
        options: Size, form and split.
        reporting: How the command reports.
    """
    from geo_retina.export import export_chips as export

    _voice.check_json(reporting, overwrite=overwrite)
    report = export(reading.data(scenes, labels), out, options, overwrite=overwrite)
    pictures = ", ".join(f"{count:,} {part}" for part, count in report.pictures.items())
    _voice.say(f"{_report.plural(sum(report.pictures.values()), 'picture')} ({pictures})")
    _voice.say(f"{report.empty:,} of them show no object")
    rows = {name: f"{count:>9,}" for name, count in report.objects.items()}
    _voice.say(_report.columns(rows, indent="  "))
    if report.left_out:
        _report.warn(
            f"{_report.plural(report.left_out, 'object')} of which no picture shows enough were "
            "left out; lower --min-visible to have them"
        )
    _voice.say(f"written to {report.out}")
    _voice.result(reporting, vars(report))


def export_onnx(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    out: Path,
    tile_px: int | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Write a model's network as ONNX, for programs without PyTorch.

    docs/onnx.md says how its outputs become objects.

    Args:
        model: A bundled model's name or a .safetensors file.
        out: File to write, ending .onnx.
        tile_px: Side of the images it takes; left out, as the model's card says.
        overwrite: Replace an existing file.
        reporting: How the command reports.
    """
    from geo_retina.export import export_onnx as export

    _voice.check_json(reporting, overwrite=overwrite)
    path = export(model, out, tile_px=tile_px, overwrite=overwrite)
    _voice.say(f"written to {path}, {_report.size(path.stat().st_size)}")
    _voice.result(reporting, {"out": path, "bytes": path.stat().st_size})


def export_stac(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    out: Path,
    href: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Describe a model in a STAC item with the Machine Learning Model extension.

    Args:
        model: A bundled model's name or a .safetensors file.
        out: File to write, ending .json.
        href: Where readers of the item find the model file; left out, its path here.
        overwrite: Replace an existing file.
        reporting: How the command reports.
    """
    from geo_retina.export import export_stac as export

    _voice.check_json(reporting, overwrite=overwrite)
    path = export(model, out, href=href, overwrite=overwrite)
    _voice.say(f"written to {path}")
    _voice.result(reporting, {"out": path})
