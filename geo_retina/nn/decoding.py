"""Decoding: the network's raw outputs to boxes, for a whole batch at once.

Shapes: N batch, A anchors of a level, K classes, P candidates, M boxes found.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geo_retina.errors import ModelError
from geo_retina.nn.heads import Outputs
from geo_retina.nn.losses import decode_deltas
from geo_retina.nn.rotated_coding import are_oriented, decode_rotated, hull
from geo_retina.nn.suppression import suppress_oriented, suppress_upright


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodeSettings:
    """What becomes a detection.

    Attributes:
        thresholds: least score, one for all classes or (K,); equal ones become one, which
            is cheaper to apply.
        candidates: boxes decoded per level and image at the most.
        nms_iou: a box suppresses lower-scored ones of its class above this IoU.
        max_per_image: boxes kept per image at the most.
    """

    thresholds: Tensor | float
    candidates: int
    nms_iou: float
    max_per_image: int

    def __post_init__(self) -> None:
        """Check once, not at every batch, whether one threshold serves all classes."""
        if isinstance(self.thresholds, Tensor):
            values = set(self.thresholds.flatten().tolist())
            if len(values) == 1:
                object.__setattr__(self, "thresholds", values.pop())


class Decoded(NamedTuple):
    """Boxes of a batch, by image, then from the highest score down, then by anchor."""

    boxes_M4: Tensor
    """float32, image pixels, inside the image."""

    scores_M: Tensor
    """float32."""

    labels_M: Tensor
    """int64 classes."""

    image_M: Tensor
    """int64 positions in the batch."""

    truncated_N: Tensor
    """bool, True where an image had more candidates or boxes than the settings allow."""

    out_of_range_N: Tensor | None = None
    """bool, True where values lie far outside those that 8-bit integers were measured on; None
    where nothing is computed in integers."""

    rotated_M5: Tensor | None = None
    """float32, image pixels, of oriented boxes: centre x, centre y, length, width and the angle of
    the length in degrees, in [-90, 90) from x to y; ``boxes_M4`` are their hulls, cut to the image.
    None where boxes are upright."""


class _Top(NamedTuple):
    """(N, P) candidates of a level; a score of -1 does not reach its threshold."""

    score: Tensor
    anchor: Tensor
    label: Tensor
    position: Tensor


class _Candidates(NamedTuple):
    """Rows of boxes, (M, 4) or (M, 5); ``position`` counts (level, anchor, class)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    image: Tensor
    position: Tensor


def decode(
    outputs: Outputs,
    anchors: Sequence[Tensor],
    image_shape: tuple[int, int],
    settings: DecodeSettings,
) -> Decoded:
    """Turn logits and offsets into boxes.

    Per level the best candidates of every image are taken, those under the threshold dropped,
    the rest decoded and clipped to the image, of oriented boxes their hulls; boxes left without an
    area lay outside it and are dropped. Then boxes suppress lower-scored ones of their image and
    class over all levels.

    Args:
        outputs: the network's, in any floating dtype.
        anchors: (A_l, 4) per level, on the outputs' device.
        image_shape: (height, width) of the images in pixels.
        settings: what becomes a detection.

    Returns:
        The boxes, sorted, and which images were truncated; M may be 0.

    Raises:
        ModelError: a logit is not a number.
    """
    images = len(outputs.logits[0])
    truncated_N = torch.zeros(images, dtype=torch.bool, device=outputs.logits[0].device)
    parts, start = [], 0
    for logits_NAK, deltas_NAD, anchors_A4 in zip(*outputs, anchors, strict=True):
        best = _top(logits_NAK, settings)
        beyond = best.score[:, settings.candidates :] >= 0
        truncated_N |= beyond.any(dim=1)
        within = _Top(*(field[:, : settings.candidates] for field in best))
        found = _decode_level(within, deltas_NAD, anchors_A4)
        parts.append(found._replace(position=found.position + start))
        start += logits_NAK.shape[1] * logits_NAK.shape[2]
    found = _sort(_Candidates(*map(torch.cat, zip(*parts, strict=True))))
    upright, inside = _clip(found.boxes, image_shape)
    found, upright = _Candidates(*(field[inside] for field in found)), upright[inside]
    kept = _suppress(found, upright, settings.nms_iou)
    image = found.image[kept]
    sizes = image.bincount(minlength=images)
    rank = torch.arange(len(kept), device=kept.device) - (sizes.cumsum(0) - sizes)[image]
    kept = kept[rank < settings.max_per_image]
    boxes, scores, labels, image, _ = (field[kept] for field in found)
    truncated_N |= sizes > settings.max_per_image
    rotated = boxes if boxes.shape[1] == 5 else None
    return Decoded(upright[kept], scores, labels, image, truncated_N, rotated_M5=rotated)


def boxes_wanted(logits: Sequence[Tensor], settings: DecodeSettings) -> list[Tensor]:
    """Find which anchors ``decode`` may need the box of.

    Args:
        logits: (N, A_l, K) per level.
        settings: what becomes a detection.

    Returns:
        (N, A_l) bool per level, on the logits' device.
    """
    reached = [~_beneath(level, settings.thresholds) for level in logits]
    # A reduction over so few classes is many times as slow as to combine them.
    return [functools.reduce(torch.logical_or, each.unbind(dim=-1)) for each in reached]


def _top(logits_NAK: Tensor, settings: DecodeSettings) -> _Top:
    """Select the best of each image, from the highest on, one more than may be kept."""
    threshold = settings.thresholds
    if isinstance(threshold, Tensor):
        threshold = threshold.to(logits_NAK.device, torch.float32)
    logit, position = _highest(logits_NAK, threshold, settings.candidates + 1)
    if bool(logit.isnan().any()):
        raise ModelError(
            "the network's logits hold values that are not a number, expected finite ones; "
            "the weights are damaged or the precision is too low: try "
            'DetectOptions.precision="fp32"'
        )
    # On a CPU a sigmoid's last bit depends on the place in memory, and so on the batch.
    exact = logit.double() if logit.device.type == "cpu" else logit.float()
    score = exact.sigmoid().float()
    anchor, label = position // logits_NAK.shape[2], position % logits_NAK.shape[2]
    enough = score >= (threshold[label] if isinstance(threshold, Tensor) else threshold)
    return _Top(score.masked_fill(~enough, -1.0), anchor, label, position)


def _highest(logits_NAK: Tensor, threshold: Tensor | float, count: int) -> tuple[Tensor, Tensor]:
    """Select the highest logits of each image, in any order where all are, and their positions."""
    if logits_NAK.device.type == "cpu" and len(logits_NAK) == 1:
        # Where few reach their threshold, to leave out the others is cheaper than to rank them.
        reached = np.flatnonzero((~_beneath(logits_NAK, threshold)).numpy())
        if len(reached) < count:  # at the limit, their order tells which is one too many
            position = torch.from_numpy(reached)[None]
            return logits_NAK.flatten(1)[:, position[0]], position
    if isinstance(threshold, Tensor):
        # Scores decide later; here a class with a low threshold must not crowd others out.
        beneath = _beneath(logits_NAK, threshold)
        logits_NAK = logits_NAK.float().masked_fill(beneath, float("-inf"))
    flat = logits_NAK.flatten(1)
    return flat.topk(min(count, flat.shape[1]), dim=1)


def _beneath(logits_NAK: Tensor, threshold: Tensor | float) -> Tensor:
    """Find which logits stay under their threshold, whichever way a score is rounded."""
    score = torch.as_tensor(threshold, dtype=torch.float32, device=logits_NAK.device)
    # Scores near 1 are few in float32, so that logits far apart share one.
    least = torch.minimum(score.logit(), (score - 2**-22).clamp(min=0).logit())
    return logits_NAK < least - 1e-3 * (1 + least.abs())


def _decode_level(top: _Top, deltas_NAD: Tensor, anchors_A4: Tensor) -> _Candidates:
    """Decode boxes of one level's candidates whose score reaches the threshold."""
    image, column = (top.score >= 0).nonzero(as_tuple=True)
    anchor = top.anchor[image, column]
    decode_boxes = decode_rotated if are_oriented(deltas_NAD) else decode_deltas
    boxes = decode_boxes(anchors_A4[anchor], deltas_NAD[image, anchor].float())
    score, label, position = top.score, top.label, top.position
    return _Candidates(
        boxes, score[image, column], label[image, column], image, position[image, column]
    )


def _clip(boxes: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut upright boxes, or the hulls of oriented ones, to the image; tell which have an area."""
    height, width = image_shape
    oriented = boxes.shape[1] == 5
    upright = hull(boxes) if oriented else boxes
    x = upright[:, 0::2].clamp(0, width)
    y = upright[:, 1::2].clamp(0, height)
    inside = (x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])
    if oriented:
        inside &= (boxes[:, 2:4] > 0).all(dim=1)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1), inside


def _sort(found: _Candidates) -> _Candidates:
    """Sort by image, then score from the highest, then position: stable, last key first."""
    order = found.position.argsort()
    order = order[found.scores[order].argsort(stable=True, descending=True)]
    order = order[found.image[order].argsort(stable=True)]
    return _Candidates(*(field[order] for field in found))


def _suppress(found: _Candidates, upright: Tensor, iou: float) -> Tensor:
    """Find positions, ascending, of boxes that no better one of their image and class covers."""
    if found.boxes.shape[1] == 5:
        return suppress_oriented(found.boxes, found.labels, found.image, iou)
    return suppress_upright(upright, found.scores, found.labels, found.image, iou)
