"""``geo-retina models`` and ``geo-retina info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from geo_retina.cli import _report

if TYPE_CHECKING:
    from geo_retina.model import Card

MODEL_SUFFIX = ".safetensors"


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
        "metrics": _flat(card.metrics),
        "trained": _flat({k: v for k, v in card.training.items() if k != "options"}),
        "licence": card.licence,
        "attribution": card.attribution,
    }
    return {label: text for label, text in rows.items() if text}


def _flat(values: object) -> str:
    """Nested numbers and texts on one line."""
    if isinstance(values, dict):
        return "; ".join(f"{key} {_flat(value)}" for key, value in values.items())
    if isinstance(values, (list, tuple)):
        return ", ".join(_flat(value) for value in values)
    return f"{values:.4g}" if isinstance(values, float) else str(values)
