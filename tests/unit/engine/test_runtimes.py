"""What auto stands for, and which runtimes and precisions are refused."""

import dataclasses

import pytest
import torch
from support.stubs import StubPredictor, tiny_model

from geo_retina.engine import Place, resolve_runtime, runtimes
from geo_retina.errors import OptionError
from geo_retina.model.cards import ROUNDING
from geo_retina.nn.quantizing import Quantization
from geo_retina.options import DetectOptions

CPU, PLAIN = Place("cpu", "bf16", True, True), Place("cpu", "fp32", False, True)
ARM = Place("cpu", "fp32", True, False)
GPU = Place("cuda", "bf16", False, True)


def quantized(*, costs_little: bool = True, rounding: int = ROUNDING):
    card = tiny_model().card
    about = {"costs_little": costs_little, "rounding": rounding}
    card = dataclasses.replace(card, metrics={"quantization": about})
    return dataclasses.replace(tiny_model(), card=card, quantization=Quantization({}, {}))


def chosen(model, *places, **options):
    resolved = resolve_runtime(DetectOptions(**options), model, places)
    return resolved.runtime, resolved.precision


def test_auto_takes_integers_only_where_the_card_says_that_they_cost_little():
    assert chosen(quantized(), CPU) == ("openvino", "int8")
    assert chosen(quantized(), PLAIN) == ("torch", "fp32")
    for model in (tiny_model(), quantized(costs_little=False), quantized(rounding=1)):
        assert chosen(model, CPU) == ("torch", "bf16")
    assert chosen(quantized(), CPU, precision="fp32") == ("torch", "fp32")
    assert chosen(quantized(), CPU, runtime="torch") == ("torch", "bf16")
    assert chosen(quantized(), CPU, runtime="openvino") == ("openvino", "int8")
    assert chosen(tiny_model(), CPU, runtime="openvino") == ("openvino", "bf16")
    assert chosen(quantized(), GPU) == ("torch", "bf16")


def test_auto_takes_integers_only_where_they_are_known_to_be_exact():
    assert chosen(quantized(), ARM) == ("torch", "fp32")
    assert chosen(quantized(), CPU, ARM) == ("torch", "fp32")
    assert chosen(quantized(), ARM, runtime="openvino") == ("openvino", "fp32")
    assert chosen(quantized(), ARM, precision="int8") == ("openvino", "int8")  # and is tried


def test_workers_compute_what_all_of_them_can():
    assert chosen(quantized(), CPU, CPU) == ("openvino", "int8")
    assert chosen(quantized(), CPU, GPU) == ("torch", "bf16")
    assert chosen(quantized(), CPU, PLAIN) == ("torch", "fp32")
    assert chosen(tiny_model(), CPU, GPU) == ("torch", "bf16")
    assert chosen(tiny_model(), GPU, PLAIN) == ("torch", "fp32")


def test_integers_are_taken_where_they_are_asked_for():
    model = quantized(costs_little=False)
    assert chosen(model, precision="int8") == ("openvino", "int8")  # by workers not asked
    assert chosen(model, CPU, precision="int8") == ("openvino", "int8")
    for places in ([PLAIN], [CPU, PLAIN]):
        with pytest.raises(OptionError, match=r"not installed here.*geo-retina\[cpu\]"):
            chosen(model, *places, precision="int8")


@pytest.mark.parametrize(
    ("capability", "is_known"), [("AVX512", True), ("AVX2", True), ("DEFAULT", False)]
)
def test_this_machine_is_described_as_it_is(monkeypatch, capability, is_known):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for version in ("2026.4.1", None):
        monkeypatch.setattr(runtimes, "openvino_version", lambda version=version: version)
        precision = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
        assert runtimes.place_here("cpu") == Place("cpu", precision, version is not None, is_known)


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
def test_what_cannot_be_computed_is_refused(model, device, options, said):
    with pytest.raises(OptionError, match=said):
        chosen(model, device, **options)
