"""The IoU of suppression is chosen on the validation ground, and the card carries it."""

from __future__ import annotations

import pytest
from support.stubs import tiny_card, tiny_model
from support.tiny_training import FakeScores

from geo_retina import DetectOptions, EvaluateOptions, RunOptions, load_model
from geo_retina.errors import ModelError
from geo_retina.model import Card
from geo_retina.options import MergeOptions
from geo_retina.run.fitting import suited
from geo_retina.training.validation import nms_search


def scores_of(f1: float) -> FakeScores:
    """As those of a validation, on a card too."""
    scores = FakeScores(f1)
    scores.to_dict = lambda: {"overall": {"f1": f1}}
    return scores


class Ground:
    measured_on = "a made-up ground"
    options = EvaluateOptions(radius_m=6.0)


def scored_by(best: float, tried: list[float]):
    """In place of a validation: the nearer to the best suppression, the better."""

    def validate(model, ground, run):
        tried.append(model.card.nms_iou)
        scores = scores_of(1 - abs(model.card.nms_iou - best))
        scores.thresholds = (model.card.nms_iou, 0.5)
        return scores

    return validate


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.1, [0.2, 0.1]),
        (0.2, [0.2, 0.1]),
        (0.3, [0.2, 0.4]),
        (0.5, [0.2, 0.4, 0.5, 0.6]),
        (0.7, [0.2, 0.4, 0.5, 0.6, 0.7]),
    ],
)
def test_the_best_suppression_and_its_thresholds_go_on_the_card(monkeypatch, best, tried):
    seen: list[float] = []
    monkeypatch.setattr(nms_search, "validate", scored_by(best, seen))
    model = tiny_model(
        nms_iou=0.3, metrics={"val": scores_of(1 - abs(0.3 - best)).to_dict(), "other": 1}
    )
    chosen = nms_search.search_nms_iou(model, Ground(), RunOptions())
    assert seen == tried
    assert chosen.card.nms_iou == best
    assert chosen.card.metrics["val"]["overall"]["f1"] == 1
    assert chosen.card.metrics["other"] == 1
    assert chosen.network is model.network
    if best != 0.3:
        assert chosen.card.thresholds == (best, 0.5)


def test_points_begin_with_a_lower_suppression(monkeypatch):
    assert nms_search.first_nms_iou(Ground(), None) == 0.3
    ground = Ground()
    ground.options = EvaluateOptions()
    assert nms_search.first_nms_iou(ground, None) == 0.5
    assert nms_search.first_nms_iou(ground, 0.6) == 0.6


def test_a_card_carries_its_suppression(tmp_path):
    model = tiny_model(nms_iou=0.25)
    assert load_model(model.save(tmp_path / "m.safetensors")).card.nms_iou == 0.25
    older = tiny_card().to_json().replace('"nms_iou": 0.5, ', "")
    assert "nms_iou" not in older
    assert Card.from_json(older).nms_iou == 0.5
    with pytest.raises(ModelError, match=r"nms_iou of 1\.5, expected 0 to 1"):
        tiny_card(nms_iou=1.5)


def test_tiles_keep_nothing_of_each_other_that_one_would_suppress():
    card = tiny_card(nms_iou=0.25)
    assert suited(DetectOptions(), card).nms_iou == 0.25
    assert suited(DetectOptions(), card).merge.iou == 0.25
    assert suited(DetectOptions(nms_iou=0.6), card).merge.iou == 0.4
    lower = DetectOptions(merge=MergeOptions(iou=0.1, join=False))
    assert suited(lower, card).merge == MergeOptions(iou=0.1, join=False)
    assert suited(suited(lower, card), tiny_card()) == suited(lower, card)
