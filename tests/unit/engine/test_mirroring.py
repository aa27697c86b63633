"""Mirrored ground against a search of all cells, and as the engine shows it to a network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from support.stubs import stub_model, tiny_model, white_rectangles

from geo_retina.engine import BlockPixels, Engine, fill, mirror, mirroring
from geo_retina.engine.compute_slots import ComputeSlots
from geo_retina.errors import ModelError
from geo_retina.grid import Window, plan_tiles
from geo_retina.options import DetectOptions


def searched(valid: np.ndarray, reach: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Source of each pixel to fill, by trying every cell of 2 x 2 pixels."""
    ground = set(map(tuple, np.argwhere(valid).tolist()))
    cells = np.unique(np.argwhere(valid) // 2, axis=0)
    found = {}
    for here in np.argwhere(~valid) if len(cells) else ():
        distance = ((cells - here // 2) ** 2).sum(axis=1)
        cell = min(cells[distance == distance.min()].tolist(), key=lambda at: (at[1], at[0]))
        if np.abs(cell - here // 2).max() > reach:
            continue
        row, col = np.clip(here, np.multiply(cell, 2), np.multiply(cell, 2) + 1).tolist()
        facing = ((row, col), (row ^ 1, col), (row, col ^ 1), (row ^ 1, col ^ 1))
        near = next(pixel for pixel in facing if pixel in ground)
        there = tuple(
            2 * n - h if 0 <= 2 * n - h < side else n
            for n, h, side in zip(near, here.tolist(), valid.shape, strict=True)
        )
        found[tuple(here.tolist())] = there if there in ground else near
    return found


def listed(valid: np.ndarray) -> dict[tuple[int, int], tuple[int, int]]:
    def places(flat):
        return zip(*(axis.tolist() for axis in np.divmod(flat, valid.shape[1])), strict=True)

    targets, sources = mirror(valid)
    assert len(np.unique(targets)) == len(targets)
    return dict(zip(places(targets), places(sources), strict=True))


@st.composite
def grounds(draw) -> np.ndarray:
    """Masks: scattered, half-planes, or ground that ends right and below."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
    kind = draw(st.sampled_from(["scattered", "slanted", "ended"]))
    if kind == "scattered":
        return draw(arrays(bool, shape))
    row, col = np.mgrid[: shape[0], : shape[1]]
    if kind == "ended":
        return (row < draw(st.integers(0, 12))) & (col < draw(st.integers(0, 12)))
    down, right = draw(st.tuples(*[st.floats(-1, 1)] * 2))
    return down * row + right * col < draw(st.floats(-8, 8))


@given(valid=grounds(), reach=st.sampled_from([0, 1, 3, 32]))
def test_equals_a_search_of_all_cells(valid, reach):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirroring, "REACH_CELLS", reach)
        assert listed(valid) == searched(valid, reach)


@given(side=st.integers(2, 14), ground=st.tuples(st.integers(1, 14), st.integers(1, 14)))
def test_the_fast_path_of_a_scenes_end_equals_the_rule(side, ground):
    valid = np.zeros((side, side), bool)
    valid[: ground[0], : ground[1]] = True
    if not valid.all():
        by_rule, fast = mirroring._mirror_any(valid), mirror(valid)
        assert sorted(zip(*by_rule, strict=True)) == sorted(zip(*fast, strict=True))


def test_filling_reflects_as_numpy_does():
    planes = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9, 11)))
    wanted = np.pad(planes.numpy(), ((0, 0), (0, 4), (0, 5)), mode="reflect")
    padded = torch.zeros(2, 13, 16, dtype=torch.float64)
    padded[:, :9, :11] = planes
    valid = np.zeros((13, 16), bool)
    valid[:9, :11] = True
    fill(mirror(valid), padded)
    np.testing.assert_array_equal(padded, wanted)


def shown(padding: str, valid: np.ndarray, block_px: int, batch: int) -> dict:
    """What the network is shown of each tile of a noisy scene, by its origin."""
    seen, tiles = [], []

    def look(tiles_NCHW):
        seen.extend(tiles_NCHW.numpy().copy())
        return white_rectangles(tiles_NCHW)

    in_order = ComputeSlots(torch.device("cpu"), 1)
    model = stub_model(look, padding=padding)
    engine = Engine(model, DetectOptions(), batch=batch, slots=in_order)
    pixels = np.random.default_rng(1).integers(1, 255, (3, *valid.shape), np.uint8)
    pixels[:, ~valid] = 0
    plan = plan_tiles(valid.shape, tile_px=64, overlap_px=24, stride_px=32, exact=True)
    for block in plan.blocks(block_px):
        row, col, height, width = block.window
        part = np.s_[row : row + height, col : col + width]
        own = plan.tiles_of(block)
        tiles += [
            tile.window
            for tile in own
            if valid[tile.window.row :, tile.window.col :][
                : tile.window.height, : tile.window.width
            ].any()
        ]
        engine.detect(
            [BlockPixels(pixels[:, *part], valid[part], Window(*block.window), plan, own)]
        )
    return dict(zip(tiles, seen, strict=True))


def test_a_tile_shows_the_same_whatever_block_and_batch_it_is_in():
    row, col = np.mgrid[:150, :170]
    valid = (col + 0.4 * row < 160) & ((row - 60) ** 2 + (col - 70) ** 2 > 15**2)
    first = shown("mirror", valid, 64, 1)
    assert len(first) > 8
    for block_px, batch in ((100, 3), (4096, 2)):
        again = shown("mirror", valid, block_px, batch)
        assert first.keys() == again.keys()
        for window, image in first.items():
            np.testing.assert_array_equal(again[window], image)
    constant = shown("constant", valid, 4096, 2)
    for window, image in first.items():
        mask = np.zeros((64, 64), bool)
        mask[: window.height, : window.width] = valid[window.row :, window.col :][
            : window.height, : window.width
        ]
        assert not constant[window][:, ~mask].any()
        np.testing.assert_array_equal(constant[window][:, mask], image[:, mask])
        for here, there in searched(mask, mirroring.REACH_CELLS).items():
            np.testing.assert_array_equal(image[:, *here], image[:, *there])


def test_a_card_of_before_means_mirrored_ground_and_another_word_is_refused():
    card = tiny_model().card
    text = card.to_json().replace('"padding": "mirror", ', "")
    assert "padding" not in text
    assert type(card).from_json(text).padding == "mirror"
    constant = dataclasses.replace(card, padding="constant")
    assert type(card).from_json(constant.to_json()) == constant
    with pytest.raises(ModelError, match="padding 'black', expected mirror or constant"):
        dataclasses.replace(card, padding="black")
