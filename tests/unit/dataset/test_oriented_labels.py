"""Oriented labels: rectangles of any label on a scene, and of what a sample shows of them."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
import torch
from affine import Affine
from support.fields import rotated as turned_grid
from support.fields import write_scene

from geo_retina.boxes import oriented
from geo_retina.dataset.augment import Sample, turn
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.radiometry import measure_bands
from geo_retina.dataset.samples import TrainSamples, collate
from geo_retina.dataset.split import Split
from geo_retina.dataset.window_labels import label_window
from geo_retina.errors import LabelError
from geo_retina.grid import Window
from geo_retina.options import DataOptions, SampleOptions
from geo_retina.scene import open_scene

PLAIN = SampleOptions(
    window_px=96,
    over_edge=0.0,
    nodata=0.0,
    flips=False,
    scale=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    noise=0.0,
)
NOTHING_TUNES = Split(1e9, frozenset(), 0.0)
SIDE = 300


def _boxes(seed=0):
    """Long rectangles at any angle on a lattice, some of them over the scene's edge."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(0, SIDE + 1, 50), np.arange(0, SIDE + 1, 50)), -1)
    at = at.reshape(-1, 2).astype(np.float64)
    sides = np.column_stack([rng.uniform(24, 34, len(at)), rng.uniform(8, 14, len(at))])
    return np.column_stack([at, sides, rng.uniform(-90, 90, len(at))])


def _scene(folder, rotated_px, affine=None):
    """Draw boxes bright on dark ground, and their labels as polygons of four corners."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    pixels = np.full((1, SIDE, SIDE), 60, np.uint8)
    for shape in shapely.polygons(oriented.corners(rotated_px)):
        pixels[0, shapely.contains_xy(shape, x, y)] = 220
    path = write_scene(folder / "a.tif", pixels, **({} if affine is None else {"affine": affine}))
    grid = open_scene(path).grid
    frame = gpd.GeoDataFrame(geometry=list(oriented.to_polygons(rotated_px, grid)), crs=grid.crs)
    frame.to_file(folder / "a.gpkg")
    return path, grid, frame


def _load(path, labels, **options):
    return load_training_set(
        DataOptions(scenes=(str(path),), labels=str(labels), **options), oriented=True
    )


@pytest.fixture(scope="module")
def turned_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turned")
    path, _, _ = _scene(folder, _boxes())
    return _load(path, folder / "a.gpkg")


def _same(found, expected, atol=1e-6):
    """Compare rectangles by their corners, in any order."""
    for one, other in zip(oriented.corners(found), oriented.corners(expected), strict=True):
        apart = shapely.hausdorff_distance(shapely.Polygon(one), shapely.Polygon(other))
        assert apart < atol, (one, other)


@pytest.mark.parametrize(
    "affine", [None, turned_grid(25), Affine(0.5, 0.1, 500_000, 0.05, -0.4, 5_300_000)]
)
def test_a_label_of_four_corners_is_its_rectangle_again(tmp_path, affine):
    rotated_px = _boxes()
    path, _, _ = _scene(tmp_path, rotated_px, affine)
    each = _load(path, tmp_path / "a.gpkg").scenes[0]
    order = np.lexsort(np.round(each.rotated_px[:, 1::-1]).T)
    expected = rotated_px[np.lexsort(np.round(rotated_px[:, 1::-1]).T)]
    _same(each.rotated_px[order], expected)
    # The upright box is what it was: the hull.
    np.testing.assert_allclose(each.boxes_px, oriented.hull(each.rotated_px), atol=1e-6)


def test_any_polygon_becomes_its_smallest_rectangle_and_parts_one_or_several(tmp_path):
    path, grid, _ = _scene(tmp_path, _boxes()[:0])
    one = shapely.affinity.rotate(shapely.box(40, 50, 100, 70), 30)
    bent = shapely.union(one, shapely.affinity.rotate(shapely.box(40, 60, 60, 90), 30, (70, 60)))
    apart = shapely.MultiPolygon([shapely.box(150, 150, 160, 155), shapely.box(180, 150, 190, 155)])
    shapes = [shapely.transform(each, grid.pixels_to_crs) for each in (one, bent, apart)]
    gpd.GeoDataFrame(geometry=shapes, crs=grid.crs).to_file(tmp_path / "b.gpkg")
    exploded = _load(path, tmp_path / "b.gpkg").scenes[0].rotated_px
    whole = _load(path, tmp_path / "b.gpkg", multi="box").scenes[0].rotated_px
    assert (len(exploded), len(whole)) == (4, 3)
    np.testing.assert_allclose(exploded[0], [70, 60, 60, 20, 30], atol=1e-6)
    for found, shape in zip(whole, (one, bent, apart), strict=True):
        oracle = shapely.minimum_rotated_rectangle(shape)
        assert found[2] * found[3] == pytest.approx(oracle.area, rel=1e-6)
        outline = shapely.Polygon(oriented.corners(found[None])[0])
        assert outline.buffer(1e-6).contains(shape)
    np.testing.assert_allclose(whole[2], [170, 152.5, 40, 5, 0], atol=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:3857", "EPSG:4326"])
def test_points_with_sides_and_azimuth_stand_for_rectangles(tmp_path, crs):
    rotated_px = _boxes()
    rotated_px = rotated_px[((rotated_px[:, :2] > 40) & (rotated_px[:, :2] < 260)).all(axis=1)]
    path, grid, frame = _scene(tmp_path, rotated_px)
    written = oriented.ground_sides(rotated_px, grid, pyproj.CRS(crs))
    points = gpd.GeoDataFrame(
        {"l": written.length_m, "w": written.width_m, "az": written.azimuth_deg + 360},
        geometry=list(frame.geometry.centroid),
        crs=grid.crs,
    ).to_crs(crs)
    points.to_file(tmp_path / "p.gpkg")
    columns = {"length_column": "l", "width_column": "w", "azimuth_column": "az"}
    each = _load(path, tmp_path / "p.gpkg", **columns).scenes[0]
    # In EPSG:3857 and degrees lines are bent by less than a hundredth of a pixel here.
    _same(each.rotated_px, rotated_px, atol=0.02)
    labels = load_training_set(
        DataOptions(scenes=(str(path),), labels=str(tmp_path / "p.gpkg"), **columns)
    )
    np.testing.assert_allclose(
        labels.scenes[0].boxes_px, oriented.hull(rotated_px), atol=0.02
    )  # upright training takes the hull


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        ({"length_column": "l"}, {}, "data.width_column is missing"),
        ({}, {"az": ["north", "east"]}, "azimuth column az .* holds text, expected degrees"),
        ({}, {"az": [None, 30.0]}, "1 of 2 labels .* have no azimuth in the column az"),
        ({}, {"l": [0.0, 3.0]}, "1 of 2 labels .* have no length above 0"),
        ({}, {"w": [np.inf, 3.0]}, "1 of 2 labels .* have no width above 0"),
        ({"azimuth_column": "angle"}, {}, "no azimuth column angle"),
    ],
)
def test_columns_that_tell_no_rectangle_are_refused_in_one_sentence(
    tmp_path, columns, values, message
):
    path, grid, _ = _scene(tmp_path, _boxes()[:0])
    places = [shapely.Point(*grid.pixels_to_crs(np.array([[x, x]]))[0]) for x in (50.0, 90.0)]
    rows = {"l": [4.0, 5.0], "w": [2.0, 2.0], "az": [10.0, 20.0]} | values
    gpd.GeoDataFrame(rows, geometry=places, crs=grid.crs).to_file(tmp_path / "p.gpkg")
    named = {"length_column": "l", "width_column": "w", "azimuth_column": "az"} | columns
    named = columns if columns.keys() == {"length_column"} else named
    with pytest.raises(LabelError, match=message):
        _load(path, tmp_path / "p.gpkg", **named)


def test_columns_of_rectangles_for_polygons_are_refused(tmp_path):
    path, _, frame = _scene(tmp_path, _boxes())
    frame.assign(l=3.0, w=2.0, az=0.0).to_file(tmp_path / "b.gpkg")
    with pytest.raises(LabelError, match="holds polygons, but length, width and azimuth columns"):
        _load(
            path,
            tmp_path / "b.gpkg",
            length_column="l",
            width_column="w",
            azimuth_column="az",
        )


def _samples(training_set, options):
    bands = measure_bands([each.scene for each in training_set.scenes], seed=0)
    return TrainSamples(training_set, NOTHING_TUNES, bands, options, seed=0)


def _covered(rotated, shape, grow):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    found = np.zeros(shape, bool)
    for outline in shapely.polygons(oriented.corners(rotated)):
        found |= shapely.contains_xy(outline.buffer(grow), x, y)
    return found


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        replace(PLAIN, flips=True, scale=(0.7, 1.4)),
        replace(PLAIN, rotate="any"),
        replace(PLAIN, rotate="any", flips=True, scale=(0.7, 1.4), over_edge=0.5),
    ],
    ids=["plain", "flips and scale", "any angle", "everything"],
)
def test_bright_pixels_lie_in_rotated_boxes_and_these_are_bright(turned_set, options):
    samples = _samples(turned_set, replace(options, min_visible=0.0))
    angles = []
    for number in range(20):
        sample = samples[number]
        rotated = sample.rotated_M5.numpy().astype(np.float64)
        assert len(rotated) == len(sample.boxes_M4) == len(sample.labels_M)
        bright = (sample.image_CHW[0] > -0.02).numpy() & sample.ground_HW.numpy()
        inside = _covered(rotated, bright.shape, -1.5) & sample.ground_HW.numpy()
        outside = ~_covered(rotated, bright.shape, 1.5) & sample.ground_HW.numpy()
        assert bright[inside].mean() > 0.98
        # An object just beyond the edge may shine into the outermost pixels.
        assert not (bright & outside)[2:-2, 2:-2].any()
        # The upright box is the hull of what is inside.
        hulls = oriented.hull(rotated)
        np.testing.assert_allclose(sample.boxes_M4, np.clip(hulls, 0, 96), atol=1e-3)
        angles += rotated[:, 4].tolist()
    assert -90 <= min(angles) < -60
    assert 60 < max(angles) < 90


def test_ground_beyond_a_turned_scene_is_not_learned_from(turned_set):
    samples = _samples(turned_set, replace(PLAIN, rotate="any", over_edge=1.0, padding="constant"))
    beyond = [samples[number] for number in range(30)]
    shares = [1 - sample.ground_HW.float().mean().item() for sample in beyond]
    assert max(shares) > 0.1
    for sample in beyond:
        assert (sample.image_CHW[:, ~sample.visible_HW] == 0).all()
        assert not (sample.ground_HW & ~sample.visible_HW).any()


def test_samples_turn_by_angles_of_their_own_and_can_be_drawn_again(turned_set):
    options = replace(PLAIN, rotate="any")
    one, again = (_samples(turned_set, options) for _ in range(2))
    for number in (3, 8):
        for a, b in zip(one[number], again[number], strict=True):
            assert torch.equal(a, b)
    _, targets = collate([one[0], one[1]])
    assert torch.equal(targets[1].rotated_M5, one[1].rotated_M5)


def test_the_object_that_a_sample_is_drawn_around_stays_in_sight(turned_set):
    options = replace(PLAIN, rotate="any", object_share=1.0, min_visible=0.0, window_px=64)
    samples = _samples(turned_set, options)
    assert all(len(samples[number].labels_M) for number in range(40))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_of_rotated_boxes_move_them_as_pixels(quarters, mirror):
    rotated = np.array([[30.0, 20.0, 22.0, 8.0, 37.0], [60.0, 50.0, 15.0, 15.0, -40.0]])
    image = torch.from_numpy(_covered(rotated, (80, 80), 0.0)).float()[None]
    masks = torch.ones(80, 80, dtype=torch.bool)
    hulls = torch.from_numpy(oriented.hull(rotated)).float()
    sample = Sample(
        image, hulls, torch.arange(2), hulls[:0], masks, masks, torch.from_numpy(rotated).float()
    )
    turned = turn(sample, quarters, mirror=mirror)
    found = turned.rotated_M5.numpy().astype(np.float64)
    shown = turned.image_CHW[0].numpy() > 0.5
    assert (_covered(found, (80, 80), 0.0) != shown).mean() < 0.01
    np.testing.assert_allclose(oriented.hull(found), turned.boxes_M4, atol=1e-4)
    np.testing.assert_allclose(found, oriented.normalise(found), atol=1e-5)


def test_the_visible_share_is_that_of_the_rotated_area(turned_set):
    each = turned_set.scenes[0]
    window = Window(20, 30, 96, 96)
    shown = np.ones((96, 96), bool)
    shown[:, 60:] = False
    lit = shapely.box(30, 20, 90, 116)
    for least in (0.2, 0.5, 0.8):
        found = label_window(
            each, window, shown, SampleOptions(min_visible=least, drop_visible=0.1)
        )
        outlines = shapely.polygons(oriented.corners(each.rotated_px))
        share = shapely.area(shapely.intersection(outlines, lit)) / shapely.area(outlines)
        sure = np.abs(share - least) > 0.06
        assert abs(len(found.labels) - (share >= least).sum()) <= (~sure).sum()
        assert found.dropped == ((share > 0) & (share < 0.1)).sum()
        # Each kept one is the rectangle, at its angle, around its part in the window.
        for box in found.rotated:
            frame = shapely.box(0, 0, 96, 96)
            whole = [
                o
                for o in outlines
                if shapely.affinity.translate(o, -30, -20)
                .buffer(1e-6)
                .contains(shapely.Point(box[:2]))
            ]
            part = shapely.intersection(shapely.affinity.translate(whole[0], -30, -20), frame)
            flat = shapely.affinity.rotate(part, -box[4], origin=tuple(box[:2])).bounds
            sides = np.array(flat[2:]) - flat[:2]
            np.testing.assert_allclose(sides, box[2:4], atol=1e-6)


def test_ignored_labels_are_the_hulls_of_those_whose_rectangle_shows(tmp_path):
    """The corner of a hull that a window shows, beside the rectangle, is background."""
    rows = [[60, 60, 40, 12, 45], [60, 150, 40, 12, 20], [200, 60, 9, 9, 0]]
    rotated_px = oriented.normalise(rows)
    path, _, frame = _scene(tmp_path, rotated_px)
    frame.assign(spare=[1, 1, 0]).to_file(tmp_path / "i.gpkg")
    each = _load(path, tmp_path / "i.gpkg", ignore_column="spare").scenes[0]
    assert len(each.rotated_px) == 1
    _same(each.ignored_rotated_px, rotated_px[:2])
    hulls = oriented.hull(rotated_px)

    def ignored(window):
        shown = np.ones((window.height, window.width), bool)
        return label_window(each, window, shown, SampleOptions()).ignored

    found = ignored(Window(30, 30, 96, 96))  # all of the first
    np.testing.assert_allclose(found, hulls[:1] - 30, atol=1e-6)
    assert hulls[0, 2] > 72
    assert hulls[0, 1] < 52
    assert not len(ignored(Window(0, 72, 52, 96)))  # the upper right corner of its hull


def test_upright_training_sets_have_no_rotated_boxes(tmp_path):
    path, _, _ = _scene(tmp_path, _boxes())
    plain = load_training_set(DataOptions(scenes=(str(path),), labels=str(tmp_path / "a.gpkg")))
    assert plain.scenes[0].rotated_px is None
    sample = _samples(plain, PLAIN)[0]
    assert sample.rotated_M5 is None
