"""What a person entered is trained on; what nobody looked at, and cells to count by, are not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine

from geo_retina.config import load_train_options
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.samples import EpochSampler, HardDraw
from geo_retina.dataset.windows import Spot, train_objects
from geo_retina.errors import LabelError, OptionError, TrainingError
from geo_retina.options import DataOptions, ReviewOptions
from geo_retina.review import read_review, review_detections
from tests.support.reviews import edit, scattered, write_found
from tests.support.stubs import write_scene

GRID = Affine(1, 0, 0, 0, -1, 200)  # 1 m pixels over the ground of write_found


@pytest.fixture
def place(tmp_path):
    """A scene, and a review of what was found on it, in which nobody has entered anything."""
    pixels = np.full((3, 200, 200), 80, np.uint8)
    scene = write_scene(tmp_path / "a.tif", pixels, affine=GRID)
    path = write_found(tmp_path / "found.gpkg", scattered(300))
    options = ReviewOptions(budget=40, cells=20, cell_size_m=20.0)
    review_detections(path, options)
    return scene, path


def load(scene, path, **more):
    return load_training_set(DataOptions(scenes=(str(scene),), review=str(path), **more))


def to_px(geometries):
    xy = shapely.get_coordinates(shapely.centroid(geometries))
    return np.stack([xy[:, 0], 200 - xy[:, 1]], axis=-1)


def in_order(xy):
    return xy[np.lexsort(xy.T)]


def test_completed_cells_and_cases(place):
    scene, path = place
    edit(
        path,
        "UPDATE cells SET status = 'done' WHERE use = 'learn' AND fid % 2 = 0",
        "UPDATE cells SET status = 'done' WHERE use = 'count'",
        "UPDATE review SET status = 'accepted', weight = 3 WHERE reason <> 'cell' AND fid % 2 = 0",
        "UPDATE review SET status = 'rejected' WHERE reason <> 'cell' AND fid % 5 = 1",
    )
    review = read_review(path)
    (each,) = load(scene, path).scenes
    cases, frame = review.cases, review.frame
    counting = np.append(review.is_drawn & (frame.use == "count"), False)[cases.cell]
    learned = np.append(review.is_done & (frame.use == "learn"), False)[cases.cell]
    assert counting.sum() > 10
    assert learned.sum() > 5
    true = ~counting & ((cases.status == "accepted") | (learned & (cases.status == "new")))
    waits = ~counting & ~learned & (cases.status == "new")
    gone = ~counting & (cases.status == "rejected")
    assert in_order(each.centres_px) == pytest.approx(in_order(to_px(cases.geometry[true])))
    assert len(each.ignored_px) == waits.sum() > 5
    assert in_order(each.rejected_px) == pytest.approx(in_order(to_px(cases.geometry[gone])))
    assert sorted(each.weights) == sorted(cases.weight[true])
    # Labelled: completed cells to learn from, and the places of cases; no cell to count by.
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    cell = frame.cell_at(np.stack([points[:, 0], 200 - points[:, 1]], axis=-1))
    learn = (review.is_done & (frame.use == "learn"))[cell]
    count = (review.is_drawn & (frame.use == "count"))[cell]
    boxes = shapely.union_all(cases.geometry[true | gone])
    near = shapely.contains_xy(boxes, np.stack([points[:, 0], 200 - points[:, 1]], axis=-1))
    assert (each.holds(points) == (learn | (near & ~count))).all()


def test_the_card_names_the_cells(place):
    scene, path = place
    edit(path, "UPDATE cells SET status = 'done'")
    about = load(scene, path).reviewed
    review = read_review(path)
    learned = np.flatnonzero(review.is_done & (review.frame.use == "learn"))
    assert about["cells"] == learned.tolist()
    assert about["file"] == "found.gpkg"
    assert about["frame"] == review.frame.fingerprint


def test_beside_other_labels(place, tmp_path):
    """Ground of the review that others did not say they labelled stays unknown."""
    scene, path = place
    edit(path, "UPDATE cells SET status = 'done' WHERE use = 'learn'")
    elsewhere = write_scene(
        tmp_path / "b.tif",
        np.full((3, 200, 200), 80, np.uint8),
        affine=Affine(1, 0, 1000, 0, -1, 200),
    )
    labels = write_found(
        tmp_path / "labels.gpkg",
        scattered(30) + np.array([1000, 0]),
        ground=shapely.box(1000, 0, 1200, 200),
    )
    options = DataOptions(
        scenes=(str(scene), str(elsewhere)),
        labels=str(labels),
        class_column="class",
        review=str(path),
    )
    first, second = load_training_set(options).scenes
    assert second.ground_px is None
    assert len(second.boxes_px) == 30
    assert 0 < shapely.area(first.ground_px) < 100 * 200


def test_nothing_to_learn_from(place):
    scene, path = place
    with pytest.raises(LabelError, match="no entry to learn from"):
        load(scene, path)
    edit(path, "UPDATE cells SET status = 'done' WHERE use = 'count'")
    with pytest.raises(LabelError, match="no entry to learn from"):
        load(scene, path)
    edit(path, "UPDATE review SET weight = -1 WHERE fid = 1")
    with pytest.raises(LabelError, match="weight -1"):
        load(scene, path)
    with pytest.raises(OptionError, match="or a review"):
        DataOptions(scenes=("a.tif",))


def test_a_new_class_may_be_missing(place):
    """Who corrects a model names all its classes, though the corrected ground may lack some."""
    scene, path = place
    edit(path, "UPDATE cells SET status = 'done' WHERE use = 'learn'")
    assert load(scene, path, classes=("a", "never seen")).classes == ("a", "never seen")


def test_rejected_finds_are_drawn_by_their_weight():
    rejected = {Spot(0, 1.0, 1.0): 3.0, Spot(0, 9.0, 9.0): 1.0}
    sampler = EpochSampler(4000, seed=1, hard_share=0.5, rejected=rejected)
    hard = [key.spot for key in sampler if isinstance(key, HardDraw)]
    assert len(hard) == pytest.approx(2000, abs=150)
    assert hard.count(Spot(0, 1.0, 1.0)) == pytest.approx(1500, abs=120)
    sampler.hard = (Spot(1, 5.0, 5.0),)  # found by the model itself, later
    hard = [key.spot for key in sampler if isinstance(key, HardDraw)]
    assert hard.count(Spot(1, 5.0, 5.0)) == pytest.approx(400, abs=80)


def test_weights_decide_how_often_objects_are_drawn(place):
    from geo_retina.dataset.split import split_ground
    from geo_retina.dataset.windows import WindowDraw
    from geo_retina.options import SampleOptions, SplitOptions

    scene, path = place
    edit(
        path,
        "UPDATE review SET status = 'accepted' WHERE reason <> 'cell'",
        "UPDATE review SET weight = 50 WHERE fid = (SELECT MIN(fid) FROM review)",
    )
    training_set = load(scene, path)
    options = SplitOptions(block_m=40.0, val_fraction=0.1)
    seed = next(  # the heavy one is for training
        s
        for s in range(20)
        if 50 in train_objects(
            training_set, split_ground([training_set.scenes[0].scene], options, seed=s)
        ).weight
    )  # fmt: skip
    split = split_ground([training_set.scenes[0].scene], options, seed=seed)
    draw = WindowDraw(training_set, split, SampleOptions(window_px=32, object_share=1.0))
    rng = np.random.default_rng(0)
    heavy = draw.objects.index[draw.objects.weight == 50][0]
    centre = training_set.scenes[0].centre_px(int(heavy))
    share = draw.objects.weight.max() / draw.objects.weight.sum()
    shown = 0
    for _ in range(300):
        _, window = draw.choose(rng, draw.plain_frame())
        x_min, y_min, x_max, y_max = window.box_px
        shown += bool(x_min <= centre[0] <= x_max and y_min <= centre[1] <= y_max)
    assert shown / 300 > share - 0.1


def test_a_person_s_database_is_only_read(place):
    scene, path = place
    edit(path, "UPDATE cells SET status = 'done' WHERE use = 'learn'")
    before = path.read_bytes()
    load(scene, path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert path.read_bytes() == before


def test_the_config_that_adapts_a_model():
    root = Path(__file__).parents[3]
    changes = ["data.review=mine.gpkg", "data.scenes=[town.tif]"]
    options = load_train_options(root / "configs" / "adapt.yaml", changes)
    assert Path(options.data.review).name == "mine.gpkg"
    assert (options.freeze, options.weights, options.data.labels) == ("auto", "trees-naip", ())


def test_a_review_without_an_object_is_named_in_the_refusal(place):
    scene, path = place
    edit(path, "UPDATE review SET status = 'rejected'")
    with pytest.raises(TrainingError, match=r"found\.gpkg gives \d+ labels for 1 scenes"):
        load(scene, path)
