"""Anchors: the reference boxes of every cell, and how to fit them to labels.

Boxes are x_min y_min x_max y_max in pixels of the image that the network sees.
Shapes: H W image size, A anchors per cell, M labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geo_retina.errors import ModelError

Sides = tuple[tuple[float, ...], ...]

_CACHED_SHAPES = 8
_FINEST, _COARSEST = 2, 6
_LEAST_SIDE, _GREATEST_SIDE = 2.5, 6.0  # sides that a level serves, in strides
_GREATEST_LENGTH = 8.0  # longest side that the deepest level may have to see, in strides
_COVERED = 0.97
_MOST_SIDES = _MOST_RATIOS = 4
_PAYS = 0.01
"""Share of the labels that one more anchor a cell must let fit."""

_ENOUGH = 20_000
"""Labels that stand for all when shapes are tried."""


class AnchorGrid:
    """The same few boxes around every cell of every level.

    The anchors of a cell run over the ratios, and for each over the sides. Their centres are
    the cells' centres; with ``round_corners`` they are as torchvision lays them out: the cells'
    top-left corners, box corners rounded to whole pixels around them.

    Args:
        strides: pixels per cell, for each level.
        sides_px: square roots of the anchors' areas, for each level; the same number for all.
        ratios: height over width.
        round_corners: lay anchors out as torchvision does.
    """

    def __init__(
        self,
        strides: Sequence[int],
        sides_px: Sequence[Sequence[float]],
        ratios: Sequence[float],
        round_corners: bool,
    ) -> None:
        if len(strides) != len(sides_px) or len({len(sides) for sides in sides_px}) != 1:
            raise ModelError(
                f"anchor sides {sides_px} do not fit {len(strides)} levels; give every level "
                "the same number of sides"
            )
        self.strides = tuple(strides)
        self.sides_px: Sides = tuple(tuple(sides) for sides in sides_px)
        self.ratios = tuple(ratios)
        self.round_corners = round_corners
        self._cache: dict[tuple[tuple[int, int], torch.device], list[Tensor]] = {}

    @property
    def per_cell(self) -> int:
        """A, the number of anchors of one cell."""
        return len(self.sides_px[0]) * len(self.ratios)

    def __call__(self, image_shape: tuple[int, int], device: torch.device | str) -> list[Tensor]:
        """Lay the anchors out over an image.

        Args:
            image_shape: (height, width) in pixels; sizes of levels are rounded up.
            device: where the boxes shall be.

        Returns:
            (H_l*W_l*A, 4) float32 boxes per level, rows in order of (h, w, a). The tensors are
            kept and handed out again: do not write into them.
        """
        key = ((image_shape[0], image_shape[1]), torch.device(device))
        found = self._cache.get(key)  # another thread may push it out meanwhile
        if found is None:
            # Made in validation under inference mode, they must still serve in training.
            with torch.inference_mode(False), torch.no_grad():
                found = [
                    self._level(stride, sides, *key)
                    for stride, sides in zip(self.strides, self.sides_px, strict=True)
                ]
            for oldest in list(self._cache)[: len(self._cache) + 1 - _CACHED_SHAPES]:
                self._cache.pop(oldest, None)
            self._cache[key] = found
        return found

    def _level(
        self, stride: int, sides: Sequence[float], shape: tuple[int, int], device: torch.device
    ) -> Tensor:
        cell_A4 = cell_anchors(sides, self.ratios)
        offset = 0.0 if self.round_corners else stride / 2
        if self.round_corners:
            cell_A4 = cell_A4.round()
        ys, xs = (torch.arange(-(-size // stride)) * stride + offset for size in shape)
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        return (centres + cell_A4).reshape(-1, 4).to(device)


def cell_anchors(sides: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Make (A, 4) float32 boxes around the origin: for every ratio (height / width), every side."""
    root = torch.sqrt(torch.tensor(ratios, dtype=torch.float32))
    side = torch.tensor(sides, dtype=torch.float32)
    width = ((1 / root)[:, None] * side[None]).reshape(-1)
    height = (root[:, None] * side[None]).reshape(-1)
    return torch.stack([-width, -height, width, height], dim=1) / 2


@dataclass(frozen=True)
class FittedAnchors:
    """Anchors that were fitted to labels.

    Attributes:
        levels: pyramid levels, ascending.
        sides_px: square roots of the anchors' areas for each level, ascending.
        ratios: heights over widths, ascending, for every side.
    """

    levels: tuple[int, ...]
    sides_px: Sides
    ratios: tuple[float, ...]

    @property
    def per_cell(self) -> int:
        """Number of anchors of one cell."""
        return len(self.sides_px[0]) * len(self.ratios)


def fit_anchors(
    box_sides_wh: Tensor,
    *,
    levels: Sequence[int] | None,
    ratios: Sequence[float] | None = None,
    turned: bool = False,
) -> FittedAnchors:
    """Choose pyramid levels and anchors for the sizes and shapes of the labels.

    A level of stride s serves sides (square roots of areas) from 2.5 s to 6 s; the fewest levels
    from 2 to 6 are taken that serve the 2nd to the 98th percentile (of equally many, the finer),
    and above them what is needed for 98 % of the longer sides to be at most 8 s, as both ends of
    a long object must be seen from its middle. Each level then gets
    up to 4 sides, and every side up to 4 ratios, the centres of as many groups: the fewest
    anchors a cell with which 97 % of the labels have one of shape IoU 0.5 or more, of equally
    many those of fewer ratios. Where no such set does, more anchors are taken only while they
    pay, which is 1 % of the labels for each.

    Args:
        box_sides_wh: (M, 2) widths and heights in pixels of the image that the network sees.
        levels: levels to use; None chooses them.
        ratios: heights over widths to use; None chooses them.
        turned: the network sees every label turned by a quarter, too.

    Raises:
        ModelError: there is no label, or one without extent.
    """
    wh = box_sides_wh.detach().double().cpu()
    if not len(wh) or not bool((wh > 0).all()) or not bool(wh.isfinite().all()):
        raise ModelError(
            f"anchors cannot be fitted to {len(wh)} labels some of which have no extent, expected "
            "at least one and every side above 0; check the labels or give anchor_sides_px"
        )
    chosen = tuple(levels) if levels is not None else _choose_levels(wh)
    if len(wh) > _ENOUGH:
        drawn = torch.randperm(len(wh), generator=torch.Generator().manual_seed(0))
        wh = wh[drawn[:_ENOUGH]]
    if turned:
        wh = torch.cat([wh, wh.flip(1)])
    log_side = wh.prod(dim=1).sqrt().log()
    sides = [_sides(log_side, chosen, count) for count in range(1, _MOST_SIDES + 1)]
    shapes = _ratio_sets(wh) if ratios is None else [tuple(ratios)]
    sets = [FittedAnchors(chosen, each, some) for some in shapes for each in sides]
    sets.sort(key=lambda each: (each.per_cell, len(each.ratios)))
    best, best_fit = sets[0], -1.0
    for each in sets:
        fit = shape_coverage(wh, each.sides_px, each.ratios)
        if fit - best_fit > _PAYS * (each.per_cell - best.per_cell):
            best, best_fit = each, fit
        if fit >= _COVERED:
            return each
    return best


def shape_coverage(
    box_sides_wh: Tensor, sides_px: Sequence[Sequence[float]], ratios: Sequence[float]
) -> float:
    """Compute the share of labels whose shape has an anchor of IoU 0.5 or more, centre on centre.

    Args:
        box_sides_wh: (M, 2) widths and heights in pixels; M is 1 or more.
        sides_px: square roots of the anchors' areas for each pyramid level.
        ratios: heights over widths of the anchors, for every side.
    """
    wh = box_sides_wh.double()
    area = wh.prod(dim=1)
    best = torch.zeros_like(area)
    for side in {side for level in sides_px for side in level}:
        for ratio in ratios:
            width, height = side / ratio**0.5, side * ratio**0.5
            overlap = wh[:, 0].clamp(max=width) * wh[:, 1].clamp(max=height)
            best = best.maximum(overlap / (area + side**2 - overlap))
    return float((best >= 0.5).double().mean())


def _ratio_sets(wh: Tensor) -> list[tuple[float, ...]]:
    """List sets of ratios to try: squares, then centres of one to four groups of the labels'."""
    log_ratio = (wh[:, 1] / wh[:, 0]).log()
    found: list[tuple[float, ...]] = [(1.0,)]
    for count in range(1, _MOST_RATIOS + 1):
        centres = _centres(log_ratio, torch.zeros((), dtype=torch.float64), count).exp().tolist()
        some = tuple(sorted({round(ratio, 2) for ratio in centres} - {0.0}))
        if len(some) == count and some not in found:
            found.append(some)
    return found


def _choose_levels(wh: Tensor) -> tuple[int, ...]:
    low, high = _quantile(wh.prod(dim=1).sqrt(), torch.tensor([0.02, 0.98])).tolist()
    longest = float(_quantile(wh.amax(dim=1), torch.tensor([0.98])))
    span = range(_FINEST, _COARSEST + 1)
    last, deepest = (
        next((lv for lv in span if greatest * 2**lv >= side), _COARSEST)
        for side, greatest in ((high, _GREATEST_SIDE), (longest, _GREATEST_LENGTH))
    )
    first = max((lv for lv in span if _LEAST_SIDE * 2**lv <= low), default=_FINEST)
    return tuple(range(min(first, last), max(last, deepest) + 1))


def _sides(log_side: Tensor, levels: tuple[int, ...], count: int) -> Sides:
    """Find, for each level, centres of ``count`` groups of the log sides that it serves best."""
    middles = torch.tensor([2.0**level for level in levels], dtype=torch.float64)
    middles = (middles * (_LEAST_SIDE * _GREATEST_SIDE) ** 0.5).log()
    serving = (log_side[:, None] - middles).abs().argmin(dim=1)
    return tuple(
        tuple(round(s, 1) for s in _centres(log_side[serving == i], middle, count).exp().tolist())
        for i, middle in enumerate(middles)
    )


def _centres(values: Tensor, default: Tensor, count: int) -> Tensor:
    """Find centres of ``count`` groups of values, ascending, by Lloyd's iteration."""
    if not len(values):
        steps = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
        return default + steps * torch.tensor(2.0).log() / count
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if count == 1:
        return values.median()[None]
    centres = _quantile(values, quantiles)
    for _ in range(20):
        group = (values[:, None] - centres).abs().argmin(dim=1)
        centres = torch.stack(
            [
                values[group == i].mean() if bool((group == i).any()) else centres[i]
                for i in range(count)
            ]
        )
    return centres


def _quantile(values: Tensor, quantiles: Tensor) -> Tensor:
    """Find the nearest order statistics; torch.quantile refuses more than 16 million values."""
    return values.sort().values[(quantiles * len(values)).long().clamp(max=len(values) - 1)]
