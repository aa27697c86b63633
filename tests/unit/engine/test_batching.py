"""What a predictor returns is checked before it is placed, and tiles keep what is theirs."""

import dataclasses
import functools

import numpy as np
import pytest
import shapely
import torch
from support.stubs import StubPredictor, stub_model, tiny_model

from geo_retina import Decoded, Model
from geo_retina.boxes import oriented
from geo_retina.detections import Cut
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


def detect(answer: Decoded, tiles: int = 3, *, boxes="upright"):
    """Detect in a row of tiles for which a predictor returns the answer."""
    shape = (64, 64 * tiles)
    plan = plan_tiles(shape, tile_px=64, overlap_px=0, stride_px=32, exact=True)
    assert len(plan) == tiles
    pixels, valid = np.zeros((3, *shape), np.uint8), np.ones(shape, bool)
    engine = Engine(stub_model(lambda _: answer, boxes=boxes), DetectOptions(), batch=tiles)
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


ROTATED_M5 = torch.tensor([[30.0, 30, 20, 8, 30], [60, 20, 40, 10, -20], [62, 2, 30, 10, 45]])
HULLS_M4 = torch.from_numpy(oriented.hull(ROTATED_M5.double().numpy())).clamp(0, 64).float()
ROTATED = GOOD._replace(boxes_M4=HULLS_M4, rotated_M5=ROTATED_M5)


def test_oriented_boxes_go_to_their_tiles_and_are_cut_at_the_same_angle():
    found = detect(ROTATED, boxes="oriented").detections
    assert found.tile.tolist() == [0, 0, 2]
    whole, leaving, corner = found.rotated_px
    assert whole.tolist() == [30, 30, 20, 8, 30]
    assert (leaving[4], corner[4]) == (-20, 45)
    windows = [(0, 0, 64, 64)] * 2 + [(128, 0, 192, 64)]
    whole_px = ROTATED_M5.double().numpy() + np.array([[0, 0, 0, 0, 0]] * 2 + [[128, 0, 0, 0, 0]])
    polygons = shapely.polygons(oriented.corners(whole_px))
    for found_px, box_px, polygon, window in zip(
        shapely.polygons(found.corners_px), found.boxes_px, polygons, windows, strict=True
    ):
        part = shapely.intersection(polygon, shapely.box(*window))
        assert shapely.area(shapely.difference(part, found_px)) < 1e-9  # all of it, and no more:
        assert shapely.area(shapely.difference(found_px, polygon)) < 1e-9
        np.testing.assert_allclose(
            box_px, shapely.intersection(found_px, shapely.box(*window)).bounds
        )
    assert found.cut.tolist() == [0, Cut.RIGHT, Cut.SCENE_TOP | Cut.SCENE_RIGHT]


def test_an_oriented_box_centred_on_invalid_ground_is_dropped_by_its_own_centre():
    shape = (64, 64)
    plan = plan_tiles(shape, tile_px=64, overlap_px=0, stride_px=32, exact=True)
    valid = np.ones(shape, bool)
    valid[:, 31:] = False
    answer = ROTATED._replace(truncated_N=torch.zeros(1, dtype=torch.bool))
    answer = Decoded(*(None if f is None else f[:1] for f in answer))
    engine = Engine(stub_model(lambda _: answer, boxes="oriented"), DetectOptions(), batch=1)
    for centre_x, count in ((30.0, 1), (32.0, 0)):
        answer.rotated_M5[:, 0] = centre_x
        pixels = BlockPixels(
            np.zeros((3, *shape), np.uint8), valid, Window(0, 0, *shape), plan, list(plan)
        )
        assert len(engine.detect([pixels])[0].detections) == count


@pytest.mark.parametrize(
    ("answer", "boxes", "said"),
    [
        (GOOD, "oriented", "upright boxes, though the card's are oriented"),
        (ROTATED, "upright", "angles of boxes"),
        (ROTATED._replace(rotated_M5=ROTATED_M5[:2]), "oriented", r"of shape \(2, 5\)"),
        (ROTATED._replace(rotated_M5=ROTATED_M5 * torch.nan), "oriented", "not finite"),
    ],
)
def test_boxes_of_another_kind_than_the_card_says_are_refused(answer, boxes, said):
    with pytest.raises(ModelError, match=rf"StubPredictor returned .*{said}.* for 3 tiles"):
        detect(answer, boxes=boxes)


def test_a_predictor_is_part_of_what_a_model_is():
    plain, stub = tiny_model(), stub_model()
    assert plain.fingerprint == Model(plain.network, plain.card).fingerprint
    assert stub.fingerprint == stub_model().fingerprint
    partly = functools.partial(StubPredictor, batch=3)
    other = dataclasses.replace(plain, predictor=partly)
    assert len({plain.fingerprint, stub.fingerprint, other.fingerprint}) == 3
