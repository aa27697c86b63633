from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from geo_retina.errors import ModelError
from geo_retina.nn.anchors import AnchorGrid, fit_anchors

SIDES = tuple(
    (float(x), float(int(x * 2 ** (1 / 3))), float(int(x * 2 ** (2 / 3)))) for x in (32, 64, 128)
)
RATIOS = (0.5, 1.0, 2.0)


def test_rounded_anchors_equal_torchvision() -> None:
    height, width = 96, 160
    maps = [torch.zeros(1, 1, height // s, width // s) for s in (8, 16, 32)]
    generator = AnchorGenerator(SIDES, (RATIOS,) * 3)
    image = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    expected = generator(image, maps)[0]
    found = AnchorGrid((8, 16, 32), SIDES, RATIOS, True)((height, width), "cpu")
    assert torch.equal(torch.cat(found), expected)


def test_centres_are_the_cells_centres() -> None:
    grid = AnchorGrid((4, 8), ((13.0,), (30.0,)), (1.0,), False)
    fine, coarse = grid((16, 24), "cpu")
    assert fine.shape == (4 * 6, 4)
    assert coarse.shape == (2 * 3, 4)
    assert fine[0].tolist() == [2 - 6.5, 2 - 6.5, 2 + 6.5, 2 + 6.5]
    assert fine[7].tolist() == [6 - 6.5, 6 - 6.5, 6 + 6.5, 6 + 6.5]  # second row, second column
    assert coarse[-1].tolist() == [20 - 15, 12 - 15, 20 + 15, 12 + 15]
    assert fine.dtype == torch.float32


def test_ratio_is_height_over_width_and_keeps_the_area() -> None:
    grid = AnchorGrid((8,), ((16.0, 32.0),), (0.25, 4.0), False)
    cell = grid((8, 8), "cpu")[0]
    wh = (cell[:, 2:] - cell[:, :2]).tolist()
    assert wh == [[32.0, 8.0], [64.0, 16.0], [8.0, 32.0], [16.0, 64.0]]
    assert grid.per_cell == 4


def test_sizes_that_are_no_multiple_round_up() -> None:
    assert len(AnchorGrid((8,), ((16.0,),), (1.0,), False)((17, 9), "cpu")[0]) == 3 * 2


def test_anchors_made_under_inference_serve_in_training() -> None:
    grid = AnchorGrid((8,), ((16.0,),), (1.0,), False)
    with torch.inference_mode():
        first = grid((16, 16), "cpu")
    again = grid((16, 16), "cpu")
    assert again[0] is first[0]
    weight = torch.ones(4, 4, requires_grad=True)
    (weight * again[0]).sum().backward()
    torch.testing.assert_close(weight.grad, again[0])


def test_cache_does_not_grow_without_end() -> None:
    grid = AnchorGrid((8,), ((16.0,),), (1.0,), False)
    for size in range(8, 8 * 40, 8):
        assert len(grid((size, size), "cpu")[0]) == (size // 8) ** 2
    assert len(grid._cache) <= 8


def test_uneven_sides_are_refused() -> None:
    with pytest.raises(ModelError, match="same number of sides"):
        AnchorGrid((8, 16), ((16.0,), (32.0, 40.0)), (1.0,), False)
    with pytest.raises(ModelError, match="2 levels"):
        AnchorGrid((8, 16), ((16.0,),), (1.0,), False)


def squares(*sides: float) -> torch.Tensor:
    return torch.tensor(sides)[:, None].repeat(1, 2)


def coverage(wh: torch.Tensor, sides: tuple[tuple[float, ...], ...]) -> float:
    """Share of labels that some square covers with IoU 0.5, one by one."""
    hit = 0
    for w, h in wh.tolist():
        ious = []
        for side in (s for level in sides for s in level):
            overlap = min(w, side) * min(h, side)
            ious.append(overlap / (w * h + side * side - overlap))
        hit += max(ious) >= 0.5
    return hit / len(wh)


def test_labels_of_one_size_need_one_anchor() -> None:
    assert fit_anchors(squares(*[13.0] * 50), levels=None) == ((2,), ((13.0,),))


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [
        (11, 20, (2,)),
        (4, 9, (2,)),
        (11, 45, (2, 3)),
        (22, 46, (3,)),
        (12, 170, (2, 3, 4, 5)),
        (200, 370, (6,)),
        (900, 1000, (6,)),
    ],
)
def test_levels_follow_the_sizes(low: float, high: float, levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wh = (low + (high - low) * torch.rand(2000))[:, None].repeat(1, 2)
    found, sides = fit_anchors(wh, levels=None)
    assert found == levels
    assert len({len(s) for s in sides}) == 1
    assert all(list(s) == sorted(s) for s in sides)
    assert coverage(wh, sides) >= 0.97


def test_sides_of_given_levels_also_where_no_label_belongs() -> None:
    levels, sides = fit_anchors(squares(*[13.0] * 20, *[14.0] * 20), levels=(2, 3))
    assert levels == (2, 3)
    assert sides[0][0] in (13.0, 14.0)
    assert 20 <= sides[1][0] <= 48


def test_wide_range_on_one_level_gets_more_sides() -> None:
    torch.manual_seed(0)
    wh = (8 * 6 ** torch.rand(1000))[:, None].repeat(1, 2)
    _, sides = fit_anchors(wh, levels=(3,))
    assert 2 <= len(sides[0]) <= 4
    assert coverage(wh, sides) >= 0.97


def test_elongated_labels_end_in_an_answer() -> None:
    levels, sides = fit_anchors(torch.tensor([[10.0, 40.0]] * 30), levels=None)
    assert levels == (2,)
    assert len(sides[0]) == 4


@pytest.mark.parametrize("wh", [torch.zeros(0, 2), torch.tensor([[0.0, 3.0]])])
def test_nothing_to_fit_to(wh: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="cannot be fitted"):
        fit_anchors(wh, levels=None)
