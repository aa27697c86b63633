"""Checkpoints of torchvision's RetinaNet and of DeepForest, made into models.

Nothing is unpickled on the way: tensors are read with torch's restricted reader, and objects of
classes that it does not know become empty shells, so that no code of a file ever runs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from geo_retina.errors import ModelError
from geo_retina.model.cards import Band, Card, Radiometry, choose_tile_px
from geo_retina.model.model_file import Model, build_network
from geo_retina.nn.retinanet import torchvision_state_dict
from geo_retina.options import PRESETS, ImportOptions, NetworkOptions

RESIZED_PX = 800
"""Side to which torchvision's RetinaNet resizes its images."""

_DEEPFOREST_PATCH_PX = 400
_GSD_SLACK = 1.25  # as far as a model is taken to hold from the pixels that it saw
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_COCO_CLASSES = 91
_LEVELS = (3, 4, 5, 6, 7)
_RATIOS = (0.5, 1.0, 2.0)
_RESNETS = {(True, 6): "resnet50", (True, 23): "resnet101", (True, 36): "resnet152"} | {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
}
"""Backbones by whether their blocks are bottlenecks, and by the blocks of their third stage."""

_SAVE_TENSORS = (
    "on a machine where you trust it, save the tensors alone, with "
    "torch.save(model.state_dict(), FILE) or safetensors, and import that file"
)


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """What a file holds.

    Attributes:
        state: tensors by name.
        classes: names in the order of the outputs; None where the file does not say.
        deepforest: whether DeepForest wrote it.
    """

    state: Mapping[str, Tensor]
    classes: tuple[str, ...] | None
    deepforest: bool


class _Shell:
    """Stands for an object of a class that is not known: holds nothing and does nothing."""

    def __new__(cls, *values: object, **named: object) -> _Shell:
        """Take whatever the object was made of, and forget it."""
        return object.__new__(cls)

    def __init__(self, *values: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def import_checkpoint(path: str | Path, options: ImportOptions) -> Model:
    """Make a model of a checkpoint of torchvision's RetinaNet or of DeepForest.

    Takes both of torchvision's versions on any of its plain ResNets, bare or inside a
    Lightning checkpoint. The network gives the same logits; images are not resized any more,
    so the model works on pixels that are finer by ``patch_px / 800``.

    Args:
        path: file ending .pt, .pth, .ckpt or .safetensors.
        options: what the file does not say.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        ModelError: the file cannot be read without running code in it, is no RetinaNet of
            torchvision, or has other anchors or another number of classes.

    Examples:
        >>> from geo_retina import ImportOptions, import_checkpoint
        >>> options = ImportOptions(gsd_m=0.3, classes=("house", "car"))
        >>> import_checkpoint("torchvision.pth", options).card.classes
        ('house', 'car')
    """
    path = Path(path)
    found = _read(path)
    state = torchvision_state_dict(found.state)
    count = _count_classes(state, path)
    network_options = _recognise(state, path, options.bn_eps, count)
    classes = _name_classes(options.classes or found.classes, count, path)
    network = build_network(network_options, in_channels=3, classes=count)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} does not fit a RetinaNet on {network_options.backbone} ({detail}); give a "
            "checkpoint of torchvision's retinanet_resnet50_fpn, its second version or DeepForest"
        ) from error
    patch_px = options.patch_px or (_DEEPFOREST_PATCH_PX if found.deepforest else RESIZED_PX)
    source = "DeepForest" if found.deepforest else "torchvision"
    origin = {"imported_from": path.name, "written_by": source, "patch_px": patch_px}
    card = _card(options, options.name or path.stem, classes, network_options, patch_px)
    return Model(network.eval(), replace(card, training=origin))


def _card(
    options: ImportOptions,
    name: str,
    classes: tuple[str, ...],
    network: NetworkOptions,
    patch_px: int,
) -> Card:
    """Build the card, without its origin; pixels are normalised as torchvision does it."""
    gsd_m = options.gsd_m * patch_px / RESIZED_PX
    card = Card(
        name=name,
        classes=classes,
        bands=tuple(Band(band, i) for i, band in enumerate(("red", "green", "blue"), 1)),
        radiometry=Radiometry(
            "uint8",
            tuple(round(255 * mean, 6) for mean in _IMAGENET_MEAN),
            tuple(round(255 * std, 6) for std in _IMAGENET_STD),
        ),
        gsd_m=gsd_m,
        gsd_range_m=(gsd_m / _GSD_SLACK, gsd_m * _GSD_SLACK),
        tile_px=RESIZED_PX,
        object_px=options.object_px,
        network=network,
        thresholds=(options.score,) * len(classes),
        padding=options.padding,
        description=options.description,
        licence=options.licence,
        attribution=options.attribution,
    )
    return replace(card, tile_px=choose_tile_px(options.object_px[2], card.stride_px))


def _read(path: Path) -> _Checkpoint:
    """Read the tensors of a file, and the names of the classes where it has them."""
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist; check its path")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is not a readable safetensors file: {error}") from error
        return _Checkpoint(state, None, _has_prefix(state))
    if path.suffix not in (".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path} ends in {path.suffix or 'no suffix'}, expected .pt, .pth, .ckpt or "
            ".safetensors"
        )
    found = _read_tensors(path)
    if not isinstance(found, Mapping):
        raise ModelError(
            f"{path} holds a {type(found).__name__}, expected the tensors of a network by name; "
            f"{_SAVE_TENSORS}"
        )
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found.get(key), Mapping):
            labels = found.get("label_dict")
            return _checkpoint(path, found[key], labels, _has_prefix(found[key]))
    return _checkpoint(path, found, None, _has_prefix(found))


def _checkpoint(
    path: Path, values: Mapping[Any, Any], labels: object, deepforest: bool
) -> _Checkpoint:
    """Keep only what the network needs: a Lightning module may hold metrics and losses too."""
    state = {
        key: value
        for key, value in values.items()
        if isinstance(key, str)
        and isinstance(value, Tensor)
        and re.match(r"(model\.)?(backbone|head)\.", key)
    }
    if not state:
        raise ModelError(
            f"{path} holds no tensor named backbone or head, expected a RetinaNet of torchvision "
            f"or DeepForest; give such a checkpoint"
        )
    classes = None
    if isinstance(labels, Mapping) and all(
        isinstance(name, str) and isinstance(place, int) for name, place in labels.items()
    ):
        ordered = sorted(labels.items(), key=lambda item: item[1])
        if [place for _, place in ordered] == list(range(len(ordered))) and ordered:
            classes = tuple(name for name, _ in ordered)
    return _Checkpoint(state, classes, deepforest)


def _has_prefix(state: Mapping[Any, Any]) -> bool:
    """Check for DeepForest's prefix: it keeps torchvision's network as ``model`` in its module."""
    return any(isinstance(key, str) and key.startswith("model.backbone.") for key in state)


def _read_tensors(path: Path) -> Any:
    """Read with torch's restricted reader; unknown classes become shells."""
    try:
        unknown = get_unsafe_globals_in_checkpoint(path)
    except (ValueError, OSError, RuntimeError, pickle.UnpicklingError):
        unknown = []  # a file of an old release, or none at all; reading it will tell
    try:
        with safe_globals([(_Shell, name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = f" ({', '.join(sorted(unknown)[:3])})" if unknown else ""
        raise ModelError(
            f"{path} holds Python objects{named} that cannot be read without running code from "
            f"it, which geo-retina never does; {_SAVE_TENSORS}"
        ) from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise ModelError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); check that it was "
            "copied whole"
        ) from error


def _count_classes(state: Mapping[str, Tensor], path: Path) -> int:
    """Count the outputs of the class subnet per anchor."""
    try:
        anchors, rest = divmod(len(state["box_subnet.output.bias"]), 4)
        count, uneven = divmod(len(state["class_subnet.output.bias"]), max(anchors, 1))
    except KeyError as error:
        raise ModelError(f"{path} has no {error.args[0]}; give a whole RetinaNet") from error
    expected = len(_RATIOS) * 3
    if anchors != expected or rest or uneven or not count:
        raise ModelError(
            f"{path} has {anchors} anchors in a cell, expected torchvision's {expected} (3 sizes x "
            "3 ratios); a network with anchors of its own cannot be recognised by its weights"
        )
    return count


def _recognise(
    state: Mapping[str, Tensor], path: Path, bn_eps: float | None, classes: int
) -> NetworkOptions:
    """Recognise the architecture by the names and shapes of the tensors."""
    third = {m[1] for m in (re.match(r"backbone\.body\.layer3\.(\d+)\.", k) for k in state) if m}
    bottleneck = "backbone.body.layer1.0.conv3.weight" in state
    backbone = _RESNETS.get((bottleneck, len(third)))
    extra = state.get("pyramid.extra.p6.weight")
    if backbone is None or extra is None:
        raise ModelError(
            f"{path} has a backbone of {len(third)} blocks in its third stage"
            f"{'' if extra is not None else ' and no level P6'}, expected a plain ResNet with "
            f"levels P3 to P7, as torchvision builds it"
        )
    channels = extra.shape[0]
    from_c5 = extra.shape[1] != channels
    grouped = "class_subnet.norms.0.weight" in state
    coco = classes == _COCO_CLASSES and not grouped
    sides = tuple(
        tuple(float(int(4 * 2**level * 2 ** (i / 3))) for i in range(3)) for level in _LEVELS
    )
    return replace(
        PRESETS["paper"],
        backbone=backbone,
        levels=_LEVELS,
        channels=channels,
        convs=sum(key.startswith("class_subnet.convs.") for key in state)
        // (1 if grouped else 2),  # a norm takes the bias's place
        norm="group" if grouped else "none",
        extra_levels_from="c5" if from_c5 else "p5",
        anchor_sides_px=sides,
        anchor_ratios=_RATIOS,
        round_anchors=True,
        bn_eps=bn_eps if bn_eps is not None else (0.0 if coco else 1e-5),
    )


def _name_classes(names: tuple[str, ...] | None, count: int, path: Path) -> tuple[str, ...]:
    if names is None and count == _COCO_CLASSES:
        from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

        listed = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        # COCO left some numbers unused; names on a card are unique.
        return tuple(
            f"unused {i}" if name in ("N/A", "__background__") else str(name)
            for i, name in enumerate(listed)
        )
    if names is None:
        raise ModelError(
            f"{path} has {count} classes and does not name them; name them with "
            "ImportOptions.classes, in the order of the network's outputs"
        )
    if len(names) != count:
        raise ModelError(
            f"{path} has {count} classes, but {len(names)} are named ({', '.join(names)}); name "
            "each, in the order of the network's outputs, with ImportOptions.classes"
        )
    return names
