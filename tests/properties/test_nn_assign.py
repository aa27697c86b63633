"""Assignment against its definition, on boxes full of ties."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from geo_retina.nn.assignment import BACKGROUND, IGNORE, _nearest, assign_iou, mask_ignored

_side = st.integers(1, 12)
_place = st.integers(0, 20)
_box = st.tuples(_place, _place, _side, _side).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


def naive(anchors: torch.Tensor, boxes: torch.Tensor, high: float, low: float) -> list[int]:
    iou = box_iou(boxes, anchors).tolist()
    result = []
    for a in range(len(anchors)):
        column = [row[a] for row in iou]
        best = max(column, default=0.0)
        first = column.index(best) if column else 0
        favourite = any(row[a] == max(row) > 0 for row in iou)
        if best > 0 and (best >= high or favourite):
            result.append(first)
        else:
            result.append(IGNORE if column and best >= low else BACKGROUND)
    return result


@given(
    st.lists(_box, min_size=1, max_size=150),
    st.lists(_box, max_size=8),
    st.sampled_from([(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (0.25, 0.2)]),
)
def test_assignment_follows_its_definition(
    anchors: list[list[float]], boxes: list[list[float]], thresholds: tuple[float, float]
) -> None:
    a, b = torch.tensor(anchors), torch.tensor(boxes).reshape(-1, 4)
    high, low = thresholds
    found = assign_iou(a, b, foreground_iou=high, background_iou=low)
    assert found.tolist() == naive(a, b, high, low)


@given(st.lists(_box, min_size=1, max_size=150), st.lists(_box, max_size=5))
def test_ignored_regions_follow_their_definition(
    anchors: list[list[float]], regions: list[list[float]]
) -> None:
    a, r = torch.tensor(anchors), torch.tensor(regions).reshape(-1, 4)
    found = mask_ignored(torch.full((len(a),), BACKGROUND), a, r, None).tolist()
    for (x0, y0, x1, y1), value in zip(anchors, found, strict=True):
        shares = [
            max(0.0, min(x1, rx1) - max(x0, rx0)) * max(0.0, min(y1, ry1) - max(y0, ry0))
            for rx0, ry0, rx1, ry1 in regions
        ]
        mostly = any(share > (x1 - x0) * (y1 - y0) / 2 for share in shares)
        assert value == (IGNORE if mostly else BACKGROUND)


@given(
    st.lists(st.tuples(_place, _place), min_size=1, max_size=200),
    st.lists(st.tuples(_place, _place), min_size=1, max_size=6),
    st.integers(1, 90),
)
def test_nearest_follows_its_definition(
    centres: list[tuple[int, int]], points: list[tuple[int, int]], count: int
) -> None:
    count = min(count, len(centres))
    found = _nearest(torch.tensor(centres).float(), torch.tensor(points).float(), count)
    for (x, y), row in zip(points, found.tolist(), strict=True):
        order = sorted(
            range(len(centres)),
            key=lambda i: ((centres[i][0] - x) ** 2 + (centres[i][1] - y) ** 2, i),
        )
        assert row == order[:count]
