"""The arithmetic of training: bf16 where it is faster, which on a CPU only trying can tell."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import nn

from geo_retina.engine import choose_dtype

TrainingPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

_TRIES = 3


def choose_training_precision(precision: str, device: torch.device) -> TrainingPrecision:
    """Choose Lightning's name for a precision or ``auto`` on a device.

    Weights and their updates stay in single precision; only the passes through the network
    are in less.
    """
    dtype = choose_dtype(precision, device)
    if precision == "auto" and device.type == "cpu" and dtype is torch.bfloat16:
        dtype = torch.bfloat16 if _bf16_pays_on_cpu() else torch.float32
    names: dict[torch.dtype, TrainingPrecision] = {
        torch.float32: "32-true",
        torch.bfloat16: "bf16-mixed",
        torch.float16: "16-mixed",
    }
    return names[dtype]


def _bf16_pays_on_cpu() -> bool:
    """Try a convolution forwards and backwards both ways; takes a fraction of a second."""
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(96, 96, 3, padding=1, bias=False)
    images = torch.randn(4, 96, 64, 64, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    convolution = convolution.to(memory_format=torch.channels_last)
    return _seconds(convolution, images, bf16=True) < _seconds(convolution, images, bf16=False)


def _seconds(convolution: nn.Module, images: torch.Tensor, *, bf16: bool) -> float:
    """Measure the least time of a few passes, the first of which does not count."""
    times = []
    for _ in range(_TRIES + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = convolution(images).float().square().mean()
        loss.backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])
