"""The smallest training that is one: a tiny network on a scene of squares."""

from __future__ import annotations

from typing import Any

from geo_retina.options import DataOptions, SampleOptions, SplitOptions, TrainOptions


def tiny(scene: Any, labels: Any, **how: Any) -> TrainOptions:
    """Options of a run that takes seconds; ``data`` holds changes of the DataOptions."""
    data = DataOptions(scenes=(str(scene),), labels=str(labels), **how.pop("data", {}))
    defaults = {
        "network": {"backbone": "test_resnet", "channels": 16, "convs": 1},
        "pretrained": False,
        "split": SplitOptions(block_m=40.0, val_fraction=0.25),
        "samples": SampleOptions(window_px=64, over_edge=0.0, nodata=0.0),
        "epochs": 4,
        "samples_per_epoch": 8,
        "batch": 4,
        "lr": 5e-3,
        "nms_iou": 0.5,
        "workers": 0,
        "picture_every": 0,
        "quantize": False,
        "device": "cpu",
        "precision": "fp32",
    }
    if "weights" in how:
        defaults.pop("network")
    return TrainOptions(data=data, **{**defaults, **how})


class FakeScores:
    """In place of a validation: the score of each epoch is given."""

    thresholds = (0.25,)
    found = None

    def __init__(self, f1: float) -> None:
        self.f1 = f1

    def measure(self, by: str) -> float:
        return self.f1

    def numbers(self) -> dict[str, float]:
        return {"f1": self.f1}

    def to_dict(self) -> dict[str, Any]:
        return {"f1": self.f1}
