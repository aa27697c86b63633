"""Merging by example; properties/test_merge.py has the rest."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from support.detections import detections_of, oriented_detections

from geo_retina.detections import Cut, Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import in_order, merge_block, merge_tiles, rank
from geo_retina.options import MergeOptions

# Two tiles, columns 0 to 100 and 64 to 164.
TWO = TilePlan(height=100, width=164, tile_px=100, step_px=64)
LEFT, RIGHT = 0, 1


def detections(*rows: tuple) -> Detections:
    """Rows of box, score, tile, and if need be cut and label."""
    full = [(*row, *(0, 0)[len(row) - 3 :]) for row in rows]
    boxes, scores, tile, cut, labels = zip(*full, strict=True)
    return detections_of(boxes, scores, labels=labels, tile=tile, cut=cut)


def boxes_of(merged: Detections) -> list[list[float]]:
    return merged.boxes_px.tolist()


def test_nothing_merges_to_nothing():
    assert merge_tiles(Detections.empty(), TWO) == Detections.empty()
    final, undecided = merge_block(Detections.empty(), TWO, TWO.blocks(100)[0])
    assert len(final) == len(undecided) == 0


def test_the_same_object_from_two_tiles_is_one_with_the_better_score():
    merged = merge_tiles(
        detections(([70, 10, 80, 20], 0.6, LEFT), ([71, 10, 81, 20], 0.8, RIGHT)), TWO
    )
    assert boxes_of(merged) == [[71, 10, 81, 20]]
    assert merged.scores == np.float32(0.8)
    assert merged.tile == RIGHT
    assert not merged.joined.any()


def test_twelve_dense_boxes_stay_twelve():
    """Union-growing merges leave six or one: SAHI's default and its NMM."""
    row = [([65 + 4 * i if i < 6 else 41 + 4 * i, 10, 0, 20], 0) for i in range(12)]
    row = [
        [x, 10 if i < 6 else 60, x + 10, 20 if i < 6 else 70] for i, ([x, *_], _) in enumerate(row)
    ]
    seen = [(box, 0.5 + 0.01 * i, tile) for i, box in enumerate(row) for tile in (LEFT, RIGHT)]
    merged = merge_tiles(detections(*seen), TWO)
    assert sorted(boxes_of(merged)) == sorted(np.float64(row).tolist())


def test_a_line_of_twelve_across_one_tile_loses_none_to_the_fragments_of_the_next():
    row = [[36 + 4 * i, 10, 46 + 4 * i, 20] for i in range(12)]
    seen = [(box, 0.5, LEFT) for box in row]
    for x_min, y_min, x_max, y_max in row:
        if x_max > 64 + 2:
            cut = Cut.LEFT if x_min <= 68 else 0
            seen.append(([max(x_min, 64), y_min, x_max, y_max], 0.9 if cut else 0.4, RIGHT, cut))
    assert boxes_of(merge_tiles(detections(*seen), TWO)) == row


def test_detections_of_one_tile_never_conflict():
    both = detections(([70, 10, 80, 20], 0.6, LEFT), ([70, 10, 80, 21], 0.8, LEFT))
    assert len(merge_tiles(both, TWO)) == 2


@pytest.mark.parametrize(("x_min", "left"), [(70.0, 1), (74.2, 1), (74.3, 2)])
def test_iou_decides_between_whole_boxes(x_min, left):
    """Two 10 px squares at a distance of 4.2857 px have an IoU of 0.4."""
    pair = detections(([70, 10, 80, 20], 0.9, LEFT), ([x_min, 10, x_min + 10, 20], 0.8, RIGHT))
    assert len(merge_tiles(pair, TWO)) == left


def test_iou_at_the_threshold_is_no_conflict():
    pair = detections(([70, 10, 77, 20], 0.9, LEFT), ([73, 10, 80, 20], 0.8, RIGHT))
    assert len(merge_tiles(pair, TWO, MergeOptions(iou=4 / 10))) == 2
    assert len(merge_tiles(pair, TWO, MergeOptions(iou=0.399))) == 1


def test_a_whole_box_beats_a_fragment_with_a_better_score():
    pair = detections(([50, 10, 80, 20], 0.3, LEFT), ([64, 10, 80, 20], 0.99, RIGHT, Cut.LEFT))
    assert boxes_of(merge_tiles(pair, TWO)) == [[50, 10, 80, 20]]


def test_a_fragment_mostly_inside_goes_though_its_iou_is_small():
    small = ([64, 10, 68, 20], 0.9, RIGHT, Cut.LEFT)
    whole = ([40, 10, 67, 20], 0.5, LEFT)
    assert boxes_of(merge_tiles(detections(whole, small), TWO)) == [[40, 10, 67, 20]]
    assert len(merge_tiles(detections(whole, small), TWO, MergeOptions(share=0.75))) == 2
    uncut = (*small[:3], Cut.SCENE_LEFT)
    assert len(merge_tiles(detections(whole, uncut), TWO)) == 2


def test_classes_compete_only_by_option():
    pair = detections(([70, 10, 80, 20], 0.9, LEFT, 0, 1), ([70, 10, 80, 20], 0.8, RIGHT, 0, 2))
    assert len(merge_tiles(pair, TWO)) == 2
    merged = merge_tiles(pair, TWO, MergeOptions(class_aware=False))
    assert merged.labels.tolist() == [1]


HALVES = (
    ([20, 10, 100, 50], 0.6, LEFT, Cut.RIGHT | Cut.SCENE_LEFT),
    ([64, 11, 140, 50], 0.7, RIGHT, Cut.LEFT | Cut.SCENE_RIGHT),
)


def test_halves_that_span_the_overlap_are_joined():
    merged = merge_tiles(detections(*HALVES), TWO)
    assert boxes_of(merged) == [[20, 10, 140, 50]]
    assert merged.joined.tolist() == [True]
    assert merged.scores == np.float32(0.7)
    assert merged.tile.tolist() == [LEFT]
    assert merged.cut.tolist() == [Cut.SCENE_LEFT | Cut.SCENE_RIGHT]


def test_halves_stay_apart_without_join():
    merged = merge_tiles(detections(*HALVES), TWO, MergeOptions(join=False))
    assert boxes_of(merged) == [[20, 10, 100, 50], [64, 11, 140, 50]]


@pytest.mark.parametrize(
    "change",
    [
        {"box": [69, 11, 140, 50]},
        {"box": [64, 35, 140, 75]},
        {"cut": Cut.SCENE_RIGHT},
        {"label": 1},
    ],
    ids=["begins inside the overlap", "lies lower", "is not cut", "is of another class"],
)
def test_what_does_not_face_is_not_joined(change):
    box, score, tile, cut = HALVES[1]
    other = (change.get("box", box), score, tile, change.get("cut", cut), change.get("label", 0))
    assert not merge_tiles(detections(HALVES[0], other), TWO).joined.any()


@pytest.mark.parametrize(("gap", "left"), [(0, 1), (1, 2)])
def test_without_an_overlap_parts_must_touch(gap, left):
    """Neighbours that both end near the seam would be fused otherwise."""
    plan = TilePlan(height=100, width=200, tile_px=100, step_px=100)
    pair = detections(
        ([80, 10, 100, 30], 0.6, LEFT, Cut.RIGHT), ([100 + gap, 10, 120, 30], 0.7, RIGHT, Cut.LEFT)
    )
    assert len(merge_tiles(pair, plan)) == left


def test_four_parts_around_a_corner_become_one_object():
    plan = TilePlan(height=164, width=164, tile_px=100, step_px=64)
    parts = detections(
        ([60, 60, 100, 100], 0.5, 0, Cut.RIGHT | Cut.BOTTOM),
        ([64, 60, 104, 100], 0.6, 1, Cut.LEFT | Cut.BOTTOM),
        ([60, 64, 100, 104], 0.7, 2, Cut.RIGHT | Cut.TOP),
        ([64, 64, 104, 104], 0.4, 3, Cut.LEFT | Cut.TOP),
    )
    merged = merge_tiles(parts, plan)
    assert boxes_of(merged) == [[60, 60, 104, 104]]
    assert merged.cut.tolist() == [0]


def test_a_long_object_in_two_rows_of_tiles_is_joined_across_the_diagonal():
    """The upper row keeps the left part and the lower row the right one."""
    plan = TilePlan(height=164, width=164, tile_px=100, step_px=64)
    parts = detections(
        ([5, 70, 100, 80], 0.9, 0, Cut.RIGHT),
        ([64, 70, 160, 80], 0.5, 1, Cut.LEFT),
        ([5, 70, 100, 80], 0.5, 2, Cut.RIGHT),
        ([64, 70, 160, 80], 0.9, 3, Cut.LEFT),
    )
    merged = merge_tiles(parts, plan)
    assert boxes_of(merged) == [[5, 70, 160, 80]]


def test_joined_boxes_take_no_further_part():
    once = merge_tiles(detections(*HALVES), TWO)
    inside = detections(([70, 10, 138, 50], 0.99, RIGHT))
    assert len(merge_tiles(Detections.concat([once, inside]), TWO)) == 2


def test_a_suppressed_detection_suppresses_nobody():
    chain = detections(
        ([70, 10, 80, 20], 0.9, LEFT),
        ([73, 10, 83, 20], 0.8, RIGHT),
        ([77, 10, 87, 20], 0.7, LEFT),
    )
    assert boxes_of(merge_tiles(chain, TWO)) == [[70, 10, 80, 20], [77, 10, 87, 20]]


def test_a_chain_across_blocks_is_left_open_and_decided_later():
    chain = detections(
        ([70, 10, 80, 20], 0.9, LEFT),
        ([73, 10, 83, 20], 0.8, RIGHT),
        ([77, 10, 87, 20], 0.7, LEFT),
        ([10, 10, 20, 20], 0.7, LEFT),
    )
    blocks = TWO.blocks(100)
    assert len(blocks) == 2
    parts = [merge_block(chain.take(chain.tile == b.index), TWO, b) for b in blocks]
    finals, opens = zip(*parts, strict=True)
    assert [len(part) for part in finals] == [1, 0]
    rest = merge_tiles(Detections.concat(opens), TWO)
    assert in_order(Detections.concat([*finals, rest])) == merge_tiles(chain, TWO)


def test_rank_is_whole_by_score_then_cut_by_area():
    ranked = detections(
        ([0, 0, 5, 5], 0.9, LEFT, Cut.LEFT),
        ([0, 0, 9, 9], 0.1, LEFT, Cut.LEFT),
        ([9, 0, 18, 9], 0.2, LEFT, Cut.LEFT),
        ([0, 0, 5, 5], 0.3, LEFT),
        ([3, 0, 5, 5], 0.4, LEFT, Cut.SCENE_TOP),
        ([2, 0, 5, 5], 0.4, LEFT),
    )
    assert rank(ranked, TWO).tolist() == [5, 4, 3, 2, 1, 0]


def test_rows_come_by_tile_then_position():
    shuffled = detections(
        ([70, 30, 80, 40], 0.5, RIGHT),
        ([20, 10, 30, 20], 0.5, LEFT),
        ([10, 10, 30, 20], 0.5, LEFT),
        ([90, 5, 99, 9], 0.5, LEFT),
    )
    assert boxes_of(in_order(shuffled)) == [
        [90, 5, 99, 9],
        [10, 10, 30, 20],
        [20, 10, 30, 20],
        [70, 30, 80, 40],
    ]


def test_tiles_of_another_plan_are_refused():
    with pytest.raises(ValueError, match="tiles 0 to 2, the plan has 2"):
        merge_tiles(detections(([0, 0, 1, 1], 0.5, 0), ([0, 0, 1, 1], 0.5, 2)), TWO)


def test_a_box_beyond_its_tile_is_refused():
    with pytest.raises(ValueError, match="beyond the window of its tile"):
        merge_tiles(detections(([90, 0, 101, 10], 0.5, LEFT)), TWO)


def test_a_crowd_takes_time_but_no_memory():
    """4,000 boxes that all meet are 8 million pairs, of which few conflict."""
    rng = np.random.default_rng(0)
    n = 4000
    at = np.sort(rng.uniform(0, 30, (2, n, 2)), axis=0)
    boxes = np.hstack([at[0] + 65, at[1] + 66])
    boxes[:, 2] = np.minimum(boxes[:, 2], 100)
    crowd = detections_of(boxes, rng.random(n), tile=np.arange(n) % 2)
    tracemalloc.start()
    merge_tiles(crowd, TWO, MergeOptions(iou=0.9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_an_owner_may_come_first_or_the_score_alone():
    """The left tile owns up to x = 82; a fragment with the best score comes last by default."""
    found = detections(
        ([70, 10, 80, 20], 0.3, LEFT),
        ([71, 10, 81, 20], 0.8, RIGHT),
        ([64, 10, 80, 20], 0.9, RIGHT, Cut.LEFT),
    )
    assert rank(found, TWO).tolist() == [1, 0, 2]
    assert rank(found, TWO, MergeOptions(rank="owner")).tolist() == [0, 1, 2]
    assert rank(found, TWO, MergeOptions(rank="score")).tolist() == [2, 1, 0]


@pytest.mark.parametrize(("turn_deg", "count"), [(0, 1), (15, 1), (25, 2), (90, 1), (65, 2)])
def test_short_oriented_fragments_join_where_their_axes_nearly_agree(turn_deg, count):
    """Wide objects that cross are cut into fragments that nearly are squares."""
    left = oriented_detections([[60, 40, 80, 60, 0]], tile=LEFT, cut=Cut.RIGHT)
    right = oriented_detections(
        [[104, 40, 80, 80, turn_deg]], tile=RIGHT, cut=Cut.LEFT, window=(64, 0, 164, 100)
    )
    assert len(merge_tiles(Detections.concat([left, right]), TWO)) == count
