"""Ground that tests is scored once, and chooses nothing."""

import numpy as np
import pytest
import torch
from support.fields import squares, write_labels, write_scene

from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.split import Subset, split_ground
from geo_retina.options import DataOptions, LossOptions, SampleOptions, SplitOptions, TrainOptions
from geo_retina.scene import open_scene
from geo_retina.training import train

SPLIT = SplitOptions(block_m=40.0, val_fraction=0.25, test_fraction=0.2)


def run(folder, pixels, boxes_px):
    folder.mkdir()
    scene = write_scene(folder / "field.tif", pixels)
    labels = write_labels(folder / "l.gpkg", boxes_px, grid=open_scene(scene).grid)
    options = TrainOptions(
        data=DataOptions(scenes=(str(scene),), labels=str(labels)),
        network={"backbone": "test_resnet", "channels": 16, "convs": 1},
        pretrained=False,
        split=SPLIT,
        samples=SampleOptions(window_px=96, hard_from_epoch=1),
        loss=LossOptions(class_weights="inverse"),
        epochs=2,
        samples_per_epoch=16,
        batch=4,
        lr=5e-3,
        workers=0,
        picture_every=0,
        quantize=False,
        device="cpu",
        precision="fp32",
    )
    return train(options)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two trainings whose pixels and labels differ on test ground alone."""
    folder = tmp_path_factory.mktemp("testing")
    pixels, boxes_px = squares()
    scene = write_scene(folder / "field.tif", pixels)
    labels = write_labels(folder / "l.gpkg", boxes_px, grid=open_scene(scene).grid)
    training_set = load_training_set(DataOptions(scenes=(str(scene),), labels=str(labels)))
    each = training_set.scenes[0]
    grid = each.scene.grid
    split = split_ground([each.scene], SPLIT, seed=0)
    mask = split.mask(grid, grid.window)
    other = pixels.copy()
    other[:, mask == Subset.TEST] = np.random.default_rng(9).integers(
        0, 255, other[:, mask == Subset.TEST].shape
    )
    inside = np.array(
        [
            (mask[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])] == Subset.TEST).all()
            for b in boxes_px
        ]
    )
    assert inside.sum() > 10
    fewer = np.concatenate([boxes_px[~inside], boxes_px[inside][:3]])
    return run(folder / "a", pixels, boxes_px), run(folder / "b", other, fewer)


def test_it_is_scored_at_the_chosen_thresholds_and_said(both):
    card = both[0].card
    assert card.metrics["test"]["overall"]["f1"] is not None
    assert "the test ground" in card.metrics["test_measured_on"]
    assert "ground blocks of 40 m" in card.metrics["test_measured_on"]


def test_it_chooses_nothing(both):
    first, second = both
    assert first.card.thresholds == second.card.thresholds
    assert first.card.metrics["val"] == second.card.metrics["val"]
    assert first.card.training["history"] == second.card.training["history"]
    assert first.card.radiometry == second.card.radiometry
    assert first.card.network == second.card.network
    own = second.network.state_dict()
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, own[name]), name
    assert first.card.metrics["test"] != second.card.metrics["test"]
