"""Which runtime computes a model's network, and in which precision."""

from __future__ import annotations

from dataclasses import replace

import torch

from geo_retina.engine.devices import choose_dtype
from geo_retina.engine.openvino_graphs import openvino_version, operators
from geo_retina.engine.openvino_predictor import OpenVinoPredictor
from geo_retina.engine.torch_predictor import TorchPredictor
from geo_retina.errors import OptionError
from geo_retina.model import MakePredictor, Model
from geo_retina.options import DetectOptions

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def predictor_of(model: Model, options: DetectOptions) -> MakePredictor:
    """Choose what makes the predictor of a model, by options whose runtime is resolved."""
    if model.predictor is not None:
        return model.predictor
    return OpenVinoPredictor if options.runtime == "openvino" else TorchPredictor


def resolve_runtime(
    options: DetectOptions, model: Model, device: torch.device | None
) -> DetectOptions:
    """Replace auto by the runtime and precision that a model is computed with.

    Integers are chosen of themselves only where the card says that they cost little.

    Args:
        options: as they were given.
        model: what is computed.
        device: where; None for workers elsewhere, which choose their precision by themselves.

    Raises:
        OptionError: the choice cannot be computed here.
    """
    if model.predictor is not None:
        if options.runtime != "auto":
            raise OptionError(
                f"DetectOptions.runtime is {options.runtime}, but model {model.card.name} is "
                "computed by a predictor of its own; leave it at auto"
            )
        return options
    runtime, precision = options.runtime, options.precision
    if runtime == "auto":
        runtime = "openvino" if _wants_integers(options, model, device) else "torch"
    if runtime == "openvino" and precision == "auto" and model.is_quantized_well:
        precision = "int8"
    if precision == "auto" and device is not None:
        precision = _NAMES[choose_dtype(precision, device)]  # type: ignore[assignment]
    resolved = replace(options, runtime=runtime, precision=precision)
    _check(resolved, model, device)
    return resolved


def name_operators(options: DetectOptions) -> str | None:
    """Name what computes where results depend on its version; None where PyTorch does."""
    return operators() if options.runtime == "openvino" else None


def check_runtime(options: DetectOptions) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        OptionError: it is not.
    """
    if options.runtime == "openvino" and openvino_version() is None:
        raise OptionError(
            "DetectOptions.runtime is openvino, which is not installed here; install it with "
            'pip install "geo-retina[cpu]", or write DetectOptions.runtime="torch"'
        )


def _wants_integers(options: DetectOptions, model: Model, device: torch.device | None) -> bool:
    if options.precision == "int8":
        return True
    here = device is not None and device.type == "cpu" and openvino_version() is not None
    return here and options.precision == "auto" and model.is_quantized_well


def _check(options: DetectOptions, model: Model, device: torch.device | None) -> None:
    runtime, precision = options.runtime, options.precision
    if runtime == "torch":
        if precision == "int8":
            raise OptionError(
                "DetectOptions.precision is int8, which PyTorch does not compute here; write "
                'DetectOptions.runtime="openvino"'
            )
        return
    if device is not None and device.type != "cpu":
        raise OptionError(
            f"runtime {runtime} in {precision} computes on a CPU only, but the device is "
            f'{device}; write RunOptions.device="cpu", or another precision'
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
    if device is not None:
        check_runtime(options)
