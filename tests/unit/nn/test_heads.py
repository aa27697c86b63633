from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from geo_retina.nn.heads import Subnet


def maps(*sizes: tuple[int, int], channels: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, channels, h, w) for h, w in sizes]


def test_prior_is_the_first_probability() -> None:
    subnet = Subnet(32, 2, 3, 2, norm="none", prior=0.01)
    nn.init.zeros_(subnet.output.weight)
    logits = subnet(maps((4, 5)))[0]
    torch.testing.assert_close(logits.sigmoid(), torch.full((2, 4 * 5 * 2, 3), 0.01))
    assert (Subnet(32, 2, 4, 2, norm="none", prior=None).output.bias == 0).all()


def test_rows_run_over_rows_columns_anchors() -> None:
    subnet = Subnet(4, 0, 3, 2, norm="none", prior=None)
    nn.init.zeros_(subnet.output.weight)
    subnet.output.weight.data[:, 0, 1, 1] = 1  # every output is its cell's first channel
    subnet.output.bias.data = torch.arange(6.0) * 1000  # plus 1000 for each output
    image = torch.zeros(1, 4, 5, 7)
    image[0, 0] = torch.arange(35.0).view(5, 7)
    rows = subnet([image])[0][0].view(5, 7, 2, 3)
    for y, x, a, k in [(0, 0, 0, 0), (0, 1, 1, 0), (4, 6, 1, 2), (3, 2, 0, 1)]:
        assert rows[y, x, a, k] == y * 7 + x + 1000 * (a * 3 + k)


def test_equals_torchvision_with_group_norm() -> None:
    torch.manual_seed(0)
    theirs = RetinaNetClassificationHead(32, 3, 5, norm_layer=lambda c: nn.GroupNorm(32, c))
    ours = Subnet(32, 4, 5, 3, norm="group", prior=0.01)
    for i in range(4):
        ours.convs[i].load_state_dict(theirs.conv[i][0].state_dict())
        ours.norms[i].load_state_dict(theirs.conv[i][1].state_dict())
    ours.output.load_state_dict(theirs.cls_logits.state_dict())
    features = maps((8, 8), (4, 4))
    torch.testing.assert_close(torch.cat(ours(features), dim=1), theirs(features))


def test_batch_norm_takes_all_levels_together() -> None:
    subnet = Subnet(32, 1, 4, 1, norm="batch", prior=None)
    features = maps((8, 8), (4, 4))
    features[1] = features[1] * 5
    subnet(features)
    hidden = [subnet.convs[0](f) for f in features]
    cells = torch.cat([h.permute(0, 2, 3, 1).reshape(-1, 32) for h in hidden])
    norm = subnet.norms[0]
    torch.testing.assert_close(norm.running_mean, cells.mean(dim=0) * 0.1)
    torch.testing.assert_close(norm.running_var, cells.var(dim=0) * 0.1 + 0.9)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_training_and_evaluation_agree_on_the_batch_that_was_seen(
    memory_format: torch.memory_format,
) -> None:
    subnet = Subnet(32, 1, 4, 1, norm="batch", prior=None).to(memory_format=memory_format)
    subnet.norms[0].momentum = 1.0
    features = [f.to(memory_format=memory_format) for f in maps((16, 8), (8, 4))]
    trained = subnet(features)
    evaluated = subnet.eval()(features)
    for a, b in zip(trained, evaluated, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_bfloat16_autocast_trains(norm: Literal["none", "batch", "group"]) -> None:
    subnet = Subnet(32, 2, 3, 1, norm=norm, prior=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        out = subnet(maps((8, 8), (4, 4)))
    sum(o.float().square().sum() for o in out).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in subnet.parameters())


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("cells", [(), ((0, 0),), ((7, 9),), ((3, 4), (5, 2)), ((0, 9), (7, 0))])
def test_wanted_cells_come_out_as_from_the_whole_map(
    norm: Literal["none", "batch", "group"], cells: tuple[tuple[int, int], ...]
) -> None:
    torch.manual_seed(0)
    subnet = Subnet(32, 2, 4, 3, norm=norm, prior=None).eval()
    for parameter in subnet.parameters():  # biases of zero would hide a border
        torch.nn.init.normal_(parameter, std=0.2)
    levels = maps((8, 10), (4, 5))
    wanted = [torch.zeros(2, 8, 10, 3, dtype=torch.bool), torch.ones(2, 4, 5, 3, dtype=torch.bool)]
    for i, (row, col) in enumerate(cells):
        wanted[0][1, row, col, i] = True
    rows = [each.flatten(1) for each in wanted]
    with torch.no_grad():
        whole, part = subnet(levels), subnet.forward_at(levels, rows)
    for one, other, chosen in zip(whole, part, rows, strict=True):
        assert other.shape == one.shape
        # Sums of other orders, of values up to some ten.
        torch.testing.assert_close(other[chosen], one[chosen], rtol=1e-5, atol=1e-4)
    if norm != "group":  # the first image wants nothing of the finer level
        assert not part[0][0].any()
