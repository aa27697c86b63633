"""The fast path against a slow one: float32, image by image, with torchvision's own decoding."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.stubs import tiny_model
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import box_iou

from geo_retina.engine import BlockPixels, Engine
from geo_retina.grid import Tile, Window, plan_tiles
from geo_retina.model import Model, load_model
from geo_retina.options import DetectOptions, SynthOptions

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
    pytest.param(
        "mps",
        marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device"),
    ),
]

Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Boxes in grid pixels, scores, labels."""


@pytest.fixture(scope="module", params=["random", "demo"])
def case(request, tmp_path_factory) -> tuple[Model, BlockPixels, float]:
    """A model, a block of nine tiles that the grid's edges cut, and a score threshold."""
    if request.param == "demo":
        from geo_retina.scene import open_scene
        from geo_retina.synth import draw_scene

        path = tmp_path_factory.mktemp("drawn") / "scene.tif"
        draw_scene(path, SynthOptions(height=420, width=500, nodata_corner=False, seed=5))
        pixels, valid = open_scene(path).read(Window(0, 0, 420, 500))
        model, score = load_model("demo"), 0.3
    else:
        pixels = np.random.default_rng(3).integers(0, 255, (3, 420, 500), np.uint8)
        valid, model, score = np.ones((420, 500), bool), tiny_model(), 0.005
    # torchvision pads by a constant; mirrored ground has tests of its own.
    model = replace(model, card=replace(model.card, padding="constant"))
    plan = plan_tiles((420, 500), tile_px=224, overlap_px=64, stride_px=32, exact=True)
    block = BlockPixels(pixels, valid, Window(0, 0, 420, 500), plan, list(plan))
    return model, block, score


def slow(model: Model, block: BlockPixels, tile: Tile, options: DetectOptions) -> Found:
    """One tile, as torchvision's RetinaNet would go on from the network's outputs."""
    row, col, height, width = tile.window
    offset, scale = (
        torch.tensor(v).view(-1, 1, 1)
        for v in (model.card.radiometry.offset, model.card.radiometry.scale)
    )
    side = block.plan.tile_px
    image = torch.zeros(1, 3, side, side)
    pixels = torch.from_numpy(block.pixels[:, row : row + height, col : col + width])
    image[0, :, :height, :width] = (pixels.float() - offset) / scale
    with torch.inference_mode():
        outputs = model.network.eval()(image)
        [found] = RetinaNet.postprocess_detections(
            SimpleNamespace(
                box_coder=BoxCoder((1.0, 1.0, 1.0, 1.0)),
                score_thresh=options.score,
                topk_candidates=options.candidates,
                nms_thresh=options.nms_iou,
                detections_per_img=options.max_per_tile,
            ),
            {"cls_logits": list(outputs.logits), "bbox_regression": list(outputs.deltas)},
            [model.network.anchors((side, side), "cpu")],
            [(side, side)],
        )
    # As the engine: of what reaches beyond the grid, the part inside counts.
    limit = torch.tensor([width, height, width, height])
    boxes = found["boxes"].clamp(min=0).minimum(limit)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    centre = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2
    inside &= ((centre < limit[:2]) | (limit[:2] == side)).all(dim=1)  # not on padding
    shift = torch.tensor([col, row, col, row])
    return boxes[inside] + shift, found["scores"][inside], found["labels"][inside]


def unmatched(found: Found, others: Found, *, least: float, iou: float, apart: float) -> float:
    """Share of the boxes from a score on without one like them among the others."""
    sure = found[1] >= least
    if not sure.any():
        return 0.0
    if not len(others[0]):
        return 1.0
    alike = box_iou(found[0][sure].double(), others[0].double()) >= iou
    alike &= (found[1][sure, None] - others[1]).abs() <= apart
    alike &= found[2][sure, None] == others[2]
    return 1 - float(alike.any(dim=1).double().mean())


def fast(model: Model, block: BlockPixels, options: DetectOptions, device: str) -> list[Found]:
    detections = Engine(model, options, device=device, batch=4).detect([block])[0].detections
    columns = (
        torch.from_numpy(np.asarray(c))
        for c in (detections.boxes_px, detections.scores, detections.labels.astype(np.int64))
    )
    boxes, scores, labels = columns
    tile = torch.from_numpy(np.asarray(detections.tile))
    return [
        (boxes[tile == t], scores[tile == t], labels[tile == t]) for t in range(len(block.plan))
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_float32_equals_the_slow_path(case, device):
    model, block, score = case
    options = DetectOptions(
        score=score, precision="fp32", nms_iou=0.5, candidates=100_000, max_per_tile=100_000
    )
    found = fast(model, block, options, device)
    total = 0
    for tile in block.tiles:
        expected = slow(model, block, tile, options)
        total += len(expected[0])
        # What lies at the very threshold, or at that of suppression, may fall to either side.
        how = {"least": score + 1e-4, "iou": 0.99, "apart": 1e-4}
        assert unmatched(expected, found[tile.index], **how) <= 0.01
        assert unmatched(found[tile.index], expected, **how) <= 0.01
        assert len(found[tile.index][0]) == pytest.approx(len(expected[0]), abs=2)
    assert total > 100


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_finds_what_the_slow_path_is_sure_of(case, device):
    model, block, score = case
    if score < 0.1 or device == "mps":
        pytest.skip("random scores are all alike, so that rounding decides; or no bf16 there")
    options = DetectOptions(score=score, precision="bf16", nms_iou=0.5)
    found = fast(model, block, options, device)
    lost = []
    for tile in block.tiles:
        expected = slow(model, block, tile, options)
        how = {"least": score + 0.1, "iou": 0.8, "apart": 0.1}
        lost += [unmatched(expected, found[tile.index], **how)]
        lost += [unmatched(found[tile.index], expected, **how)]
    assert np.mean(lost) <= 0.01
