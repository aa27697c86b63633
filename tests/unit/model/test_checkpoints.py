"""Checkpoints of torchvision and DeepForest: the same logits, and no code of a file is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.networks import shaken
from torchvision.models.detection import (
    RetinaNet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from geo_retina.cli import main
from geo_retina.errors import ModelError, OptionError
from geo_retina.model import import_checkpoint, load_model
from geo_retina.options import ImportOptions


def resnet18(classes: int = 2) -> RetinaNet:
    """torchvision's RetinaNet on its smallest ResNet: the same parts, a tenth of the time."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return RetinaNet(backbone, num_classes=classes)


def raw_outputs(theirs: Any, ours: Any) -> tuple[dict[str, torch.Tensor], Any]:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return theirs.head(list(theirs.backbone(image).values())), ours(image)


def assert_equal_outputs(theirs: Any, ours: Any) -> None:
    expected, found = raw_outputs(theirs, ours)
    for name, part in (("cls_logits", found.logits), ("bbox_regression", found.deltas)):
        size = float(expected[name].abs().max())
        assert size > 0.1
        torch.testing.assert_close(torch.cat(part, 1), expected[name], rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize(
    ("builder", "norm", "extra"),
    [(retinanet_resnet50_fpn, "none", "p5"), (retinanet_resnet50_fpn_v2, "group", "c5")],
)
def test_both_versions_give_torchvisions_logits(
    builder: Any, norm: str, extra: str, tmp_path: Path
) -> None:
    theirs = shaken(builder(weights=None, weights_backbone=None, num_classes=3))
    path = tmp_path / "m.pth"
    torch.save(theirs.state_dict(), path)
    model = import_checkpoint(path, ImportOptions(gsd_m=0.5, classes=("a", "b", "c")))
    network = model.card.network
    assert (network.backbone, network.norm, network.extra_levels_from) == ("resnet50", norm, extra)
    assert_equal_outputs(theirs, model.network)
    assert model.card.gsd_m == 0.5
    loaded = load_model(model.save(tmp_path / "m.safetensors", half=False))
    assert loaded.card == model.card
    assert_equal_outputs(theirs, loaded.network)


class Unknown:
    """In place of what a training program keeps beside its weights."""

    def __init__(self) -> None:
        self.values = [1, 2]


def deepforest(theirs: RetinaNet, **more: Any) -> dict[str, Any]:
    """As DeepForest's Lightning module saves it."""
    state = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state["iou_metric.total"] = torch.zeros(1)
    return {"epoch": 3, "state_dict": state, "label_dict": {"Bird": 1, "Tree": 0}, **more}


def test_deepforest_works_at_twice_its_resolution(tmp_path: Path) -> None:
    theirs = shaken(resnet18())
    path = tmp_path / "tree.ckpt"
    torch.save(deepforest(theirs, hyper_parameters={"config": Unknown()}), path)
    model = import_checkpoint(path, ImportOptions(gsd_m=0.1))
    assert model.card.gsd_m == pytest.approx(0.05)
    assert model.card.classes == ("Tree", "Bird")
    assert model.card.network.backbone == "resnet18"
    assert_equal_outputs(theirs, model.network)
    other = import_checkpoint(path, ImportOptions(gsd_m=0.1, patch_px=800))
    assert other.card.gsd_m == pytest.approx(0.1)


def test_safetensors_and_torchvisions_normalisation(tmp_path: Path) -> None:
    theirs = shaken(resnet18(1))
    path = tmp_path / "m.safetensors"
    save_file({f"model.{k}": v for k, v in theirs.state_dict().items()}, path)
    model = import_checkpoint(path, ImportOptions(gsd_m=0.1, classes=("Tree",)))
    assert_equal_outputs(theirs, model.network)
    pixel = torch.tensor([10.0, 100.0, 250.0])
    offset, scale = map(torch.tensor, (model.card.radiometry.offset, model.card.radiometry.scale))
    theirs_input = theirs.transform.normalize((pixel / 255)[:, None, None])[:, 0, 0]
    torch.testing.assert_close((pixel - offset) / scale, theirs_input)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, call: Any, *values: Any) -> None:
        self.call, self.values = call, values

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.values


@pytest.mark.parametrize("call", [os.system, exec, eval])
def test_a_malicious_checkpoint_runs_nothing(call: Any, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "m.ckpt"
    text = f"touch {trap}" if call is os.system else f"__import__('os').mkdir({str(trap)!r})"
    torch.save(deepforest(resnet18(), callbacks=Malicious(call, text)), path)
    try:
        import_checkpoint(path, ImportOptions(gsd_m=0.1))
    except ModelError as error:
        assert "without running code" in str(error)  # noqa: PT017 - either way is safe
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # so it was a trap


class Mapping(dict):  # type: ignore[type-arg]
    """A dict of a class of its own cannot be read at all."""


def test_what_cannot_be_read_safely_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(deepforest(resnet18(), hyper_parameters=Mapping(a=1)), path)
    with pytest.raises(ModelError, match=r"Mapping\) that cannot be read .* save the tensors"):
        import_checkpoint(path, ImportOptions(gsd_m=0.1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.zeros(2)}, "holds no tensor named backbone or head"),
        ([torch.zeros(2)], "holds a list, expected the tensors"),
        ({"backbone.body.conv1.weight": torch.zeros(2)}, "has no box_subnet.output.bias"),
        ({"backbone.fc.weight": torch.zeros(2)}, "belongs to no RetinaNet"),
    ],
)
def test_what_is_no_retinanet_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        import_checkpoint(path, ImportOptions(gsd_m=0.1))


def test_damaged_missing_and_foreign_files(tmp_path: Path) -> None:
    options = ImportOptions(gsd_m=0.1)
    for name in ("m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(b"not tensors at all")
        with pytest.raises(ModelError, match=r"not a readable|without running code"):
            import_checkpoint(tmp_path / name, options)
    with pytest.raises(ModelError, match="does not exist"):
        import_checkpoint(tmp_path / "other.pt", options)
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"ends in \.onnx, expected"):
        import_checkpoint(tmp_path / "m.onnx", options)


def test_classes_and_anchors_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    network = resnet18(2)
    torch.save(network.state_dict(), path)
    with pytest.raises(ModelError, match="has 2 classes and does not name them"):
        import_checkpoint(path, ImportOptions(gsd_m=0.1))
    with pytest.raises(ModelError, match=r"has 2 classes, but 1 are named \(a\)"):
        import_checkpoint(path, ImportOptions(gsd_m=0.1, classes=("a",)))
    state = network.state_dict()
    head = "head.regression_head.bbox_reg"
    state[f"{head}.weight"], state[f"{head}.bias"] = torch.zeros(24, 256, 3, 3), torch.zeros(24)
    torch.save(state, path)
    with pytest.raises(ModelError, match="6 anchors in a cell"):
        import_checkpoint(path, ImportOptions(gsd_m=0.1, classes=("a", "b")))


def test_cocos_own_weights_have_names_and_no_epsilon(tmp_path: Path) -> None:
    path = tmp_path / "coco.pth"
    torch.save(resnet18(91).state_dict(), path)
    card = import_checkpoint(path, ImportOptions(gsd_m=0.1)).card
    assert card.network.bn_eps == 0
    assert card.classes[1] == "person"
    assert len(set(card.classes)) == 91
    assert (
        import_checkpoint(path, ImportOptions(gsd_m=0.1, bn_eps=1e-3)).card.network.bn_eps == 1e-3
    )


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="ascending"):
        ImportOptions(gsd_m=0.1, object_px=(3, 2, 1))
    with pytest.raises(OptionError, match="each name once"):
        ImportOptions(gsd_m=0.1, classes=("a", "a"))


def test_the_command_line_imports_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "tree.ckpt", tmp_path / "tree.safetensors"
    torch.save(deepforest(resnet18()), path)
    assert main(["import", str(path), "--gsd", "0.1m", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "0.05 m" in said
    assert "Tree (score from 0.30)" in said
    assert load_model(out).card.name == "tree"
    assert main(["import", str(path), "--gsd", "0.1", "--out", str(out)]) == 1
    assert "exists; give --overwrite" in capsys.readouterr().err
    assert main(["import", str(path), "--out", str(out), "--overwrite"]) == 2
    assert "--gsd" in capsys.readouterr().err
    assert main(["import", str(path), "--gsd", "-1", "--out", str(out), "--overwrite"]) == 2
    assert "--gsd is -1" in capsys.readouterr().err
