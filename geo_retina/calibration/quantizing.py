"""``quantize_model``: what 8-bit integers stand for in a model, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geo_retina.calibration.calibrating import gather_ground
from geo_retina.detector import detect
from geo_retina.errors import ModelError, SceneError
from geo_retina.model import Model, check_model_output, load_model
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.predictor import Decoded
from geo_retina.nn.quantizing import measure
from geo_retina.options import (
    CalibrateOptions,
    DataOptions,
    DetectOptions,
    QuantizeOptions,
    RunOptions,
)
from geo_retina.training.validation.integer_cost import IntegerCost, find_cost, with_quantization

_TILE_PX = 512


def quantize_model(
    model: str | Path | Model,
    scenes: Sequence[str],
    out: str | Path,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    labelled: DataOptions | None = None,
    overwrite: bool = False,
) -> tuple[Model, IntegerCost | None]:
    """Measure what 8-bit integers stand for, and with labels what they cost.

    Args:
        model: a model, a model file, or the name of a bundled model.
        scenes: files, folders, globs or lists, like those that the model will see.
        out: model file to write, ending .safetensors.
        options: what is measured.
        labelled: scenes and labels that it was not trained on, to measure the cost by; their
            bands are those of ``scenes`` too.
        overwrite: replace an existing file.

    Returns:
        The model as it was written, and the cost; None without labels.

    Raises:
        GeoRetinaError: the scenes or labels cannot be used, integers cost too much, or the file
            exists.

    Examples:
        >>> from geo_retina import DataOptions, quantize_model
        >>> data = DataOptions(scenes="scene.tif", labels="labels.gpkg", class_column="class")
        >>> model, cost = quantize_model("demo", ["scene.tif"], "int8.safetensors", labelled=data)
        >>> cost.is_measurable  # on so few labels
        False
    """
    out, run = Path(out), RunOptions(device="cpu")
    check_model_output(out, overwrite=overwrite)
    start = model if isinstance(model, Model) else load_model(model)
    bands = None if labelled is None else labelled.bands
    tiles = collect_tiles(start, tuple(scenes), DetectOptions(bands=bands), options.tiles)
    measured = measure(fold_batch_norms(start.network).eval(), [tile[None] for tile in tiles])
    quantized = replace(start, quantization=measured)
    cost = None
    if labelled is not None:
        choosing = CalibrateOptions(radius_m=options.radius_m)
        ground = gather_ground(start.card, labelled, choosing)[0]
        cost = find_cost(quantized, ground, run)
        if cost.is_measurable and cost.is_high and not options.force:
            raise ModelError(
                f"model {start.card.name} loses much in integers: {cost.text()}; use it in "
                "floating point, or write the file all the same with QuantizeOptions.force=True"
            )
    about = {"tiles": len(tiles), "tiles_from": "scenes"}
    written = with_quantization(quantized, about, cost)
    written.save(out, half=None, overwrite=overwrite)
    return written, cost


def collect_tiles(
    model: Model, scenes: tuple[str, ...], options: DetectOptions, count: int
) -> list[Tensor]:
    """Draw (C, H, W) tiles from scenes, as detection gives them to a network.

    Args:
        model: whose card says how they are read.
        scenes: files, folders, globs, lists or STAC documents.
        options: how they are read.
        count: tiles at the most.

    Raises:
        SceneError: no scene shows valid ground.
    """
    drawn = _Drawn(count)
    side = _TILE_PX if model.card.tile_px > _TILE_PX > 3 * model.card.overlap_px else None
    detect(
        list(scenes),
        replace(model, predictor=drawn),
        replace(options, tile_px=side),
        RunOptions(threads=1, workers=1, device="cpu"),
        crs="EPSG:4326",
    )
    if not drawn.tiles:
        raise SceneError(f"{len(scenes)} scenes show no valid ground, expected some to measure on")
    return drawn.tiles


class _Drawn:
    """Makes itself a predictor that finds nothing and keeps tiles, each with equal chances."""

    batches_at_once = 1
    device = torch.device("cpu")

    def __init__(self, count: int) -> None:
        self.tiles: list[Tensor] = []
        self._count = count
        self._seen = 0
        self._random = np.random.default_rng(0)

    def __call__(
        self, model: Model, options: DetectOptions, *, device: str, batch: int | None
    ) -> _Drawn:
        return self

    def batch_size(self, tile_px: int) -> int:
        """Take few at once."""
        return 4

    def predict(self, tiles_NCHW: Tensor, *, all_boxes: bool = False) -> Decoded:
        """Keep some of the tiles."""
        for tile in tiles_NCHW:
            self._seen += 1
            if len(self.tiles) < self._count:
                self.tiles.append(tile.clone())
            elif (place := int(self._random.integers(self._seen))) < self._count:
                self.tiles[place] = tile.clone()
        none = torch.zeros(0, dtype=torch.int64)
        truncated_N = torch.zeros(len(tiles_NCHW), dtype=torch.bool)
        return Decoded(torch.zeros(0, 4), torch.zeros(0), none, none, truncated_N)
