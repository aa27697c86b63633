"""Which device computes, and in which arithmetic."""

from __future__ import annotations

import os
import platform

import torch

from geo_retina.errors import OptionError

BATCH_PX = {"cpu": 1 << 20, "mps": 1 << 22, "cuda": 1 << 23}
"""Pixels in a batch, per kind of device, where no batch is asked for; a GPU and a CPU
may have two batches at once."""


def choose_device(name: str) -> torch.device:
    """Choose the device that a name or ``auto`` stands for.

    Raises:
        OptionError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device: torch.device | None = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in BATCH_PX:
        raise OptionError(f"device {name} is not known, expected auto, cpu, cuda or mps")
    if not _is_present(device):
        raise OptionError(
            f'device {name} is not present on this machine; try RunOptions.device="auto"'
        )
    return device


def list_devices(name: str) -> tuple[str, ...]:
    """List the devices that a run uses: every GPU for ``auto`` and ``cuda``, else the one named.

    Raises:
        OptionError: there is no such device here.
    """
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return (str(device),)


def describe_devices() -> list[dict[str, str]]:
    """Name the devices of this machine and say what they are, the one of ``auto`` first."""
    cpu = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    devices = [{"name": "cpu", "description": cpu}]
    if torch.backends.mps.is_available():
        devices.insert(0, {"name": "mps", "description": "Apple GPU"})
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        text = f"{found.name}, {found.total_memory / 1e9:.0f} GB"
        devices.insert(index, {"name": f"cuda:{index}", "description": text})
    return devices


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose the arithmetic that a precision or ``auto`` stands for on a device."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and has_bf16()
    return torch.bfloat16 if fast else torch.float32


def has_bf16() -> bool:
    """Check whether this processor computes in bf16 itself, as emulated it is slower than fp32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
