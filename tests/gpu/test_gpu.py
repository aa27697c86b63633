"""What only a GPU can show; skipped, with the reason, where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.stubs import tiny_model

from geo_retina.engine import BlockPixels, Engine
from geo_retina.grid import Window, plan_tiles
from geo_retina.options import DetectOptions
from geo_retina.resampling import Rescaling, Scaling

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)


def block() -> BlockPixels:
    shape = (500, 700)
    plan = plan_tiles(shape, tile_px=256, overlap_px=64, stride_px=32, exact=True)
    pixels = np.random.default_rng(0).integers(0, 255, (3, *shape), np.uint8)
    return BlockPixels(pixels, np.ones(shape, bool), Window(0, 0, *shape), plan, list(plan))


def test_the_gpu_finds_what_the_cpu_finds():
    options = DetectOptions(score=0.0101, precision="fp32")
    cpu, gpu = (
        Engine(tiny_model(), options, device=device).detect([block()])[0].detections
        for device in ("cpu", "cuda")
    )
    assert len(cpu) > 0
    assert len(gpu) == pytest.approx(len(cpu), rel=0.02)
    order = [np.lexsort(d.boxes_px.round(1).T) for d in (cpu, gpu)]
    if len(cpu) == len(gpu):
        np.testing.assert_allclose(cpu.boxes_px[order[0]], gpu.boxes_px[order[1]], atol=0.1, rtol=0)


def test_half_precision_finds_much_the_same():
    options = DetectOptions(score=0.0101, precision="fp32")
    counts = [
        len(
            Engine(tiny_model(), dataclasses.replace(options, precision=precision), device="cuda")
            .detect([block()])[0]
            .detections
        )
        for precision in ("fp32", "bf16", "fp16")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.1)
    assert counts[2] == pytest.approx(counts[0], rel=0.1)


@pytest.mark.parametrize("grid", [(200, 140), (271, 191), (80, 55)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_the_gpu_resamples_to_the_bit(grid, dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (3, 100, 70)).astype(dtype)
    valid = rng.random((100, 70)) > 0.1
    window, part = Window(0, 0, *grid), Window(0, 0, 100, 70)
    how = Rescaling(Scaling((100, 70), grid), window, part, valid, dtype)
    found = how.on_device(torch.from_numpy(pixels).cuda()).cpu().numpy()
    np.testing.assert_array_equal(found, how.on_host(pixels))
