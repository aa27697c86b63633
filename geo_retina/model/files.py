"""Model: weights and their card in one safetensors file. Loading never unpickles."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from geo_retina.errors import GeoRetinaError, ModelError, OutputError
from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.backbones import Backbone
from geo_retina.nn.heads import Subnet
from geo_retina.nn.pyramid import Pyramid
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import NetworkOptions

FORMAT_VERSION = 1
"""Version of the card; a file with a newer one is refused."""

_BACKBONE_LEVEL = 5
"""The backbones' last level, at stride 32, feeds the pyramid even where no anchor is on it."""

OVERLAP_MARGIN_PX = 24
"""Context beyond the largest object that neighbouring tiles share by default."""

OVERLAPS_PER_TILE = 3
"""Tiles are at least this many overlaps wide, or most pixels would be seen several times."""

_TILE_PX = 1024  # a larger tile pays for few more pixels of overlap, and takes more memory

_STRIDES_PER_TILE = 16
"""Overlaps are whole strides: of tiles with fewer strides they would be more than a fifth."""

WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Band:
    """A band that the model sees: its name, and its default place (from 1) in a file."""

    name: str
    index: int


@dataclass(frozen=True)
class Radiometry:
    """How pixels become the network's input: (pixel - offset) / scale, invalid pixels 0.

    Attributes:
        dtype: numpy name of the pixels' type.
        offset: per band, in pixel values.
        scale: per band, in pixel values.
    """

    dtype: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or 0 in self.scale:
            raise ModelError(
                f"radiometry has offsets {self.offset} and scales {self.scale}; wanted as many "
                "of each, and no scale of 0"
            )


@dataclass(frozen=True)
class Card:
    """All that is needed to use a model rightly, and to know where it came from.

    Attributes:
        name: short name.
        classes: class names in the order of the network's outputs.
        bands: bands in the network's order.
        radiometry: how pixels become input.
        gsd_m: metres a pixel that it was trained at.
        gsd_range_m: finest and coarsest it holds for.
        tile_px: largest tile side it is run at.
        object_px: 1st, 50th and 99th percentile of its objects' longer sides.
        network: the architecture, every field resolved.
        thresholds: default score threshold per class.
        nms_iou: IoU above which a detection suppresses lower-scored ones of its class, unless
            the options say otherwise.
        description: what it finds, in what imagery.
        licence: licence of the weights.
        attribution: whom a user must name.
        metrics: scores, and what they were measured on.
        training: resolved options, data fingerprint, package versions.
        format_version: version of this card's form.
    """

    name: str
    classes: tuple[str, ...]
    bands: tuple[Band, ...]
    radiometry: Radiometry
    gsd_m: float
    gsd_range_m: tuple[float, float]
    tile_px: int
    object_px: tuple[float, float, float]
    network: NetworkOptions
    thresholds: tuple[float, ...]
    nms_iou: float = 0.5
    description: str = ""
    licence: str = ""
    attribution: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.classes) or not self.classes:
            raise ModelError(
                f"card of {self.name} has {len(self.thresholds)} thresholds for "
                f"{len(self.classes)} classes, wanted one for each"
            )
        if len(self.bands) != len(self.radiometry.offset) or not self.bands:
            raise ModelError(
                f"card of {self.name} has {len(self.bands)} bands and radiometry for "
                f"{len(self.radiometry.offset)}, wanted as many"
            )
        if not 0 <= self.nms_iou <= 1:
            raise ModelError(f"card of {self.name} has an nms_iou of {self.nms_iou}, wanted 0 to 1")
        if self.network.levels is None or self.network.anchor_sides_px is None:
            raise ModelError(f"card of {self.name} lacks the network's levels or anchors")

    @property
    def stride_px(self) -> int:
        """Coarsest stride of the network: tile sides and origins are multiples of it."""
        assert self.network.levels is not None  # checked at birth
        return int(2 ** max(_BACKBONE_LEVEL, *self.network.levels))

    @property
    def overlap_px(self) -> int:
        """Overlap of neighbouring tiles that lets one of them see an object whole."""
        return math.ceil(self.object_px[2]) + OVERLAP_MARGIN_PX

    def to_json(self) -> str:
        """As JSON, keys sorted; ``from_json`` gives it back."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card.

        Raises:
            ModelError: the card is of a newer format, or lacks something.
        """
        try:
            raw = json.loads(text)
            version = raw["format_version"]
            if version > FORMAT_VERSION:
                raise ModelError(
                    f"the card has format version {version}, this geo-retina reads up to "
                    f"{FORMAT_VERSION}; install a newer geo-retina"
                )
            raw = {key: _tuples(value) for key, value in raw.items()}
            raw["bands"] = tuple(Band(**band) for band in raw["bands"])
            raw["radiometry"] = Radiometry(**raw["radiometry"])
            raw["network"] = NetworkOptions(**raw["network"])
            return cls(**raw)
        except GeoRetinaError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the card cannot be read: {error!r}") from error


def _tuples(value: Any) -> Any:
    """Lists of a JSON value as tuples; mappings stay mappings."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


@dataclass(eq=False)
class Model:
    """A RetinaNet and its card."""

    network: RetinaNet
    card: Card

    def save(self, path: str | Path, *, half: bool = True, overwrite: bool = False) -> Path:
        """Write weights and card to one file, beside the target first and then renamed.

        Args:
            path: file to write, ending ``.safetensors``.
            half: store kernels in half precision; norms and biases keep theirs.
            overwrite: replace an existing file.

        Raises:
            OutputError: the file exists already, or its folder cannot be written.
        """
        path = Path(path)
        check_model_output(path, overwrite=overwrite)
        data = safetensors_bytes(self._tensors(half=half), metadata={"card": self.card.to_json()})
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            beside.write_bytes(data)
            os.replace(beside, path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            beside.unlink(missing_ok=True)
        return path

    def _tensors(self, *, half: bool) -> dict[str, torch.Tensor]:
        return {
            name: tensor.detach().cpu().half().contiguous()
            if half and tensor.is_floating_point() and tensor.ndim >= 2
            else tensor.detach().cpu().contiguous()
            for name, tensor in self.network.state_dict().items()
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights and card: equal where detections are equal."""
        tensors = self._tensors(half=False)
        return hashlib.sha256(
            safetensors_bytes(tensors, metadata={"card": self.card.to_json()})
        ).hexdigest()


def choose_tile_px(object_px: float, stride_px: int) -> int:
    """Choose the tile side for objects up to a size, a multiple of the network's stride."""
    wanted_px = max(
        _TILE_PX,
        OVERLAPS_PER_TILE * (object_px + OVERLAP_MARGIN_PX),
        _STRIDES_PER_TILE * stride_px,
    )
    return math.ceil(wanted_px / stride_px) * stride_px


def check_model_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a model's target before hours are spent on it.

    Raises:
        OutputError: the name does not end in .safetensors, the file exists already, or its
            folder does not.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} ends in {path.suffix or 'no suffix'}, wanted .safetensors")
    if path.is_dir():
        raise OutputError(f"{path} is a folder, wanted the name of a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give --overwrite or another name")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder, so {path.name} cannot be written there")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path.parent} cannot be written to")


def build_network(options: NetworkOptions, *, in_channels: int, classes: int) -> RetinaNet:
    """Compose a RetinaNet with random weights.

    Args:
        options: architecture, with levels and anchor sides given.
        in_channels: bands that it sees.
        classes: outputs of the class subnet per anchor.

    Raises:
        ModelError: the levels or anchors are not given, or the backbone is not known.
    """
    if options.levels is None or options.anchor_sides_px is None:
        raise ModelError("a network needs levels and anchor sides; fit them to the labels first")
    backbone = Backbone(options.backbone, in_channels=in_channels, bn_eps=options.bn_eps)
    pyramid = Pyramid(
        backbone.levels,
        backbone.channels,
        levels=options.levels,
        channels=options.channels,
        extra_from=options.extra_levels_from,
        norm=options.pyramid_norm,
    )
    anchor_grid = AnchorGrid(
        tuple(2**level for level in options.levels),
        options.anchor_sides_px,
        options.anchor_ratios,
        round_corners=options.round_anchors,
    )
    anchors = len(options.anchor_sides_px[0]) * len(options.anchor_ratios)
    class_subnet, box_subnet = (
        Subnet(options.channels, options.convs, outputs, anchors, norm=options.norm, prior=prior)
        for outputs, prior in ((classes, options.prior), (4, None))
    )
    return RetinaNet(backbone, pyramid, class_subnet, box_subnet, anchor_grid)


def bundled_models() -> dict[str, Path]:
    """Files of the models that come with the package, by name, sorted."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def load_model(name_or_path: str | Path) -> Model:
    """Load a bundled model by name, or a model file.

    Returns:
        The model on the CPU, in single precision, in evaluation mode.

    Raises:
        ModelError: there is no such model, the file is corrupt or of a newer format, or its
            weights do not fit its card.
    """
    path = find_model(name_or_path)
    card = load_card(path)
    network = build_network(card.network, in_channels=len(card.bands), classes=len(card.classes))
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    own = network.state_dict()
    wrong = [n for n in own.keys() | state.keys() if n not in own or n not in state]
    wrong += [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if wrong:
        raise ModelError(
            f"the weights in {path} do not fit its card: {len(wrong)} tensors are missing, "
            f"superfluous or of another shape, such as {min(wrong)}"
        )
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()})
    return Model(network.eval(), card)


def load_card(name_or_path: str | Path) -> Card:
    """Read the card of a bundled model or a model file, without its weights.

    Raises:
        ModelError: there is no such model, or the file has no readable card.
    """
    path = find_model(name_or_path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    if "card" not in metadata:
        raise ModelError(
            f"{path} holds weights but no card, wanted a model that geo-retina train wrote"
        )
    try:
        return Card.from_json(metadata["card"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def find_model(name_or_path: str | Path) -> Path:
    """The file of a bundled model, or the model file itself.

    Raises:
        ModelError: there is neither.
    """
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(bundled) or "none"
        raise ModelError(f"{path} is neither a model file nor a bundled model ({names})")
    return path
