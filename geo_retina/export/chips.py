"""Scenes and labels as folders of small pictures with annotations, for other tools.

Scenes are cut on a regular grid, so that no pixel is in two pictures. Ground is divided into
training and validation in whole blocks, as ``geo-retina train`` does, never by picture:
neighbouring pictures show the same trees.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.dataset.labelled_scenes import TrainingSet, load_training_set
from geo_retina.dataset.split import Split, split_ground
from geo_retina.dataset.window_labels import label_window
from geo_retina.errors import OptionError, OutputError, SceneMismatchError, TrainingError
from geo_retina.export.annotations import ORIENTED_FORMS, WRITERS, Chip
from geo_retina.files import check_overwrite, check_parent, new_file
from geo_retina.grid import Window
from geo_retina.options import ChipOptions, DataOptions, SampleOptions, SplitOptions
from geo_retina.scene import scene_names

_BANDS = (1, 3)
_LEAST_SHARE = 0.05
"""A picture without an object needs this share of labelled ground."""


@dataclass(frozen=True)
class ChipReport:
    """What was written.

    Attributes:
        out: the folder.
        pictures: number of them by part, ``train`` and ``val``.
        empty: those of them without an object.
        objects: annotations by class.
        left_out: objects of which no picture shows enough.
    """

    out: Path
    pictures: dict[str, int]
    empty: int
    objects: dict[str, int]
    left_out: int


def export_chips(
    data: DataOptions,
    out: str | Path,
    options: ChipOptions | None = None,
    *,
    overwrite: bool = False,
) -> ChipReport:
    """Cut scenes into pictures, and write what they show for other tools.

    Pictures are PNG of 8 bits with one or three bands. Ground that is invalid, was not labelled or
    lies in a label to ignore is black; pictures of which all is black are left out.

    Args:
        data: scenes and labels, as for training.
        out: the folder to make.
        options: size, form, and split.
        overwrite: replace an existing folder that this function made.

    Returns:
        What was written.

    Raises:
        OptionError: the split would leave a part without ground.
        SceneMismatchError: the pixels do not fit a PNG of 8 bits.
        OutputError: the folder exists, or cannot be written.
        GeoRetinaError: scenes or labels cannot be used.

    Examples:
        >>> from geo_retina import ChipOptions, DataOptions, export_chips
        >>> data = DataOptions(scenes=("scene.tif",), labels="labels.gpkg", class_column="class")
        >>> export_chips(data, "chips", ChipOptions(chip_px=256, val_fraction=0.0)).pictures
        {'train': 4, 'val': 0}
    """
    options, out = options or ChipOptions(), Path(out)
    _check_folder(out, overwrite=overwrite)
    training_set = load_training_set(data, oriented=options.form in ORIENTED_FORMS)
    _check_pixels(training_set)
    split = _split(training_set, options)
    chips = _choose(list(_all_chips(training_set, split, options)), options)
    with new_file(out) as draft:
        draft.mkdir()
        chips = _write(draft, training_set, chips, options)
        (draft / _MARK).write_text("made by geo-retina export-chips\n", "utf-8")
        _check_folder(out, overwrite=overwrite)  # again, as hours may have passed
    return _report(out, training_set, chips)


_MARK = ".geo-retina-chips"


def _check_folder(out: Path, *, overwrite: bool) -> None:
    check_parent(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    check_overwrite(out, overwrite=overwrite)
    if not (out / _MARK).exists():
        raise OutputError(f"{out} was not made by export-chips, so it stays; name another folder")


def _check_pixels(training_set: TrainingSet) -> None:
    for each in training_set.scenes:
        scene = each.scene
        if scene.dtype != "uint8" or len(scene.bands) not in _BANDS:
            raise SceneMismatchError(
                f"{scene.path} has {len(scene.bands)} bands of {scene.dtype}, expected 1 or 3 of "
                "uint8 for pictures that other tools read; choose bands with DataOptions.bands, "
                "or convert it, for example with gdal_translate -ot Byte -scale"
            )


def _split(training_set: TrainingSet, options: ChipOptions) -> Split | None:
    if not options.val_fraction:
        return None
    try:
        return split_ground(
            [each.scene for each in training_set.scenes],
            SplitOptions(val_fraction=options.val_fraction, block_m=options.block_m),
            seed=options.seed,
        )
    except TrainingError as error:
        raise OptionError(
            f"all scenes lie in one ground block of {options.block_m:g} m, so none is left for "
            "validation; lower ChipOptions.block_m, or make ChipOptions.val_fraction 0"
        ) from error


def _all_chips(
    training_set: TrainingSet, split: Split | None, options: ChipOptions
) -> Iterator[Chip]:
    """Cut every picture that shows enough labelled ground, scene by scene, row by row."""
    names = scene_names([each.scene.path for each in training_set.scenes])
    for number, (each, name) in enumerate(zip(training_set.scenes, names, strict=True)):
        grid, side = each.scene.grid, options.chip_px
        window_shape = (side, side)
        for row in range(0, grid.height, side):
            for col in range(0, grid.width, side):
                # The last row and column are padded with black, so that all are of one size.
                window = Window(row, col, side, side)
                centre = np.array([[col + side / 2, row + side / 2]])
                is_val = split is not None and bool(split.on_val(grid, centre)[0])
                shown = SampleOptions(min_visible=options.min_visible)
                found = label_window(each, window, np.ones(window_shape, np.bool_), shown)
                if len(found.boxes) or each.labelled(window).mean() >= _LEAST_SHARE:
                    stem = f"{Path(name).stem}_{row:06d}_{col:06d}"
                    part = "val" if is_val else "train"
                    corners = None if found.rotated is None else oriented.corners(found.rotated)
                    objects = found.boxes, found.labels, found.places
                    hidden = boxes.shift(each.ignored_px[each.near_ignored(window)], -col, -row)
                    yield Chip(number, stem, window, part, *objects, hidden, corners)


def _choose(chips: Sequence[Chip], options: ChipOptions) -> list[Chip]:
    """Choose all pictures with objects, and of each part as many empty ones as their share says."""
    rng = np.random.default_rng(options.seed)
    kept = {index for index, chip in enumerate(chips) if len(chip.boxes)}
    for part in ("train", "val"):
        full = sum(chips[index].part == part for index in kept)
        empty = [i for i, chip in enumerate(chips) if chip.part == part and not len(chip.boxes)]
        share = min(options.empty_share, 1 - 1e-9)
        empty_count = round(full * share / (1 - share)) if options.empty_share < 1 else len(empty)
        kept.update(rng.permutation(empty)[:empty_count].tolist())
    return [chips[index] for index in sorted(kept)]


def _write(
    folder: Path, training_set: TrainingSet, chips: Sequence[Chip], options: ChipOptions
) -> list[Chip]:
    """Write the pictures that show anything; tells which."""
    from PIL import Image

    written = []
    writer = WRITERS[options.form](folder, training_set.classes)
    for chip in chips:
        each = training_set.scenes[chip.scene]
        pixels, valid = each.scene.read(chip.window)
        seen = valid & each.labelled(chip.window) & ~_hidden(chip)
        if not seen.any() and not len(chip.boxes):
            continue
        picture = np.where(seen, pixels, 0).transpose(1, 2, 0)
        path = writer.picture_path(chip)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze()).save(path, optimize=False)
        writer.add(chip, each.scene)
        written.append(chip)
    writer.finish()
    return written


def _hidden(chip: Chip) -> NDArray[np.bool_]:
    """Find the pixels of a picture under labels to ignore, but not those of objects among them."""
    shape = chip.window.height, chip.window.width
    return _under(chip.hidden, shape) & ~_under(chip.boxes, shape)


def _under(hidden: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the pixels that boxes touch."""
    under = np.zeros(shape, np.bool_)
    for x_min, y_min, x_max, y_max in hidden.clip(0, max(shape)).tolist():
        under[math.floor(y_min) : math.ceil(y_max), math.floor(x_min) : math.ceil(x_max)] = True
    return under


def _report(out: Path, training_set: TrainingSet, chips: Sequence[Chip]) -> ChipReport:
    parts = Counter(chip.part for chip in chips)
    labels = np.concatenate([np.empty(0, np.int64), *(chip.labels for chip in chips)])
    per_class = np.bincount(labels, minlength=len(training_set.classes)).tolist()
    total = sum(len(each.labels) for each in training_set.scenes)
    shown = {(chip.scene, place) for chip in chips for place in chip.places.tolist()}
    return ChipReport(
        out=out,
        pictures={part: parts[part] for part in ("train", "val")},
        empty=sum(not len(chip.boxes) for chip in chips),
        objects=dict(zip(training_set.classes, per_class, strict=True)),
        left_out=total - len(shown),
    )
