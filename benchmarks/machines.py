"""What a benchmark was measured on; PyTorch is imported for a GPU alone, as memory counts."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path
from typing import Any


def machine(device: str = "cpu") -> dict[str, Any]:
    """Record when and on what a result was measured."""
    return {
        "date": date.today().isoformat(),
        "hardware": hardware(device),
        "cores": os.cpu_count(),
    }


def hardware(device: str) -> str:
    """Name the processor or the GPU that computes, as it calls itself."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    for line in cpus.read_text("utf-8").splitlines() if cpus.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
