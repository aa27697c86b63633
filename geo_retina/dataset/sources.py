"""Label layers of any kind, numbered by class; nothing is lost uncounted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_retina.dataset.regions import Regions
from geo_retina.errors import LabelError
from geo_retina.options import DataOptions, LabelOptions, it_has, quoted, same_text
from geo_retina.vector import (
    CocoLabels,
    LabelLayer,
    encoding_doubt,
    is_coco,
    is_label_folder,
    read_coco,
    read_label_folder,
    read_source,
)

log = logging.getLogger(__name__)

ONE_CLASS = "object"
"""Name of the class where neither a column nor a name is given."""


@dataclass(eq=False)
class Source:
    """A layer of labels of the classes that are trained.

    Attributes:
        options: where it came from.
        layer: the labels.
        read: labels in the layer after its filter, of whatever class.
        numbers: (N,) int64 class of each label; 0 of ignored ones of no class.
        named: distinct names of scenes that the labels of any class give, and those of images
            without a label; None where labels go by place.
    """

    options: LabelOptions
    layer: LabelLayer | CocoLabels
    read: int
    numbers: NDArray[np.int64]
    named: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def name(self) -> str:
        """The file and its layer."""
        layer = self.options.layer
        return self.options.path if layer is None else f"{self.options.path}, layer {layer}"

    @property
    def is_points(self) -> bool:
        """Whether the labels are points."""
        return isinstance(self.layer, LabelLayer) and self.layer.is_points

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(N,) which labels are neither object nor background."""
        found = self.layer.ignored
        return np.zeros(len(self), np.bool_) if found is None else found

    @property
    def places(self) -> NDArray[np.object_]:
        """(N,) place that each label names, or None."""
        found = self.layer.places if isinstance(self.layer, LabelLayer) else None
        return np.full(len(self), None, dtype=object) if found is None else found

    @property
    def weights(self) -> NDArray[np.float64]:
        """(N,) how often samples are drawn around each label."""
        found = self.layer.weights if isinstance(self.layer, LabelLayer) else None
        return np.ones(len(self)) if found is None else found

    @property
    def by_place(self) -> int:
        """Labels that name no scene although the others do."""
        if not isinstance(self.layer, LabelLayer) or self.layer.scenes is None:
            return 0
        return sum(name is None for name in self.layer.scenes)

    @property
    def scene_names(self) -> NDArray[np.object_] | None:
        """(N,) the scene that each label names, or None; None where labels go by place."""
        if isinstance(self.layer, CocoLabels):
            return self.layer.files[self.layer.image]
        return self.layer.scenes

    @property
    def size_m(self) -> float | None:
        """The middle size of points; None for others."""
        if not self.is_points:
            return None
        assert isinstance(self.layer, LabelLayer)
        sizes = self.layer.sizes_m
        return self.options.point_size_m if sizes is None else float(np.median(sizes))

    def take(self, index: NDArray[np.bool_]) -> None:
        """Keep the labels where a mask is true."""
        if isinstance(self.layer, LabelLayer):
            self.layer = self.layer.take(index)
        else:
            self.layer = self.layer.take(index)
        self.numbers = self.numbers[index]


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """What became of the labels, so that nothing is dropped in silence.

    Attributes:
        name: the layer; empty for the sum of several.
        read: labels with a usable geometry, after the filter.
        used: objects that lie on a scene.
        per_class: those by class.
        no_scene: labels that no scene shows.
        other_scene: of these, the ones that name a file which is none of the scenes.
        other_class: labels of a class that is not among those trained.
        ignored: labels on a scene that are neither object nor background.
        off_ground: of those used, the ones whose centre is on ground that was not labelled.
        by_place: labels that name no scene, although a column was named, and went by place.
        no_geometry: features without a geometry.
        empty: features with an empty one.
        invalid: features with one that has no area or is not finite.
        repaired: of those read, polygons that were invalid and were made valid.
    """

    name: str = ""
    read: int
    used: int
    per_class: dict[str, int] = field(default_factory=dict)
    no_scene: int = 0
    other_scene: int = 0
    other_class: int = 0
    ignored: int = 0
    off_ground: int = 0
    by_place: int = 0
    no_geometry: int = 0
    empty: int = 0
    invalid: int = 0
    repaired: int = 0

    @property
    def dropped(self) -> int:
        """Features without a usable geometry."""
        return self.no_geometry + self.empty + self.invalid

    @classmethod
    def total(cls, parts: Sequence[LabelCounts]) -> LabelCounts:
        """Sum the counts of several layers of the same classes."""
        classes = list(parts[0].per_class)
        names = [n for n, kind in cls.__annotations__.items() if kind == "int"]
        return cls(
            per_class={name: sum(part.per_class[name] for part in parts) for name in classes},
            **{name: sum(getattr(part, name) for part in parts) for name in names},
        )

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in self.per_class.items())
        more = {
            "marked to be ignored": self.ignored,
            "repaired": self.repaired,
            "on ground that was not labelled": self.off_ground,
            "placed without a scene's name": self.by_place,
        }
        extra = "".join(f"; {count} {what}" for what, count in more.items() if count)
        named = f" ({self.other_scene} name another file)" if self.other_scene else ""
        return (
            f"{self.read} labels read, {self.used} on scenes ({classes}); left out: "
            f"{self.no_scene} on no scene{named}, {self.other_class} of other classes, "
            f"{self.dropped} without a usable geometry{extra}"
        )


def read_source_layers(
    options: DataOptions, *, place_column: str | None
) -> tuple[list[Source], list[Regions]]:
    """Read all label layers, and the layers of ground to ignore.

    Raises:
        LabelError: a layer cannot be used.
    """
    remedy = "say which one with data.layer in the config"
    if not isinstance(options.labels, str):
        remedy = "say which one with layer beside its path in the config"
    alone = options.sources if isinstance(options.labels, str) else options.labels
    sources, given, ignore = [], [], []
    for each, own in zip(options.sources, alone, strict=True):
        if each.ignore:
            ignore.append(Regions.read(each, layer_remedy=remedy))
            continue
        layer: LabelLayer | CocoLabels
        if is_coco(each.path):
            layer = read_coco(each.path)
        elif is_label_folder(each.path):
            ignores = each.ignore_column == "difficult"
            layer = read_label_folder(each.path, ignore_difficult=ignores)
        else:
            layer = read_source(each, place_column=place_column, layer_remedy=remedy)
        numbers = np.zeros(len(layer), np.int64)
        sources.append(Source(each, layer, len(layer), numbers, _named(layer)))
        given.append(own)
    _refuse_unread(sources, given)
    return sources, ignore


_OF_COLUMNS = ("layer", "where", "class_column", "class_name", "scene_column", "ignore_column")


def _refuse_unread(sources: Sequence[Source], given: Sequence[LabelOptions]) -> None:
    """Refuse keys for columns of labels that are annotations of images, which have none.

    Args:
        sources: all layers.
        given: their keys without those that stand beside ``labels``, which of several layers may be
            meant for the others.

    Raises:
        LabelError: there is such a key.
    """
    of_images = [isinstance(source.layer, CocoLabels) for source in sources]
    if all(of_images):
        given = [source.options for source in sources]
    for each, has_no_columns in zip(given, of_images, strict=True):
        for key in _OF_COLUMNS if has_no_columns else ():
            value = getattr(each, key)
            is_flag = key == "ignore_column" and value == "difficult" and Path(each.path).is_dir()
            if value is not None and not is_flag:
                raise LabelError(
                    f"{each.path} holds annotations of images, not a layer with columns, so "
                    f"data.{key} cannot be used with it; leave it out, choose or merge classes "
                    "with data.classes, or convert the annotations into a layer"
                )


def _named(layer: LabelLayer | CocoLabels) -> tuple[str, ...] | None:
    if isinstance(layer, CocoLabels):
        return tuple(map(str, layer.files))
    if layer.scenes is None:
        return None
    return tuple(dict.fromkeys(str(name) for name in layer.scenes if name is not None))


def number_classes(sources: Sequence[Source], options: DataOptions) -> tuple[str, ...]:
    """Assign class numbers to the labels of all layers, and leave out those of other classes.

    Returns:
        The class names, in the order of their numbers.

    Raises:
        LabelError: a class is named that no label has, or several where none can be recognised,
            or one in two ways that differ by capitals alone.
    """
    names = [_names(source, options) for source in sources]
    found = _distinct(names)
    class_of = options.class_of or {name: name for name in sorted(found)}
    _check_capitals(sources, names, options)
    classes = options.class_names or tuple(sorted(found)) or (ONE_CLASS,)
    present = {class_of[name] for name in found if name in class_of}
    unknown = [name for name in classes if name not in present]
    if unknown and options.classes is not None and options.review is None:
        column = next((s.options.class_column for s in sources if s.options.class_column), "class")
        raise LabelError(
            f"no label in {_paths(sources)} has {column} = "
            f"{quoted(unknown[0])}, which data.classes names; "
            f"{it_has(unknown[0], sorted(found), none='no class at all', say='it holds')}"
            f"{_doubts(sources, sorted(found))}"
        )
    # Who corrects a model names all its classes, and need not have met each of them.
    for name in class_of.keys() - found if options.classes is not None else ():
        log.warning(
            "no label in %s is called %s, which data.classes takes for %s; %s",
            _paths(sources),
            quoted(name),
            quoted(class_of[name]),
            it_has(name, sorted(found), say="they hold" if len(sources) > 1 else "it holds"),
        )
    number = {name: classes.index(own) for name, own in class_of.items()}
    for source, part in zip(sources, names, strict=True):
        unique, inverse = np.unique(part.astype(str), return_inverse=True)
        own = np.array([number.get(str(name), -1) for name in unique], np.int64)[inverse]
        # What is ignored needs no class.
        source.numbers = np.where(source.ignored, np.maximum(own, 0), own)
        source.take(source.numbers >= 0)
    return classes


def _check_capitals(
    sources: Sequence[Source], names: Sequence[NDArray[np.object_]], options: DataOptions
) -> None:
    """Refuse a class that is written in two ways, one of which nobody named: it would get lost.

    Args:
        sources: all layers.
        names: of the class of each label, a part a layer.
        options: with the classes that were named.
    """
    found = _distinct(part[~each.ignored] for each, part in zip(sources, names, strict=True))
    known = {name.casefold(): name for name in options.class_of}
    class_of = options.class_of or {name: name for name in sorted(found)}
    for name in sorted(found - options.class_of.keys()):
        other = known.get(name.casefold())
        if other is None:
            if options.classes is None:
                known[name.casefold()] = name
            continue
        class_of[name] = class_of[other]
        means: dict[str, list[str]] = {}
        for each, own in class_of.items():
            means.setdefault(own, []).append(each)
        config = ", ".join(
            f"{quoted(own)}: [{', '.join(map(quoted, all_of))}]" for own, all_of in means.items()
        )
        raise LabelError(
            f"labels in {_paths(sources)} are called "
            f"{quoted(name)}, and a class is called {quoted(other)}; call them alike in the layer, "
            f"or, where a config of a training names them, write data.classes: {{{config}}}"
        )


def _distinct(parts: Iterable[NDArray[np.object_]]) -> set[str]:
    """Gather the names of classes in several columns."""
    names = {name for part in parts for name in set(part.tolist()) if isinstance(name, str)}
    return names - {""}


def _paths(sources: Sequence[Source]) -> str:
    return ", ".join(source.options.path for source in sources)


def _doubts(sources: Sequence[Source], names: list[str]) -> str:
    """Describe what may be wrong with the layers' encoding of text, as the end of a sentence."""
    notes = [
        encoding_doubt(source.options.path, source.options.layer, names)
        for source in sources
        if isinstance(source.layer, LabelLayer) and source.options.encoding is None
    ]
    return "".join(f"; {each}" for each in notes if each is not None)


def _names(source: Source, options: DataOptions) -> NDArray[np.object_]:
    """Read (N,) the name of each label's class, as its layer has it."""
    if source.layer.class_names is not None:
        return source.layer.class_names
    name = source.options.class_name
    if name is not None:
        name = same_text(name)
    else:
        classes = options.class_names or (ONE_CLASS,)
        if len(classes) > 1:
            raise LabelError(
                f"data.classes names {len(classes)} classes, but {source.layer.path} is read "
                "without a class column; name the column with data.class_column, or the layer's "
                "one class with class_name"
            )
        stands = [found for found, own in options.class_of.items() if own == classes[0]]
        name = stands[0] if stands else classes[0]
    return np.full(len(source), name, dtype=object)
