from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from geo_retina.errors import ModelError
from geo_retina.nn.anchors import (
    AnchorGrid,
    FittedAnchors,
    cell_anchors,
    fit_anchors,
    shape_coverage,
)

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
    assert fit_anchors(squares(*[13.0] * 50), levels=None) == FittedAnchors(
        (2,), ((13.0,),), (1.0,)
    )


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
    fitted = fit_anchors(wh, levels=None)
    sides = fitted.sides_px
    assert fitted.levels == levels
    assert fitted.ratios == (1.0,)
    assert len({len(s) for s in sides}) == 1
    assert all(list(s) == sorted(s) for s in sides)
    assert coverage(wh, sides) >= 0.97


@pytest.mark.parametrize(
    ("width", "length", "levels"), [(12, 24, (2,)), (10, 40, (2, 3)), (9, 80, (3, 4))]
)
def test_both_ends_of_what_is_long_are_seen(
    width: float, length: float, levels: tuple[int, ...]
) -> None:
    wh = torch.tensor([[width, length]] * 30)
    assert fit_anchors(wh, levels=None).levels == levels
    assert fit_anchors(wh.flip(1), levels=None).levels == levels


def test_sides_of_given_levels_also_where_no_label_belongs() -> None:
    fitted = fit_anchors(squares(*[13.0] * 20, *[14.0] * 20), levels=(2, 3))
    sides = fitted.sides_px
    assert fitted.levels == (2, 3)
    assert sides[0][0] in (13.0, 14.0)
    assert 20 <= sides[1][0] <= 48


def test_wide_range_on_one_level_gets_more_sides() -> None:
    torch.manual_seed(0)
    wh = (8 * 6 ** torch.rand(1000))[:, None].repeat(1, 2)
    sides = fit_anchors(wh, levels=(3,)).sides_px
    assert 2 <= len(sides[0]) <= 4
    assert coverage(wh, sides) >= 0.97


def coverage_by_hand(wh: torch.Tensor, fitted: FittedAnchors) -> float:
    """The same for the boxes that the network lays out, by torchvision's IoU."""
    anchors = [cell_anchors(sides, fitted.ratios) for sides in fitted.sides_px]
    boxes = torch.cat([-wh, wh], dim=1).float() / 2
    iou = torchvision.ops.box_iou(boxes, torch.cat(anchors))
    return float((iou.amax(dim=1) >= 0.5).float().mean())


def test_labels_of_one_elongated_shape_need_one_anchor() -> None:
    wh = torch.tensor([[10.0, 40.0]] * 30)
    assert fit_anchors(wh, levels=(2,)) == FittedAnchors((2,), ((20.0,),), (4.0,))
    # Samples that are turned by quarters show each of them lying, too.
    fitted = fit_anchors(wh, levels=(2,), turned=True)
    assert fitted == FittedAnchors((2,), ((20.0,),), (0.25, 4.0))
    assert coverage_by_hand(wh.flip(1), fitted) == 1


def elongated(count: int) -> torch.Tensor:
    """Draw boxes three to five times as long as wide, some lying, some standing."""
    torch.manual_seed(1)
    short = 8 + 8 * torch.rand(count)
    long = short * (3 + 2 * torch.rand(count))
    lying = torch.rand(count) < 0.5
    return torch.stack([torch.where(lying, long, short), torch.where(lying, short, long)], dim=1)


def test_few_ratios_fit_what_no_square_does() -> None:
    wh = elongated(500)
    squares_only = fit_anchors(wh, levels=None, ratios=(1.0,))
    assert coverage_by_hand(wh, squares_only) < 0.1
    fitted = fit_anchors(wh, levels=None)
    assert coverage_by_hand(wh, fitted) >= 0.97
    assert fitted.per_cell <= 4
    assert coverage_by_hand(wh, fitted) == pytest.approx(
        shape_coverage(wh, fitted.sides_px, fitted.ratios)
    )


def test_an_anchor_that_does_not_pay_is_not_taken() -> None:
    """Labels that no square fits: one is as good as four."""
    fitted = fit_anchors(torch.tensor([[5.0, 60.0]] * 30), levels=None, ratios=(1.0,))
    assert fitted.per_cell == 1


def test_many_labels_are_fitted_like_some_of_them() -> None:
    wh = elongated(50_000)
    fitted = fit_anchors(wh, levels=None)
    assert coverage_by_hand(wh, fitted) >= 0.96


def test_coverage_by_hand() -> None:
    wh = torch.tensor([[10.0, 10], [10, 30], [100, 100]])
    assert shape_coverage(wh, [[10.0], [99.0]], [1.0]) == pytest.approx(2 / 3)
    # 17.3 wide and 3 times as high as wide: 10 x 30 exactly.
    assert shape_coverage(wh, [[300**0.5]], [3.0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("wh", [torch.zeros(0, 2), torch.tensor([[0.0, 3.0]])])
def test_nothing_to_fit_to(wh: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="cannot be fitted"):
        fit_anchors(wh, levels=None)
