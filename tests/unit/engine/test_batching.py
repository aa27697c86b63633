"""What a predictor returns is checked before it is placed, and tiles keep what is theirs."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from support.stubs import StubPredictor, stub_model, tiny_model

from geo_retina import Decoded, Model
from geo_retina.engine import BlockPixels, Engine
from geo_retina.errors import ModelError
from geo_retina.grid import Window, plan_tiles
from geo_retina.options import DetectOptions

GOOD = Decoded(
    torch.tensor([[10.0, 10, 20, 30], [30, 30, 40, 40], [5, 6, 7, 9]]),
    torch.tensor([0.9, 0.8, 0.7]),
    torch.tensor([0, 1, 1]),
    torch.tensor([0, 0, 2]),
    torch.tensor([False, True, False]),
)


def detect(answer: Decoded, tiles: int = 3):
    """Detect in a row of tiles for which a predictor returns the answer."""
    shape = (64, 64 * tiles)
    plan = plan_tiles(shape, tile_px=64, overlap_px=0, stride_px=32, exact=True)
    assert len(plan) == tiles
    pixels, valid = np.zeros((3, *shape), np.uint8), np.ones(shape, bool)
    engine = Engine(stub_model(lambda _: answer), DetectOptions(), batch=tiles)
    return engine.detect([BlockPixels(pixels, valid, Window(0, 0, *shape), plan, list(plan))])[0]


def test_boxes_go_to_their_tiles():
    found = detect(GOOD)
    assert found.detections.tile.tolist() == [0, 0, 2]
    assert found.detections.boxes_px.tolist() == [
        [10, 10, 20, 30],
        [30, 30, 40, 40],
        [128 + 5, 6, 128 + 7, 9],
    ]
    assert found.detections.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(found.detections.scores, np.float32([0.9, 0.8, 0.7]))
    assert (found.tiles, found.skipped, found.truncated) == (3, 0, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_M": torch.tensor([2, 0, 0])}, "not ascending"),
        ({"image_M": torch.tensor([0, 1, 3])}, "outside the batch"),
        ({"image_M": torch.tensor([-1, 0, 1])}, "outside the batch"),
        ({"image_M": torch.tensor([0, 1])}, "2 positions"),
        ({"labels_M": torch.tensor([0, 1, 2])}, "labels of 0 to 2"),
        ({"labels_M": torch.tensor([-1, 1, 1])}, "labels of -1 to 1"),
        ({"scores_M": torch.tensor([0.5, 0.5])}, "2 scores"),
        ({"scores_M": torch.tensor([0.5, 0.5, torch.nan])}, "not finite"),
        ({"boxes_M4": GOOD.boxes_M4[:, :3]}, r"boxes of shape \(3, 3\)"),
        ({"boxes_M4": GOOD.boxes_M4 * torch.inf}, "not finite"),
        ({"boxes_M4": GOOD.boxes_M4[:, [2, 1, 0, 3]]}, "without an area"),
        ({"truncated_N": torch.tensor([False])}, r"marks of tiles of shape \(1,\)"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(changes, said):
    with pytest.raises(ModelError, match=rf"StubPredictor returned .*{said}.* for 3 tiles"):
        detect(GOOD._replace(**changes))


def test_a_predictor_is_part_of_what_a_model_is():
    plain, stub = tiny_model(), stub_model()
    assert plain.fingerprint == Model(plain.network, plain.card).fingerprint
    assert stub.fingerprint == stub_model().fingerprint
    partly = functools.partial(StubPredictor, batch=3)
    other = dataclasses.replace(plain, predictor=partly)
    assert len({plain.fingerprint, stub.fingerprint, other.fingerprint}) == 3
