"""``geo-retina models`` and ``geo-retina info``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from geo_retina.cli import _report

if TYPE_CHECKING:
    from geo_retina.model import Card

MODEL_SUFFIX = ".safetensors"

_SCORES = {"f1": "F1", "precision": "precision", "recall": "recall", "ap50": "AP50", "ap": "AP"}
_PRINT = "data_fingerprint"


def models() -> None:
    """List the bundled models."""
    from geo_retina.model import bundled_models, load_card

    rows = {}
    for name in sorted(bundled_models()):
        card = load_card(name)
        about = card.description or ", ".join(card.classes)
        rows[name] = f"{about} ({len(card.bands)} bands, {card.gsd_m:g} m)"
    print(_report.columns(rows) if rows else "no model is bundled")


def info(file: Annotated[str, Parameter(name="FILE")], /) -> None:
    """Tell what a scene or a model is.

    Args:
        file: An image, a .safetensors file or a bundled model's name.
    """
    from geo_retina.model import bundled_models, load_card

    bundled = not Path(file).exists() and file in bundled_models()
    if bundled or file.lower().endswith(MODEL_SUFFIX):
        print(_report.columns(describe_card(load_card(file))))
        return
    from geo_retina.scene import describe_scene

    print(_report.columns(describe_scene(file)))


def describe_card(card: Card) -> dict[str, str]:
    """A model's card as label and text, for people; what is empty is left out."""
    low_px, mid_px, high_px = card.object_px
    network = card.network
    pairs = zip(card.classes, card.thresholds, strict=True)
    rows = {
        "model": card.name,
        "finds": card.description,
        "classes": ", ".join(f"{name} (score from {score:.2f})" for name, score in pairs),
        "bands": ", ".join(f"{band.index} {band.name}".rstrip() for band in card.bands),
        "data type": card.radiometry.dtype,
        "pixel": f"{card.gsd_m:g} m, holds for {card.gsd_range_m[0]:g} to "
        f"{card.gsd_range_m[1]:g} m",
        "objects": f"{low_px:.0f} to {high_px:.0f} px wide, mostly {mid_px:.0f} px",
        "tiles": f"up to {card.tile_px} px",
        "network": f"RetinaNet on {network.backbone}, levels "
        f"{', '.join(f'P{level}' for level in network.levels or ())}, "
        f"{network.channels} channels, {network.convs} convolutions a subnet",
        **_scores(card.metrics),
        "training": _scalars(card.training),
        "licence": card.licence,
        "attribution": card.attribution,
    }
    return {label: text for label, text in rows.items() if text}


def _scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The overall scores of each evaluation on a card, and the words that go with them."""
    rows = {}
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            rows[name.replace("_", " ")] = str(value)
        elif "overall" in value:
            numbers = {title: value["overall"].get(key) for key, title in _SCORES.items()}
            known = (f"{title} {x:.3f}" for title, x in numbers.items() if x is not None)
            rows[f"scores, {name}"] = ", ".join(known)
    return rows


def _scalars(values: Mapping[str, Any]) -> str:
    """Single numbers and texts on one line; options, versions and history are for machines."""
    single = {k: v for k, v in values.items() if isinstance(v, (str, int, float)) and k != _PRINT}
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in single.items())
