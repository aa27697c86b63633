"""Fitting a scene to a model: which bands, at what resolution, and what its numbers mean.

What to expect of a scene that does not fit as it is:

- Bands are matched by name, and the card's default places serve where names are missing.
- A scene whose pixels are outside the card's range of sizes is resampled to the model's. One more
  than ``_MOST_UPSAMPLING`` times as coarse as the range cannot show the objects, and is refused
  unless forced; a finer one loses nothing.
- 8-bit numbers, signed ones and wider ones are of different kinds. A scene of another kind is
  taken, with a note, where its values lie in the model's range, and refused unless stretched or
  forced where they do not. Wider numbers are told apart by the range of their values alone.
- A scene without georeferencing is detected at its own pixels, unless their size is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import OptionError, SceneMismatchError
from geo_retina.geodesy import missing_crs
from geo_retina.model import Card, bundled_models, load_card
from geo_retina.options import DetectOptions
from geo_retina.scene import (
    Scene,
    SceneFile,
    ValueMap,
    ValueRange,
    as_scene,
    inspect_file,
    match_bands,
    note_other_rasters,
    sample_values,
)

_GSD_TOLERANCE = 1.02
"""A GSD this near to the card's range is in it: GSDs of neighbouring zones differ slightly."""

_MOST_UPSAMPLING = 2.0
"""Scenes coarser than the card's range by more than this are refused unless forced."""

_FAR = 10.0
"""Values whose bright end is this many times the training's, or a part of it, do not fit."""

_BRIGHT = 98.0  # percentile of a scene's values that stands for their bright end
_BYTES = {"uint8": "unsigned", "bool": "unsigned", "int8": "signed"}
"""Kinds of 8-bit numbers: in those with a sign, what was 0 to 255 is -128 to 127."""


def fit_scene(path: str, card: Card, options: DetectOptions) -> Scene:
    """Open a scene as a model wants it.

    Pixels are read only where the values' range must be looked at: for a stretch, and for models
    and scenes of more than 8 bits.

    Raises:
        SceneError: the file is missing or no raster.
        SceneMismatchError: its bands, values or resolution do not fit the model.
    """
    file = inspect_file(path, pixel_m=options.pixel_m)
    bands = _choose_bands(file, card, options)
    scene = _at_resolution(file, bands, card, options)
    scene = replace(scene, values=_tags_for(scene, card))
    if options.stretch is not None:
        return replace(scene, values=_stretch(scene, card, options.stretch))
    if options.force:
        return scene
    return replace(scene, taken_in=_check_values(scene, card))


def suited(options: DetectOptions, card: Card) -> DetectOptions:
    """Fill in the card's suppression where the options have none.

    Across tiles nothing is kept that would be suppressed within one.
    """
    nms_iou = card.nms_iou if options.nms_iou is None else options.nms_iou
    merge = replace(options.merge, iou=min(options.merge.iou, nms_iou))
    return replace(options, nms_iou=nms_iou, merge=merge)


def check_prescreen(options: DetectOptions, card: Card) -> None:
    """Refuse a first look that a card does not tell how to take, or not for scores so low.

    Raises:
        OptionError: it is one.
    """
    if not options.prescreen:
        return
    if card.prescreen is None:
        raise OptionError(
            f"DetectOptions.prescreen is given, but the card of model {card.name} does not say "
            "how a first look keeps its objects; calibrating the model can measure it"
        )
    floor = options.floor
    wanted = card.thresholds if floor is None else (floor,) * len(card.classes)
    for name, score, least in zip(card.classes, wanted, card.prescreen.thresholds, strict=True):
        if score < least:
            raise OptionError(
                f"DetectOptions.prescreen is given, but {name} is to be kept from a score of "
                f"{score:.4g} on, and the first look of model {card.name} was measured on objects "
                f"from {least:.4g} on; leave out DetectOptions.prescreen, or raise "
                "DetectOptions.score"
            )


def notes_on(scenes: Sequence[Scene]) -> tuple[str, ...]:
    """Note in sentences what a user should know of how scenes were read; may be none."""
    notes = []
    nowhere = [scene for scene in scenes if scene.grid.crs is None]
    if nowhere:
        notes.append(_note_missing_crs(nowhere))
    resampled = [s for s in scenes if s.is_resampled and abs(s.resampling_factor - 1) > 0.02]
    if resampled:
        factors = [scene.resampling_factor for scene in resampled]
        span = f"{min(factors):.3g} to {max(factors):.3g}"
        if f"{min(factors):.3g}" == f"{max(factors):.3g}":
            span = f"{factors[0]:.3g}"
        notes.append(
            f"{_and_more(resampled)} {_have(resampled)} been resampled, by a factor of {span} a "
            "side"
        )
    other = [(s, s.taken_in) for s in scenes if s.taken_in is not None]
    if other:
        tagged = " with scale tags" if any(scene.values is not None for scene, _ in other) else ""
        kinds = ", ".join(sorted({scene.dtype for scene, _ in other}))
        looked_at = sum(held.looked_at for _, held in other)
        notes.append(
            f"{_and_more([scene for scene, _ in other])} {_have(other)} {kinds} pixels{tagged}, "
            "taken as they are because their values lie in the model's "
            f"{other[0][1]} at the {looked_at:,} pixels "
            "looked at; ground where they do not is reported as not covered"
        )
    others = note_other_rasters(scenes)
    return tuple(notes if others is None else [*notes, others])


def _note_missing_crs(scenes: Sequence[Scene]) -> str:
    several = len(scenes) > 1
    unsized = scenes[0].grid.pixel_m is None
    so = (
        f"{'their' if several else 'its'} polygons are in the file's own coordinates, or without "
        "an affine in pixels with y up from the top edge"
    )
    if unsized:
        so += ", and the resolution is taken to be the model's"
    otherwise = ", or say the resolution with DetectOptions.pixel_m" if unsized else ""
    return missing_crs(_and_more(scenes), so, otherwise=otherwise, several=several)


def _and_more(scenes: Sequence[Scene]) -> str:
    if len(scenes) == 1:
        return scenes[0].path
    return f"{len(scenes):,} scenes, such as {scenes[0].path},"


def _have(items: Sequence[object]) -> str:
    return "has" if len(items) == 1 else "have"


def _choose_bands(file: SceneFile, card: Card, options: DetectOptions) -> tuple[int, ...]:
    file.refuse_palette()
    if options.bands is not None:
        if len(options.bands) != len(card.bands):
            raise SceneMismatchError(
                f"{len(options.bands)} bands were named for {file.path}, model {card.name} needs "
                f"{len(card.bands)} ({_needs(card)}); name as many with "
                "DetectOptions.bands"
            )
        if max(options.bands) > len(file.labels):
            raise SceneMismatchError(
                f"{_has(file)}, so it has no band {max(options.bands)}; name {len(card.bands)} of "
                f"its bands ({_needs(card)}) with DetectOptions.bands"
            )
        return options.bands
    found = _match(file, card)
    if found is None:
        raise SceneMismatchError(
            f"{_has(file)}, model {card.name} needs {len(card.bands)} ({_needs(card)}); name the "
            "file's bands in this order with DetectOptions.bands, whatever the file calls them"
            f"{_or_another_model(file, card)}"
        )
    return found


def _match(file: SceneFile, card: Card) -> tuple[int, ...] | None:
    """Find the bands that a model needs among those of a file."""
    return match_bands(file.labels, [(band.name, band.index) for band in card.bands])


def _or_another_model(file: SceneFile, card: Card) -> str:
    """Name a bundled model that finds the same in the bands that a file has; empty if none does."""
    for path in bundled_models().values():
        other = load_card(path)
        if other.classes == card.classes and _match(file, other) is not None:
            return f"; or take the bundled model {other.name}, which needs {_needs(other)}"
    return ""


def _has(file: SceneFile) -> str:
    bands = ", ".join(map(str, file.labels))
    return f"{file.path} has {len(file.labels)} bands ({bands})"


def _needs(card: Card) -> str:
    return ", ".join(band.name for band in card.bands)


def _at_resolution(
    file: SceneFile, bands: tuple[int, ...], card: Card, options: DetectOptions
) -> Scene:
    if options.gsd_m is not None:
        return as_scene(file, bands=bands, gsd_m=options.gsd_m)
    gsd_m = file.placement.grid.gsd_m
    low, high = card.gsd_range_m
    if gsd_m is None or low / _GSD_TOLERANCE <= gsd_m <= high * _GSD_TOLERANCE:
        return as_scene(file, bands=bands)
    if gsd_m > high * _MOST_UPSAMPLING and not options.force:
        raise SceneMismatchError(
            f"{file.path} has pixels of {gsd_m:.4g} m, model {card.name} holds for {low:.3g} to "
            f"{high:.3g} m and its objects cannot be seen in pixels so coarse; give finer imagery, "
            f"or resample it to {card.gsd_m:.3g} m all the same with "
            "DetectOptions.force=True"
        )
    return as_scene(file, bands=bands, gsd_m=card.gsd_m)


def _tags_for(scene: Scene, card: Card) -> ValueMap | None:
    """Scale and offset tags, unless the model was trained on whole numbers of the file's type."""
    is_whole = np.issubdtype(np.dtype(scene.dtype), np.integer)
    return None if is_whole and scene.dtype == card.radiometry.dtype else scene.values


def _check_values(scene: Scene, card: Card) -> ValueRange | None:
    """Look at a sample of values, and refuse those that are far from those of training.

    Returns:
        The range they were found in where they are of another kind of numbers; else None.

    Raises:
        SceneMismatchError: they are far, or leave what the model's kind of numbers can hold.
    """
    trained = card.radiometry.dtype
    is_other = _BYTES.get(scene.value_dtype) != _BYTES.get(trained)
    if trained in _BYTES and not is_other:
        return None
    values = sample_values(scene)
    if not values.shape[1]:
        return None  # no ground, so no tile will be detected
    low, high = _limits(trained)
    held = ValueRange(
        -np.inf if low is None else low, np.inf if high is None else high, values.shape[1]
    )
    ends = np.percentile(values, [100 - _BRIGHT, _BRIGHT], axis=1)
    if is_other and held.is_left(values):
        raise SceneMismatchError(
            f"{scene.path} has {scene.value_dtype} pixels of {values.min():.6g} to "
            f"{values.max():.6g}, model {card.name} was trained on {trained}; stretch the scene to "
            "the model's range with DetectOptions.stretch=(2, 98), declare its nodata value with "
            "gdal_edit.py -a_nodata if it has one, or use its numbers as they are with "
            "DetectOptions.force=True"
        )
    if _is_far(ends[1], card):
        centre, half = (np.array(v) for v in (card.radiometry.offset, card.radiometry.scale))
        what = f"{scene.value_dtype} pixels" if is_other else "values"
        raise SceneMismatchError(
            f"{scene.path} has {what} of mostly {ends[0].min():.4g} to {ends[1].max():.4g}, model "
            f"{card.name} was trained on {(centre - half).min():.4g} to "
            f"{(centre + half).max():.4g}{f' as {trained}' if is_other else ''}; stretch the scene "
            "to the model's range with DetectOptions.stretch=(2, 98), or use its values as they "
            "are with DetectOptions.force=True"
        )
    return held if is_other else None


def _is_far(bright: NDArray[np.float64], card: Card) -> bool:
    """Check whether most bands end far from where they ended in training.

    Dark water and bright clouds lie within a factor of ten of what land shows; another unit, such
    as a reflectance from 0 to 1 for one from 0 to 10,000, does not.
    """
    centre, half = (np.array(v) for v in (card.radiometry.offset, card.radiometry.scale))
    far = np.abs(bright - centre) > _FAR * np.abs(half)
    amounts = centre - np.abs(half) >= 0  # not temperatures or heights, which may be about 0
    return bool(np.mean(far | (amounts & (bright < (centre + np.abs(half)) / _FAR))) > 0.5)


def _stretch(scene: Scene, card: Card, percentiles: Sequence[float]) -> ValueMap:
    """Put two percentiles of the scene's values where the model's ordinary values end."""
    values = sample_values(scene)
    bands = len(scene.bands)
    low, high = np.percentile(values, percentiles, axis=1) if values.shape[1] else (0.0, 1.0)
    centre, half = (np.array(v) for v in (card.radiometry.offset, card.radiometry.scale))
    span = np.broadcast_to(high - low, bands)
    # A band of one value only is put at the middle.
    scale = np.where(span > 0, 2 * half / np.where(span > 0, span, 1), 0.0)
    offset = centre - scale * (low + high) / 2
    tags = scene.values or ValueMap((1.0,) * bands, (0.0,) * bands)
    offset = offset + scale * np.array(tags.offset)
    limits = _limits(card.radiometry.dtype)
    return ValueMap(tuple((scale * np.array(tags.scale)).tolist()), tuple(offset.tolist()), *limits)


def _limits(dtype: str) -> tuple[float | None, float | None]:
    """Return the lowest and highest number that the model's data type can hold."""
    kind = np.dtype(dtype)
    if not np.issubdtype(kind, np.integer):
        return None, None
    return float(np.iinfo(kind).min), float(np.iinfo(kind).max)
