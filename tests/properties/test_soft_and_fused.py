"""Two other ways of merging, which the benchmarks compare with: by example, and what must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.modules import load_module

from geo_retina.detections import Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import in_order
from properties.strategies import merge_options, scenes, seeds
from properties.test_merge import Naive, as_rows

_RULES = load_module(Path(__file__).parents[2] / "benchmarks" / "soft_and_fused.py")
fuse, soft_nms = _RULES.fuse, _RULES.soft_nms

# Two tiles, columns 0 to 100 and 64 to 164.
TWO = TilePlan(height=100, width=164, tile_px=100, step_px=64)
PAIR = Detections(
    np.array([[70, 10, 80, 20], [72, 10, 82, 20], [10, 10, 20, 20.0]]),
    [0.9, 0.6, 0.2],
    [0, 0, 0],
    [0, 1, 0],
    [0, 0, 0],
    [False] * 3,
)


def test_soft_nms_lowers_the_score_by_the_overlap():
    merged = soft_nms(PAIR, TWO, least_score=0.1)
    lowered = 0.6 * np.exp(-((2 / 3) ** 2) / 0.5)
    np.testing.assert_allclose(merged.scores, np.float32([0.2, 0.9, lowered]))
    merged = soft_nms(PAIR, TWO, least_score=0.3)
    # What no other tile sees keeps its score, whatever it is.
    assert merged.boxes_px.tolist() == [[10, 10, 20, 20], [70, 10, 80, 20]]


def test_fusing_takes_the_mean_by_score():
    merged = fuse(PAIR, TWO)
    np.testing.assert_allclose(merged.boxes_px, [[10, 10, 20, 20], [70.8, 10, 80.8, 20]])
    np.testing.assert_allclose(merged.scores, np.float32([0.2, 0.75]))
    assert merged.joined.tolist() == [False, True]
    assert fuse(merged, TWO) == merged


class NaiveSoft(Naive):
    """Soft-NMS as its paper's loop: the best left lowers all others."""

    least = 0.0

    def merged(self) -> Detections:
        left = {i: self.score[i] for i in range(len(self.box))}
        rows = []
        while left:
            best = min(left, key=lambda i: (-left[i], self.rank(i)))
            score = left.pop(best)
            if score < self.least:
                break
            rows.append((*self.row(best)[:1], score, *self.row(best)[2:]))
            for i in left:
                if self.tile[i] != self.tile[best] and self.comparable(i, best):
                    left[i] *= np.exp(-(self.iou(i, best) ** 2) / 0.5)
        columns = list(zip(*rows, strict=True)) or [[]] * 6
        return in_order(Detections(np.reshape(columns[0], (-1, 4)), *columns[1:6]))

    def iou(self, d: int, e: int) -> float:
        shared = self.shared(d, e)
        union = self.area(d) + self.area(e) - shared
        return shared / union if union > 0 else 0.0


@given(st.data(), merge_options(), st.sampled_from([0.0, 0.3]))
def test_soft_nms_equals_its_loop(data, options, least):
    detections, plan = data.draw(scenes(options, most=20, kind="upright"))
    merged = soft_nms(detections, plan, options, least_score=least)
    naive = NaiveSoft(detections, plan, replace(options, rank="score"))
    naive.least = least
    slow = naive.merged()
    contested = slow.scores > least + 1e-6  # on the threshold, rounding decides
    assert len(slow.take(contested)) == (merged.scores > least + 1e-6).sum()
    if len(merged) == len(slow):
        np.testing.assert_array_equal(merged.boxes_px, slow.boxes_px)
        np.testing.assert_allclose(merged.scores, slow.scores, rtol=1e-5)


@given(st.data(), merge_options(), seeds)
def test_fusing_keeps_to_what_was_found(data, options, seed):
    detections, plan = data.draw(scenes(options, kind="upright"))
    shuffled = detections.take(np.random.default_rng(seed).permutation(len(detections)))
    fused = fuse(detections, plan, options)
    assert fused == fuse(shuffled, plan, options)
    assert len(fused) <= len(detections)
    single = as_rows(fused.take(~fused.joined))
    before = {row.tobytes() for row in as_rows(detections)}
    assert all(row.tobytes() in before for row in single)
    if len(fused):
        assert (fused.boxes_px.min(axis=0) >= detections.boxes_px.min(axis=0) - 1e-9).all()
        assert (fused.boxes_px.max(axis=0) <= detections.boxes_px.max(axis=0) + 1e-9).all()
        assert fused.scores.max() <= detections.scores.max()
