"""The index of boxes finds what looking at all of them finds, and looks at few."""

import numpy as np
import pytest

from geo_retina.dataset.box_index import BoxIndex


def some_boxes(count, extent, rng, tallest=40.0):
    low = rng.uniform(-20, extent, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.01, tallest, (count, 2))], axis=1)


@pytest.mark.parametrize("count", [0, 1, 2, 3000])
@pytest.mark.parametrize("whole", [False, True], ids=["fractions", "whole pixels"])
def test_finds_all_that_reach_into_the_rows(count, whole):
    rng = np.random.default_rng(count)
    boxes_px = some_boxes(count, 1000, rng)
    boxes_px[::50, 3] += rng.uniform(0, 900, len(boxes_px[::50]))
    if whole:
        boxes_px = np.round(boxes_px)
        boxes_px[:, 3] = np.maximum(boxes_px[:, 3], boxes_px[:, 1] + 1)
    index = BoxIndex(boxes_px)
    for _ in range(200):
        top = int(rng.integers(-100, 1050))
        bottom = top + int(rng.integers(1, 120))
        found = index.near_rows(top, bottom)
        assert (np.diff(found) > 0).all()
        meets = (boxes_px[:, 3] > top) & (boxes_px[:, 1] < bottom)
        assert set(np.flatnonzero(meets).tolist()) <= set(found.tolist())


def test_few_others_are_found_though_some_boxes_are_tall():
    rng = np.random.default_rng(0)
    boxes_px = some_boxes(100_000, 50_000, rng)
    boxes_px[:5] = [0, 0, 50_000, 50_000]
    found = BoxIndex(boxes_px).near_rows(30_000, 30_500)
    meets = (boxes_px[:, 3] > 30_000) & (boxes_px[:, 1] < 30_500)
    assert {0, 1, 2, 3, 4} <= set(found.tolist())
    assert meets.sum() <= len(found) < meets.sum() * 1.3
