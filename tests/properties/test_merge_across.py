"""Scenes merged place by place, from disk, come out as they do all at once in memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyproj
from affine import Affine
from hypothesis import event, given, settings
from hypothesis import strategies as st

from geo_retina.boxes import oriented
from geo_retina.detections import NO_DAY, Detections
from geo_retina.grid import Grid
from geo_retina.merge import Merged, in_order, merge_scenes
from geo_retina.postprocess import spill
from geo_retina.postprocess.across import Found, merge_across
from geo_retina.postprocess.lattices import JoinedScenes, Lattices, lattices_of
from geo_retina.postprocess.polygons import Neighbourhoods
from properties.strategies import merge_options, seeds

UTM32, UTM33 = pyproj.CRS("EPSG:32632"), pyproj.CRS("EPSG:32633")
LONLAT, SITE = pyproj.CRS("EPSG:4326"), pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
TO_33 = pyproj.Transformer.from_crs(UTM32, UTM33, always_xy=True)
EAST, NORTH = 720_000.0, 5_400_000.0
"""Where zones 32 and 33 overlap."""

PLACES = [
    (UTM32, Affine(0.5, 0, EAST, 0, -0.5, NORTH)),
    (UTM32, Affine(0.7, 0, EAST, 0, -0.7, NORTH)),
    (UTM33, Affine(0.5, 0, TO_33.transform(EAST, NORTH)[0], 0, -0.5, NORTH)),
    (
        UTM33,
        Affine(0.5, 0, *TO_33.transform(EAST, NORTH)[:1], 0, -0.5, TO_33.transform(EAST, NORTH)[1]),
    ),
    (LONLAT, Affine(1e-5, 0, 179.999, 0, -1e-5, 10)),
    (LONLAT, Affine(1e-5, 0, -180.0005, 0, -1e-5, 10)),
    (SITE, Affine(0.5, 0, 0, 0, -0.5, 0)),
    (SITE, Affine(0.6, 0, 0, 0, 0.6, -60)),
]


@st.composite
def grids(draw: st.DrawFn) -> list[Grid]:
    found = []
    for _ in range(draw(st.integers(2, 7))):
        crs, affine = draw(st.sampled_from(PLACES))
        x, y = draw(st.integers(-60, 150)), draw(st.integers(-60, 150))
        found.append(Grid(crs, affine @ Affine.translation(x, y), *draw(st.tuples(SIDES, SIDES))))
    return found


SIDES = st.integers(40, 160)


def turned_within(found: Detections, window: np.ndarray, rng: np.random.Generator) -> Detections:
    """Turn boxes about their middles; hulls stay in the scene, but for those of several."""
    low, high = np.hsplit(found.boxes_px, 2)
    angles = rng.choice([-90.0, -30.0, 0.0, 10.0, 45.0], len(found))
    rotated = oriented.normalise(np.column_stack([(low + high) / 2, high - low, angles]))
    hulls = oriented.hull(rotated)
    inside = np.hstack([np.maximum(hulls[:, :2], window[:2]), np.minimum(hulls[:, 2:], window[2:])])
    hulls = np.where(found.joined[:, None], hulls, inside)
    return replace(found, boxes_px=hulls, rotated_px=rotated)


def drawn(
    rng: np.random.Generator, lattices: Lattices, settled: np.ndarray, *, turned: bool
) -> list[Detections]:
    """Boxes of every scene, half of them from places that all scenes of a lattice share."""
    parts = []
    for scene, window in enumerate(lattices.scenes.windows):
        shared = np.random.default_rng(int(lattices.scenes.lattice[scene]))
        corners = np.concatenate(
            [
                rng.uniform(window[:2], window[2:], (15, 2)),
                shared.uniform(-60, 300, (60, 2)).round(),
            ]
        )
        boxes = np.hstack([corners, corners + rng.integers(3, 30, corners.shape)])
        boxes[:, 2:] = np.minimum(boxes[:, 2:], window[2:])
        boxes[:, :2] = np.maximum(boxes[:, :2], window[:2])
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2] + 1).all(axis=1)]
        at_border = np.abs(boxes - window) <= 4
        cut = (at_border @ [16, 32, 64, 128]) | (
            rng.integers(0, 16, len(boxes)) * (rng.random(len(boxes)) < 0.2)
        )
        joined = rng.random(len(boxes)) < 0.1
        if (settled == settled[scene]).sum() > 1:  # over several scenes
            boxes[joined, 2:] += rng.integers(0, 40, (joined.sum(), 2))
        scores = rng.choice([0.5, 0.6, 0.7], len(boxes))
        labels = rng.integers(0, 2, len(boxes))
        tile = np.full(len(boxes), scene)
        found = Detections(boxes, scores, labels, tile, cut.astype(np.uint8), joined)
        found = turned_within(found, window, rng) if turned else found
        parts.append(replace(found, first_seen=DAYS[scene % 4] + (joined & (scene % 4 == 1))))
    return parts


DAYS = np.array([18_000, NO_DAY - 1, 17_000, 18_500])
"""Of scenes; a day later is that of no scene, for objects of an earlier merge."""


def at_once(parts: list[Detections], lattices: Lattices, options) -> Merged:
    found = Detections.concat(parts)
    joined_scenes = JoinedScenes.of(lattices.scenes, [found])
    placed, scenes = joined_scenes.place(found), joined_scenes.scenes
    hoods = Neighbourhoods.of(scenes, lattices.grids)
    merged = merge_scenes(placed, scenes, options, hoods.overlaps(placed), hoods.abroad(placed))
    joined = replace(merged.joined, tile=joined_scenes.origin[merged.joined.tile])
    return merged._replace(joined=in_order(joined))


@settings(max_examples=60)
@given(grids(), merge_options(), seeds, st.integers(1, 60), st.booleans(), st.booleans())
def test_place_by_place_is_all_at_once(where, options, seed, leaf_rows, some_merged, turned):
    options = replace(options, rank="whole")
    settled = np.arange(len(where))
    if some_merged:
        settled[: len(where) // 2] = 0
    lattices = lattices_of(where, settled)
    parts = drawn(np.random.default_rng(seed), lattices, settled, turned=turned)
    found = [Found(lambda part=part: iter([part]), settled[k] == 0) for k, part in enumerate(parts)]
    small = mock.patch.multiple(spill, _SAMPLED=1, _BATCH_ROWS=16, _SORTED_ROWS=100)
    with tempfile.TemporaryDirectory() as scratch, small:
        across = merge_across(found, lattices, options, Path(scratch), leaf_rows=leaf_rows)
    stays, joined, _, first_seen = at_once(parts, lattices, options)
    count = sum(map(len, parts))
    event(f"lattices: {len(lattices.grids)}, turned: {turned}")
    event(f"joined: {len(joined) > 0}, gone: {not stays.all()}")
    assert across.read == count
    np.testing.assert_array_equal(across.stays(0, count), stays)
    assert across.joined == joined
    middle = count // 3
    np.testing.assert_array_equal(across.stays(middle, count), stays[middle:])
    own = Detections.concat(parts).first_seen
    event(f"seen before: {(first_seen[stays] < own[stays]).any()}")
    for start in (0, middle):
        days = across.first_seen(own[start:], start)[stays[start:]]
        np.testing.assert_array_equal(days, first_seen[start:][stays[start:]])
