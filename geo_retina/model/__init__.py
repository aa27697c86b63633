"""Models: weights and their card in one file, and checkpoints of other programs made into one."""

from geo_retina.model.checkpoints import import_checkpoint
from geo_retina.model.files import (
    FORMAT_VERSION,
    OVERLAP_MARGIN_PX,
    OVERLAPS_PER_TILE,
    Band,
    Card,
    Model,
    Radiometry,
    build_network,
    bundled_models,
    check_model_output,
    choose_tile_px,
    find_model,
    load_card,
    load_model,
)

__all__ = [
    "FORMAT_VERSION",
    "OVERLAPS_PER_TILE",
    "OVERLAP_MARGIN_PX",
    "Band",
    "Card",
    "Model",
    "Radiometry",
    "build_network",
    "bundled_models",
    "check_model_output",
    "choose_tile_px",
    "find_model",
    "import_checkpoint",
    "load_card",
    "load_model",
]
