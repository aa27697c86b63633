"""Model: weights and their card in one safetensors file. Loading never unpickles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from geo_retina.errors import ModelError
from geo_retina.files import check_file_output, new_file
from geo_retina.forks import use_own_threads
from geo_retina.model.cards import Card, find_model, load_card
from geo_retina.nn import rotated_coding
from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.backbones import Backbone
from geo_retina.nn.heads import Subnet
from geo_retina.nn.predictor import Predictor
from geo_retina.nn.pyramid import Pyramid
from geo_retina.nn.quantizing import Quantization
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import DetectOptions, NetworkOptions

_QUANTIZATION = "quantization."
"""Begins the names of tensors in a file that are no weights."""


class MakePredictor(Protocol):
    """Makes what finds boxes in place of a model's network: a class, or a function."""

    def __call__(
        self, model: Model, options: DetectOptions, *, device: str, batch: int | None
    ) -> Predictor:
        """Make ready a model on one device; see ``TorchPredictor`` for the arguments."""


@dataclass(eq=False)
class Model:
    """A RetinaNet and its card.

    Attributes:
        network: as it was trained.
        card: what it takes and finds.
        predictor: makes what computes boxes in detection; None for the network, through PyTorch.
            Not written to the file. A cluster is sent it by pickle.
        quantization: what 8-bit integers stand for in the network; None where it was not
            measured.

    Examples:
        >>> from geo_retina import Model, load_model
        >>> model = load_model("demo")
        >>> path = Model(model.network, model.card).save("copy.safetensors")
        >>> load_model(path).card == model.card
        True
    """

    network: RetinaNet
    card: Card
    predictor: MakePredictor | None = None
    quantization: Quantization | None = None

    def save(self, path: str | Path, *, half: bool | None = True, overwrite: bool = False) -> Path:
        """Write weights and card to one file, whole or not at all.

        Args:
            path: file to write, ending ``.safetensors``.
            half: store kernels in half precision; norms and biases keep theirs. None for
                kernels that lose nothing by it.
            overwrite: replace an existing file.

        Raises:
            OutputError: the file exists already, or its folder cannot be written.
        """
        path = Path(path)
        check_model_output(path, overwrite=overwrite)
        data = safetensors_bytes(self._tensors(half=half), metadata={"card": self.card.to_json()})
        with new_file(path, overwrite=overwrite) as draft:
            draft.write_bytes(data)
        return path

    def _tensors(self, *, half: bool | None) -> dict[str, torch.Tensor]:
        weights = {
            name: _stored(tensor.detach().cpu(), half=half).contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        measured = {} if self.quantization is None else self.quantization.tensors()
        return weights | {_QUANTIZATION + name: tensor for name, tensor in measured.items()}

    @property
    def is_quantized_well(self) -> bool:
        """Whether the model can be computed in integers, and the card says that it costs little."""
        return self.quantization is not None and self.card.integers_cost_little

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, card and predictor's name: equal where detections are equal."""
        tensors = self._tensors(half=False)
        data = safetensors_bytes(tensors, metadata={"card": self.card.to_json()})
        return hashlib.sha256(data + _name(self.predictor).encode()).hexdigest()


def _stored(tensor: torch.Tensor, *, half: bool | None) -> torch.Tensor:
    """Convert a tensor to the precision that it is stored in."""
    if half is False or not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    halved = tensor.half()
    return halved if half or torch.equal(halved.to(tensor.dtype), tensor) else tensor


def _name(predictor: MakePredictor | None) -> str:
    """Name what computes: classes and functions by where they stand, others by what they show."""
    if predictor is None:
        return ""
    name = getattr(predictor, "__qualname__", None)
    return f"{predictor.__module__}.{name}" if name else repr(predictor)


def check_model_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a model's target before hours are spent on it.

    Raises:
        OutputError: the name does not end in .safetensors, the file exists already, or its
            folder does not.
    """
    check_file_output(path, [".safetensors"], overwrite=overwrite)


def build_network(options: NetworkOptions, *, in_channels: int, classes: int) -> RetinaNet:
    """Compose a RetinaNet with random weights.

    Args:
        options: architecture, with levels and anchor sides given.
        in_channels: bands that it sees.
        classes: outputs of the class subnet per anchor.

    Raises:
        ModelError: the levels or anchors are not given, or the backbone is not known.
    """
    ratios = options.anchor_ratios
    if options.levels is None or options.anchor_sides_px is None or ratios is None:
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
        ratios,
        round_corners=options.round_anchors,
    )
    anchors = len(options.anchor_sides_px[0]) * len(ratios)
    offsets = rotated_coding.OFFSETS if options.boxes == "oriented" else 4
    class_subnet, box_subnet = (
        Subnet(options.channels, options.convs, outputs, anchors, norm=options.norm, prior=prior)
        for outputs, prior in ((classes, options.prior), (offsets, None))
    )
    return RetinaNet(backbone, pyramid, class_subnet, box_subnet, anchor_grid)


def load_model(name_or_path: str | Path) -> Model:
    """Load a bundled model by name, or a model file.

    Returns:
        The model on the CPU, in single precision, in evaluation mode.

    Raises:
        ModelError: there is no such model, the file is corrupt or of a newer format, or its
            weights do not fit its card.

    Examples:
        >>> from geo_retina import load_model
        >>> model = load_model("demo")
        >>> model.card.classes
        ('vehicle', 'tree', 'tank')
    """
    path = find_model(name_or_path)
    card = load_card(path)
    bands, classes = len(card.bands), len(card.classes)
    use_own_threads()
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    quantization = _take_quantization(state, path)
    # Shapes alone first: a card may ask for more memory than there is.
    with torch.device("meta"):
        own = build_network(card.network, in_channels=bands, classes=classes).state_dict()
    wrong = [n for n in own.keys() | state.keys() if n not in own or n not in state]
    wrong += [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if wrong:
        raise ModelError(
            f"the weights in {path} do not fit its card: {len(wrong)} tensors are missing, "
            f"superfluous or of another shape, such as {min(wrong)}"
        )
    network = build_network(card.network, in_channels=bands, classes=classes)
    odd = [n for n, tensor in state.items() if not _is_usable(tensor, own[n])]
    if odd:
        raise ModelError(
            f"the weights in {path} are damaged: {len(odd)} tensors hold values that are not "
            f"finite or of another kind, such as {min(odd)}; write or copy the file again"
        )
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()})
    return Model(network.eval(), card, quantization=quantization)


def _take_quantization(state: dict[str, torch.Tensor], path: Path) -> Quantization | None:
    """Take what is no weight out of a file's tensors; None where the file has only weights.

    Raises:
        ModelError: it is damaged.
    """
    names = [name for name in state if name.startswith(_QUANTIZATION)]
    tensors = {name.removeprefix(_QUANTIZATION): state.pop(name) for name in names}
    try:
        return Quantization.from_tensors(tensors) if tensors else None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _is_usable(tensor: torch.Tensor, own: torch.Tensor) -> bool:
    """Check whether a tensor's values can stand for those of a network's own one."""
    if own.is_floating_point() != tensor.is_floating_point():
        return False
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
