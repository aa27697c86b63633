"""The network as ONNX: the same numbers in ONNX Runtime, and objects by the documented way."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.stubs import tiny_model
from torchvision.ops import batched_nms

from geo_retina.errors import OptionError, OutputError
from geo_retina.export import export_onnx
from geo_retina.nn.decoding import DecodeSettings, decode
from geo_retina.nn.rotated_coding import decode_rotated

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIDE = 64


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tiny_model()
    # Random weights find nothing; a bias that wavers makes some anchors objects.
    with torch.no_grad():
        model.network.class_subnet.output.weight.mul_(30)
    path = export_onnx(model, tmp_path_factory.mktemp("onnx") / "tiny.onnx", tile_px=SIDE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return model, session


def test_it_is_valid_and_describes_itself(exported):
    model, session = exported
    [images] = session.get_inputs()
    assert images.name == "images"
    assert images.shape[1:] == [3, SIDE, SIDE]
    assert isinstance(images.shape[0], str)  # a batch of any size
    assert [o.name for o in session.get_outputs()] == ["scores", "boxes"]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["card"])["classes"] == list(model.card.classes)
    assert about["tile_px"] == str(SIDE)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_numbers_as_pytorch(exported, batch):
    model, session = exported
    images = torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))
    scores, boxes = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        outputs = model.network(images)
    want = torch.cat(list(outputs.logits), dim=1).sigmoid()
    np.testing.assert_allclose(scores, want, atol=1e-4)
    anchors = torch.cat(model.network.anchors((SIDE, SIDE), "cpu")).numpy()
    deltas = torch.cat(list(outputs.deltas), dim=1).numpy()
    side = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, 2:] + anchors[:, :2]) / 2 + deltas[..., :2] * side
    half = np.exp(deltas[..., 2:]) * side / 2
    np.testing.assert_allclose(boxes, np.concatenate([centre - half, centre + half], -1), atol=1e-2)


def test_objects_by_the_documented_way_are_those_of_detect(exported):
    """Threshold, clip, suppress: what docs/onnx.md says to do with the outputs."""
    model, session = exported
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    scores, boxes = (torch.from_numpy(v)[0] for v in session.run(None, {"images": images.numpy()}))
    threshold = float(scores.quantile(0.9))
    anchor, label = (scores >= threshold).nonzero(as_tuple=True)
    found, score = boxes[anchor].clamp(0, SIDE), scores[anchor, label]
    keep = batched_nms(found, score, label, 0.5)
    with torch.no_grad():
        outputs = model.network(images)
    settings = DecodeSettings(
        thresholds=torch.full((2,), threshold),
        candidates=100_000,
        nms_iou=0.5,
        max_per_image=100_000,
    )
    want = decode(outputs, model.network.anchors((SIDE, SIDE), "cpu"), (SIDE, SIDE), settings)
    assert len(keep) > 20
    assert abs(len(keep) - len(want.scores_M)) <= 1  # a score at the threshold itself
    common = min(len(keep), len(want.scores_M)) - 1
    np.testing.assert_allclose(score[keep][:common], want.scores_M[:common], atol=1e-4)
    np.testing.assert_allclose(found[keep][:common], want.boxes_M4[:common], atol=1e-2)


def test_what_cannot_be_exported(tmp_path):
    model = tiny_model()
    with pytest.raises(OptionError, match="tile_px is 100, expected a multiple of 32"):
        export_onnx(model, tmp_path / "a.onnx", tile_px=100)
    with pytest.raises(OutputError, match=r"expected \.onnx"):
        export_onnx(model, tmp_path / "a.pt")
    (tmp_path / "a.onnx").write_text("precious")
    with pytest.raises(OutputError, match="give overwrite=True"):
        export_onnx(model, tmp_path / "a.onnx")
    with pytest.raises(OutputError, match=r"missing of a\.onnx does not exist"):
        export_onnx(model, tmp_path / "missing" / "a.onnx")


def test_oriented_boxes_are_those_of_pytorch(tmp_path):
    network = dataclasses.replace(tiny_model().card.network, boxes="oriented")
    model = tiny_model(network=network)
    with torch.no_grad():
        model.network.box_subnet.output.weight.mul_(30)
    path = export_onnx(model, tmp_path / "oriented.onnx", tile_px=SIDE)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    _, boxes = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        outputs = model.network(images)
    anchors = torch.cat(model.network.anchors((SIDE, SIDE), "cpu"))
    want = decode_rotated(anchors, torch.cat(list(outputs.deltas), dim=1))
    assert boxes.shape == want.shape
    np.testing.assert_allclose(boxes[..., :4], want[..., :4], atol=1e-2)
    apart = (boxes[..., 4] - want[..., 4].numpy() + 90) % 180 - 90
    assert np.quantile(abs(apart), 0.99) < 0.05  # where phases disagree, rounding decides
