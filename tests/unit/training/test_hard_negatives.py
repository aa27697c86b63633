"""Hard negatives: what counts as a false find, where samples go then, and that it resumes."""

import numpy as np
import pytest
import torch
from support.fields import field, write_labels
from torch import nn

from geo_retina.dataset.augment import Sample
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.radiometry import measure_bands
from geo_retina.dataset.samples import EpochSampler, HardDraw, TrainSamples
from geo_retina.dataset.split import Subset, split_ground
from geo_retina.dataset.windows import Spot
from geo_retina.nn.heads import Outputs
from geo_retina.options import DataOptions, SampleOptions, SplitOptions
from geo_retina.scene import open_scene
from geo_retina.training.hard_negatives import MineHardNegatives, is_false, mine

OPTIONS = SampleOptions(
    window_px=64, flips=False, scale=(1.0, 1.0), brightness=0.0, contrast=0.0, noise=0.0
)


class FindsBright(nn.Module):
    """One anchor of 12 px per 4 px cell, which finds an object where its centre is bright."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def anchors(self, shape, device):
        y, x = torch.meshgrid(
            torch.arange(2, shape[0], 4.0), torch.arange(2, shape[1], 4.0), indexing="ij"
        )
        return [torch.stack([x - 6, y - 6, x + 6, y + 6], dim=-1).reshape(-1, 4)]

    def forward(self, images):
        bright = images[:, 0, 2::4, 2::4].flatten(1)[..., None]
        return Outputs([(bright - 0.4) * 20], [torch.zeros(*bright.shape[:2], 4)])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Squares of which only those of the left half are labelled."""
    folder = tmp_path_factory.mktemp("field")
    scene, _, boxes_px = field(folder)
    own = boxes_px[boxes_px[:, 0] < 200]
    labels = write_labels(folder / "half.gpkg", own, grid=open_scene(scene).grid)
    training_set = load_training_set(DataOptions(scenes=(str(scene),), labels=str(labels)))
    scenes = [each.scene for each in training_set.scenes]
    split = split_ground(
        scenes, SplitOptions(block_m=40.0, val_fraction=0.2, test_fraction=0.2), seed=0
    )
    bands = measure_bands(scenes, seed=0, split=split)
    return TrainSamples(training_set, split, bands, OPTIONS, seed=0), split, boxes_px


def test_false_finds_are_the_unlabelled_squares_on_ground_that_fits(prepared):
    samples, split, boxes_px = prepared
    spots = mine(FindsBright().eval(), samples, range(80), batch=7)
    assert len(spots) > 50
    grid = samples.scenes[0].scene.grid
    for spot in spots:
        assert spot.scene == 0
        assert spot.x > 190
        point = np.array([[spot.x, spot.y]])
        assert split.on(Subset.TRAIN, grid, point)[0]
        near = np.abs((boxes_px[:, :2] + boxes_px[:, 2:]) / 2 - point).max(axis=1).min()
        assert near < 12
    assert spots == mine(FindsBright().eval(), samples, range(80), batch=3)
    assert mine(FindsBright().eval(), samples, range(0), batch=3) == []


def sample(boxes=(), labels=(), ignore=(), ground=None):
    ground = torch.ones(50, 50, dtype=torch.bool) if ground is None else ground
    tensors = [torch.tensor(v, dtype=torch.float32).reshape(-1, 4) for v in (boxes, ignore)]
    return Sample(
        torch.zeros(1, 50, 50), tensors[0], torch.tensor(labels, dtype=torch.int64), tensors[1],
        ground, ground,
    )  # fmt: skip


def test_what_is_false():
    found = torch.tensor([[10.0, 10, 20, 20], [30, 30, 40, 40], [0, 30, 10, 40]])
    labels = torch.tensor([0, 1, 1])
    assert is_false(found, labels, sample()).tolist() == [True] * 3
    one = sample([[11, 11, 21, 21], [30, 30, 40, 40]], [0, 0])
    # The second stands on an object of another class.
    assert is_false(found, labels, one).tolist() == [False, True, True]
    assert is_false(found, labels, sample(ignore=[[28, 28, 45, 45]])).tolist() == [
        True, False, True,
    ]  # fmt: skip
    ground = torch.ones(50, 50, dtype=torch.bool)
    ground[:, :8] = False
    assert is_false(found, labels, sample(ground=ground)).tolist() == [True, True, False]
    assert is_false(found[:0], labels[:0], one).tolist() == []


def test_samples_are_drawn_around_hard_places_in_their_share(prepared):
    samples, _, _ = prepared
    sampler = EpochSampler(400, seed=3, hard_share=0.25)
    assert all(isinstance(key, int) for key in sampler)
    sampler.hard = (Spot(0, 300.0, 120.0), Spot(0, 260.0, 300.0))
    keys = list(sampler)
    hard = [key for key in keys if isinstance(key, HardDraw)]
    assert 70 <= len(hard) <= 130
    assert [key.number if isinstance(key, HardDraw) else key for key in keys] == list(range(400))
    assert keys == list(sampler)
    for key in hard[:10]:
        again, plain = samples[key], samples[key.number]
        torch.testing.assert_close(again.image_CHW, samples[key].image_CHW)
        assert not torch.equal(again.image_CHW, plain.image_CHW)


class Trainer:
    is_global_zero = True
    max_epochs = 9

    def __init__(self, epoch):
        self.current_epoch = epoch


def test_it_looks_from_its_epoch_on_and_its_places_survive_a_checkpoint(prepared):
    samples, _, _ = prepared

    class Average:
        network = FindsBright().eval()

    options = SampleOptions(window_px=64, hard_from_epoch=3)
    sampler = EpochSampler(64, seed=0, hard_share=0.5)
    callback = MineHardNegatives(Average(), samples, sampler, options, batch=4)
    callback.on_train_epoch_end(Trainer(1), None)
    assert sampler.hard == ()
    callback.on_train_epoch_end(Trainer(2), None)
    assert len(sampler.hard) > 3
    resumed = EpochSampler(64, seed=0, hard_share=0.5)
    other = MineHardNegatives(Average(), samples, resumed, options, batch=4)
    other.load_state_dict(callback.state_dict())
    for each in (sampler, resumed):
        each.set_epoch(3)
    assert list(resumed) == list(sampler)
    never = EpochSampler(64)
    MineHardNegatives(Average(), samples, never, OPTIONS, batch=4).on_train_epoch_end(
        Trainer(5), None
    )
    assert never.hard == ()
