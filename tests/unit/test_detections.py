"""Detections: checked at birth, and the way to Arrow and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geo_retina.detections import INNER_SIDES, Cut, Detections


def some(n: int = 5) -> Detections:
    rng = np.random.default_rng(n)
    low = rng.uniform(0, 1e6, (n, 2))
    return Detections(
        np.hstack([low, low + rng.uniform(0, 99, (n, 2))]),
        rng.random(n, dtype=np.float32),
        rng.integers(0, 2**31 - 1, n),
        rng.integers(0, 2**62, n),
        rng.integers(0, 256, n),
        rng.random(n) < 0.5,
    )


@pytest.mark.parametrize("n", [0, 1, 50])
def test_arrow_and_back_loses_nothing(n):
    assert Detections.from_arrow(some(n).to_arrow()) == some(n)


@pytest.mark.parametrize("n", [0, 7])
def test_a_file_and_back_loses_nothing(n, tmp_path):
    pq.write_table(some(n).to_arrow(), tmp_path / "part.parquet")
    assert Detections.from_arrow(pq.read_table(tmp_path / "part.parquet")) == some(n)


def test_a_table_in_chunks_with_more_columns_is_read():
    table = pa.concat_tables([some(3).to_arrow(), some(4).to_arrow()])
    table = table.append_column("extra", pa.array(["x"] * 7))
    assert Detections.from_arrow(table) == Detections.concat([some(3), some(4)])


def test_columns_take_their_types():
    d = Detections(np.zeros((1, 4), np.float32), [1], [2], [3], [4], [0])
    types = {
        name: getattr(d, name).dtype for name in ("boxes_px", "scores", "labels", "tile", "cut")
    }
    assert types == {
        "boxes_px": np.float64,
        "scores": np.float32,
        "labels": np.int32,
        "tile": np.int64,
        "cut": np.uint8,
    }
    assert d.joined.dtype == bool


def test_empty_and_concat():
    assert len(Detections.empty()) == 0
    assert Detections.empty().boxes_px.shape == (0, 4)
    assert Detections.concat([]) == Detections.empty()
    assert Detections.concat([some(), Detections.empty()]) == some()


def test_take_by_position_and_by_mask():
    d = some(4)
    assert d.take(np.array([2, 0])).tile.tolist() == [d.tile[2], d.tile[0]]
    assert d.take(np.array([True, False, False, True])) == d.take(np.array([0, 3]))
    assert len(d.take(np.empty(0, dtype=np.int64))) == 0


def test_equality_sees_every_column():
    d = some(2)
    for name in ("boxes_px", "scores", "labels", "tile", "cut", "joined"):
        columns = {n: getattr(d, n).copy() for n in d._columns()}
        columns[name][0] = ~columns[name][0] if name == "joined" else columns[name][0] + 1
        assert Detections(**columns) != d
    assert d != "something else"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    good = (np.zeros((1, 4)), [0.5], [0], [0], [0], [False])
    with pytest.raises(ValueError, match="finite"):
        Detections(np.full((1, 4), bad), *good[1:])
    with pytest.raises(ValueError, match="finite"):
        Detections(good[0], [bad], *good[2:])


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"labels has shape \(2,\), expected \(1,\)"):
        Detections(np.zeros((1, 4)), [0.5], [0, 0], [0], [0], [False])
    with pytest.raises(ValueError, match=r"expected \(N, 4\)"):
        Detections(np.zeros(4), [0.5], [0], [0], [0], [False])


def test_inner_sides_and_borders_are_apart():
    assert int(Cut.LEFT | Cut.TOP | Cut.RIGHT | Cut.BOTTOM) == INNER_SIDES
    borders = Cut.SCENE_LEFT | Cut.SCENE_TOP | Cut.SCENE_RIGHT | Cut.SCENE_BOTTOM
    assert int(borders) == 255 ^ INNER_SIDES


def some_oriented(n: int = 5) -> Detections:
    upright = some(n)
    centre = (upright.boxes_px[:, :2] + upright.boxes_px[:, 2:]) / 2
    rng = np.random.default_rng(n)
    width = rng.uniform(1, 9, n)
    rotated = np.column_stack([centre, width + rng.random(n), width, rng.uniform(-90, 90, n)])
    return dataclasses.replace(upright, rotated_px=rotated)


@pytest.mark.parametrize("n", [0, 1, 50])
def test_oriented_boxes_go_to_arrow_and_back(n, tmp_path):
    found = some_oriented(n)
    pq.write_table(found.to_arrow(), tmp_path / "part.parquet")
    back = Detections.from_arrow(pq.read_table(tmp_path / "part.parquet"))
    assert back == found
    assert back.is_oriented
    assert np.array_equal(back.rotated_px, found.rotated_px)
    assert not {"centre_x", "angle_deg"} & set(some(n).to_arrow().column_names)


def test_oriented_boxes_are_taken_and_joined():
    found = some_oriented(4)
    assert np.array_equal(found.take(np.array([2, 0])).rotated_px, found.rotated_px[[2, 0]])
    assert np.array_equal(found.part(1, 3).rotated_px, found.rotated_px[1:3])
    both = Detections.concat([Detections.empty(), found, some_oriented(3), Detections.empty()])
    assert both == Detections.concat([found, some_oriented(3)])
    assert np.array_equal(both.rotated_px[:4], found.rotated_px)
    assert Detections.concat([some_oriented(0), some(2)]) == some(2)
    assert Detections.concat([some_oriented(0)]).is_oriented
    with pytest.raises(ValueError, match="oriented and upright"):
        Detections.concat([found, some(1)])


def test_equality_sees_angles():
    found = some_oriented(3)
    turned = found.rotated_px.copy()
    turned[1, 4] = 0.0
    assert dataclasses.replace(found, rotated_px=turned) != found
    assert some(3) != found
    assert found != some(3)
    assert some_oriented(0) == Detections.empty()


@pytest.mark.parametrize(
    ("column", "value"), [(2, 0.5), (3, -1.0), (4, 90.0), (4, -91.0), (0, np.nan)]
)
def test_oriented_boxes_that_are_not_normal_are_refused(column, value):
    found = some_oriented(2)
    bad = found.rotated_px.copy()
    bad[1, column] = value
    with pytest.raises(ValueError, match=r"rotated_px must be finite|length"):
        dataclasses.replace(found, rotated_px=bad)
    with pytest.raises(ValueError, match=r"rotated_px has shape \(1, 5\), expected \(2, 5\)"):
        dataclasses.replace(found, rotated_px=bad[:1])
