"""What 8-bit integers cost a model: the same ground, detected on with and without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geo_retina.engine import TorchPredictor, has_openvino
from geo_retina.evaluation import compare
from geo_retina.evaluation.comparison import Difference
from geo_retina.model import Card, Model
from geo_retina.model.cards import ROUNDING
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.quantizing import quantize
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import detect_on_ground

if TYPE_CHECKING:
    import geopandas as gpd

FEWEST_LABELS = 2000
"""Fewer labels cannot tell a small cost from none."""

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class IntegerCost:
    """What integers cost on labelled ground, against floating point as PyTorch computes it.

    Attributes:
        labels: objects it stands on.
        measured_on: one sentence on the ground.
        f1: at the card's thresholds, before and after.
        ap: before and after; without numbers for points.
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
            "costs_little": self.is_measurable and not self.is_high,
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


def find_cost(model: Model, ground: ValidationGround, run: RunOptions) -> IntegerCost:
    """Detect on labelled ground in floating point and in integers, and compare.

    Where OpenVINO is not installed, PyTorch rounds as integers do.

    Args:
        model: with its quantization.
        ground: where.
        run: how detections are carried out.
    """
    floating = replace(ground.detect_options, runtime="torch")
    before = detect_on_ground(model, replace(ground, detect_options=floating), run)
    if has_openvino():
        options = replace(ground.detect_options, runtime="openvino", precision="int8")
        integers, run = model, replace(run, device="cpu")
    else:
        options = replace(ground.detect_options, runtime="auto", precision="fp32")
        integers = replace(model, predictor=predict_rounded)
    after = detect_on_ground(integers, replace(ground, detect_options=options), run)
    kept, kept_after = (_above_thresholds(each, model.card) for each in (before, after))
    scoring = replace(ground.options, resamples=_RESAMPLES)
    return IntegerCost(
        labels=ground.objects,
        measured_on=ground.measured_on,
        f1=compare(kept, kept_after, ground.truth, scoring).overall["f1"],
        ap=compare(before, after, ground.truth, scoring).overall.get("ap", Difference(None, None)),
    )


def predict_rounded(
    model: Model, options: DetectOptions, *, device: str, batch: int | None
) -> TorchPredictor:
    """Make a predictor that rounds as 8-bit integers do, at no gain of time."""
    assert model.quantization is not None
    network = quantize(fold_batch_norms(model.network).eval(), model.quantization)
    return TorchPredictor(replace(model, network=network), options, device=device, batch=batch)


def with_quantization(model: Model, about: dict[str, Any], cost: IntegerCost | None) -> Model:
    """Write on a quantized model's card what was measured.

    Args:
        model: with its quantization.
        about: what ranges were measured on.
        cost: None where it was not measured.
    """
    unknown = {"cost": "not measured", "costs_little": False, "rounding": ROUNDING}
    told = unknown | about | ({} if cost is None else cost.to_dict())
    card = replace(model.card, metrics={**model.card.metrics, "quantization": told})
    return replace(model, card=Card.from_json(card.to_json()))  # as a reader of the file gets it


def _above_thresholds(found: gpd.GeoDataFrame, card: Card) -> gpd.GeoDataFrame:
    least = found["class"].map(dict(zip(card.classes, card.thresholds, strict=True))).astype(float)
    return found[found["score"] >= least]
