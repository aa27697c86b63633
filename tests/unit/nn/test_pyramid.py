from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geo_retina.errors import ModelError
from geo_retina.nn.pyramid import Pyramid

LEVELS, CHANNELS = (2, 3, 4, 5), (4, 8, 12, 16)


def features(height: int = 64, width: int = 96) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(2, c, -(-height // 2**level), -(-width // 2**level))
        for level, c in zip(LEVELS, CHANNELS, strict=True)
    ]


def build(
    levels: tuple[int, ...],
    extra_from: Literal["c5", "p5"] = "c5",
    norm: Literal["none", "batch"] = "none",
) -> Pyramid:
    torch.manual_seed(1)
    return Pyramid(LEVELS, CHANNELS, levels=levels, channels=6, extra_from=extra_from, norm=norm)


@pytest.mark.parametrize(
    "levels", [(2,), (3,), (2, 3), (3, 4, 5), (2, 3, 4, 5, 6), (3, 4, 5, 6, 7), (5, 6), (6, 7)]
)
@pytest.mark.parametrize("extra_from", ["c5", "p5"])
def test_gives_the_levels_wanted_and_trains_all_it_has(
    levels: tuple[int, ...], extra_from: Literal["c5", "p5"]
) -> None:
    pyramid = build(levels, extra_from)
    out = pyramid(features(128, 256))
    assert [tuple(p.shape) for p in out] == [
        (2, 6, 128 // 2**level, 256 // 2**level) for level in levels
    ]
    sum(p.square().sum() for p in out).backward()
    assert all(p.grad is not None for p in pyramid.parameters())


def test_equals_the_paper_written_out() -> None:
    pyramid = build((3, 4, 5, 6, 7))
    c2, c3, c4, c5 = features()
    lateral, smooth, extra = pyramid.lateral, pyramid.smooth, pyramid.extra
    m5 = lateral["c5"](c5)
    m4 = lateral["c4"](c4) + m5.repeat_interleave(2, 2).repeat_interleave(2, 3)
    m3 = lateral["c3"](c3) + m4.repeat_interleave(2, 2).repeat_interleave(2, 3)
    p6 = extra["p6"](c5)
    expected = [
        smooth["p3"](m3),
        smooth["p4"](m4),
        smooth["p5"](m5),
        p6,
        extra["p7"](functional.relu(p6)),
    ]
    for found, wanted in zip(pyramid([c2, c3, c4, c5]), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert set(lateral) == {"c3", "c4", "c5"}


def test_extra_level_from_p5_sees_p5() -> None:
    pyramid = build((5, 6), "p5")
    p5, p6 = pyramid(features())
    torch.testing.assert_close(p6, pyramid.extra["p6"](p5))


def test_a_single_fine_level_sees_the_coarsest_features() -> None:
    pyramid = build((2,))
    maps = features()
    before = pyramid(maps)[0]
    maps[-1] = maps[-1] + 1
    assert not torch.allclose(before, pyramid(maps)[0])
    assert set(pyramid.smooth) == {"p2"}


def test_odd_sizes_stay_aligned() -> None:
    """A cell adds to the four cells below it, also where the finer map is odd."""
    pyramid = build((4, 5))
    nn.init.ones_(pyramid.lateral["c5"].weight)
    nn.init.zeros_(pyramid.lateral["c4"].weight)
    c2, c3, c4, c5 = (torch.zeros_like(f) for f in features(80, 80))
    assert (c4.shape[-1], c5.shape[-1]) == (5, 3)
    c5[..., 1, 1] = 1
    pyramid.smooth["p4"] = nn.Identity()
    p4 = pyramid([c2, c3, c4, c5])[0]
    rows, columns = p4[0, 0].nonzero(as_tuple=True)
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3}


def test_batch_norm_option() -> None:
    pyramid = build((3, 4), norm="batch")
    norms = [m for m in pyramid.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 2
    assert all(m.bias is None for m in pyramid.modules() if isinstance(m, nn.Conv2d))
    pyramid(features())


def test_level_finer_than_the_backbone() -> None:
    with pytest.raises(ModelError, match="level 1 is finer"):
        build((1, 2))
