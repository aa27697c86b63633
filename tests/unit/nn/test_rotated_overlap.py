"""Overlap of oriented boxes, against shapely and torchvision's dense one."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from torch import Tensor
from torchvision.ops import box_iou

from geo_retina.boxes import oriented
from geo_retina.nn.rotated_overlap import pair_intersection, pair_iou


def pairs(count: int = 3000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes near each other; among them equal, shifted, turned by 90 and touching ones."""
    rng = np.random.default_rng(seed)

    def some() -> np.ndarray:
        sides = rng.uniform(1, 60, (count, 2))
        return np.column_stack([rng.uniform(0, 60, (count, 2)), sides, rng.uniform(-90, 90, count)])

    a, b = oriented.normalise(some()), oriented.normalise(some())
    b[::7] = a[::7]
    b[1::7], b[1::7, 0] = a[1::7], a[1::7, 0] + 3
    b[2::7], b[2::7, 4] = a[2::7], a[2::7, 4] + 90
    b[3::7], b[3::7, 4] = a[3::7], a[3::7, 4] + 1e-9
    b[4::7, 4] = a[4::7, 4] = 0
    return torch.from_numpy(a), torch.from_numpy(b)


def exact(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    first, second = (shapely.polygons(oriented.corners(each.numpy())) for each in (a, b))
    overlap = shapely.area(shapely.intersection(first, second))
    return overlap, overlap / (shapely.area(first) + shapely.area(second) - overlap)


def test_is_shapelys():
    a, b = pairs()
    overlap, iou = exact(a, b)
    np.testing.assert_allclose(pair_intersection(a, b), overlap, atol=1e-7)
    np.testing.assert_allclose(pair_iou(a, b), iou, atol=1e-9)
    np.testing.assert_allclose(pair_iou(b, a), iou, atol=1e-9)


def test_is_torchvisions_dense_one():
    """Whose angle runs the other way: counter-clockwise as seen, so from x to -y."""
    a, b = pairs(200)
    keep = torch.arange(200) % 7 >= 4  # theirs errs where sides coincide
    turned = [each[keep] * torch.tensor([1.0, 1, 1, 1, -1]) for each in (a, b)]
    dense = box_iou(*turned, fmt="cxcywhr")
    np.testing.assert_allclose(pair_iou(a, b)[keep], dense.diagonal(), atol=1e-4)


def test_upright_boxes_overlap_as_upright_ones():
    rng = np.random.default_rng(2)
    low = rng.integers(0, 50, (2, 500, 2))
    first, second = np.concatenate([low, low + rng.integers(1, 40, (2, 500, 2))], axis=2).astype(
        float
    )
    wanted = box_iou(torch.from_numpy(first), torch.from_numpy(second)).diagonal()
    a, b = (torch.from_numpy(oriented.from_upright(each)) for each in (first, second))
    np.testing.assert_allclose(pair_iou(a, b), wanted, atol=1e-12)


def test_equal_boxes_overlap_wholly_and_far_ones_not_at_all():
    a, _ = pairs(500)
    np.testing.assert_allclose(pair_iou(a, a), 1, atol=1e-12)
    far = a + torch.tensor([1e4, 1e4, 0, 0, 0])
    assert not pair_intersection(a, far).any()


def test_boxes_without_area_or_pairs():
    a, _ = pairs(300)
    line = a * torch.tensor([1.0, 1, 1, 0, 1])
    for one, other in ((a, line), (line, a), (line, line)):
        assert not pair_iou(one, other).any()
    assert pair_iou(a[:0], a[:0]).shape == (0,)


def test_no_corner_is_lost_far_from_the_origin():
    a, b = pairs(500, seed=4)
    _, iou = exact(a, b)
    away = torch.tensor([3e6, 5e6, 0, 0, 0])
    np.testing.assert_allclose(pair_iou(a + away, b + away), iou, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lower_precision_is_computed_in_float64(dtype):
    a, b = (each.to(dtype) for each in pairs(200))
    assert pair_iou(a, b).dtype == torch.float64
    assert torch.equal(pair_iou(a, b), pair_iou(a.double(), b.double()))
