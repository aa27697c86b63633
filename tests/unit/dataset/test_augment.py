"""Augmentation: boxes move exactly as pixels do."""

import numpy as np
import pytest
import torch

from geo_retina.dataset.augment import Sample, blur, change_light, resize, turn
from geo_retina.options import SampleOptions

BOXES = [[3, 5, 10, 9], [20, 2, 23, 14], [30, 25, 32, 32]]


def sample(side=32, boxes=BOXES):
    """Each object is a rectangle of its own brightness."""
    image = torch.zeros(2, side, side)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        image[:, y0:y1, x0:x1] = i + 1
    masks = torch.ones(2, side, side, dtype=torch.bool)
    masks[0, :4] = False  # unlabelled ground
    masks[1, :2] = False  # nothing to see
    return Sample(
        image,
        torch.tensor(boxes, dtype=torch.float32),
        torch.arange(len(boxes)),
        torch.tensor([[0.0, 0.0, 4.0, 2.0]]),
        masks[0],
        masks[1],
    )


def extent(plane):
    """x_min, y_min, x_max, y_max of the True pixels, at their edges."""
    y, x = np.nonzero(plane.numpy())
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_turns_are_exact(quarters, mirror):
    turned = turn(sample(), quarters, mirror=mirror)
    for i in range(len(BOXES)):
        assert turned.boxes_M4[i].tolist() == extent(turned.image_CHW[0] == i + 1)
    assert turned.labels_M.tolist() == [0, 1, 2]
    assert turned.image_CHW.is_contiguous()
    # The ignored box lies in the corner of the strip where nothing is seen.
    x0, y0, x1, y1 = turned.ignore_I4[0].int().tolist()
    assert (x1 - x0, y1 - y0) in {(4, 2), (2, 4)}
    assert not turned.visible_HW[y0:y1, x0:x1].any()
    assert not turned.ground_HW[y0:y1, x0:x1].any()


def test_the_eight_turns_all_differ():
    seen = {
        tuple(turn(sample(), q, mirror=m).boxes_M4.flatten().tolist())
        for q in range(4)
        for m in (False, True)
    }
    assert len(seen) == 8


@pytest.mark.parametrize("side", [64, 96, 16])
@pytest.mark.parametrize("box", [[4, 8, 12, 20], [20, 4, 28, 12]])  # even, so halving keeps them
def test_whole_factors_resize_exactly(side, box):
    resized = resize(sample(boxes=[box]), side)
    assert resized.image_CHW.shape == (2, side, side)
    # An edge is where the interpolated brightness passes one half.
    assert resized.boxes_M4[0].tolist() == extent(resized.image_CHW[0] > 0.5)


@pytest.mark.parametrize("side", [29, 35, 41])
def test_any_factor_keeps_the_centre_of_mass_in_the_box(side):
    one = sample(boxes=[[7, 11, 19, 17]])
    resized = resize(one, side)
    weight = resized.image_CHW[0].double()
    y, x = torch.meshgrid(*[torch.arange(side) + 0.5] * 2, indexing="ij")
    centre = torch.stack([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    box = resized.boxes_M4[0].double()
    torch.testing.assert_close(centre, (box[:2] + box[2:]) / 2, atol=0.12, rtol=0)
    area = (box[2:] - box[:2]).prod()
    assert float(weight.sum()) == pytest.approx(float(area), rel=0.05)


def test_a_pixel_made_partly_of_hidden_ones_is_hidden():
    resized = resize(sample(), 45)
    ys = (torch.arange(45) + 0.5) * 32 / 45 - 0.5  # centre in the source, as interpolation sees it
    touches_hidden = ys.floor() < 2
    assert not resized.visible_HW[touches_hidden].any()
    assert resized.visible_HW[ys.floor() >= 2].all()
    assert not resized.ground_HW[ys.floor() < 4].any()


def test_resizing_to_the_same_side_is_nothing():
    own = sample()
    assert resize(own, 32) is own


def light(options, own, seed=0):
    mean, std = torch.tensor([0.5, -0.5]), torch.tensor([0.2, 0.4])
    return change_light(own, options, mean_C=mean, std_C=std, rng=np.random.default_rng(seed))


def test_light_is_one_gain_and_shift_a_band_within_its_range():
    own = sample()
    options = SampleOptions(brightness=0.3, contrast=0.2, noise=0.0)
    for seed in range(20):
        changed = light(options, own, seed).image_CHW
        for band, (mean, std) in enumerate([(0.5, 0.2), (-0.5, 0.4)]):
            seen = changed[band][own.visible_HW].numpy()
            source = own.image_CHW[band][own.visible_HW].numpy()
            gain, constant = np.polyfit(source, seen, 1)
            np.testing.assert_allclose(seen, source * gain + constant, atol=1e-5)
            assert 0.8 <= gain <= 1.2
            # What is left at the band's mean is the shift.
            assert abs(mean * gain + constant - mean) <= 0.3 * std + 1e-5
    assert changed[0, 5, 5] != changed[1, 5, 5]


def test_noise_has_the_deviation_asked_for_and_hidden_pixels_stay_0():
    flat = sample(side=200, boxes=[])
    options = SampleOptions(brightness=0.0, contrast=0.0, noise=0.5)
    changed = light(options, flat)
    assert changed.image_CHW[0, 2:].std() == pytest.approx(0.1, rel=0.05)
    assert changed.image_CHW[1, 2:].std() == pytest.approx(0.2, rel=0.05)
    assert not changed.image_CHW[:, :2].any()


def test_all_ranges_at_0_change_nothing():
    own = sample()
    options = SampleOptions(brightness=0.0, contrast=0.0, noise=0.0)
    torch.testing.assert_close(light(options, own).image_CHW, own.image_CHW)


def test_blur_spreads_a_point_as_a_gaussian_does_and_hides_what_was_hidden():
    own = sample(side=64, boxes=[])
    own.image_CHW[:, 40, 30] = 1.0
    drawn = []
    for seed in range(20):
        blurred = blur(own, SampleOptions(blur=2.0), rng=np.random.default_rng(seed))
        sigma = np.random.default_rng(seed).uniform(0, 2.0)
        weight = blurred.image_CHW[0].double()
        assert float(weight.sum()) == pytest.approx(1, abs=1e-4)
        x = torch.arange(64.0)
        mean = float((weight.sum(dim=0) * x).sum())
        assert mean == pytest.approx(30, abs=1e-3)
        variance = float((weight.sum(dim=0) * (x - 30) ** 2).sum())
        if sigma > 0.6:  # a narrower one is hardly sampled
            assert variance == pytest.approx(sigma**2, rel=0.1)
        drawn.append(variance)
        assert not blurred.image_CHW[:, :2].any()
        assert blurred.boxes_M4 is own.boxes_M4
    assert len(set(drawn)) > 15
    assert blur(own, SampleOptions(), rng=np.random.default_rng(0)) is own
