"""What a training tells while it runs, and which labels can be found at all."""

from __future__ import annotations

import numpy as np
from support.fields import field, squares, write_labels, write_scene
from support.tiny_training import tiny

from geo_retina.scene import open_scene
from geo_retina.training import train
from geo_retina.training.setup import prepare
from geo_retina.training.validation.ground import choose_ground


def test_training_tells_its_steps_epochs_losses_and_scores(tmp_path):
    told = []
    train(tiny(*field(tmp_path, side=200)[:2], epochs=2), progress=told.append)
    assert told[0].step == 0
    assert told[0].seconds_left is None
    ended = [state for state in told if state.step == state.steps]
    assert [(state.epoch, state.epochs) for state in ended] == [(1, 2), (2, 2)]
    for state in ended:
        assert state.losses, state
        assert all(loss > 0 for loss in state.losses.values())
        assert "f1" in state.scores
    assert ended[0].seconds_left > 0
    assert ended[1].seconds_left == 0


def test_labels_without_data_beneath_are_not_to_be_found(tmp_path):
    pixels, boxes_px = squares(side=200)
    pixels[:, :, 120:] = 0
    scene = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    labels = write_labels(tmp_path / "a.gpkg", boxes_px, grid=open_scene(scene).grid)
    options = tiny(scene, labels)
    training_set = prepare(options).training_set
    ground = choose_ground(
        training_set, lambda _, p: np.ones(p.shape[:-1], bool), "everywhere", options.scoring
    )
    centres = training_set.scenes[0].centres_px
    expected = (np.floor(centres[:, 0]) < 120).sum()
    assert 0 < expected < len(boxes_px)
    assert ground.objects == len(ground.truth) == expected
