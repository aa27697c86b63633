"""Intervals from draws of ground blocks, against draws made one object after the other."""

from __future__ import annotations

import numpy as np
import pytest
from support.layers import around, points, squares

from geo_retina.errors import LabelError
from geo_retina.evaluation import TRUE, evaluate
from geo_retina.evaluation.metrics.score_curves import average_precision
from geo_retina.options import EvaluateOptions

BLOCKS = 12


def crowd(seed, classes=("a", "b")):
    """Objects in blocks that differ in how well they were found."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1500, (300, 2))
    good = rng.random(300) < 0.3 + 0.6 * (xy[:, 0] < 800)
    kinds = rng.choice(classes, 300)
    labels = squares(np.concatenate([xy - 3, xy + 3], axis=1), kind=kinds)
    near = xy[good] + rng.normal(0, 0.8, (int(good.sum()), 2))
    far = rng.uniform(0, 1500, (120, 2))
    found = around(
        np.concatenate([near, far]),
        np.concatenate([rng.random(len(near)) + 0.3, rng.random(120)]) / 1.3,
        half=3.0,
        **{"class": np.concatenate([kinds[good], rng.choice(classes, 120)])},
    )
    return found, labels


def drawn_by_hand(table, times, blocks):
    """Rates and AP50 of one draw: each object repeated as often as its block was drawn."""
    often = dict(zip(blocks.tolist(), times.tolist(), strict=True))
    found, labels = table.detections, table.labels
    repeat = np.array([often[b] for b in found.block.tolist()])
    there = np.array([often[b] for b in labels.block.tolist()])
    true = found.outcome == TRUE
    hits, given, total = (true * repeat).sum(), repeat.sum(), there.sum()
    averages = []
    for name in np.unique(labels.class_name):
        rows = np.flatnonzero(found.class_name == name)
        count = int(there[labels.class_name == name].sum())
        if count:
            averages.append(average_precision(np.repeat(true[rows], repeat[rows]), count))
    return {
        "precision": hits / given,
        "recall": hits / total,
        "f1": 2 * hits / (given + total),
        "ap50": np.mean(averages),
        "count": (given - total) / total,
    }


def test_intervals_equal_those_of_repeated_objects():
    found, labels = crowd(0)
    options = EvaluateOptions(class_column="kind", block_m=400, resamples=150, seed=3)
    got = evaluate(found, labels, options)
    table = got.matches
    blocks = np.unique(np.concatenate([table.detections.block, table.labels.block]))
    assert len(blocks) >= BLOCKS
    share = np.full(len(blocks), 1 / len(blocks))
    times = np.random.default_rng(3).multinomial(len(blocks), share, size=150)
    draws = [drawn_by_hand(table, each, blocks) for each in times]
    for name, ends in {**got.overall.intervals, "count": got.count_error.interval}.items():
        if name not in draws[0]:
            continue
        want = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        # A repeated false detection lies, in a draw, between its true neighbours or after them.
        assert ends == pytest.approx(want, abs=5e-3 if name == "ap50" else 1e-9), name
    assert set(got.overall.intervals) == {"precision", "recall", "f1", "ap50", "ap75", "ap"}
    assert set(got.classes["a"].intervals) == set(got.overall.intervals)
    assert "95 % from" in got.table()


def test_draws_follow_the_seed():
    found, labels = crowd(1)
    once, again, other = (
        evaluate(found, labels, EvaluateOptions(resamples=50, seed=seed)).overall.intervals
        for seed in (0, 0, 1)
    )
    assert once == again
    assert once != other


def test_the_interval_holds_the_number():
    found, labels = crowd(2)
    for options in (EvaluateOptions(class_column="kind"), EvaluateOptions(radius_m=3)):
        got = evaluate(found, labels, options)
        for name, (low, high) in got.overall.intervals.items():
            value = getattr(got.overall, name)
            assert low < value < high, name
            assert 0.002 < high - low < 0.6, name
    assert "position_error_m" in got.overall.intervals


def test_a_pair_stays_together_over_a_border_of_blocks():
    found, labels = crowd(3)
    got = evaluate(found, labels, EvaluateOptions(block_m=20, resamples=10))
    table = got.matches
    true = np.flatnonzero(table.detections.outcome == TRUE)
    assert len(true)
    assert (table.detections.block[true] == table.labels.block[table.detections.other[true]]).all()


def test_where_all_blocks_are_alike_nothing_varies():
    xy = np.array([[1000.0 * k, 0.0] for k in range(5)])
    labels = points(np.concatenate([xy, xy + 20]))
    got = evaluate(around(xy, [0.5] * 5), labels, EvaluateOptions(block_m=500))
    assert got.overall.intervals["recall"] == (0.5, 0.5)
    assert got.count_error.interval == (-0.5, -0.5)


@pytest.mark.parametrize(
    ("xy", "options"),
    [([[0, 0], [1, 1]], EvaluateOptions(block_m=10_000)), ([], EvaluateOptions())],
)
def test_one_block_has_no_interval(xy, options):
    got = evaluate(around(xy, [0.5] * len(xy)), points(xy), options)
    assert got.overall.intervals == {}
    assert got.block_m is None
    assert got.count_error.interval is None


def test_no_draws_on_request():
    found, labels = crowd(4)
    got = evaluate(found, labels, EvaluateOptions(resamples=0))
    assert got.overall.intervals == {}
    assert "95 %" not in got.table()


def test_too_many_blocks_are_refused(monkeypatch):
    from geo_retina.evaluation.metrics import bootstrap

    monkeypatch.setattr(bootstrap, "_MOST_BLOCKS", 10)
    with pytest.raises(
        LabelError, match="expected at most 10; give a longer side with EvaluateOptions"
    ):
        evaluate(*crowd(5), EvaluateOptions(block_m=5))
