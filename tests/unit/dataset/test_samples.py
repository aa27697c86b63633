"""Samples: what they show, what they must not, and that chance can be repeated."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from affine import Affine
from support.fields import AFFINE, field, rotated, squares, write_labels, write_scene
from torch.utils.data import DataLoader

from geo_retina import boxes
from geo_retina.dataset.labelled_scenes import LabelledScene, load_training_set
from geo_retina.dataset.pixel_cache import CachedReader
from geo_retina.dataset.radiometry import measure_bands
from geo_retina.dataset.samples import EpochSampler, TrainSamples, collate
from geo_retina.dataset.split import Split, Subset, split_ground
from geo_retina.dataset.window_labels import label_window
from geo_retina.dataset.windows import train_objects
from geo_retina.grid import Window
from geo_retina.nn.heads import Outputs
from geo_retina.nn.losses import retinanet_loss
from geo_retina.options import (
    AssignOptions,
    DataOptions,
    LossOptions,
    SampleOptions,
    SplitOptions,
)
from geo_retina.scene import Scene, open_scene
from geo_retina.training.lightning_module import loss_settings

PLAIN = SampleOptions(
    window_px=64,
    over_edge=0.0,
    nodata=0.0,
    flips=False,
    scale=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    noise=0.0,
)
NOTHING_TUNES = Split(1e9, frozenset(), 0.0)


def load(scenes, labels, **options):
    return load_training_set(
        DataOptions(scenes=tuple(map(str, scenes)), labels=str(labels), **options)
    )


def samples_of(training_set, split=NOTHING_TUNES, options=PLAIN, seed=0, **how):
    bands = measure_bands([each.scene for each in training_set.scenes], seed=0)
    return TrainSamples(training_set, split, bands, options, seed=seed, **how)


@pytest.fixture(scope="module")
def squares_set(tmp_path_factory):
    scene, labels, _ = field(tmp_path_factory.mktemp("field"))
    return load([scene], labels)


def bright(sample):
    """The squares have 220 of 255, the ground at most 110."""
    return sample.image_CHW[0] > 0.4


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        SampleOptions(window_px=64, scale=(1.0, 1.0)),
        SampleOptions(
            window_px=96, over_edge=0.0, scale=(0.6, 1.6), brightness=0.02, contrast=0.05
        ),
    ],
    ids=["plain", "flips and light", "everything"],
)
def test_every_bright_pixel_lies_in_a_box_and_every_box_is_bright(squares_set, options):
    samples = samples_of(squares_set, options=options)
    for number in range(40):
        sample = samples[number]
        covered = torch.zeros_like(sample.ground_HW)
        for x0, y0, x1, y1 in torch.cat([sample.boxes_M4, sample.ignore_I4]).tolist():
            x0, y0, x1, y1 = (max(0.0, edge) for edge in (x0, y0, x1, y1))
            covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
            whole = np.s_[int(np.ceil(y0)) : int(y1), int(np.ceil(x0)) : int(x1)]
            inside = (bright(sample) | ~sample.ground_HW)[whole]
            assert inside.all()
        # What is mirrored beyond the ground has no box, and is no background either.
        assert not (bright(sample) & ~covered & sample.ground_HW).any()
        assert len(sample.labels_M) == len(sample.boxes_M4)


def test_no_pixel_of_tuning_ground_is_ever_seen(tmp_path):
    """Each pixel says whether it is for validation, by an oracle of its own: the ground under its
    centre."""
    block_m, side = 20.0, 400
    for name, affine in (("a", AFFINE), ("b", rotated(20))):
        scene = write_scene(
            tmp_path / f"{name}.tif", np.zeros((1, side, side), np.uint8), affine=affine
        )
        split = split_ground(
            [open_scene(scene)], SplitOptions(block_m=block_m, val_fraction=0.3), seed=1
        )
        col, row = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
        a, b, c, d, e, f = tuple(affine)[:6]
        blocks = np.stack([a * col + b * row + c, d * col + e * row + f], axis=-1) // block_m
        in_val = np.array(
            [
                [("EPSG:32632", *cell) in split.val for cell in line]
                for line in blocks.astype(int).tolist()
            ]
        )
        assert 0.2 < in_val.mean() < 0.4
        pixels = np.where(in_val, 250, 100).astype(np.uint8)[None]
        write_scene(tmp_path / f"{name}.tif", pixels, affine=affine)
        boxes_px = np.array(
            [[x, y, x + 8, y + 8] for x in range(0, 390, 20) for y in range(0, 390, 20)]
        )
        labels = write_labels(tmp_path / f"{name}.gpkg", boxes_px, grid=open_scene(scene).grid)
        options = SampleOptions(
            window_px=96, scale=(0.7, 1.4), brightness=0.0, contrast=0.0, noise=0.0
        )
        samples = samples_of(load([scene], labels), split, options)
        shown = 0
        for number in range(150):
            sample = samples[number]
            # 100 is -0.22 after normalisation, 250 is 0.96, and hidden is 0. Interpolation
            # must not let any of a validation pixel through: nothing may be above 0.
            assert sample.image_CHW.max() <= 0
            assert not (sample.ground_HW & (sample.image_CHW[0] > -0.215)).any()
            shown += int(sample.ground_HW.sum())
        assert shown > 150 * 96 * 96 * 0.3


def test_labels_on_tuning_ground_are_never_objects(squares_set):
    split = split_ground(
        [each.scene for each in squares_set.scenes],
        SplitOptions(block_m=40.0, val_fraction=0.3),
        seed=0,
    )
    samples = samples_of(squares_set, split)
    each = squares_set.scenes[0]
    objects = train_objects(squares_set, split)
    on_val = split.on_val(each.scene.grid, each.centres_px)
    assert set(objects.index.tolist()) == set(np.flatnonzero(~on_val).tolist())
    window = each.scene.grid.window
    sample = samples.read(each, window)
    found = {tuple(box) for box in sample.boxes_M4.tolist()}
    mask = split.mask(each.scene.grid, window) == Subset.VAL
    for box in each.boxes_px:
        x0, y0, x1, y1 = box.astype(int)
        visible = 1 - mask[y0:y1, x0:x1].mean()
        assert (tuple(box) in found) == (visible >= PLAIN.min_visible)
    ignored = {tuple(box) for box in sample.ignore_I4.tolist()}
    assert not ignored & found


@pytest.mark.parametrize(
    ("offset", "kept", "ignored"), [(0, 1, 0), (5, 1, 0), (7, 0, 1), (11, 0, 1), (12, 0, 0)]
)
def test_labels_cut_by_the_border_are_kept_ignored_or_gone(tmp_path, offset, kept, ignored):
    scene = write_scene(tmp_path / "a.tif", np.full((1, 100, 100), 50, np.uint8))
    labels = write_labels(tmp_path / "l.gpkg", [[40.0, 40, 52, 52]], grid=open_scene(scene).grid)
    samples = samples_of(load([scene], labels))
    each = samples.scenes[0]
    sample = samples.read(each, Window(30, 40 + offset, 32, 32))
    assert len(sample.boxes_M4) == kept
    assert len(sample.ignore_I4) == ignored
    if kept:
        torch.testing.assert_close(
            sample.boxes_M4[0], torch.tensor([0.0, 10, 12 - offset, 22]), atol=1e-4, rtol=0
        )


def plainly_labelled(each, window, fits, min_visible):
    """Boxes, labels and ignored boxes of a window, by looking at every label of the scene."""
    kept, labels, ignored = [], [], []
    for (x0, y0, x1, y1), label in zip(each.boxes_px, each.labels.tolist(), strict=True):
        shifted = np.array([x0, y0, x1, y1]) - [window.col, window.row, window.col, window.row]
        a0, a1 = np.clip(shifted[[0, 2]], 0, window.width)
        b0, b1 = np.clip(shifted[[1, 3]], 0, window.height)
        if a1 <= a0 or b1 <= b0:
            continue
        under = fits[int(b0) : int(np.ceil(b1)), int(a0) : int(np.ceil(a1))]
        share = (a1 - a0) * (b1 - b0) / ((x1 - x0) * (y1 - y0)) * under.mean()
        if share >= min_visible:
            kept.append([a0, b0, a1, b1])
            labels.append(label)
        elif share > 0:
            ignored.append(shifted)
    return kept, labels, ignored


def test_labels_of_a_window_equal_those_found_by_looking_at_all(squares_set):
    rng = np.random.default_rng(0)
    low = rng.uniform(-10, 400, (300, 2))
    boxes_px = np.concatenate([low, low + rng.uniform(1, 60, (300, 2))], axis=1)
    boxes_px[::40, 3] += 300
    labels = rng.integers(0, 3, 300)
    each = replace(squares_set.scenes[0], boxes_px=boxes_px, labels=labels)
    for _ in range(60):
        row, col = rng.integers(-30, 380, 2)
        window = Window(int(row), int(col), int(rng.integers(8, 90)), int(rng.integers(8, 90)))
        fits = rng.random((window.height, window.width)) < 0.8
        found = label_window(each, window, fits, SampleOptions(min_visible=0.4))
        for have, wanted in zip(found[:3], plainly_labelled(each, window, fits, 0.4), strict=True):
            wanted = np.array(wanted, have.dtype).reshape(have.shape)
            np.testing.assert_allclose(have, wanted, rtol=1e-6, atol=1e-5)


def test_a_sample_looks_at_few_of_many_labels(squares_set, monkeypatch):
    """Every box that is moved, cut or measured for a sample counts."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 390, (20_000, 2))
    many = np.concatenate([low, low + rng.uniform(1, 9, (20_000, 2))], axis=1)
    labels = np.zeros(len(many), np.int64)
    each = replace(squares_set.scenes[0], boxes_px=many, labels=labels)
    samples = samples_of(replace(squares_set, scenes=(each,)))
    looked = []
    for name in ("shift", "clip", "area"):
        plain = getattr(boxes, name)
        monkeypatch.setattr(
            boxes, name, lambda b, *args, plain=plain: (looked.append(len(b)), plain(b, *args))[1]
        )
    monkeypatch.setattr(LabelledScene, "centres_px", property(lambda each: pytest.fail("all")))
    for number in range(10):
        samples[number]
    assert 0 < max(looked) < len(many) / 3  # a window of 64 of 400 rows, and some more


def test_nodata_and_unlabelled_ground_are_not_background(tmp_path):
    pixels = np.full((1, 60, 80), 50, np.uint8)
    pixels[0, :10] = 0
    scene = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", [[20, 20, 30, 30], [5, 2, 15, 12]], grid=grid)
    ground = write_labels(tmp_path / "g.gpkg", [[0, 0, 40, 60]], grid=grid)
    training_set = load([scene], labels, ground=str(ground))
    samples = samples_of(training_set, options=replace(PLAIN, padding="constant"))
    sample = samples.read(samples.scenes[0], Window(-5, 0, 65, 90))
    wanted = np.zeros((65, 90), bool)
    wanted[15:, :40] = True
    np.testing.assert_array_equal(sample.ground_HW.numpy(), wanted)
    wanted[15:, 40:80] = True  # visible, though not labelled
    np.testing.assert_array_equal(sample.visible_HW.numpy(), wanted)
    assert not sample.image_CHW[0, :15].any()
    # Of the second label two rows of ten are there to see.
    assert sample.boxes_M4.tolist() == [[20, 25, 30, 35]]
    assert sample.ignore_I4.tolist() == [[5, 7, 15, 17]]
    mirrored = samples_of(training_set).read(samples.scenes[0], Window(-5, 0, 65, 90))
    np.testing.assert_array_equal(mirrored.ground_HW, sample.ground_HW)
    assert mirrored.visible_HW.all()  # all is within reach of the ground
    np.testing.assert_array_equal(mirrored.image_CHW[:, 15:, :80], sample.image_CHW[:, 15:, :80])
    top, right = mirrored.image_CHW[:, :15, :80], mirrored.image_CHW[:, 15:, 80:]
    np.testing.assert_array_equal(top, sample.image_CHW[:, 16:31, :80].flip(1))
    np.testing.assert_array_equal(right, sample.image_CHW[:, 15:, 69:79].flip(2))


def test_windows_reach_over_the_edge_and_shapes_without_data_lie_in_them(squares_set):
    beyond, holes = {}, {}
    for name, options in {
        "off": PLAIN,
        "edges": replace(PLAIN, over_edge=1.0),
        "shapes": replace(PLAIN, nodata=1.0),
    }.items():
        samples = samples_of(squares_set, options=options)
        shown = [samples[number] for number in range(60)]
        assert all(sample.visible_HW.all() for sample in shown)  # by mirrored ground
        lacking = np.array([float((~sample.ground_HW).float().mean()) for sample in shown])
        beyond[name], holes[name] = lacking.max(), (lacking > 0).mean()
        assert all((sample.image_CHW[0, ~sample.ground_HW] != 0).all() for sample in shown)
    assert beyond["off"] <= 2 / 16
    assert beyond["edges"] > 1 / 4
    assert holes["shapes"] > 0.9
    assert holes["off"] < 0.5
    # The shapes move no window, and every number has its own.
    plain, cut = (
        samples_of(squares_set, options=replace(PLAIN, nodata=share)) for share in (0.0, 1.0)
    )
    for number in range(10):
        both = plain[number].ground_HW & cut[number].ground_HW
        one, other = plain[number].image_CHW[0], cut[number].image_CHW[0]
        np.testing.assert_array_equal(one[both], other[both])
    masks = {cut[number].ground_HW.numpy().tobytes() for number in range(10)}
    assert len(masks) >= 9


def test_a_sample_is_a_function_of_seed_and_number(squares_set):
    options = SampleOptions(window_px=64)
    first, again = (
        samples_of(squares_set, options=options),
        samples_of(squares_set, options=options),
    )
    other = samples_of(squares_set, options=options, seed=1)
    second = again[2]
    for a, b in zip(first[2], second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(first[2].image_CHW, other[2].image_CHW)
    assert not torch.equal(first[2].image_CHW, first[3].image_CHW)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_worker_processes_change_nothing(squares_set):
    samples = samples_of(squares_set, options=SampleOptions(window_px=64))
    sampler = EpochSampler(8)
    sampler.set_epoch(3)
    here, there = (
        [
            batch[0]
            for batch in DataLoader(
                samples, batch_size=4, sampler=sampler, num_workers=n, collate_fn=collate
            )
        ]
        for n in (0, 2)
    )
    assert len(here) == 2
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    torch.testing.assert_close(here[0][0], samples[24].image_CHW, rtol=0, atol=0)


def test_epochs_count_on():
    sampler = EpochSampler(3)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert epochs == [[0, 1, 2], [3, 4, 5]]
    assert len(sampler) == 3


def test_the_cache_and_its_absence_give_the_same(squares_set):
    options = SampleOptions(window_px=64)
    cached, direct = (
        samples_of(squares_set, options=options),
        samples_of(squares_set, options=options, cache_bytes=0),
    )
    for number in range(5):
        for a, b in zip(cached[number], direct[number], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert cached._reader._held > 0
    assert direct._reader._held == 0
    assert len(pickle.dumps(cached)) < 200_000  # not with the pixels in it


def test_the_cache_stays_within_its_bound(tmp_path):
    pixels, boxes_px = squares(side=60)
    scenes = [
        write_scene(
            tmp_path / f"{i}.tif",
            pixels,
            affine=Affine(0.5, 0, 500_000 + 30 * i, 0, -0.5, 5_300_000),
        )
        for i in range(20)
    ]
    labels = write_labels(tmp_path / "l.gpkg", boxes_px, grid=open_scene(scenes[0]).grid)
    bound = 10 * 60 * 60 * 4
    samples = samples_of(load(scenes, labels), cache_bytes=bound)
    for number in range(100):
        samples[number]
        held = sum(p.nbytes + v.nbytes for p, v in samples._reader._chips.values())
        assert held == samples._reader._held <= bound
    assert len(samples._reader._chips) >= 8


def test_objects_are_balanced_over_classes(tmp_path):
    pixels, boxes_px = squares(side=400, step=20, size=8)
    scene = write_scene(tmp_path / "a.tif", pixels)
    kinds = ["rare" if i == 200 else "common" for i in range(len(boxes_px))]
    labels = write_labels(tmp_path / "l.gpkg", boxes_px, grid=open_scene(scene).grid, kind=kinds)
    training_set = load([scene], labels, class_column="kind")
    options = SampleOptions(window_px=32, object_share=1.0)
    samples = samples_of(training_set, options=options)
    rare = sum(1 in samples[i].labels_M.tolist() for i in range(100))
    assert 40 <= rare <= 75  # a half, and a few by chance; unbalanced, about one in a hundred


def test_windows_around_objects_show_them_and_stay_near_the_scene(squares_set):
    options = SampleOptions(window_px=64, object_share=1.0, scale=(1.0, 1.0), flips=False)
    samples = samples_of(squares_set, options=options)
    for number in range(60):
        sample = samples[number]
        assert len(sample.boxes_M4) + len(sample.ignore_I4) > 0
        assert sample.visible_HW.float().mean() > 0.85


def test_windows_anywhere_fall_on_labelled_ground_that_fits(tmp_path):
    scene, labels, _ = field(tmp_path)
    grid = open_scene(scene).grid
    ground = write_labels(tmp_path / "g.gpkg", [[300, 0, 400, 400]], grid=grid)
    training_set = load([scene], labels, ground=str(ground))
    split = split_ground([open_scene(scene)], SplitOptions(block_m=50.0), seed=0)
    options = SampleOptions(window_px=64, object_share=0.0, scale=(1.0, 1.0))
    samples = samples_of(training_set, split, options)
    each = training_set.scenes[0]
    fits = each.labelled(grid.window) & (split.mask(grid, grid.window) != Subset.VAL)
    assert samples.train_px == pytest.approx(fits.sum(), rel=0.03)
    # A window has its chosen point anywhere in it, so some of it is ground that may be learned.
    assert all(samples[i].ground_HW.any() for i in range(60))
    assert np.mean([samples[i].ground_HW.float().mean() for i in range(60)]) > 0.3


def test_scenes_smaller_than_a_window_are_seen_whole(tmp_path):
    scene, labels, boxes_px = field(tmp_path, side=60)
    samples = samples_of(
        load([scene], labels), options=SampleOptions(window_px=96, scale=(1.0, 1.0))
    )
    counts = [len(samples[i].boxes_M4) for i in range(20)]
    assert np.mean(counts) > 0.8 * len(boxes_px)


def test_radiometry_of_bytes_and_of_other_types(tmp_path):
    rng = np.random.default_rng(0)
    byte = open_scene(
        write_scene(tmp_path / "a.tif", rng.integers(0, 255, (2, 80, 80)).astype(np.uint8))
    )
    bands = measure_bands([byte], seed=0)
    assert bands.radiometry.offset == bands.radiometry.scale == (127.5, 127.5)
    values = np.stack([rng.normal(3000, 100, (200, 200)), np.full((200, 200), 7.0)]).astype(
        np.float32
    )
    values[:, :20] = np.nan
    other = open_scene(write_scene(tmp_path / "b.tif", values, nodata=np.nan))
    bands = measure_bands([other], seed=0)
    # The 1st and 99th percentile of a normal distribution lie 2.326 deviations off.
    assert bands.radiometry.offset[0] == pytest.approx(3000, abs=15)
    assert bands.radiometry.scale[0] == pytest.approx(232.6, rel=0.06)
    assert (bands.radiometry.offset[1], bands.radiometry.scale[1]) == (7.0, 1.0)
    assert bands.mean[0] == pytest.approx(0, abs=0.05)
    assert bands.std[0] == pytest.approx(1 / 2.326, rel=0.06)


@pytest.mark.parametrize(
    ("keep", "drop", "found"),
    [(0.0, 0.0, (1, 0)), (0.5, 0.0, (0, 1)), (0.5, 0.5, (0, 0)), (0.4, 0.1, (1, 0))],
    ids=["kept", "ignored", "dropped", "enough of it"],
)
def test_a_cut_label_is_kept_ignored_or_dropped_by_what_is_visible(tmp_path, keep, drop, found):
    scene = write_scene(tmp_path / "a.tif", np.full((1, 100, 100), 50, np.uint8))
    labels = write_labels(tmp_path / "l.gpkg", [[40.0, 40, 52, 52]], grid=open_scene(scene).grid)
    each = load([scene], labels).scenes[0]
    options = SampleOptions(min_visible=keep, drop_visible=drop)
    window = Window(30, 47, 32, 32)  # shows 5 of 12 columns
    labelled = label_window(each, window, np.ones((32, 32), bool), options)
    assert (len(labelled.boxes), len(labelled.ignored)) == found
    assert (labelled.cut, labelled.dropped) == (1, int(drop == 0.5))
    if found[1]:  # whole, as the anchors that stand for it are
        np.testing.assert_allclose(labelled.ignored, [[-7, 10, 5, 22]], atol=1e-6)


@pytest.mark.parametrize("method", ["iou", "atss"])
@pytest.mark.parametrize("how", ["flagged", "cut"])
def test_anchors_of_ignored_boxes_carry_no_gradient(tmp_path, how, method):
    """From a label layer through a sample to the loss: no logit near the box is moved."""
    scene = write_scene(tmp_path / "a.tif", np.full((1, 128, 128), 50, np.uint8))
    boxes_px = [[20.0, 20, 32, 32], [80, 80, 92, 92]]
    labels = write_labels(
        tmp_path / "l.gpkg", boxes_px, grid=open_scene(scene).grid, skip=[0, int(how == "flagged")]
    )
    each = load([scene], labels, ignore_column="skip").scenes[0]
    # The window ends at x = 84, so that it shows a third of the second label.
    window = Window(0, 0, 128, 128) if how == "flagged" else Window(0, -44, 128, 128)
    samples = samples_of(load([scene], labels, ignore_column="skip"))
    sample = samples.read(each, window)
    assert (len(sample.boxes_M4), len(sample.ignore_I4)) == (1, 1)
    _, targets = collate([sample])
    y, x = torch.meshgrid(torch.arange(2, 128, 4.0), torch.arange(2, 128, 4.0), indexing="ij")
    anchors = [
        torch.stack([x - s, y - s, x + s, y + s], dim=-1).reshape(-1, 4) for s in (6.0, 12.0)
    ]
    logits = [torch.zeros(1, len(a), 1, requires_grad=True) for a in anchors]
    deltas = [torch.zeros(1, len(a), 4, requires_grad=True) for a in anchors]
    settings = loss_settings(LossOptions(), AssignOptions(method=method), {"object": 1})
    losses = retinanet_loss(Outputs(logits, deltas), anchors, targets, settings)
    sum(losses.values()).backward()
    ignored = sample.ignore_I4.repeat(len(anchors[0]), 1).double().numpy()
    overlap = boxes.iou(anchors[0].double().numpy(), ignored)
    gradient = logits[0].grad[0, :, 0].abs().numpy()
    assert (overlap > 0.3).sum() >= 1
    assert not gradient[overlap > 0.4].any()
    assert not gradient[overlap == overlap.max()].any()
    inside = sample.ground_HW[anchors[0][:, 1].long() + 6, anchors[0][:, 0].long() + 6].numpy()
    assert (gradient[(overlap == 0) & inside] > 0).mean() > 0.9
    own = boxes.iou(
        anchors[0].double().numpy(),
        sample.boxes_M4.repeat(len(anchors[0]), 1).double().numpy(),
    )
    assert gradient[own > 0.6].all()


def test_empty_ground_is_shown_in_its_share(tmp_path):
    pixels = np.full((1, 400, 400), 50, np.uint8)
    scene = write_scene(tmp_path / "a.tif", pixels)
    boxes_px = [[x, y, x + 10, y + 10] for x in range(0, 300, 15) for y in range(0, 390, 15)]
    labels = write_labels(tmp_path / "l.gpkg", boxes_px, grid=open_scene(scene).grid)
    shares = {}
    for empty_share in (0.0, 0.5):
        options = replace(PLAIN, object_share=0.5, empty_share=empty_share)
        samples = samples_of(load([scene], labels), options=options)
        shares[empty_share] = np.mean([not len(samples[i].boxes_M4) for i in range(120)])
    assert shares[0.0] < 0.2
    assert 0.35 < shares[0.5] < 0.65


def test_chips_on_disk_serve_later_runs_and_follow_the_file(squares_set, tmp_path, monkeypatch):
    options = replace(PLAIN, cache_folder=str(tmp_path / "chips"))
    plain = samples_of(squares_set)
    first = samples_of(squares_set, options=options, cache_bytes=0)
    wanted = [plain[i].image_CHW for i in range(5)]
    for number, image in enumerate(wanted):
        torch.testing.assert_close(first[number].image_CHW, image, rtol=0, atol=0)
    chips = list((tmp_path / "chips").glob("*.npy"))
    assert len(chips) == 1  # 400 px are one chip
    later = samples_of(squares_set, options=options, cache_bytes=0)
    with monkeypatch.context() as patch:
        patch.setattr(Scene, "read", lambda *_: pytest.fail("it is on disk"))
        for number, image in enumerate(wanted):
            torch.testing.assert_close(later[number].image_CHW, image, rtol=0, atol=0)
    chips[0].write_bytes(chips[0].read_bytes()[:1000])  # cut short
    again = samples_of(squares_set, options=options, cache_bytes=0)
    torch.testing.assert_close(again[0].image_CHW, wanted[0], rtol=0, atol=0)


def test_windows_over_many_chips_are_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (2, 1100, 1300)).astype(np.uint16)
    scene = open_scene(write_scene(tmp_path / "a.tif", pixels, nodata=0))
    reader = CachedReader(1 << 28)
    for window in (
        Window(500, 500, 600, 700),
        Window(-20, 1000, 80, 400),
        Window(0, 0, 1100, 1300),
        Window(1090, 1290, 40, 40),
        Window(2000, 0, 10, 10),
    ):
        found, valid = reader.read(scene, window)
        wanted, wanted_valid = scene.read(window)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(valid, wanted_valid)
