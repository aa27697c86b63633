"""The split in three: test ground, and ground dealt by areas and by place columns."""

import numpy as np
import pyproj
import pytest
from affine import Affine
from support import stubs
from support.fields import AFFINE, field, write_labels, write_scene

from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.radiometry import measure_bands
from geo_retina.dataset.samples import TrainSamples
from geo_retina.dataset.split import Subset, split_ground
from geo_retina.errors import LabelError, OptionError, TrainingError
from geo_retina.grid import Window
from geo_retina.options import DataOptions, SplitOptions
from geo_retina.scene import open_scene
from unit.dataset.test_samples import PLAIN
from unit.dataset.test_split import block_of_each_pixel
from unit.dataset.test_split import scene as plain_scene


def load(scenes, labels, *, column=None, **options):
    data = DataOptions(scenes=tuple(map(str, scenes)), labels=str(labels), **options)
    return load_training_set(data, place_column=column)


def split_of(training_set, options, seed=0):
    scenes = [each.scene for each in training_set.scenes]
    return split_ground(scenes, options, seed=seed, training_set=training_set)


def parts_of(split, scene):
    return split.mask(scene.grid, scene.grid.window)


def test_blocks_are_dealt_to_three_parts_about_as_asked():
    own = plain_scene(height=90, width=120)
    options = SplitOptions(block_m=5.0, val_fraction=0.2, test_fraction=0.3)
    for seed in range(4):
        split = split_ground([own], options, seed=seed)
        mask = parts_of(split, own)
        blocks = block_of_each_pixel(own.grid, 5.0)
        for part, keys in ((Subset.VAL, split.val), (Subset.TEST, split.test)):
            wanted = [[("EPSG:32632", *cell) in keys for cell in row] for row in blocks.tolist()]
            np.testing.assert_array_equal(mask == part, wanted)
        shares = [(mask == part).mean() for part in Subset]
        assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.03)
        assert [split.share, split.test_share] == pytest.approx(shares[1:], abs=1e-6)


def test_what_tests_does_not_hang_on_what_tunes():
    own = plain_scene()
    splits = [
        split_ground([own], SplitOptions(block_m=9.0, val_fraction=f, test_fraction=0.2), seed=0)
        for f in (0.1, 0.4)
    ]
    assert splits[0].test == splits[1].test
    assert splits[0].val < splits[1].val
    without = split_ground([own], SplitOptions(block_m=9.0), seed=0)
    assert not without.has_test


def test_areas_tune_and_all_else_fits(tmp_path):
    scene, labels, _ = field(tmp_path)
    grid = open_scene(scene).grid
    areas = write_labels(tmp_path / "v.gpkg", [[100.0, 50, 200, 150]], grid=grid, crs=4326)
    split = split_of(load([scene], labels), SplitOptions(areas=str(areas)))
    wanted = np.zeros((400, 400), np.int8)
    wanted[50:150, 100:200] = Subset.VAL
    np.testing.assert_array_equal(parts_of(split, open_scene(scene)), wanted)
    assert split.share == pytest.approx(1 / 16, rel=1e-3)
    assert "v.gpkg, 6% of the ground" in split.describe(Subset.VAL)
    inside = split.mask(grid, Window(60, 110, 20, 20))
    assert (inside == Subset.VAL).all()
    far = write_labels(tmp_path / "far.gpkg", [[9000.0, 50, 9200, 150]], grid=grid)
    with pytest.raises(TrainingError, match=r"no validation area of .*far.gpkg lies under a scene"):
        split_of(load([scene], labels), SplitOptions(areas=str(far)))


def test_areas_by_name_and_ground_under_two_of_them_tests(tmp_path):
    scene, labels, _ = field(tmp_path)
    grid = open_scene(scene).grid
    areas = write_labels(
        tmp_path / "v.gpkg", [[0.0, 0, 200, 400], [150, 0, 300, 400], [300, 0, 400, 400]],
        grid=grid, use=["val", "test", "train"],
    )  # fmt: skip
    options = SplitOptions(areas=str(areas), column="use", val=("val",), test=("test",))
    split = split_of(load([scene], labels), options)
    wanted = np.zeros((400, 400), np.int8)
    wanted[:, :150], wanted[:, 150:300] = Subset.VAL, Subset.TEST
    np.testing.assert_array_equal(parts_of(split, open_scene(scene)), wanted)
    assert [split.share, split.test_share] == pytest.approx([3 / 8, 3 / 8])
    with pytest.raises(TrainingError, match=r"use = vall in .*holds test, train, val"):
        split_of(load([scene], labels), SplitOptions(areas=str(areas), column="use", val=("vall",)))
    with pytest.raises(LabelError, match=r"has no place column usage; its columns are use"):
        split_of(load([scene], labels), SplitOptions(areas=str(areas), column="usage"))


def towns(tmp_path, count=8):
    """A row of small scenes, two years of each town, and labels that name town and scene."""
    scenes, boxes, names, stems = [], [], [], []
    for i in range(count):
        for year in (2018, 2020):
            stem = f"t{i}_{year}"
            affine = AFFINE @ AFFINE.translation(100.0 * i, 0)
            pixels = np.full((1, 60, 60), 90, np.uint8)
            scenes.append(write_scene(tmp_path / f"{stem}.tif", pixels, affine=affine))
            boxes.append([100.0 * i + 10, 10, 100.0 * i + 20, 20])
            names.append(f"t{i}")
            stems.append(stem)
    grid = open_scene(scenes[0]).grid
    labels = write_labels(tmp_path / "l.gpkg", boxes, grid=grid, town=names, tile=stems)
    return scenes, labels


def test_by_a_column_of_the_labels_a_place_goes_whole_in_all_years(tmp_path):
    scenes, labels = towns(tmp_path)
    training_set = load(scenes, labels, column="town", scene_column="tile")
    options = SplitOptions(column="town", val_fraction=0.25, test_fraction=0.25)
    split = split_of(training_set, options)
    parts = [np.unique(parts_of(split, each.scene)).tolist() for each in training_set.scenes]
    assert all(len(part) == 1 for part in parts)
    assert parts[0::2] == parts[1::2]  # the same town in the other year
    assert sorted(part[0] for part in parts[0::2]) == [0, 0, 0, 0, 1, 1, 2, 2]
    named = split_of(training_set, SplitOptions(column="town", val=("t3",), test=("t5", "t6")))
    found = [parts_of(named, each.scene)[0, 0] for each in training_set.scenes[0::2]]
    assert found == [0, 0, 0, 1, 0, 2, 2, 0]
    assert "1 places t3 of the labels' column town" in named.describe(Subset.VAL)


def test_a_place_holds_in_every_crs(tmp_path):
    """Its ground is for validation also where a scene of another zone, which has no label, shows
    it."""
    scene = write_scene(tmp_path / "a.tif", np.full((1, 60, 60), 90, np.uint8))
    grid = open_scene(scene).grid
    second = AFFINE @ AFFINE.translation(0, 300)
    write_scene(tmp_path / "c.tif", np.full((1, 60, 60), 90, np.uint8), affine=second)
    to_other = pyproj.Transformer.from_crs(grid.crs, "EPSG:32633", always_xy=True)
    x, y = to_other.transform(AFFINE.c, AFFINE.f)
    affine = Affine(0.5, 0, x - 20, 0, -0.5, y + 20)
    blank = np.full((1, 160, 160), 90, np.uint8)
    write_scene(tmp_path / "b.tif", blank, affine=affine, crs="EPSG:32633")
    boxes = [[10.0, 10, 20, 20], [10, 310, 20, 320]]
    labels = write_labels(tmp_path / "l.gpkg", boxes, grid=grid, town=["t", "u"], tile=["a", "c"])
    scenes = [tmp_path / f"{name}.tif" for name in "abc"]
    training_set = load(scenes, labels, column="town", scene_column="tile")
    split = split_of(training_set, SplitOptions(column="town", val=("t",), test=()))
    other = open_scene(tmp_path / "b.tif").grid
    rows, cols = np.mgrid[:160, :160] + 0.5
    points = other.pixels_to_crs(np.stack([cols.ravel(), rows.ravel()], axis=1))
    back = np.column_stack(to_other.transform(*points.T, direction="INVERSE"))
    inside_px = grid.crs_to_pixels(back)
    depth = np.minimum(inside_px, 60 - inside_px).min(axis=1).reshape(160, 160)
    parts = parts_of(split, training_set.scenes[1].scene)
    assert (parts[depth > 0.1] == Subset.VAL).all()
    assert (parts[depth < -0.1] == Subset.TRAIN).all()
    assert (depth > 0.1).sum() > 3000


def test_a_scene_of_two_places_wants_polygons(tmp_path):
    scene, _, boxes_px = field(tmp_path, side=100)
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", boxes_px[:2], grid=grid, town=["a", "b"])
    training_set = load([scene], labels, column="town")
    with pytest.raises(TrainingError, match=r"several places in the column town \(a, b\)"):
        split_of(training_set, SplitOptions(column="town"))


def test_by_a_column_of_the_ground(tmp_path):
    scene, labels, _ = field(tmp_path)
    grid = open_scene(scene).grid
    ground = write_labels(
        tmp_path / "g.gpkg", [[0.0, 0, 100, 400], [100, 0, 300, 400]], grid=grid, town=["a", "b"]
    )
    training_set = load([scene], labels, column="town", ground=str(ground))
    split = split_of(training_set, SplitOptions(column="town", val=("a",), test=()))
    mask = parts_of(split, open_scene(scene))
    assert (mask[:, :100] == Subset.VAL).all()
    assert (mask[:, 100:] == Subset.TRAIN).all()
    one = load([scene], labels, column="town", ground=str(ground), ground_where="town = 'a'")
    with pytest.raises(TrainingError, match=r"names 1 places under the scenes \(a\), too few"):
        split_of(one, SplitOptions(column="town"))


@pytest.mark.parametrize("by", ["blocks", "areas"])
def test_no_pixel_that_tunes_or_tests_is_ever_in_a_sample(tmp_path, by):
    """Ground that fits is dark and all other ground bright, painted by an oracle of its own."""
    scene, labels, _ = field(tmp_path)
    grid = open_scene(scene).grid
    areas = write_labels(
        tmp_path / "v.gpkg", [[0.0, 0, 130, 170], [210, 90, 330, 400]], grid=grid, use=["a", "b"]
    )
    by_areas = SplitOptions(areas=str(areas), column="use", val=("a",), test=("b",))
    by_blocks = SplitOptions(block_m=20.0, val_fraction=0.2, test_fraction=0.2)
    options = by_areas if by == "areas" else by_blocks
    split = split_of(load([scene], labels), options)
    hidden = np.zeros((400, 400), bool)
    if by == "areas":
        hidden[:170, :130] = hidden[90:, 210:330] = True
    else:
        keys = split.val | split.test
        blocks = block_of_each_pixel(grid, 20.0).tolist()
        hidden[:] = [[("EPSG:32632", *cell) in keys for cell in row] for row in blocks]
    assert 0.2 < hidden.mean() < 0.6
    write_scene(scene, np.where(hidden, 250, 100).astype(np.uint8)[None])
    training_set = load([scene], labels)
    bands = measure_bands([training_set.scenes[0].scene], seed=0, split=split)
    # Nor does the normalisation know what lies there: dark ground is all there is.
    assert bands.std[0] < 1e-9
    assert bands.mean[0] == pytest.approx((100 - 127.5) / 127.5, abs=1e-6)
    samples = TrainSamples(training_set, split, bands, PLAIN, seed=0)
    for number in range(60):
        sample = samples[number]
        assert sample.image_CHW.max() <= 0  # 250 would be 0.96, and hidden pixels are 0
        assert not (sample.ground_HW & (sample.image_CHW[0] > -0.21)).any()
    for number in range(20):
        scene_number, window = samples.window(number)
        assert samples.read(samples.scenes[scene_number], window).image_CHW.max() <= 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave no ground for training"),
        ({"val": ("a",)}, "give SplitOptions.column"),
        ({"column": "x", "val": ("a",), "test": ("a", "b")}, "both name a"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
    ],
)
def test_splits_that_cannot_be(how, said):
    with pytest.raises(OptionError, match=said):
        SplitOptions(**how)


def test_too_few_blocks_for_three_parts():
    own = plain_scene(height=100, width=1001)
    with pytest.raises(TrainingError, match=r"two ground blocks of 500 m.*test on; lower"):
        split_ground([own], SplitOptions(test_fraction=0.1), seed=0)


def test_ground_that_two_zones_show_is_not_dealt_twice(tmp_path):
    # 12 degrees east is the border of two UTM zones, and both scenes show it.
    scenes = []
    for zone in (32632, 32633):
        to_zone = pyproj.Transformer.from_crs(4326, zone, always_xy=True)
        x, y = to_zone.transform(12.0, 45.0)
        affine = Affine(10.0, 0, x - 2000, 0, -10.0, y + 2000)
        pixels = stubs.paint((400, 400), np.zeros((0, 4)))
        path = stubs.write_scene(
            tmp_path / f"{zone}.tif", pixels, affine=affine, crs=f"EPSG:{zone}"
        )
        scenes.append(open_scene(path))
    with pytest.raises(TrainingError, match=r"EPSG:32632.*EPSG:32633.*show the same ground"):
        split_ground(scenes, SplitOptions(block_m=500), seed=0)
    split_ground(scenes[:1], SplitOptions(block_m=500), seed=0)
