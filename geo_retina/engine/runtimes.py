"""Which runtime computes a model's network, and in which precision."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from geo_retina.engine.devices import choose_device, choose_dtype
from geo_retina.engine.openvino_graphs import has_integers, openvino_version, operators
from geo_retina.engine.openvino_predictor import OpenVinoPredictor
from geo_retina.engine.torch_predictor import TorchPredictor
from geo_retina.errors import OptionError
from geo_retina.model import MakePredictor, Model
from geo_retina.options import DetectOptions

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_MISSING = (
    "DetectOptions.runtime is openvino, which is not installed here; install it with "
    'pip install "geo-retina[cpu]", or write DetectOptions.runtime="torch"'
)


def predictor_of(model: Model, options: DetectOptions) -> MakePredictor:
    """Choose what makes the predictor of a model, by options whose runtime is resolved."""
    if model.predictor is not None:
        return model.predictor
    return OpenVinoPredictor if options.runtime == "openvino" else TorchPredictor


@dataclass(frozen=True)
class Place:
    """Where a network is computed, as far as the choice of its arithmetic goes.

    Attributes:
        device: kind of device, such as cpu.
        precision: of floating point there, which auto stands for.
        has_openvino: whether OpenVINO is installed there.
        has_integers: whether the processor is known to compute integers exactly and fast.
    """

    device: str
    precision: str
    has_openvino: bool
    has_integers: bool


def place_here(device: str) -> Place:
    """Describe a device of this machine.

    Raises:
        OptionError: there is no such device here.
    """
    found = choose_device(device)
    precision = _NAMES[choose_dtype("auto", found)]
    return Place(found.type, precision, has_openvino(), has_integers())


def resolve_runtime(
    options: DetectOptions, model: Model, places: Collection[Place]
) -> DetectOptions:
    """Replace auto by the runtime and precision that a model is computed with.

    Integers are chosen of themselves only where the card says that they cost little.

    Args:
        options: as they were given.
        model: what is computed.
        places: all where it is computed; may be empty where a precision is given.

    Raises:
        OptionError: the choice cannot be computed there.
    """
    if model.predictor is not None:
        if options.runtime != "auto":
            raise OptionError(
                f"DetectOptions.runtime is {options.runtime}, but model {model.card.name} is "
                "computed by a predictor of its own; leave it at auto"
            )
        return options
    runtime, precision = options.runtime, options.precision
    are_good = model.is_quantized_well and all(place.has_integers for place in places)
    if runtime == "auto":
        integers = _wants_integers(options, places, are_good=are_good)
        runtime = "openvino" if integers else "torch"
    if runtime == "openvino" and precision == "auto" and are_good:
        precision = "int8"
    if precision == "auto":
        shared = {place.precision for place in places}
        precision = shared.pop() if len(shared) == 1 else "fp32"  # type: ignore[assignment]
    resolved = replace(options, runtime=runtime, precision=precision)
    _check(resolved, model, places)
    return resolved


def name_operators(options: DetectOptions) -> str | None:
    """Name what computes where results depend on its version; None where PyTorch does."""
    return operators() if options.runtime == "openvino" else None


def has_openvino() -> bool:
    """Check whether OpenVINO is installed here."""
    return openvino_version() is not None


def check_runtime(options: DetectOptions) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        OptionError: it is not.
    """
    if options.runtime == "openvino" and not has_openvino():
        raise OptionError(_MISSING)


def _wants_integers(options: DetectOptions, places: Collection[Place], *, are_good: bool) -> bool:
    if options.precision != "auto":
        return options.precision == "int8"
    everywhere = all(place.device == "cpu" and place.has_openvino for place in places)
    return bool(places) and everywhere and are_good


def _check(options: DetectOptions, model: Model, places: Collection[Place]) -> None:
    runtime, precision = options.runtime, options.precision
    if runtime == "torch":
        if precision == "int8":
            raise OptionError(
                "DetectOptions.precision is int8, which PyTorch does not compute here; write "
                'DetectOptions.runtime="openvino"'
            )
        return
    for place in places:
        if place.device != "cpu":
            raise OptionError(
                f"runtime {runtime} in {precision} computes on a CPU only, but the device is "
                f'{place.device}; write RunOptions.device="cpu", or another precision'
            )
    if precision == "fp16":
        raise OptionError(
            "DetectOptions.precision is fp16, which OpenVINO does not compute on a CPU; write "
            "auto, fp32, bf16 or int8"
        )
    if precision == "int8" and model.quantization is None:
        raise OptionError(
            f"DetectOptions.precision is int8, but model {model.card.name} has no quantization; "
            "make a file that has one with geo-retina quantize"
        )
    if not all(place.has_openvino for place in places):
        raise OptionError(_MISSING)
