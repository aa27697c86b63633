"""OpenVINO computes what PyTorch does, in floating point and in integers, wherever boxes are."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from support.stubs import TINY_NETWORK, tiny_model

from geo_retina.engine import TorchPredictor, has_openvino
from geo_retina.engine.openvino_graphs import cache_folder
from geo_retina.engine.openvino_predictor import OpenVinoPredictor
from geo_retina.model import load_model
from geo_retina.nn.decoding import decode
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.predictor import Numbers
from geo_retina.nn.quantizing import measure, quantize
from geo_retina.options import DetectOptions

if not has_openvino():
    pytest.skip("needs the extra cpu", allow_module_level=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return cache_folder()


@pytest.fixture(scope="module")
def tiles():
    return torch.randn(2, 3, 64, 192, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["upright", "oriented"])
def model(request, tiles):
    model = tiny_model(network=dataclasses.replace(TINY_NETWORK, boxes=request.param))
    quantization = measure(fold_batch_norms(model.network).eval(), [tiles])
    return dataclasses.replace(model, quantization=quantization)


def made(model, precision, *, make=OpenVinoPredictor, **changes):
    options = DetectOptions(
        **{"score": 0.0, "runtime": "openvino", "precision": precision, **changes}
    )
    return make(model, options, device="cpu", batch=None)


def test_openvino_is_imported_without_its_telemetry():
    """Which would tell a server of it from a forked process, that may hang."""
    code = (
        "import sys; from geo_retina.engine import has_openvino; assert has_openvino();"
        "from openvino.tools.ovc import telemetry; print(type(telemetry).__module__);"
        "print('openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


@pytest.mark.parametrize("tta", [1, 2])
def test_floating_point_gives_pytorchs_boxes(model, tiles, tta):
    wanted = made(model, "fp32", make=TorchPredictor, tta=tta).predict(tiles)
    found = made(model, "fp32", tta=tta).predict(tiles)
    assert len(found.scores_M) == pytest.approx(len(wanted.scores_M), rel=0.02)
    assert (found.rotated_M5 is None) == (wanted.rotated_M5 is None)
    best, other = (
        (each.boxes_M4 if each.rotated_M5 is None else each.rotated_M5)[each.scores_M.argmax()]
        for each in (found, wanted)
    )
    torch.testing.assert_close(best, other, atol=0.01, rtol=1e-3)
    torch.testing.assert_close(
        found.scores_M.sort().values[-20:], wanted.scores_M.sort().values[-20:]
    )


def test_boxes_around_candidates_are_those_of_the_whole_tile(model, tiles):
    scores = made(model, "int8").predict(tiles).scores_M
    predictor = made(model, "int8", score=float(scores.sort().values[-12]))
    some, every = predictor.predict(tiles), predictor.predict(tiles, all_boxes=True)
    assert len(some.scores_M) >= 3
    for one, other in zip(some, every, strict=True):
        torch.testing.assert_close(one, other)


def test_every_convolution_is_computed_in_integers(model, tiles):
    predictor = made(model, "int8")
    noise = torch.zeros(1, 3, 64, 192, dtype=torch.uint8)
    predictor.predict_numbers(Numbers(noise, torch.ones(1, 1, 64, 192, dtype=torch.bool)))
    predictor.predict(tiles[:1], all_boxes=True)
    graphs = predictor._graphs._graphs
    assert len(graphs) >= 3
    kinds = [
        operation.get_rt_info()["primitiveType"].astype(str)
        for graph in graphs.values()
        for operation in graph._compiled.get_runtime_model().get_ops()
        if "Convolution" in operation.get_rt_info()["layerType"].astype(str)
    ]
    assert len(kinds) > 10
    assert all(kind.lower().endswith(("i8", "u8")) for kind in kinds)


def test_values_far_outside_the_measured_ranges_are_marked(model, tiles):
    predictor = made(model, "int8")
    strange = torch.cat([tiles[:1], 8 * tiles[1:]])
    assert predictor.predict(tiles).out_of_range_N.tolist() == [False, False]
    assert predictor.predict(strange).out_of_range_N.tolist() == [False, True]
    assert made(model, "int8", tta=2).predict(strange).out_of_range_N.tolist() == [False, True]
    assert made(model, "fp32").predict(strange).out_of_range_N is None


def test_a_tile_alone_gives_what_it_gives_in_a_batch(model, tiles):
    predictor = made(model, "int8")
    together = predictor.predict(tiles)
    assert len(together.scores_M)
    for i, tile in enumerate(tiles):
        alone = predictor.predict(tile[None])
        assert torch.equal(alone.scores_M, together.scores_M[together.image_M == i])
        assert torch.equal(alone.boxes_M4, together.boxes_M4[together.image_M == i])


def test_a_tile_as_its_file_has_it_gives_what_a_normalised_one_does(model):
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (2, 3, 64, 192), dtype=torch.uint8, generator=generator)
    shown = torch.rand(2, 1, 64, 192, generator=generator) > 0.2
    radiometry = model.card.radiometry
    offset, scale = (
        torch.tensor(each).view(-1, 1, 1) for each in (radiometry.offset, radiometry.scale)
    )
    predictor = made(model, "int8")
    assert predictor.takes_numbers
    assert not made(model, "int8", tta=2).takes_numbers
    assert not made(model, "fp32").takes_numbers
    found = predictor.predict_numbers(Numbers(pixels, shown))
    wanted = predictor.predict(((pixels - offset) / scale).masked_fill(~shown, 0.0))
    assert len(found.scores_M) == pytest.approx(len(wanted.scores_M), rel=0.02)
    torch.testing.assert_close(
        found.scores_M.sort().values[-20:], wanted.scores_M.sort().values[-20:], atol=5e-3, rtol=0
    )
    assert found.out_of_range_N.tolist() == wanted.out_of_range_N.tolist()


def test_kept_graphs_give_the_same_and_damaged_ones_are_made_anew(model, tiles, cache):
    first = made(model, "int8").predict(tiles)
    kept = sorted(cache.glob("*.graph"))
    assert kept
    times = {path: path.stat().st_mtime_ns for path in kept}
    second = made(model, "int8").predict(tiles)
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1])
    third = made(model, "int8").predict(tiles)
    assert all(path.stat().st_mtime_ns != times[path] for path in kept)
    for again in (second, third):
        assert len(first.scores_M)
        for one, other in zip(first, again, strict=True):
            assert (one is other is None) or torch.equal(one, other)


def test_integers_of_a_trained_model_are_those_of_pytorchs_rounding():
    model = load_model("demo")
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(2)).cumsum(3) / 4
    folded = fold_batch_norms(model.network).eval()
    quantization = measure(folded, [image])
    predictor = made(dataclasses.replace(model, quantization=quantization), "int8", score=0.05)
    found = predictor.predict(image)
    with torch.inference_mode():
        outputs = quantize(folded, quantization)(image)
    settings = predictor._limits.for_shape((128, 128))
    wanted = decode(outputs, model.network.anchors((128, 128), "cpu"), (128, 128), settings)
    assert len(wanted.scores_M) >= 5
    assert abs(len(found.scores_M) - len(wanted.scores_M)) <= 0.2 * len(wanted.scores_M)
    top = wanted.scores_M[:3], found.scores_M[:3]
    torch.testing.assert_close(*top, atol=0.05, rtol=0.05)
