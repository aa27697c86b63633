"""Drawn scenes: the same for every cut, and true to the truth."""

import hashlib
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geo_retina import boxes
from geo_retina.errors import OptionError, OutputError
from geo_retina.grid import Window
from geo_retina.options import SynthOptions
from geo_retina.synth import CLASSES, draw_scene, truth_boxes
from geo_retina.synth.objects import Patch
from geo_retina.synth.painter import Painter
from geo_retina.synth.things import THING, Kind, boxes_m

SMALL = SynthOptions(height=300, width=420, seed=3)


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_options_give_the_same_bytes_and_another_seed_other_ones(tmp_path):
    paths = [tmp_path / f"{name}.tif" for name in "abc"]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        draw_scene(path, replace(SMALL, seed=seed))
    first, second, other = map(_digest, paths)
    assert first == second != other


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("step", [(97, 131), (300, 64)])
def test_pixels_do_not_depend_on_the_windows(dtype, step):
    painter = Painter(replace(SMALL, dtype=dtype, bands=5, difficulty=0.8))
    whole, valid = painter.draw(Window(0, 0, 300, 420))
    for row in range(0, 300, step[0]):
        for col in range(0, 420, step[1]):
            window = Window(row, col, min(step[0], 300 - row), min(step[1], 420 - col))
            part, part_valid = painter.draw(window)
            inside = np.s_[row : row + window.height, col : col + window.width]
            np.testing.assert_array_equal(part, whole[:, *inside])
            np.testing.assert_array_equal(part_valid, valid[inside])


def test_a_file_of_several_tiles_holds_the_pixels_of_one_window(tmp_path):
    options = SynthOptions(height=530, width=700, seed=1)
    draw_scene(tmp_path / "a.tif", options)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.block_shapes == [(512, 512)] * 3
        np.testing.assert_array_equal(file.read(), Painter(options).draw(Window(0, 0, 530, 700))[0])


def test_a_larger_scene_of_a_seed_begins_with_the_smaller_one():
    small = replace(SMALL, nodata_corner=False)
    large = replace(small, height=900, width=900)
    window = Window(0, 0, 200, 300)
    np.testing.assert_array_equal(Painter(small).draw(window)[0], Painter(large).draw(window)[0])


def _change(options, window):
    """How much what stands on the ground changes each pixel, from 0 to 1."""
    with_things = Painter(options).draw(window)[0]
    without = Painter(options, bare=True).draw(window)[0]
    return np.abs(with_things - without).max(axis=0)


def test_truth_boxes_frame_the_pixels_that_an_object_changes():
    # At difficulty 0 there are neither shadows nor look-alikes, only objects and houses.
    options = SynthOptions(
        height=900, width=900, seed=5, difficulty=0, dtype="float32", nodata_corner=False
    )
    change = _change(options, Window(0, 0, 900, 900))
    painter = Painter(options)
    things = painter.things(Window(0, 0, 900, 900))
    houses = things[things["kind"] == Kind.HOUSE]
    truth, labels = truth_boxes(options)
    checked = np.zeros(len(CLASSES), int)
    for i, (box, label) in enumerate(zip(truth, labels, strict=True)):
        around = box + np.array([-12, -12, 12, 12])
        near = boxes.overlapping_pairs(around[None], np.delete(truth, i, axis=0))
        house_px = np.hypot(houses["x"] / 0.3 - box[0], houses["y"] / 0.3 - box[1])
        if len(near) or (house_px < 70).any() or around.min() < 0 or around.max() > 900:
            continue
        left, top, right, bottom = around.astype(int)
        part = change[top:bottom, left:right]
        usual = np.median(part[12:-12, 12:-12])
        if usual < 0.1:
            continue  # a car as grey as its street has no edge to look for
        # A pixel half covered changes by about half of what the object changes.
        rows, cols = np.nonzero(part > 0.5 * usual)
        seen = [left + cols.min(), top + rows.min(), left + cols.max() + 1, top + rows.max() + 1]
        inward = (seen - box) * [1, 1, -1, -1]
        assert inward.min() > -0.8, (CLASSES[label], seen, box)
        assert inward.max() < 1.7, (CLASSES[label], seen, box)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        beyond = (x < box[0] - 1.1) | (x > box[2] + 1.1) | (y < box[1] - 1.1) | (y > box[3] + 1.1)
        assert part[beyond].max() < 0.05 * part.max()
        checked[label] += 1
    assert (checked >= [15, 15, 0]).all(), checked  # tanks stand too close


def test_boxes_end_where_outlines_end():
    # Drawn 10 times as fine as in a scene, an outline shows its ends to a tenth of a pixel.
    options = SynthOptions(height=1000, width=1000, seed=4, nodata_corner=False)
    things = Painter(options).things(Window(0, 0, 1000, 1000))
    fine_m = 0.03
    for kind in (Kind.VEHICLE, Kind.TREE, Kind.TANK):
        for thing in things[things["kind"] == kind][:12]:
            box = boxes_m(thing.reshape(1))[0] / fine_m
            left, top, right, bottom = (box + np.array([-9, -9, 9, 9])).astype(int).tolist()
            shape = Patch(thing, Window(top, left, bottom - top, right - left), fine_m).shape()
            rows, cols = np.nonzero(shape > 0.5)
            seen = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(seen - box, np.array([-left, -top] * 2), atol=1.0)


def test_edges_cover_pixels_by_their_share():
    thing = np.zeros((), THING)
    thing["kind"], thing["x"], thing["y"] = Kind.TRAILER, 10.07, 8.12
    thing["length"], thing["width"] = 6.31, 2.57
    shape = Patch(thing, Window(10, 10, 50, 60), 0.3).shape()
    assert shape.sum() * 0.09 == pytest.approx(6.31 * 2.57, rel=1e-9)
    cols = np.arange(10, 70) + 0.5
    rows = np.arange(10, 60) + 0.5
    assert (shape.sum(axis=0) @ cols) / shape.sum() * 0.3 == pytest.approx(10.07, abs=2e-3)
    assert (shape.sum(axis=1) @ rows) / shape.sum() * 0.3 == pytest.approx(8.12, abs=2e-3)


@pytest.mark.parametrize(
    ("dtype", "bands", "nodata", "top"),
    [
        ("uint8", 1, 0, 255),
        ("uint16", 4, 0, 10_000),
        ("int16", 2, -9999, 10_000),
        ("float32", 7, -9999, 1),
    ],
)
def test_any_type_and_number_of_bands(tmp_path, dtype, bands, nodata, top):
    draw_scene(tmp_path / "a.tif", replace(SMALL, dtype=dtype, bands=bands))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.dtypes == (dtype,) * bands
        assert file.nodata == nodata
        assert len(set(file.descriptions)) == bands
        assert all(kind.name != "alpha" for kind in file.colorinterp)
        pixels, valid = file.read(), file.dataset_mask() > 0
    assert (pixels[:, ~valid] == nodata).all()
    assert pixels[:, valid].min() > (nodata if dtype != "float32" else -1e-9)
    assert 0.5 * top < pixels[:, valid].max() <= top
    assert pixels[:, valid].std() > 0.03 * top


def test_the_empty_corner_is_a_slanted_strip_edge(tmp_path):
    draw_scene(tmp_path / "a.tif", SMALL)
    with rasterio.open(tmp_path / "a.tif") as file:
        valid = file.dataset_mask() > 0
    y, x = np.mgrid[:300, :420] + 0.5
    ground = Painter(SMALL).ground_px
    np.testing.assert_array_equal(valid, shapely.contains_xy(ground, x, y))
    assert 0.01 < (~valid).mean() < 0.1
    draw_scene(tmp_path / "b.tif", replace(SMALL, nodata_corner=False))
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.nodata is None
        assert (file.dataset_mask() > 0).all()


def test_truth_lies_along_the_axes_of_a_rotated_grid(tmp_path):
    options = replace(SMALL, rotation_deg=25.0, gsd_m=0.25, height=600, width=600)
    report = draw_scene(tmp_path / "a.tif", options, truth=tmp_path / "truth.gpkg")
    truth = geopandas.read_file(tmp_path / "truth.gpkg")
    assert truth["class"].value_counts().to_dict() == {k: n for k, n in report.counts.items() if n}
    assert sorted(truth["id"]) == list(range(len(truth)))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert truth.crs.to_epsg() == file.crs.to_epsg() == 32632
        to_pixel = ~file.transform
        valid = file.dataset_mask() > 0
    truth = truth.sort_values("id")
    corners = np.stack([shapely.get_coordinates(shape)[:4] for shape in truth.geometry])
    cols = to_pixel.a * corners[..., 0] + to_pixel.b * corners[..., 1] + to_pixel.c
    rows = to_pixel.d * corners[..., 0] + to_pixel.e * corners[..., 1] + to_pixel.f
    found = np.stack([cols.min(1), rows.min(1), cols.max(1), rows.max(1)], axis=1)
    expected, labels = truth_boxes(options)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert list(truth["class"]) == [CLASSES[label] for label in labels]
    assert truth.geometry.area.to_numpy() == pytest.approx(boxes.area(expected) * 0.25**2, rel=1e-6)
    assert found.min() >= -1e-6
    assert found.max() <= 600 + 1e-6
    centre = ((expected[:, :2] + expected[:, 2:]) / 2).astype(int)
    assert valid[centre[:, 1], centre[:, 0]].all()


def test_counts_follow_the_density_and_no_two_objects_are_one():
    for density in (100, 500):
        options = SynthOptions(height=2048, width=2048, density=density, nodata_corner=False)
        counts = [
            np.bincount(truth_boxes(replace(options, seed=seed))[1], minlength=len(CLASSES))
            for seed in (0, 1, 2)
        ]
        assert np.mean(np.sum(counts, axis=1)) / 2048**2 * 1e6 == pytest.approx(density, rel=0.3)
        assert (np.array(counts) > 0).all()
    truth, _ = truth_boxes(options)
    pairs = boxes.overlapping_pairs(truth)
    assert boxes.iou(truth[pairs[:, 0]], truth[pairs[:, 1]]).max() < 0.15


def test_objects_are_measured_in_metres():
    sides = {}
    for gsd_m in (0.15, 0.3, 0.6):
        options = SynthOptions(height=900, width=900, gsd_m=gsd_m, nodata_corner=False)
        truth, labels = truth_boxes(options)
        sides[gsd_m] = np.median(np.sqrt(boxes.area(truth[labels == 0]))) * gsd_m
    assert sides[0.15] == pytest.approx(sides[0.3], rel=0.15)
    assert sides[0.6] == pytest.approx(sides[0.3], rel=0.15)
    assert 2.5 < sides[0.3] < 4.0


def test_near_infrared_shows_trees_bright_and_cars_dark():
    options = SynthOptions(height=700, width=700, seed=3, bands=4, nodata_corner=False)
    nir = Painter(options).draw(Window(0, 0, 700, 700))[0][3]
    truth, labels = truth_boxes(options)
    x, y = ((truth[:, :2] + truth[:, 2:]) / 2).astype(int).T
    vehicles, trees = nir[y, x][labels == 0], nir[y, x][labels == 1]
    assert np.median(trees) > 1.5 * np.median(vehicles)


def test_difficulty_adds_lookalikes_and_noise():
    window = Window(0, 0, 600, 600)
    easy, hard = (
        Painter(SynthOptions(height=600, width=600, seed=2, difficulty=d)) for d in (0.0, 1.0)
    )
    alike = [
        int(
            (
                (p.things(window)["kind"] > Kind.TANK) & (p.things(window)["kind"] != Kind.HOUSE)
            ).sum()
        )
        for p in (easy, hard)
    ]
    assert alike[0] == 0 < 50 < alike[1]
    noise = [
        np.diff(replace(p, bare=True).draw(window)[0][0].astype(float), 2)[:, :300].std()
        for p in (easy, hard)
    ]
    assert noise[1] > 1.5 * noise[0]


def test_an_existing_scene_or_truth_is_not_overwritten(tmp_path):
    scene, truth = tmp_path / "a.tif", tmp_path / "a.gpkg"
    scene.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.tif exists"):
        draw_scene(scene, SMALL)
    assert scene.read_bytes() == b"mine"
    scene.unlink()
    truth.write_bytes(b"mine too")
    with pytest.raises(OutputError, match=r"a\.gpkg exists"):
        draw_scene(scene, SMALL, truth=truth)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gpkg"]
    draw_scene(scene, SMALL, truth=truth, overwrite=True)
    assert len(geopandas.read_file(truth)) == len(truth_boxes(SMALL)[0])


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_scene(tmp_path / "a.tif", SMALL, truth=tmp_path / "a.gpkg", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "missing/a.tif"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    with pytest.raises(OutputError, match=name.split("/")[0]):
        draw_scene(tmp_path / name, SMALL)


def test_progress_counts_windows(tmp_path):
    seen = []
    draw_scene(
        tmp_path / "a.tif", replace(SMALL, width=600), progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "wrong", [{"height": 0}, {"bands": 65}, {"difficulty": 1.5}, {"gsd_m": 0.0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        replace(SMALL, **wrong)
