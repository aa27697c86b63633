"""How far into a tile its edge is felt: the receptive radius that matters for overlaps."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from torch import Tensor

from geo_retina.model import Model
from geo_retina.nn.decoding import decode_deltas

TOLERANCES = {
    "score 0.05, box 1 px": (5e-2, 1.0),
    "score 0.01, box 0.3 px": (1e-2, 0.3),
    "score 0.001, box 0.03 px": (1e-3, 0.03),
    "score 0.00001, box 0.001 px": (1e-5, 1e-3),
}
"""Changes that count as felt."""

EXACT = "score 0.00001, box 0.001 px"


def depth_of_edges(model: Model, pixels: np.ndarray, *, window_px: int = 1024) -> dict[str, int]:
    """Measure by cutting: the network sees a window of an image, and each half of it alone.

    Args:
        model: on the CPU, in single precision.
        pixels: (bands, height, width) of an image of at least ``window_px`` a side.
        window_px: side of the window; a multiple of twice the coarsest stride.

    Returns:
        For each of ``TOLERANCES``, the greatest distance in pixels from the cut, to the next
        multiple of the coarsest stride, at which the score of any anchor changes by more, or
        the box of one that scores 0.05 or more does.
    """
    whole, half = _outputs(model, pixels[:, :window_px, :window_px]), window_px // 2
    depth = dict.fromkeys(TOLERANCES, 0.0)
    for axis, after in product((0, 1), (False, True)):
        kept = np.arange(half, window_px) if after else np.arange(half)
        part = _outputs(model, pixels[:, :window_px, :window_px].take(kept, axis + 1))
        for (scores, boxes), (part_scores, part_boxes) in zip(whole, part, strict=True):
            per_px = scores.shape[axis] / window_px
            cells = torch.arange(round(half * per_px)) + round(int(kept[0]) * per_px)
            here, boxes_here = scores.index_select(axis, cells), boxes.index_select(axis, cells)
            by_score = (here - part_scores).abs().amax(dim=(-2, -1))
            shift = (boxes_here - part_boxes).abs().amax(dim=-1)
            by_box = (shift * (here.amax(dim=-1) >= 0.05)).amax(dim=-1)
            for name, (score, px) in TOLERANCES.items():
                felt = ((by_score > score) | (by_box > px)).any(dim=1 - axis).nonzero().flatten()
                if len(felt):
                    deepest = felt.max() + 1 if after else len(cells) - felt.min()
                    depth[name] = max(depth[name], int(deepest) / per_px)
    stride = model.card.stride_px
    return {name: math.ceil(px / stride) * stride for name, px in depth.items()}


@torch.inference_mode()
def _outputs(model: Model, pixels: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    """Compute scores (h, w, A, K) and offsets of boxes (h, w, A, 4), in px, of each level."""
    radiometry = model.card.radiometry
    offset, scale = (torch.tensor(v).view(-1, 1, 1) for v in (radiometry.offset, radiometry.scale))
    image = (torch.from_numpy(np.ascontiguousarray(pixels)).float() - offset) / scale
    shape = tuple(image.shape[1:])
    outputs = model.network(image[None])
    levels = []
    for logits, deltas, anchors, stride in zip(
        *outputs,
        model.network.anchors(shape, "cpu"),
        model.network.anchor_grid.strides,
        strict=True,
    ):
        cells = shape[0] // stride, shape[1] // stride
        boxes = decode_deltas(anchors, deltas[0]) - anchors
        levels.append(
            (logits[0].sigmoid().view(*cells, -1, logits.shape[2]), boxes.view(*cells, -1, 4))
        )
    return levels
