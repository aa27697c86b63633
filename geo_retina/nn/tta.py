"""Test-time augmentation: average a network's outputs over an image and its mirror images.

Shapes: N batch, C channels, H W size of an image, h w size of a level, A anchors per cell,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.heads import Outputs
from geo_retina.nn.rotated_coding import are_oriented, turn_phases

_ROWS, _COLS = 2, 3
_VIEWS: tuple[tuple[bool, tuple[int, ...]], ...] = tuple(
    (turned, mirrored)
    for turned in (False, True)
    for mirrored in ((), (_COLS,), (_ROWS,), (_ROWS, _COLS))
)
"""Whether rows and columns change places, and which of them then run backwards."""


def has_tta(grid: AnchorGrid, views: int) -> bool:
    """Check whether an image's anchors are those of its views, so that outputs can be averaged."""
    turned = any(turned for turned, _ in _VIEWS[:views])
    centred = views == 1 or not grid.round_corners
    return centred and not (turned and _turned_anchors(grid) is None)


def average_views(
    compute: Callable[[Tensor], Outputs], grid: AnchorGrid, images_NCHW: Tensor, views: int
) -> Outputs:
    """Average probabilities and box offsets over views of the images.

    Args:
        compute: a network, or what computes its outputs.
        grid: its anchors, which allow it by ``has_tta``.
        images_NCHW: as the network takes them.
        views: 1 for the images alone, 2 with their mirror images, 4 with both upside down, 8 with
            rows and columns of all these exchanged.

    Returns:
        Raw outputs per level, in order of (h, w, a), in float32.
    """
    shape = images_NCHW.shape[2:]
    sizes = [(-(-shape[0] // stride), -(-shape[1] // stride)) for stride in grid.strides]
    sums: list[Any] = [(0.0, 0.0)] * len(sizes)
    for turned, mirrored in _VIEWS[:views]:
        seen = (images_NCHW.transpose(_ROWS, _COLS) if turned else images_NCHW).flip(mirrored)
        outputs = compute(seen.contiguous(memory_format=torch.channels_last))
        found = [
            _seen_from_the_front(logits, deltas, size, turned, mirrored, grid)
            for logits, deltas, size in zip(*outputs, sizes, strict=True)
        ]
        sums = [(p + q, d + e) for (p, d), (q, e) in zip(sums, found, strict=True)]
    return Outputs(
        [(probability / views).logit() for probability, _ in sums],
        [deltas / views for _, deltas in sums],
    )


def _seen_from_the_front(
    logits_NRK: Tensor,
    deltas_NRD: Tensor,
    size: tuple[int, int],
    turned: bool,
    mirrored: Sequence[int],
    grid: AnchorGrid,
) -> tuple[Tensor, Tensor]:
    """Move probabilities and offsets of a level of a view to the image's own anchors."""
    cells = (*(size[::-1] if turned else size), grid.per_cell)
    probability = logits_NRK.float().sigmoid().unflatten(1, cells)
    deltas = deltas_NRD.float().unflatten(1, cells)
    back = [dim - 1 for dim in mirrored]
    sign = [-1.0 if _COLS in mirrored else 1.0, -1.0 if _ROWS in mirrored else 1.0, 1.0, 1.0]
    probability = probability.flip(back)
    deltas = deltas.flip(back)
    oriented = are_oriented(deltas)
    if oriented:
        phases = turn_phases(deltas[..., 4:], mirrored=len(mirrored) == 1, turned=turned)
        deltas = torch.cat([deltas[..., :4], phases], dim=-1)
        sign += [1.0] * 4
    deltas = deltas * deltas.new_tensor(sign)
    if turned:
        order = _turned_anchors(grid)
        assert order is not None
        probability = probability.transpose(1, 2)[:, :, :, order]
        swapped = [1, 0, *range(2, deltas.shape[-1])] if oriented else [1, 0, 3, 2]
        deltas = deltas.transpose(1, 2)[:, :, :, order][..., swapped]
    return probability.flatten(1, 3), deltas.flatten(1, 3)


def _turned_anchors(grid: AnchorGrid) -> list[int] | None:
    """Find, for each anchor of a cell, the one that it becomes when rows and columns swap."""
    sides = len(grid.sides_px[0])
    partner = []
    for ratio in grid.ratios:
        near = [i for i, other in enumerate(grid.ratios) if abs(other * ratio - 1) < 1e-6]
        if not near:
            return None
        partner.append(near[0])
    return [ratio * sides + side for ratio in partner for side in range(sides)]
