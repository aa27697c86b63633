"""``quantize``: what 8-bit integers stand for in a model, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geo_retina.calibration.calibrating import gather_ground
from geo_retina.detector import detect
from geo_retina.errors import ModelError, SceneError
from geo_retina.evaluation import compare
from geo_retina.evaluation.comparison import Difference
from geo_retina.model import Card, Model, check_model_output, load_model
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.predictor import Decoded
from geo_retina.nn.quantizing import measure
from geo_retina.options import CalibrateOptions, DataOptions, DetectOptions, RunOptions
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import detect_on_ground

if TYPE_CHECKING:
    import geopandas as gpd

TILES = 64
"""Tiles that ranges are measured on."""

_TILE_PX = 512

FEWEST_LABELS = 2000
"""Fewer labels cannot tell a small cost from none."""

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What integers cost on labelled ground, against floating point as PyTorch computes it.

    Attributes:
        labels: objects it stands on.
        measured_on: one sentence on the ground.
        f1: at the card's thresholds, before and after.
        ap: before and after.
    """

    labels: int
    measured_on: str
    f1: Difference
    ap: Difference

    @property
    def is_measurable(self) -> bool:
        """Whether there are labels enough to tell a small cost from none."""
        return self.labels >= FEWEST_LABELS

    @property
    def is_high(self) -> bool:
        """Whether more than 0.003 of F1 or AP is lost, and surely something."""
        return any(
            each.difference is not None
            and each.difference < -0.003
            and (each.interval is None or each.interval[1] < 0)
            for each in (self.f1, self.ap)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        return {
            "labels": self.labels,
            "measured_on": self.measured_on,
            "f1": self.f1.to_dict(),
            "ap": self.ap.to_dict(),
            "cost": "measured" if self.is_measurable else "not measurable",
        }

    def text(self) -> str:
        """Write it in lines."""
        lines = [self.measured_on]
        for name, each in (("F1", self.f1), ("AP", self.ap)):
            if each.a is not None and each.b is not None:
                ends = (
                    ""
                    if each.interval is None
                    else " (95 %: {:+.4f} to {:+.4f})".format(*each.interval)
                )
                lines.append(f"{name}: {each.a:.4f}, in integers {each.b:.4f}{ends}")
        if not self.is_measurable:
            lines.append(
                f"what integers cost is not measurable on fewer than {FEWEST_LABELS:,} labels; "
                "auto stays in floating point"
            )
        return "\n".join(lines)


def quantize_model(
    model: str | Path | Model,
    scenes: Sequence[str],
    out: str | Path,
    *,
    labelled: DataOptions | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> tuple[Card, Cost | None]:
    """Measure what 8-bit integers stand for, and with labels what they cost.

    Args:
        model: a model, a model file, or the name of a bundled model.
        scenes: files, folders, globs or lists, like those that the model will see.
        out: model file to write, ending .safetensors.
        labelled: scenes and labels that it was not trained on, to measure the cost by.
        force: write the file although integers cost much.
        overwrite: replace an existing file.

    Returns:
        The new file's card, and the cost; None without labels.

    Raises:
        GeoRetinaError: the scenes or labels cannot be used, integers cost too much, or the file
            exists.
    """
    out, run = Path(out), RunOptions(device="cpu")
    check_model_output(out, overwrite=overwrite)
    start = model if isinstance(model, Model) else load_model(model)
    tiles = collect_tiles(start, tuple(scenes), run)
    folded = fold_batch_norms(start.network).eval()
    quantized = replace(start, quantization=measure(folded, [tile[None] for tile in tiles]))
    about: dict[str, Any] = {"tiles": len(tiles), "scenes": len(scenes)}
    cost = None
    if labelled is not None:
        ground = gather_ground(start.card, labelled, CalibrateOptions())[0]
        cost = find_cost(quantized, ground, run)
        about |= cost.to_dict()
        if cost.is_measurable and cost.is_high and not force:
            raise ModelError(
                f"model {start.card.name} loses much in integers: {cost.text()}; use it in "
                "floating point, or write the file all the same with force"
            )
    about["costs_little"] = cost is not None and cost.is_measurable and not cost.is_high
    card = replace(start.card, metrics={**start.card.metrics, "quantization": about})
    replace(quantized, card=card).save(out, overwrite=overwrite)
    return card, cost


def collect_tiles(
    model: Model, scenes: tuple[str, ...], run: RunOptions, count: int = TILES
) -> list[Tensor]:
    """Draw (C, H, W) tiles from scenes, as detection gives them to a network.

    Args:
        model: whose card says how they are read.
        scenes: files, folders, globs, lists or STAC documents.
        run: how they are read.
        count: tiles at the most.

    Raises:
        SceneError: no scene shows valid ground.
    """
    drawn = _Drawn(count)
    side = _TILE_PX if model.card.tile_px > _TILE_PX > 3 * model.card.overlap_px else None
    options = DetectOptions(tile_px=side)
    detect(
        list(scenes),
        replace(model, predictor=drawn),
        options,
        replace(run, threads=1, workers=1, device="cpu"),
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


def find_cost(model: Model, ground: ValidationGround, run: RunOptions) -> Cost:
    """Detect on labelled ground in floating point and in integers, and compare.

    Args:
        model: with its quantization.
        ground: where.
        run: how detections are carried out.
    """
    found = [
        detect_on_ground(model, replace(ground, detect_options=options), run)
        for options in (
            replace(ground.detect_options, runtime="torch", precision="auto"),
            replace(ground.detect_options, runtime="openvino", precision="int8"),
        )
    ]
    before, after = found
    kept, kept_after = (_above_thresholds(each, model.card) for each in found)
    options = replace(ground.options, resamples=_RESAMPLES)
    return Cost(
        labels=ground.objects,
        measured_on=ground.measured_on,
        f1=compare(kept, kept_after, ground.truth, options).overall["f1"],
        ap=compare(before, after, ground.truth, options).overall["ap"],
    )


def _above_thresholds(found: gpd.GeoDataFrame, card: Card) -> gpd.GeoDataFrame:
    least = found["class"].map(dict(zip(card.classes, card.thresholds, strict=True))).astype(float)
    return found[found["score"] >= least]
