"""What auto stands for, and which runtimes and precisions are refused."""

import dataclasses

import pytest
import torch
from support.stubs import StubPredictor, tiny_model

from geo_retina.engine import resolve_runtime, runtimes
from geo_retina.errors import OptionError
from geo_retina.nn.quantizing import Quantization
from geo_retina.options import DetectOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def quantized(*, costs_little: bool = True):
    card = tiny_model().card
    card = dataclasses.replace(card, metrics={"quantization": {"costs_little": costs_little}})
    return dataclasses.replace(tiny_model(), card=card, quantization=Quantization({}, {}))


@pytest.fixture(params=["2026.4.1", None])
def version(request, monkeypatch):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: request.param)
    return request.param


def chosen(model, device=CPU, **options):
    resolved = resolve_runtime(DetectOptions(**options), model, device)
    return resolved.runtime, resolved.precision


def test_auto_takes_integers_only_where_the_card_says_that_they_cost_little(version):
    wanted = ("openvino", "int8") if version else ("torch", runtimes._NAMES[_dtype()])
    assert chosen(quantized()) == wanted
    for model in (tiny_model(), quantized(costs_little=False)):
        assert chosen(model) == ("torch", runtimes._NAMES[_dtype()])
    assert chosen(quantized(), precision="fp32") == ("torch", "fp32")
    assert chosen(quantized(), runtime="torch")[0] == "torch"
    assert chosen(quantized(), GPU, precision="bf16") == ("torch", "bf16")
    assert chosen(quantized(), None) == ("torch", "auto")


def test_integers_are_taken_where_they_are_asked_for(version):
    model = quantized(costs_little=False)
    assert chosen(model, None, precision="int8") == ("openvino", "int8")
    if version is None:
        with pytest.raises(OptionError, match=r"not installed here.*geo-retina\[cpu\]"):
            chosen(model, precision="int8")
    else:
        assert chosen(model, precision="int8") == ("openvino", "int8")


@pytest.mark.parametrize(
    ("model", "device", "options", "said"),
    [
        (tiny_model(), CPU, {"precision": "int8"}, "no quantization; make .* geo-retina quantize"),
        (quantized(), CPU, {"runtime": "torch", "precision": "int8"}, "PyTorch does not compute"),
        (quantized(), GPU, {"precision": "int8"}, "on a CPU only"),
        (quantized(), GPU, {"runtime": "openvino", "precision": "bf16"}, "on a CPU only"),
        (quantized(), CPU, {"runtime": "openvino", "precision": "fp16"}, "fp16"),
        (
            dataclasses.replace(tiny_model(), predictor=StubPredictor),
            CPU,
            {"runtime": "openvino"},
            "a predictor of its own",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(monkeypatch, model, device, options, said):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: "2026.4.1")
    with pytest.raises(OptionError, match=said):
        resolve_runtime(DetectOptions(**options), model, device)


def _dtype():
    from geo_retina.engine import choose_dtype

    return choose_dtype("auto", CPU)
