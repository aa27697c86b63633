"""From options to everything that training needs: data, split, statistics, network, card."""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from geo_retina.dataset.labelled_scenes import TrainingSet, load_training_set
from geo_retina.dataset.radiometry import BandStatistics, measure_bands
from geo_retina.dataset.split import Split, Subset, split_ground
from geo_retina.dataset.windows import TrainObjects, train_objects
from geo_retina.errors import TrainingError
from geo_retina.model import Band, Card, Radiometry, choose_tile_px
from geo_retina.nn.losses import LossSettings
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.options import NetworkOptions, TrainOptions
from geo_retina.options.training_parts import CardTexts
from geo_retina.review import name_reviews
from geo_retina.training.anchor_fit import about_anchors, anchors_fit, as_squares, resolve_network
from geo_retina.training.initial_weights import (
    about_resolution,
    check_network,
    first_network,
    keep_radiometry,
    load_start,
)
from geo_retina.training.lightning_module import loss_settings
from geo_retina.training.validation.epoch_measure import choose_measure
from geo_retina.training.validation.ground import (
    SCORE_FLOOR,
    ValidationGround,
    choose_ground,
    choose_val_ground,
)
from geo_retina.training.validation.nms_search import first_nms_iou

log = logging.getLogger(__name__)

_GSD_SLACK = 1.25  # a model holds for pixels this much coarser or finer than it saw
_PACKAGES = ("geo-retina", "python", "torch", "torchvision", "timm", "lightning", "rasterio")


@dataclass(frozen=True, eq=False)
class Preparation:
    """What a training run works with.

    Attributes:
        training_set: scenes and labels.
        split: training ground and validation ground.
        objects: labels on training ground.
        bands: normalisation and statistics of the pixels.
        val_ground: what validation detects and scores.
        network: with its first weights.
        loss: what training minimises.
        card: without scores and provenance of a run.
        test: ground that selects nothing and is scored once, at the end.
    """

    training_set: TrainingSet
    split: Split
    objects: TrainObjects
    bands: BandStatistics
    val_ground: ValidationGround
    network: RetinaNet
    loss: LossSettings
    card: Card
    test: ValidationGround | None = None


def prepare(options: TrainOptions) -> Preparation:
    """Read labels and scenes, split the ground, and build the network.

    Raises:
        GeoRetinaError: something in the data or the options cannot be used.
    """
    own = options.resolved_network
    start = load_start(options.start, own.backbone)  # before minutes are spent on reading
    if start is not None:
        check_network(own, options.network, start)
    kind = (own if start is None else start.card.network).boxes
    if kind == "oriented" and options.loss.box == "giou":
        raise TrainingError(
            "loss.box is giou, which is for upright boxes, but network.boxes is oriented; choose "
            "smooth_l1 or l1"
        )
    training_set = load_training_set(
        options.data,
        place_column=options.split.place_column,
        oriented=kind == "oriented" or options.samples.rotate == "any",
    )
    scenes = [each.scene for each in training_set.scenes]
    split = split_ground(scenes, options.split, seed=options.seed, training_set=training_set)
    objects = train_objects(training_set, split)
    if not len(objects.label):
        raise TrainingError(
            "no label lies on the training ground; lower split.val_fraction or split.block_m"
        )
    scoring = replace(options.scoring, oriented=kind == "oriented")
    val_ground = choose_val_ground(training_set, split, scoring)
    choose_measure(options.best_by, by_radius=val_ground.options.radius_m is not None)
    test = None
    if split.has_test:
        about = f"the test ground: {split.describe(Subset.TEST)}"
        outlines = split.outlines(Subset.TEST)
        test = choose_ground(training_set, split.on_test, about, scoring, outlines)
    log.info(
        "%d labels for training, %d for validation on %.0f%% of the ground",
        len(objects.label),
        val_ground.objects,
        100 * split.share,
    )
    seen = _bands(options.data.band_names, scenes[0].bands, scenes[0].band_names)
    bands = keep_radiometry(measure_bands(scenes, seed=options.seed, split=split), seen, start)
    shapes = as_squares(objects, training_set.scenes) if kind == "oriented" else objects
    resolved = (
        resolve_network(own, shapes, turned=options.samples.flips)
        if start is None
        else start.card.network
    )
    misfit = about_anchors(anchors_fit(resolved, shapes.sides_px), options.assign, kind)
    if misfit is not None:
        log.warning("%s", misfit)
    network, source = first_network(
        options.start, resolved, seen, training_set.classes, start, len(objects.label)
    )
    card = replace(
        _first_card(options.texts, training_set, objects, seen, bands.radiometry, resolved),
        padding=options.samples.padding,
        nms_iou=first_nms_iou(val_ground, options.nms_iou),
    )
    source = about_resolution(source, start, card.gsd_m)
    log.info("%s", source)
    training = {
        "options": _shareable(options),
        "data_fingerprint": training_set.fingerprint,
        "labels": asdict(training_set.counts),
        "train_labels": len(objects.label),
        "scenes": len(scenes),
        "first_weights": source,
        "packages": {name: _version(name) for name in _PACKAGES},
        **name_reviews(training_set.reviewed, None if start is None else start.card.training),
    }
    card = replace(card, training=training)
    counts = objects.per_class(training_set.classes)
    loss = loss_settings(options.loss, options.assign, counts, kind)
    return Preparation(training_set, split, objects, bands, val_ground, network, loss, card, test)


def _shareable(options: TrainOptions) -> dict[str, Any]:
    """Cut the options' paths to their names: a model travels, its maker's folders do not."""
    data = options.data
    scenes: Any = data.scenes
    named = replace(
        data,
        scenes=tuple(
            _name(path) for path in ([scenes] if isinstance(scenes, (str, Path)) else scenes)
        ),
        labels=_name(data.labels)
        if isinstance(data.labels, (str, Path))
        else tuple(replace(each, path=_name(each.path)) for each in data.labels),
        review=_name(data.review),
        ground=_name(data.ground),
    )
    weights = _name(options.weights)
    split = replace(options.split, areas=_name(options.split.areas))
    samples = replace(options.samples, cache_folder=_name(options.samples.cache_folder))
    return asdict(replace(options, data=named, weights=weights, split=split, samples=samples))


def _name(path: Any) -> Any:
    return None if path is None else Path(path).name


def _first_card(
    texts: CardTexts,
    training_set: TrainingSet,
    objects: TrainObjects,
    bands: tuple[Band, ...],
    radiometry: Radiometry,
    network: NetworkOptions,
) -> Card:
    gsds_m = [each.gsd_m for each in training_set.scenes]
    # The longer side: an overlap must hold all of a long, thin object.
    sides_px = objects.sides_px.max(axis=1)
    low, middle, high = np.percentile(sides_px, [1, 50, 99]).tolist()
    classes = training_set.classes
    card = Card(
        name=texts.name,
        classes=classes,
        bands=bands,
        radiometry=radiometry,
        gsd_m=float(np.median(gsds_m)),
        gsd_range_m=(min(gsds_m) / _GSD_SLACK, max(gsds_m) * _GSD_SLACK),
        tile_px=1,  # chosen below, when the card knows the network's stride
        object_px=(low, middle, high),
        network=network,
        thresholds=(SCORE_FLOOR,) * len(classes),
        description=texts.description,
        licence=texts.licence,
        attribution=texts.attribution,
    )
    return replace(card, tile_px=choose_tile_px(high, card.stride_px))


def _bands(
    names: tuple[str, ...] | None, indices: tuple[int, ...], descriptions: tuple[str, ...]
) -> tuple[Band, ...]:
    names = names or tuple(
        name or f"band {index}" for name, index in zip(descriptions, indices, strict=True)
    )
    if len(names) != len(indices):
        raise TrainingError(
            f"data.band_names has {len(names)} names for {len(indices)} bands; give one for each"
        )
    return tuple(Band(name, index) for name, index in zip(names, indices, strict=True))


def _version(package: str) -> str:
    """Read the version of a package, or of Python; ``unknown`` for one run from its source tree."""
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
