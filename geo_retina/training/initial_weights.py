"""What a training starts from: random weights, ImageNet weights, or a model that exists already."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from geo_retina.dataset.radiometry import BandStatistics
from geo_retina.errors import TrainingError
from geo_retina.model import Band, Card, Model, Radiometry, build_network, load_model
from geo_retina.nn.backbones import check_pretrained, load_pretrained, stem_key
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import NetworkOptions
from geo_retina.options.training_parts import StartOptions
from geo_retina.scene import common_name


def load_start(options: StartOptions, backbone: str) -> Model | None:
    """Load the model that training starts from, or check that ImageNet weights can be had.

    Done before anything is read, since it may fail. The caller's random state is left as it was.

    Args:
        options: what to start from.
        backbone: of the network, where that is no model.

    Returns:
        The model; None where there is none.

    Raises:
        ModelError: there is no such model, or the weights cannot be had on this machine.
    """
    if options.weights is not None:
        with torch.random.fork_rng(devices=[]):
            return load_model(options.weights)
    if options.pretrained:
        check_pretrained(backbone)
    return None


def check_network(own: NetworkOptions, named: Collection[str], start: Model) -> None:
    """Refuse, before anything is read, a model whose network is not the one that was asked for.

    Args:
        own: network that was asked for.
        named: fields of it that were asked for by name.
        start: model that training starts from.

    Raises:
        TrainingError: they differ in one of these fields.
    """
    model, network = start.card.name, start.card.network
    if "boxes" in named and network.boxes != own.boxes:
        raise TrainingError(
            f"the model {model} finds {network.boxes} boxes, but network.boxes is {own.boxes}; "
            f"start from a model of {own.boxes} boxes, or leave weights out"
        )
    for name in named:
        has, asked = getattr(network, name), getattr(own, name)
        if has != asked:
            raise TrainingError(
                f"the network of the model {model} has {name} {has}, but network.{name} is "
                f"{asked}; training goes on with the model's own network, so leave that out, or "
                "weights"
            )


_FREEZE_BELOW = ((200, 3), (1000, 2), (5000, 1))
"""Stages of the backbone that few labels would rather spoil than mend, by number of labels."""


def stages_to_freeze(options: StartOptions, labels: int, stages: int) -> int:
    """Choose how many stages of the backbone stay as they are.

    Args:
        options: with ``freeze`` a number, which is kept, or ``auto``.
        labels: on training ground.
        stages: that the backbone has.
    """
    if options.freeze != "auto":
        return options.freeze
    if options.weights is None and not options.pretrained:
        return 0  # there is nothing to keep
    stages_to_freeze = next((number for most, number in _FREEZE_BELOW if labels < most), 0)
    return min(stages_to_freeze, stages)


def first_network(
    options: StartOptions,
    network: NetworkOptions,
    bands: Sequence[Band],
    classes: Sequence[str],
    start: Model | None,
    labels: int,
) -> tuple[RetinaNet, str]:
    """Build the network and give it its first weights.

    Args:
        options: whether to start from ImageNet weights, and what stays.
        network: architecture, every field resolved.
        bands: that it sees.
        classes: that it tells apart.
        start: model to start from; its architecture is ``network``.
        labels: on training ground.

    Returns:
        The network, and a sentence on where its weights came from.

    Raises:
        ModelError: ImageNet weights cannot be had, or too many stages are to be frozen.
    """
    built = build_network(network, in_channels=len(bands), classes=len(classes))
    if start is not None:
        source = _take_over(built, bands, classes, start)
    elif options.pretrained:
        source = load_pretrained(built.backbone)
    else:
        source = "Started from scratch."
    stages = stages_to_freeze(options, labels, len(built.backbone.levels))
    built.backbone.freeze(stages, norms=options.freeze_norms)
    return built, source


def keep_radiometry(
    measured: BandStatistics, bands: Sequence[Band], start: Model | None
) -> BandStatistics:
    """Normalise as the starting model does, so that its weights see what they know.

    Bands that it does not have, by name or, where names don't tell, by place, keep the
    measured normalisation; so do all where the pixels are of another type.
    """
    if start is None or start.card.radiometry.dtype != measured.radiometry.dtype:
        return measured
    places = _places([band.name for band in bands], [band.name for band in start.card.bands])
    own, known = measured.radiometry, start.card.radiometry
    offset = [own.offset[i] if p is None else known.offset[p] for i, p in enumerate(places)]
    scale = [own.scale[i] if p is None else known.scale[p] for i, p in enumerate(places)]
    before, gain = np.array(own.offset) - offset, np.array(own.scale) / scale
    return BandStatistics(
        Radiometry(own.dtype, tuple(offset), tuple(scale)),
        (measured.mean * gain + before / scale).astype(np.float32),
        (measured.std * gain).astype(np.float32),
    )


def _take_over(
    network: RetinaNet, bands: Sequence[Band], classes: Sequence[str], start: Model
) -> str:
    """Fill a network with the weights of a model of other bands and classes perhaps."""
    state, own = start.network.state_dict(), network.state_dict()
    said = [f"Started from the model {start.card.name}."]
    places = _places([band.name for band in bands], [band.name for band in start.card.bands])
    if places != list(range(len(start.card.bands))):
        stem = f"backbone.body.{stem_key(network.backbone.body)}"
        state[stem] = _move_stem(state[stem], places)
        fresh = [band.name for band, place in zip(bands, places, strict=True) if place is None]
        said.append(f"Its first filters were adapted to {len(bands)} bands.")
        if fresh:
            said.append(f"Bands it did not know: {', '.join(fresh)}.")
    if tuple(classes) != start.card.classes:
        said.append(_move_classes(own, state, classes, start.card))
    network.load_state_dict(state)
    return " ".join(said)


def _places(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Find each band among the known ones: by name, or by place where names are not enough."""
    where = {_key(name): i for i, name in reversed(list(enumerate(known)))}
    found = [where.get(_key(name)) for name in names]
    if len(names) == len(known) and (None in found or len(set(found)) < len(found)):
        return list(range(len(names)))
    return found


def _key(name: str) -> str:
    return common_name(name) or name.casefold()


def _move_stem(weight_OCHW: Tensor, places: Sequence[int | None]) -> Tensor:
    """Give known bands their filters, others the mean; a grey image excites them as before."""
    mean = weight_OCHW.mean(dim=1)
    filters = [mean if place is None else weight_OCHW[:, place] for place in places]
    return torch.stack(filters, dim=1) * (weight_OCHW.shape[1] / len(places))


def _move_classes(
    own: dict[str, Tensor], state: dict[str, Tensor], classes: Sequence[str], card: Card
) -> str:
    """Keep the outputs of classes of the same name, and begin the others afresh.

    Outputs of the class subnet run over the anchors of a cell, and for each over the classes.
    """
    where = {name.casefold(): i for i, name in enumerate(card.classes)}
    pairs = [(i, where[n.casefold()]) for i, n in enumerate(classes) if n.casefold() in where]
    for key in ("class_subnet.output.weight", "class_subnet.output.bias"):
        fresh = own[key].unflatten(0, (-1, len(classes))).clone()
        known = state[key].unflatten(0, (-1, len(card.classes)))
        for new, old in pairs:
            fresh[:, new] = known[:, old]
        state[key] = fresh.flatten(0, 1)
    kept = {new for new, _ in pairs}
    begun = [name for i, name in enumerate(classes) if i not in kept]
    if not begun:
        return "Its class outputs were put in the order of the classes here."
    return f"Class outputs that begin afresh: {', '.join(begun)}."


def about_resolution(source: str, start: Model | None, gsd_m: float) -> str:
    """Describe the first weights in a sentence, with a warning where they know other pixels."""
    if start is None or start.card.gsd_range_m[0] <= gsd_m <= start.card.gsd_range_m[1]:
        return source
    return (
        f"{source} It was made for pixels of {start.card.gsd_m:g} m, and here they are {gsd_m:g} m."
    )
