"""The merge against a slow one that reads like its definition, and what must hold of any."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import shapely
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from geo_retina.boxes import oriented, overlapping_pairs
from geo_retina.detections import INNER_SIDES, Cut, Detections
from geo_retina.grid import TilePlan
from geo_retina.merge import in_order, merge_block, merge_tiles
from geo_retina.merge.pairs import meeting
from geo_retina.options import MergeOptions
from properties.strategies import (
    Sight,
    merge_options,
    partitions,
    plans,
    scenes,
    see,
    seeds,
    turned,
)


class Naive:
    """Merging as defined, one pair at a time."""

    def __init__(self, detections: Detections, plan: TilePlan, options: MergeOptions) -> None:
        d, self.options = detections, options
        self.box = [tuple(b) for b in d.boxes_px.tolist()]
        self.score, self.label, self.tile = d.scores.tolist(), d.labels.tolist(), d.tile.tolist()
        self.cut, self.was_joined = d.cut.tolist(), d.joined.tolist()
        self.tiles = list(plan)
        self.rotated = None if d.rotated_px is None else d.rotated_px.tolist()
        self.polygon = shapely.polygons(d.corners_px)

    def merged(self) -> Detections:
        kept: list[int] = []
        for e in sorted((i for i in range(len(self.box)) if not self.was_joined[i]), key=self.rank):
            if not any(self.suppresses(d, e) for d in kept):
                kept.append(e)
        rows = [self.join(group) for group in self.groups(kept)]
        rows += [self.row(i) for i in range(len(self.box)) if self.was_joined[i]]
        rows.sort(key=lambda r: (r[3], r[0][1], r[0][0], r[0][3], r[0][2], r[2], -r[1], *r[4:]))
        columns = list(zip(*rows, strict=True)) or [[]] * 7
        rotated = None if self.rotated is None or not rows else np.array(columns[6])
        return Detections(np.reshape(columns[0], (-1, 4)), *columns[1:6], rotated_px=rotated)

    def rank(self, i: int) -> tuple[float, ...]:
        x_min, y_min, x_max, y_max = self.box[i]
        is_cut = bool(self.cut[i] & INNER_SIDES)
        strength = (-self.area(i), -self.score[i]) if is_cut else (-self.score[i], 0)
        place = (y_min, x_min, y_max, x_max, self.label[i], self.tile[i], self.cut[i])
        if self.rotated is not None:
            place += tuple(self.rotated[i])
        if self.options.rank == "score":
            return (-self.score[i], *place)
        foreign = self.options.rank == "owner" and not is_cut and not self.owned(i)
        return (is_cut, foreign, *strength, *place)

    def owned(self, i: int) -> bool:
        """Whether the box's centre lies in the core of its tile, or beyond the scene beside it."""
        x_min, y_min, x_max, y_max = self.box[i]
        tile = self.tiles[self.tile[i]]
        left, top, right, bottom = tile.core.box_px
        last = self.tiles[-1]
        x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
        return (
            (tile.col == 0 or x >= left)
            and (tile.row == 0 or y >= top)
            and (tile.col == last.col or x < right)
            and (tile.row == last.row or y < bottom)
        )

    def area(self, i: int) -> float:
        if self.rotated is not None:
            return self.rotated[i][2] * self.rotated[i][3]
        x_min, y_min, x_max, y_max = self.box[i]
        return (x_max - x_min) * (y_max - y_min)

    def shared(self, d: int, e: int) -> float:
        a, b = self.box[d], self.box[e]
        if self.rotated is not None:
            least = min(self.area(d), self.area(e))
            meet = all(a[k] <= b[k + 2] and b[k] <= a[k + 2] for k in (0, 1))
            shared = shapely.intersection(*self.polygon[[d, e]]).area if meet and least else 0.0
            # Whether boxes that touch share anything is a matter of rounding.
            assume(not 1e-12 * least < shared < 1e-7 * least)
            return shared if shared > 1e-9 * least else 0.0
        return length(a[0], a[2], b[0], b[2]) * length(a[1], a[3], b[1], b[3])

    def suppresses(self, d: int, e: int) -> bool:
        if self.tile[d] == self.tile[e] or not self.comparable(d, e) or self.face(d, e):
            return False
        shared = self.shared(d, e)
        union = self.area(d) + self.area(e) - shared
        overlaps = union > 0 and self.above(shared / union, self.options.iou)
        cut = bool(self.cut[e] & INNER_SIDES)
        enough = self.options.share * self.area(e)
        return overlaps or (cut and self.above(shared, enough, self.area(e)))

    def above(self, value: float, limit: float, unit: float = 1.0) -> bool:
        """Compare; of oriented boxes, what is so near that rounding decides is not looked at."""
        assume(self.rotated is None or value == 0 or abs(value - limit) > 1e-9 * unit)
        return value > limit

    def comparable(self, d: int, e: int) -> bool:
        return not self.options.class_aware or self.label[d] == self.label[e]

    def face(self, d: int, e: int) -> bool:
        """Along each axis divided by the seam or level, along one at least divided."""
        if not self.options.join or not self.axes_agree(d, e):
            return False
        divided = [self.divided(d, e, axis) or self.divided(e, d, axis) for axis in (0, 1)]
        if self.rotated is not None:
            x0, y0, x1, y1 = self.overlap(d, e).bounds
            if min(x1 - x0, y1 - y0) > 1:
                asked = np.eye(2)[[axis for axis in (0, 1) if divided[1 - axis]]]
                return any(divided) and all(
                    self.level(d, e, direction) for direction in [*asked, self.across_longer(d, e)]
                )
        return any(divided) and all(
            divided[axis] or self.level(d, e, np.eye(2)[axis]) for axis in (0, 1)
        )

    def across_longer(self, d: int, e: int) -> np.ndarray:
        one, other = self.rotated[d], self.rotated[e]
        # Of two as long, any.
        assume(one[2] != other[2] or one[4] == other[4])
        angle = math.radians((one if one[2] > other[2] else other)[4])
        return np.array([-math.sin(angle), math.cos(angle)])

    def divided(self, d: int, e: int, axis: int) -> bool:
        """Whether e continues d to the right (axis 0) or downwards (1)."""
        a, b = self.tiles[self.tile[d]], self.tiles[self.tile[e]]
        seam = b.window.box_px[axis], a.window.box_px[axis + 2]
        after = (b.col > a.col, b.row > a.row)[axis]
        here, there = ((Cut.RIGHT, Cut.LEFT), (Cut.BOTTOM, Cut.TOP))[axis]
        if not after or seam[0] > seam[1] or not (self.cut[d] & here and self.cut[e] & there):
            return False
        edge = min(self.options.edge_px, (seam[1] - seam[0]) / 4)
        return all(
            box[axis] <= seam[0] + edge and box[axis + 2] >= seam[1] - edge
            for box in (self.box[d], self.box[e])
        )

    def axes_agree(self, d: int, e: int) -> bool:
        if self.rotated is None:
            return True
        (*_, a_length, a_width, a), (*_, b_length, b_width, b) = self.rotated[d], self.rotated[e]
        between = min(abs(a - b + k * 90) for k in range(-2, 3))
        is_short = a_length < 1.5 * a_width or b_length < 1.5 * b_width
        return between <= (20 if is_short else 10)

    def level(self, d: int, e: int, direction: np.ndarray) -> bool:
        p, q = (self.box[i][int(direction[1]) :: 2] for i in (d, e))
        if self.rotated is not None:
            parts = [shapely.intersection(self.polygon[i], self.overlap(d, e)) for i in (d, e)]
            reach = [shapely.get_coordinates(part) @ direction for part in parts]
            if not all(map(len, reach)):
                return False
            p, q = ((along.min(), along.max()) for along in reach)
        shared = length(*p, *q)
        needed = self.options.join_iou * (max(p[1], q[1]) - min(p[0], q[0]))
        if self.rotated is not None:
            assume(abs(shared - needed + 1e-6) > 1e-9 and not 0 < shared < 1e-9)
            return 0 < shared >= needed - 1e-6
        return 0 < shared >= needed

    def overlap(self, d: int, e: int) -> shapely.Polygon:
        """Of the windows; of those that abut, the line between them."""
        a, b = (self.tiles[self.tile[i]].window.box_px for i in (d, e))
        spans = []
        for k in (0, 1):
            ends = sorted([max(a[k], b[k]), min(a[k + 2], b[k + 2])])
            spans.append((ends[0] - 1e-6, ends[1] + 1e-6))
        (x0, x1), (y0, y1) = spans
        return shapely.box(x0, y0, x1, y1)

    def groups(self, kept: list[int]) -> list[list[int]]:
        left, groups = set(kept), []
        while left:
            group = [left.pop()]
            for d in group:
                found = {e for e in left if self.comparable(d, e) and self.face(d, e)}
                left -= found
                group += found
            groups.append(group)
        return groups

    def row(self, i: int) -> tuple:
        return (
            self.box[i],
            self.score[i],
            self.label[i],
            self.tile[i],
            self.cut[i],
            self.was_joined[i],
            None if self.rotated is None else tuple(self.rotated[i]),
        )

    def join(self, group: list[int]) -> tuple:
        if len(group) == 1:
            return self.row(group[0])
        x_min, y_min, x_max, y_max = zip(*(self.box[i] for i in group), strict=True)
        best = min(group, key=lambda i: (-self.score[i], self.label[i]))
        box = (min(x_min), min(y_min), max(x_max), max(y_max))
        cut = 0
        for i in group:
            for side in range(4):
                if self.box[i][side] == box[side]:
                    cut |= self.cut[i] & (0b10001 << side)
        first, rotated = min(self.tile[i] for i in group), None
        if self.rotated is not None:
            rotated = self.around(group)
            windows = [self.tiles[self.tile[i]].window.box_px for i in group]
            low_x, low_y, high_x, high_y = zip(*windows, strict=True)
            hull = shapely.Polygon(oriented.corners(np.array([rotated]))[0]).bounds
            box = (
                max(min(low_x), hull[0]),
                max(min(low_y), hull[1]),
                min(max(high_x), hull[2]),
                min(max(high_y), hull[3]),
            )
        return box, self.score[best], self.label[best], first, cut, True, rotated

    def around(self, group: list[int]) -> tuple[float, ...]:
        """The rectangle around boxes in the direction of the longest."""
        longest = min(
            group, key=lambda i: (-self.rotated[i][2], -self.rotated[i][3], self.rotated[i][4])
        )
        angle = self.rotated[longest][4]
        along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        axes = np.stack([along, [-along[1], along[0]]])
        points = shapely.get_coordinates(self.polygon[group]) @ axes.T
        low, high = points.min(axis=0), points.max(axis=0)
        centre, sides = (low + high) / 2 @ axes, high - low
        return tuple(oriented.normalise([*centre, *sides, angle])[0].tolist())


def length(a_min: float, a_max: float, b_min: float, b_max: float) -> float:
    return max(0.0, min(a_max, b_max) - max(a_min, b_min))


@settings(max_examples=200)
@given(st.data(), merge_options())
def test_equals_the_definition(data, options):
    detections, plan = data.draw(scenes(options, most=25))
    merged = merge_tiles(detections, plan, options)
    event(f"joined: {bool(merged.joined.any())}")
    event(f"suppressed: {len(merged) < len(detections)}")
    event(f"oriented: {detections.is_oriented}")
    assert_equal(merged, Naive(detections, plan, options).merged())


def assert_equal(merged: Detections, defined: Detections) -> None:
    """Of oriented boxes but for rounding, which joined ones differ by."""
    if not merged.is_oriented or not len(merged):
        assert merged == defined
        return
    assert len(merged) == len(defined)
    for name in ("scores", "labels", "tile", "cut", "joined"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(defined, name))
    np.testing.assert_allclose(merged.boxes_px, defined.boxes_px, rtol=0, atol=1e-7)
    assert_same_rectangles(merged.corners_px, defined.corners_px)


def assert_same_rectangles(corners: np.ndarray, others: np.ndarray) -> None:
    """Whichever corner comes first: which side of a square is the long one is rounding too."""
    turns = [np.roll(others, k, axis=1) - corners for k in range(4)]
    assert np.abs(turns).max(axis=(2, 3)).min(axis=0).max() < 1e-7


@given(st.data(), merge_options(), st.integers(0, 8))
def test_what_is_decided_together_is_irrelevant(data, options, at_once):
    detections, plan = data.draw(scenes(options))
    merged = merge_tiles(detections, plan, options)
    with mock.patch("geo_retina.merge._AT_ONCE", at_once):
        assert merge_tiles(detections, plan, options) == merged


@given(st.data(), merge_options(), seeds)
def test_order_of_the_input_is_irrelevant(data, options, seed):
    detections, plan = data.draw(scenes(options))
    shuffled = detections.take(np.random.default_rng(seed).permutation(len(detections)))
    assert merge_tiles(shuffled, plan, options) == merge_tiles(detections, plan, options)


@given(st.data(), merge_options())
def test_merging_again_changes_nothing(data, options):
    detections, plan = data.draw(scenes(options))
    once = merge_tiles(detections, plan, options)
    assert merge_tiles(once, plan, options) == once


@given(st.data(), merge_options())
def test_what_was_not_joined_is_as_it_was_detected(data, options):
    detections, plan = data.draw(scenes(options))
    merged = merge_tiles(detections, plan, options)
    assert not (merged.joined.any() and not options.join)
    before = {row.tobytes() for row in as_rows(detections)}
    assert all(row.tobytes() in before for row in as_rows(merged.take(~merged.joined)))


def as_rows(d: Detections) -> np.ndarray:
    return np.column_stack(
        [d.boxes_px, d.corners_px.reshape(-1, 8), d.scores, d.labels, d.tile, d.cut]
    )


@settings(max_examples=200)
@given(st.data(), merge_options(), seeds)
def test_block_by_block_equals_all_at_once(data, options, seed):
    detections, plan = data.draw(scenes(options))
    shuffled = detections.take(np.random.default_rng(seed).permutation(len(detections)))
    final, undecided = [], []
    for block in data.draw(partitions(plan)):
        row, col = np.divmod(shuffled.tile, plan.cols)
        mine = np.isin(row, block.tile_rows) & np.isin(col, block.tile_cols)
        decided, left = merge_block(shuffled.take(mine), plan, block, options)
        final.append(decided)
        undecided.append(left)
    rest = merge_tiles(Detections.concat(undecided), plan, options)
    event(f"undecided: {bool(sum(map(len, undecided)))}")
    assert in_order(Detections.concat([*final, rest])) == merge_tiles(detections, plan, options)


def scattered(rng, plan, sides_px, gap_px):
    """Boxes with the given range of sides that keep a gap between them, wholly in the grid."""
    grid_xy = np.array([plan.width, plan.height])
    kept = np.empty((0, 4))
    for _ in range(60):
        size = rng.integers(sides_px[0], sides_px[1] + 1, 2)
        if (size > grid_xy).any():
            continue
        low = rng.integers(0, grid_xy - size + 1)
        box = np.hstack([low, low + size])
        apart = (kept[:, :2] >= box[2:] + gap_px) | (kept[:, 2:] <= box[:2] - gap_px)
        if apart.any(axis=1).all():
            kept = np.vstack([kept, box])
    return kept


@settings(max_examples=200)
@given(plans(), seeds, st.sampled_from([(2, 20), (20, 60), (60, 200), (3, 200)]))
def test_objects_seen_without_noise_come_out_exactly(plan, seed, sides_px):
    """Smaller or larger than the overlap or the tile, over one seam, many, or a corner."""
    objects = scattered(np.random.default_rng(seed), plan, sides_px, 9)
    merged = merge_tiles(see(objects, plan, Sight(), 4.0, seed), plan)
    event(f"joined: {bool(merged.joined.any())}")
    assert sorted(map(tuple, merged.boxes_px)) == sorted(map(tuple, objects))


@settings(max_examples=100)
@given(plans(), seeds, st.sampled_from([(2, 20), (20, 60), (60, 200), (3, 200)]))
def test_oriented_objects_seen_without_noise_come_out_as_they_are(plan, seed, sides_px):
    rng = np.random.default_rng(seed)
    objects = turned(scattered(rng, plan, sides_px, 9), rng)
    hulls = oriented.hull(objects)
    _, j = overlapping_pairs(hulls + np.array([-9.0, -9.0, 9.0, 9.0])).T
    whole = (hulls[:, :2] >= 0) & (hulls[:, 2:] <= [plan.width, plan.height])
    objects = objects[np.setdiff1d(np.flatnonzero(whole.all(axis=1)), j)]
    merged = merge_tiles(see(objects, plan, Sight(), 4.0, seed), plan)
    event(f"joined: {bool(merged.joined.any())}")
    assert len(merged) == len(objects)
    if len(objects):
        nearest = np.linalg.norm(merged.rotated_px[:, None, :2] - objects[:, :2], axis=2).argmin(1)
        assert_same_rectangles(merged.corners_px, oriented.corners(objects[nearest]))


def brute_pairs(boxes, group, tile):
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    meet = (high >= low).all(axis=2) & (group[:, None] == group) & (tile[:, None] != tile)
    return np.argwhere(np.triu(meet, 1)).tolist()


@given(st.data(), st.sampled_from([1, 3, 1 << 19]), st.sampled_from([1, 7, 1 << 20]))
def test_meeting_finds_every_pair_once(data, at_once, strips):
    options = data.draw(merge_options())
    d, _ = data.draw(scenes(options, most=30))
    group = d.labels.astype(np.int64) - 5
    with (
        mock.patch("geo_retina.merge.pairs._PAIRS_AT_ONCE", at_once),
        mock.patch("geo_retina.merge.pairs._MOST_STRIPS", strips),
    ):
        found = [pair for chunk in meeting(d.boxes_px, group, d.tile) for pair in chunk.tolist()]
    assert sorted(found) == brute_pairs(d.boxes_px, group, d.tile)
