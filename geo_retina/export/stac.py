"""A model as a STAC item with the Machine Learning Model extension, for catalogues of models."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from geo_retina.files import check_file_output, write_text
from geo_retina.model import Card, Model, find_model, load_model

EXTENSION = "https://stac-extensions.github.io/mlm/v1.6.0/schema.json"
"""Version of the extension that items are written to."""

_STAC_VERSION = "1.1.0"


def export_stac(
    model: str | Path, out: str | Path, *, href: str | None = None, overwrite: bool = False
) -> Path:
    """Describe a model file in a STAC item: bands, scaling, classes and thresholds.

    The item has no geometry: a card does not tell where on Earth a model holds. Its time is that
    of the model file.

    Args:
        model: a model file, or the name of a bundled model.
        out: file to write, ending .json.
        href: where a reader of the item finds the model file; left out, its path.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        ModelError: the model cannot be used.
        OutputError: the file exists, or cannot be written.

    Examples:
        >>> from geo_retina import export_stac
        >>> export_stac("demo", "demo.json").name
        'demo.json'
    """
    out = Path(out)
    check_file_output(out, [".json"], overwrite=overwrite)
    path = find_model(model)
    item = stac_item(load_model(path), path, href=href)
    write_text(out, json.dumps(item, indent=2, ensure_ascii=False) + "\n", overwrite=overwrite)
    return out


def stac_item(model: Model, path: Path, *, href: str | None = None) -> dict[str, Any]:
    """Describe a model as a STAC item, a JSON object.

    Args:
        model: that is described.
        path: its file.
        href: where a reader of the item finds it; left out, the path.
    """
    card = model.card
    written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return {
        "type": "Feature",
        "stac_version": _STAC_VERSION,
        "stac_extensions": [EXTENSION],
        "id": card.name,
        "geometry": None,
        "properties": {
            "title": card.name,
            "description": card.description or f"Finds {', '.join(card.classes)}.",
            "datetime": written.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "license": card.licence or "other",
            "gsd": card.gsd_m,
            "bands": [{"name": band.name} for band in card.bands],
            **_model_properties(model),
        },
        "links": [],
        "assets": {
            "model": {
                "href": href or path.resolve().as_posix(),
                "type": "application/vnd.safetensors",
                "title": f"weights and card of {card.name}",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors",
            }
        },
    }


def _model_properties(model: Model) -> dict[str, Any]:
    card = model.card
    parameters = sum(each.numel() for each in model.network.parameters())
    packages = card.training.get("packages", {})
    found = {
        "mlm:name": card.name,
        "mlm:architecture": "RetinaNet",
        "mlm:tasks": ["object-detection"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": packages.get("torch"),
        "mlm:total_parameters": parameters,
        "mlm:hyperparameters": {
            "thresholds": dict(zip(card.classes, card.thresholds, strict=True)),
            "nms_iou": card.nms_iou,
            "tile_px": card.tile_px,
            "overlap_px": card.overlap_px,
            "gsd_range_m": list(card.gsd_range_m),
            "backbone": card.network.backbone,
        },
        "mlm:input": [_input(card)],
        "mlm:output": [_output(card)],
    }
    return {name: value for name, value in found.items() if value is not None}


def _input(card: Card) -> dict[str, Any]:
    radiometry = card.radiometry
    return {
        "name": f"{len(card.bands)} bands of {radiometry.dtype} at {card.gsd_m:g} m",
        "bands": [band.name for band in card.bands],
        "input": {
            "shape": [-1, len(card.bands), card.tile_px, card.tile_px],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": offset, "stddev": scale}
            for offset, scale in zip(radiometry.offset, radiometry.scale, strict=True)
        ],
        "pre_processing_function": None,
    }


def _output(card: Card) -> dict[str, Any]:
    box = "x_min, y_min, x_max, y_max in pixels"
    if card.network.boxes == "oriented":
        box = "centre x and y, length and width in pixels, degrees of the length from x to y"
    return {
        "name": f"{box}, score and class of each object",
        "tasks": ["object-detection"],
        "result": {
            "shape": [-1, 7 if card.network.boxes == "oriented" else 6],
            "dim_order": ["object", "attribute"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": value, "name": name, "description": name}
            for value, name in enumerate(card.classes)
        ],
        "post_processing_function": {"format": "python", "expression": "geo_retina.detect"},
    }
