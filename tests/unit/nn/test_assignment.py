from __future__ import annotations

import pytest
import torch
from support.small_networks import random_boxes
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.assignment import BACKGROUND, IGNORE, assign_atss, assign_iou, mask_ignored
from geo_retina.nn.rotated_coding import hull

DENSE = AnchorGrid((4,), ((13.0,),), (1.0,), False)
PAPER = AnchorGrid((8, 16, 32), ((32.0, 40.0), (64.0, 80.0), (128.0, 160.0)), (0.5, 1.0, 2.0), True)
ODD = AnchorGrid((32,), ((50.0,),), (1.0,), False)  # fewer anchors than a block


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("grid", "sides"), [(DENSE, (4, 30)), (PAPER, (8, 200)), (ODD, (10, 90))])
def test_equals_torchvisions_matcher(
    grid: AnchorGrid, sides: tuple[float, float], seed: int
) -> None:
    anchors = torch.cat(grid((256, 256), "cpu"))
    boxes = random_boxes(40, 256, sides, generator(seed))
    expected = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(boxes, anchors))
    found = assign_iou(anchors, boxes, foreground_iou=0.5, background_iou=0.4)
    assert torch.equal(found, expected)
    assert set(expected.sign().tolist()) >= {-1, 1}


def test_thresholds_are_those_given() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4], [0, 0, 10, 2]])
    box = torch.tensor([[0.0, 0, 10, 10]])
    found = assign_iou(anchors, box, foreground_iou=0.6, background_iou=0.4)
    assert found.tolist() == [0, 0, IGNORE, BACKGROUND]


def test_best_anchor_of_an_object_is_kept_however_small_the_overlap() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [9, 9, 19, 19], [40, 40, 50, 50]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [18, 18, 60, 60]])
    found = assign_iou(anchors, boxes, foreground_iou=0.5, background_iou=0.4)
    assert found.tolist() == [0, BACKGROUND, 1]
    far = torch.tensor([[0.0, 0, 10, 10], [18, 18, 22, 22]])
    assert assign_iou(anchors, far, foreground_iou=0.5, background_iou=0.4).tolist() == [0, 1, -1]


def test_object_that_no_anchor_overlaps_takes_none() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[10.0, 0, 20, 10]])  # touches, without area
    assert assign_iou(anchors, boxes, foreground_iou=0.5, background_iou=0.4).tolist() == [-1]


def test_equal_overlaps_go_to_the_first_object() -> None:
    boxes = torch.tensor([[4.0, 0, 14, 10], [-4, 0, 6, 10]])
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    assert assign_iou(anchor, boxes, foreground_iou=0.5, background_iou=0.4).tolist() == [0]
    assert assign_iou(anchor, boxes.flip(0), foreground_iou=0.5, background_iou=0.4).tolist() == [0]


def test_no_objects_leave_background() -> None:
    anchors, none = torch.cat(DENSE((64, 64), "cpu")), torch.zeros(0, 4)
    found = assign_iou(anchors, none, foreground_iou=0.5, background_iou=0.4)
    assert found.dtype == torch.int64
    assert found.tolist() == [BACKGROUND] * 256
    assert assign_atss([anchors], none, candidates=9).tolist() == [BACKGROUND] * 256


def naive_atss(levels: list[Tensor], boxes: Tensor, count: int) -> list[int]:
    """The paper's algorithm 1, object by object; where it leaves one without, its best stand."""
    anchors = torch.cat(levels)
    best: dict[int, tuple[float, int]] = {}
    for m, box in enumerate(boxes):
        centre = (box[:2] + box[2:]) / 2
        chosen, start = [], 0
        for level in levels:
            distance = ((level[:, :2] + level[:, 2:]) / 2 - centre).square().sum(dim=1)
            nearest = distance.argsort(stable=True)[:count]
            chosen += (nearest + start).tolist()
            start += len(level)
        iou = box_iou(box[None], anchors[chosen])[0]
        near = [(a, value) for a, value in zip(chosen, iou, strict=True) if value > 0]
        middles = {a: (anchors[a, :2] + anchors[a, 2:]) / 2 for a, _ in near}
        inside = [
            (a, value)
            for a, value in near
            if (middles[a] > box[:2]).all() and (middles[a] < box[2:]).all()
        ] or near
        least = min([iou.mean() + iou.std(), *sorted(value for _, value in inside)[-1:]])
        for a, value in inside:
            if value >= least and (a not in best or value > best[a][0]):
                best[a] = (float(value), m)
    return [best[a][1] if a in best else BACKGROUND for a in range(len(anchors))]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("grid", "sides", "count"), [(DENSE, (6, 30), 9), (PAPER, (16, 200), 9), (ODD, (20, 90), 70)]
)
def test_atss_equals_the_naive_one(
    grid: AnchorGrid, sides: tuple[float, float], count: int, seed: int
) -> None:
    levels = grid((264, 264), "cpu")
    boxes = random_boxes(30, 264, sides, generator(seed))
    found = assign_atss(levels, boxes, candidates=count).tolist()
    assert found == naive_atss(levels, boxes, count)
    assert max(found) >= 0


def test_atss_breaks_equal_distances_by_position() -> None:
    """Centres on the corner of four cells, and anchors that share a centre."""
    levels = PAPER((128, 128), "cpu")
    corner = torch.tensor([[x, y] for x in (20.0, 36, 60) for y in (28.0, 52, 100)])
    boxes = torch.cat([corner - 18, corner + 18], dim=1)
    assert assign_atss(levels, boxes, candidates=7).tolist() == naive_atss(levels, boxes, 7)


@pytest.mark.parametrize(
    "rotated",
    [[65.0, 68, 34, 32, 0], [65, 65, 14, 13, 30], [64, 64, 60, 3, 0], [62, 63, 2, 1.5, 10]],
    ids=["around most of its candidates", "of their size", "thinner than a cell", "tiny"],
)
@pytest.mark.parametrize("is_oriented", [False, True])
def test_no_object_is_left_without_an_anchor(rotated: list[float], is_oriented: bool) -> None:
    anchors = AnchorGrid([8], [(14.0,)], (1.0,), False)((128, 128), "cpu")
    box = torch.tensor([rotated])
    angles = box if is_oriented else None
    found = assign_atss(anchors, hull(box), candidates=9, rotated_M5=angles)
    chosen = anchors[0][found == 0]
    assert len(chosen) >= 1
    far = ((chosen[:, :2] + chosen[:, 2:]) / 2 - box[:, :2]).abs().amax()
    assert float(far) < 14


def test_background_mostly_in_an_ignored_region_is_ignored() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [5, 0, 15, 10], [6, 0, 16, 10]])
    region = torch.tensor([[0.0, 0, 10, 10]])
    start = torch.tensor([7, BACKGROUND, BACKGROUND, BACKGROUND])
    found = mask_ignored(start, anchors, region, None)
    assert found.tolist() == [7, IGNORE, BACKGROUND, BACKGROUND]
    assert start.tolist() == [7, -1, -1, -1]


def test_two_halves_of_ignored_ground_do_not_add_up() -> None:
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    halves = torch.tensor([[0.0, 0, 5, 10], [0.0, 0, 5, 10]])
    assert mask_ignored(torch.tensor([BACKGROUND]), anchor, halves, None).tolist() == [BACKGROUND]


def test_unlabelled_ground_is_ignored_by_centre() -> None:
    ground = torch.ones(8, 16, dtype=torch.bool)
    ground[:, 8:] = False
    ground[6, 2] = False
    centres = [(7.9, 3.0), (8.0, 3.0), (2.5, 6.5), (6.5, 2.5), (-3.0, 2.0), (40.0, 2.0)]
    anchors = torch.tensor([[x - 2, y - 2, x + 2, y + 2] for x, y in centres])
    start = torch.full((6,), BACKGROUND)
    found = mask_ignored(start, anchors, torch.zeros(0, 4), ground)
    assert found.tolist() == [BACKGROUND, IGNORE, IGNORE, BACKGROUND, BACKGROUND, IGNORE]
    objects = mask_ignored(torch.full((6,), 3), anchors, torch.zeros(0, 4), ground)
    assert objects.tolist() == [3] * 6
