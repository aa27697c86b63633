"""The split: ground is divided out by place, whole blocks at a time."""

import numpy as np
import pyproj
import pytest
from affine import Affine
from support.fields import rotated

from geo_retina.dataset.split import Subset, split_ground
from geo_retina.errors import TrainingError
from geo_retina.grid import Grid, Window
from geo_retina.options import SplitOptions
from geo_retina.scene import Scene

UTM = pyproj.CRS("EPSG:32632")
NEXT_ZONE = pyproj.CRS("EPSG:32633")


def scene(name="a.tif", crs=UTM, affine=None, height=400, width=600):
    affine = affine or Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
    grid = Grid(crs, affine, height, width)
    return Scene(name, (1,), grid, "uint8", ("",), Affine.identity())


def block_of_each_pixel(grid, block_m):
    """The oracle: one pixel centre after another."""
    blocks = np.empty((grid.height, grid.width, 2), np.int64)
    for row in range(grid.height):
        for col in range(grid.width):
            a, b, c, d, e, f = tuple(grid.affine)[:6]
            x = a * (col + 0.5) + b * (row + 0.5) + c
            y = d * (col + 0.5) + e * (row + 0.5) + f
            blocks[row, col] = x // block_m, y // block_m
    return blocks


ROTATED = rotated(27, 0.5, 0.7)


@pytest.mark.parametrize("affine", [None, ROTATED])
def test_mask_is_that_of_every_pixel_centre(affine):
    grid = scene(affine=affine, height=90, width=120).grid
    split = split_ground(
        [scene(affine=affine, height=90, width=120)],
        SplitOptions(block_m=17.0, val_fraction=0.4),
        seed=3,
    )
    blocks = block_of_each_pixel(grid, 17.0)
    wanted = np.array(
        [[("EPSG:32632", *cell) in split.val for cell in row] for row in blocks.tolist()]
    )
    assert 0 < wanted.mean() < 1
    np.testing.assert_array_equal(split.mask(grid, grid.window) == Subset.VAL, wanted)
    part = Window(20, 31, 40, 25)
    np.testing.assert_array_equal(split.mask(grid, part) == Subset.VAL, wanted[20:60, 31:56])


def test_share_is_about_the_fraction():
    options = SplitOptions(block_m=10.0, val_fraction=0.15)
    big = scene()
    for seed in range(5):
        split = split_ground([big], options, seed=seed)
        assert (split.mask(big.grid, big.grid.window) == Subset.VAL).mean() == pytest.approx(
            0.15, abs=0.01
        )
        assert split.share == pytest.approx(0.15, abs=0.01)


def test_same_place_in_other_years_lands_on_the_same_side():
    first = scene("2018.tif")
    # The same ground in other pixels and another extent, as another flight gives it.
    second = scene("2020.tif", affine=Affine(0.3, 0, 500_020, 0, -0.3, 5_299_990), width=500)
    split = split_ground([first, second], SplitOptions(block_m=25.0), seed=0)
    ground_xy = np.random.default_rng(0).uniform(
        [500_030, 5_299_880], [500_160, 5_299_980], (500, 2)
    )
    sides = [split.on_val(s.grid, s.grid.crs_to_pixels(ground_xy)) for s in (first, second)]
    assert 0 < sides[0].mean() < 1
    np.testing.assert_array_equal(*sides)


def test_order_of_scenes_changes_nothing_and_the_seed_does():
    scenes = [
        scene(f"{i}.tif", affine=Affine(0.5, 0, 500_000 + 300 * i, 0, -0.5, 5_300_000))
        for i in range(4)
    ]
    options = SplitOptions(block_m=50.0)
    split = split_ground(scenes, options, seed=0)
    assert split_ground(scenes[::-1], options, seed=0).val == split.val
    assert split_ground(scenes, options, seed=1).val != split.val


def test_blocks_of_other_zones_are_other_places():
    split = split_ground(
        [scene("a.tif"), scene("b.tif", crs=NEXT_ZONE)], SplitOptions(block_m=25.0), seed=0
    )
    zones = [
        {key[1:] for key in split.val if key[0] == zone} for zone in ("EPSG:32632", "EPSG:32633")
    ]
    assert zones[0]
    assert zones[1]
    assert zones[0] != zones[1]


def test_feet_are_not_metres():
    feet = pyproj.CRS("EPSG:2225")  # California zone 1, US survey feet
    own = scene(crs=feet, affine=Affine(1, 0, 6_000_000, 0, -1, 2_000_000), height=200, width=200)
    split = split_ground([own], SplitOptions(block_m=20.0, val_fraction=0.3), seed=0)
    mask = split.mask(own.grid, own.grid.window) == Subset.VAL
    # Sides of the blocks, 20 m, are 65.6 px of a foot: changes lie at multiples of that.
    changes = np.flatnonzero((mask[:, 1:] != mask[:, :-1]).any(axis=0)) + 1
    edges_ft = (6_000_000 + changes) * (1200 / 3937)
    assert len(changes)
    np.testing.assert_array_less(np.abs(edges_ft / 20 - np.round(edges_ft / 20)) * 20, 0.31)


def test_one_block_is_refused_with_the_remedy():
    with pytest.raises(TrainingError, match=r"one ground block of 1e\+06 m.*lower split.block_m"):
        split_ground([scene()], SplitOptions(block_m=1e6), seed=0)


def test_two_blocks_give_one_to_each_side():
    own = scene(affine=Affine(0.5, 0, 499_850, 0, -0.5, 5_299_900), height=100)
    split = split_ground([own], SplitOptions(block_m=500.0), seed=0)
    assert len(split.val) == 1
    assert 0 < split.share < 1
