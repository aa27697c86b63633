"""Models: weights and their card in one file, and checkpoints of other programs made into one.

What needs PyTorch is loaded when it is first used: a card can be read without.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from geo_retina.model.cards import (
    FORMAT_VERSION,
    OVERLAP_MARGIN_PX,
    OVERLAPS_PER_TILE,
    Band,
    Card,
    Prescreen,
    Radiometry,
    ScoreMap,
    bundled_models,
    choose_tile_px,
    find_model,
    load_card,
)

if TYPE_CHECKING:
    from geo_retina.model.checkpoints import import_checkpoint
    from geo_retina.model.model_file import (
        MakePredictor,
        Model,
        build_network,
        check_model_output,
        load_model,
    )

__all__ = [
    "FORMAT_VERSION",
    "OVERLAPS_PER_TILE",
    "OVERLAP_MARGIN_PX",
    "Band",
    "Card",
    "MakePredictor",
    "Model",
    "Prescreen",
    "Radiometry",
    "ScoreMap",
    "build_network",
    "bundled_models",
    "check_model_output",
    "choose_tile_px",
    "find_model",
    "import_checkpoint",
    "load_card",
    "load_model",
]

_MODULE_OF = {
    "MakePredictor": "model_file",
    "Model": "model_file",
    "build_network": "model_file",
    "check_model_output": "model_file",
    "load_model": "model_file",
    "import_checkpoint": "checkpoints",
}


def __getattr__(name: str) -> object:
    """Load a name that needs PyTorch when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
