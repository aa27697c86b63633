from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou

from geo_retina.errors import ModelError
from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.decoding import Decoded, DecodeSettings, boxes_wanted, decode
from geo_retina.nn.heads import Outputs

SHAPE = (96, 128)
GRID = AnchorGrid((8, 16), ((20.0,), (40.0,)), (0.5, 1.0), False)
SETTINGS = DecodeSettings(thresholds=0.3, candidates=10_000, nms_iou=0.5, max_per_image=10_000)


def outputs(seed: int, *, images: int = 3, classes: int = 4, mean: float = -1.5) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(a) for a in GRID(SHAPE, "cpu")]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Outputs(
        [normal(images, size, classes) * 1.5 + mean for size in sizes],
        [normal(images, size, 4) * 0.2 for size in sizes],
    )


def candidates(
    raw: Outputs, image: int, settings: DecodeSettings
) -> list[tuple[float, int, list[float]]]:
    """Score, label and clipped box of all above the threshold, one by one, best first."""
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    thresholds = torch.as_tensor(settings.thresholds).expand(raw.logits[0].shape[2])
    found = []
    for logits, deltas, anchors in zip(*raw, GRID(SHAPE, "cpu"), strict=True):
        boxes = coder.decode_single(deltas[image].float(), anchors)
        level = []
        for a, k in torch.cartesian_prod(*map(torch.arange, logits[image].shape)).tolist():
            score = float(logits[image, a, k].float().sigmoid())
            if score >= thresholds[k]:
                x0, y0, x1, y1 = boxes[a].tolist()
                box = [
                    min(max(x0, 0), SHAPE[1]),
                    min(max(y0, 0), SHAPE[0]),
                    min(max(x1, 0), SHAPE[1]),
                    min(max(y1, 0), SHAPE[0]),
                ]
                level.append((score, k, box))
        level.sort(key=lambda row: -row[0])
        found += [row for row in level[: settings.candidates] if row[2][2] > row[2][0]]
    return sorted(found, key=lambda row: -row[0])


def slow_decode(
    raw: Outputs, settings: DecodeSettings
) -> list[list[tuple[float, int, list[float]]]]:
    """Image by image, box by box."""
    result = []
    for image in range(len(raw.logits[0])):
        kept: list[tuple[float, int, list[float]]] = []
        for score, label, box in candidates(raw, image, settings):
            same = torch.tensor([b for _, k, b in kept if k == label]).double().reshape(-1, 4)
            if not (box_iou(torch.tensor([box]).double(), same) > settings.nms_iou).any():
                kept.append((score, label, box))
        result.append(kept[: settings.max_per_image])
    return result


def rows(decoded: Decoded, image: int) -> tuple[Tensor, Tensor, Tensor]:
    of = decoded.image_M == image
    return decoded.scores_M[of], decoded.labels_M[of], decoded.boxes_M4[of]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        dataclasses.replace(SETTINGS, thresholds=torch.tensor([0.2, 0.5, 0.7, 0.0])),
        dataclasses.replace(SETTINGS, candidates=37, nms_iou=0.3),
        dataclasses.replace(SETTINGS, max_per_image=25),
    ],
    ids=["plain", "by-class", "few-candidates", "few-boxes"],
)
def test_equals_the_slow_one(seed: int, settings: DecodeSettings) -> None:
    raw = outputs(seed)
    found = decode(raw, GRID(SHAPE, "cpu"), SHAPE, settings)
    for image, expected in enumerate(slow_decode(raw, settings)):
        scores, labels, boxes = rows(found, image)
        assert len(scores) == len(expected) > 20
        assert labels.tolist() == [row[1] for row in expected]
        torch.testing.assert_close(scores, torch.tensor([row[0] for row in expected]))
        torch.testing.assert_close(
            boxes, torch.tensor([row[2] for row in expected]), rtol=1e-5, atol=1e-4
        )


def test_suppression_equals_torchvisions_batched_nms() -> None:
    raw = outputs(7, images=5)
    everything = decode(raw, GRID(SHAPE, "cpu"), SHAPE, dataclasses.replace(SETTINGS, nms_iou=1.0))
    group = everything.image_M * 4 + everything.labels_M
    kept = batched_nms(everything.boxes_M4, everything.scores_M, group, 0.5)
    found = decode(raw, GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    assert len(kept) < len(everything.scores_M) * 0.8
    assert torch.equal(everything.boxes_M4[kept.sort().values], found.boxes_M4)


def test_sorted_by_image_then_score() -> None:
    found = decode(outputs(0), GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    order = sorted(range(len(found.scores_M)), key=lambda i: (found.image_M[i], -found.scores_M[i]))
    assert order == list(range(len(order)))


def test_equal_scores_are_ordered_by_anchor_then_class() -> None:
    anchors = GRID(SHAPE, "cpu")
    raw = Outputs(
        [torch.full((2, len(a), 2), 1.0) for a in anchors],
        [torch.zeros(2, len(a), 4) for a in anchors],
    )
    found = decode(raw, anchors, SHAPE, dataclasses.replace(SETTINGS, nms_iou=1.0))
    scores, labels, boxes = rows(found, 1)
    assert labels.tolist() == [0, 1] * (len(scores) // 2)
    every = torch.cat(anchors).repeat_interleave(2, dim=0)
    limit = torch.tensor([SHAPE[1], SHAPE[0]] * 2)
    torch.testing.assert_close(boxes, every.clamp(min=0).minimum(limit))


def test_an_image_is_decoded_as_if_alone() -> None:
    raw, anchors = outputs(3), GRID(SHAPE, "cpu")
    together = decode(raw, anchors, SHAPE, SETTINGS)
    for image in range(3):
        alone = decode(
            Outputs(*([level[image : image + 1] for level in part] for part in raw)),
            anchors,
            SHAPE,
            SETTINGS,
        )
        for a, b in zip(rows(together, image), rows(alone, 0), strict=True):
            assert torch.equal(a, b)


def test_boxes_stay_inside_and_have_an_area() -> None:
    raw = outputs(1)
    wild = Outputs(raw.logits, [d * 30 for d in raw.deltas])
    found = decode(wild, GRID(SHAPE, "cpu"), SHAPE, SETTINGS).boxes_M4
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= SHAPE[1]).all()
    assert (found[:, 3] <= SHAPE[0]).all()
    assert (found[:, 2:] > found[:, :2]).all()
    assert found.isfinite().all()
    assert len(found) > 10


def single(scores: list[list[float]]) -> tuple[Outputs, list[Tensor]]:
    """One level of 10 x 10 px anchors side by side, one class, with these scores per image."""
    count = len(scores[0])
    anchors = torch.tensor([[10.0 * i, 0, 10.0 * i + 10, 10] for i in range(count)])
    logits = torch.tensor(scores).logit()[..., None]
    return Outputs([logits], [torch.zeros(len(scores), count, 4)]), [anchors]


def test_truncation_is_flagged_where_something_was_lost() -> None:
    raw, anchors = single([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.1, 0.1]])
    few = dataclasses.replace(SETTINGS, candidates=3)
    found = decode(raw, anchors, (10, 40), few)
    assert found.truncated_N.tolist() == [True, False, False]
    assert found.image_M.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    limited = dataclasses.replace(SETTINGS, max_per_image=2)
    found = decode(raw, anchors, (10, 40), limited)
    assert found.truncated_N.tolist() == [True, True, False]
    assert found.image_M.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(found.scores_M, torch.tensor([0.9, 0.8] * 3))


@pytest.mark.parametrize("limit", [1, 20, 21, 22, 23, 24, 25, 10_000])
@pytest.mark.parametrize("thresholds", [0.3, torch.tensor([0.5, 0.3, 0.6, 0.4])])
def test_an_image_alone_gives_what_it_gives_in_a_batch(
    limit: int, thresholds: Tensor | float
) -> None:
    raw = outputs(5, mean=-4)
    settings = dataclasses.replace(SETTINGS, candidates=limit, thresholds=thresholds)
    together = decode(raw, GRID(SHAPE, "cpu"), SHAPE, settings)
    for i in range(3):
        one = Outputs(*([each[i : i + 1] for each in levels] for levels in raw))
        alone = decode(one, GRID(SHAPE, "cpu"), SHAPE, settings)
        assert torch.equal(alone.scores_M, together.scores_M[together.image_M == i])
        assert torch.equal(alone.boxes_M4, together.boxes_M4[together.image_M == i])
        assert alone.truncated_N.tolist() == together.truncated_N[i : i + 1].tolist()


def test_threshold_is_reached_not_exceeded() -> None:
    raw, anchors = single([[0.5, 0.49]])
    half = dataclasses.replace(SETTINGS, thresholds=0.5)
    assert len(decode(raw, anchors, (10, 20), half).scores_M) == 1


def test_low_threshold_of_one_class_crowds_out_no_other() -> None:
    logits = torch.tensor([[0.6, 0.9], [0.6, 0.9], [0.6, 0.9]]).logit()[None]
    anchors = [torch.tensor([[10.0 * i, 0, 10.0 * i + 10, 10] for i in range(3)])]
    settings = dataclasses.replace(SETTINGS, candidates=3, thresholds=torch.tensor([0.5, 0.95]))
    found = decode(Outputs([logits], [torch.zeros(1, 3, 4)]), anchors, (10, 30), settings)
    assert found.labels_M.tolist() == [0, 0, 0]
    assert not found.truncated_N.any()


def test_nothing_found() -> None:
    found = decode(outputs(0, mean=-50), GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    assert found.boxes_M4.shape == (0, 4)
    assert len(found.scores_M) == len(found.labels_M) == len(found.image_M) == 0
    assert found.truncated_N.tolist() == [False] * 3


@pytest.mark.parametrize("thresholds", [0.3, torch.tensor([0.3, 0.3, 0.3, 0.4])])
def test_logits_that_are_no_number_are_refused(thresholds: Tensor | float) -> None:
    raw = outputs(0)
    raw.logits[1][2, 5, 1] = float("nan")
    with pytest.raises(ModelError, match="not a number"):
        decode(raw, GRID(SHAPE, "cpu"), SHAPE, dataclasses.replace(SETTINGS, thresholds=thresholds))


def test_equal_thresholds_are_applied_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever compares each logit with its class's threshold copies all of them."""
    raw = outputs(2)
    each = torch.tensor([0.3, 0.3, 0.3, 0.3 + 1e-7])
    apart = decode(raw, GRID(SHAPE, "cpu"), SHAPE, dataclasses.replace(SETTINGS, thresholds=each))
    filled: list[int] = []
    fill = Tensor.masked_fill
    monkeypatch.setattr(
        Tensor, "masked_fill", lambda t, *args: (filled.append(t.ndim), fill(t, *args))[1]
    )
    for thresholds in (0.3, torch.tensor(0.3), torch.full((4,), 0.3)):
        settings = dataclasses.replace(SETTINGS, thresholds=thresholds)
        together = decode(raw, GRID(SHAPE, "cpu"), SHAPE, settings)
        assert set(filled) == {2}  # the candidates' scores, not the logits (N, A, K)
        for a, b in zip(apart[:5], together[:5], strict=True):
            assert torch.equal(a, b)
    decode(raw, GRID(SHAPE, "cpu"), SHAPE, dataclasses.replace(SETTINGS, thresholds=each))
    assert 3 in filled


def test_a_score_of_the_very_threshold_is_enough() -> None:
    raw = outputs(2)
    logits = torch.cat([level.flatten() for level in raw.logits])
    score = float(logits.sigmoid().sort().values[-50])
    for thresholds in (score, torch.full((4,), score)):
        settings = dataclasses.replace(SETTINGS, thresholds=thresholds, nms_iou=1.0)
        assert float(decode(raw, GRID(SHAPE, "cpu"), SHAPE, settings).scores_M.min()) == score


def test_bfloat16_outputs() -> None:
    raw = outputs(4)
    half = Outputs(*([level.bfloat16() for level in part] for part in raw))
    back = Outputs(*([level.float() for level in part] for part in half))
    found, expected = (decode(o, GRID(SHAPE, "cpu"), SHAPE, SETTINGS) for o in (half, back))
    assert found.boxes_M4.dtype == found.scores_M.dtype == torch.float32
    for a, b in zip(found[:5], expected[:5], strict=True):
        assert torch.equal(a, b)


def test_calls_of_suppression_hold_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from geo_retina.nn import suppression as module

    assert module._calls([5, 0, 7], "cpu") == [5, 0, 7]
    monkeypatch.setattr(module, "_BOXES_PER_CALL", 10)
    assert module._calls([5, 5, 1, 20, 3, 4], "cuda") == [10, 1, 20, 7]


def test_one_call_for_the_batch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from geo_retina.nn import suppression as module

    raw = outputs(5)
    apart = decode(raw, GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    monkeypatch.setattr(module, "_calls", lambda sizes, device: [sum(sizes)])
    together = decode(raw, GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    for a, b in zip(apart[:5], together[:5], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "thresholds", [0.2, 0.999, torch.tensor([0.1, 0.2, 0.6, 0.9]), torch.tensor([0.3] * 4)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_boxes_that_are_not_wanted_change_nothing(
    thresholds: Tensor | float, dtype: torch.dtype
) -> None:
    settings = DecodeSettings(thresholds=thresholds, candidates=40, nms_iou=0.5, max_per_image=30)
    raw = outputs(3)
    raw = Outputs([x.to(dtype) for x in raw.logits], [x.to(dtype) for x in raw.deltas])
    wanted = boxes_wanted(raw.logits, settings)
    shares = [float(rows.float().mean()) for rows in wanted]
    assert max(shares) < 1
    garbled = [
        torch.where(rows[..., None], deltas, torch.full_like(deltas, 7.0))
        for rows, deltas in zip(wanted, raw.deltas, strict=True)
    ]
    expected, found = (
        decode(each, GRID(SHAPE, "cpu"), SHAPE, settings)
        for each in (raw, Outputs(raw.logits, garbled))
    )
    assert all(torch.equal(a, b) for a, b in zip(expected[:5], found[:5], strict=True))


def test_logits_that_are_no_number_are_wanted() -> None:
    settings = DecodeSettings(thresholds=0.5, candidates=4, nms_iou=0.5, max_per_image=3)
    rows = boxes_wanted([torch.tensor([[[-9.0], [float("nan")], [9.0]]])], settings)
    assert rows[0].tolist() == [[False, True, True]]


@pytest.mark.parametrize("threshold", [1e-8, 0.01, 0.5, 0.9999, 0.999998, 0.9999995, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_score_that_passes_has_its_box(threshold: float, dtype: torch.dtype) -> None:
    settings = DecodeSettings(thresholds=threshold, candidates=4, nms_iou=0.5, max_per_image=3)
    logits = torch.linspace(-25, 25, 400_001).to(dtype)
    passes = logits.float().sigmoid() >= threshold
    wanted = boxes_wanted([logits[None, :, None]], settings)[0][0]
    assert not (passes & ~wanted).any()
    assert 0.5 < float(passes.sum() / wanted.sum()) <= 1


# Oriented boxes


def oriented_outputs(seed: int, *, images: int = 3, mean: float = -2.0) -> Outputs:
    raw = outputs(seed, images=images, mean=mean)
    torch.manual_seed(seed)
    return Outputs(raw.logits, [torch.cat([d, torch.randn_like(d)], dim=2) for d in raw.deltas])


def slow_suppression(found: Decoded, iou: float) -> list[int]:
    """One box after the other, each against all that stay so far."""
    from geo_retina.nn.rotated_overlap import pair_iou

    assert found.rotated_M5 is not None
    kept: list[int] = []
    for i in range(len(found.scores_M)):
        same = [
            j
            for j in kept
            if found.image_M[i] == found.image_M[j] and found.labels_M[i] == found.labels_M[j]
        ]
        one = found.rotated_M5[i].expand(len(same), 5)
        if not (pair_iou(one, found.rotated_M5[same]) > iou).any():
            kept.append(i)
    return kept


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5])
def test_oriented_boxes_are_suppressed_by_oriented_iou(iou: float) -> None:
    raw, anchors = oriented_outputs(7, images=2, mean=-3), GRID(SHAPE, "cpu")
    everything = decode(raw, anchors, SHAPE, dataclasses.replace(SETTINGS, nms_iou=1.0))
    found = decode(raw, anchors, SHAPE, dataclasses.replace(SETTINGS, nms_iou=iou))
    kept = slow_suppression(everything, iou)
    assert 5 < len(kept) < len(everything.scores_M)
    assert everything.rotated_M5 is not None
    assert found.rotated_M5 is not None
    assert torch.equal(found.rotated_M5, everything.rotated_M5[kept])
    for a, b in zip(found[:4], everything[:4], strict=True):
        assert torch.equal(a, b[kept])


def test_pairs_are_found_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from geo_retina.nn import suppression as module

    raw, anchors = oriented_outputs(8, mean=-3), GRID(SHAPE, "cpu")
    whole = decode(raw, anchors, SHAPE, SETTINGS)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 99)
    parts = decode(raw, anchors, SHAPE, SETTINGS)
    assert whole.rotated_M5 is not None
    for a, b in zip(whole, parts, strict=True):
        assert (a is None) is (b is None)
        assert a is None or torch.equal(a, b)


def test_oriented_boxes_have_their_hulls_cut_to_the_image() -> None:
    from geo_retina.boxes import clip, oriented

    found = decode(oriented_outputs(9), GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    assert found.rotated_M5 is not None
    rotated = found.rotated_M5.double().numpy()
    wanted = clip(oriented.hull(rotated), (0, 0, SHAPE[1], SHAPE[0]))
    torch.testing.assert_close(found.boxes_M4.double(), torch.from_numpy(wanted), atol=1e-4, rtol=0)
    assert (oriented.normalise(rotated) == rotated).all()
    assert len(found.scores_M) > 20


def test_no_oriented_boxes() -> None:
    found = decode(oriented_outputs(0, mean=-50), GRID(SHAPE, "cpu"), SHAPE, SETTINGS)
    assert found.rotated_M5 is not None
    assert found.rotated_M5.shape == (0, 5)
    assert found.boxes_M4.shape == (0, 4)
