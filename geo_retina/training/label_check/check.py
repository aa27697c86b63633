"""``check_labels``: what a training would work with, before any of it is spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.dataset.labelled_scenes import LabelledScene, TrainingSet, load_training_set
from geo_retina.dataset.split import Split, Subset, split_ground
from geo_retina.dataset.windows import WindowDraw
from geo_retina.errors import TrainingError
from geo_retina.files import make_report_folder, write_text
from geo_retina.geodesy import crs_label
from geo_retina.grid import Window
from geo_retina.model import OVERLAP_MARGIN_PX, choose_tile_px
from geo_retina.nn.anchors import FittedAnchors, fit_anchors, shape_coverage
from geo_retina.options import NetworkOptions, SampleOptions, SplitOptions, TrainOptions
from geo_retina.plots import LabelledView, draw_samples, draw_sizes
from geo_retina.training.anchor_fit import about_anchors, square_sides
from geo_retina.training.label_check.numbers import LabelNumbers
from geo_retina.training.label_check.report import LabelReport
from geo_retina.training.label_check.statistics import (
    IOU_STEPS,
    PERCENTILES,
    WindowNumbers,
    count_subset,
    histogram,
    max_ious,
    measure_angles,
    measure_windows,
    sides_px,
)
from geo_retina.training.label_check.text import find_warnings

_SAMPLES = 12  # in the picture of samples
_SCENES = 8  # in the picture of whole scenes
_SHADE_PX = 128  # the ground's use is drawn this finely
_BACKBONE_LEVEL = 5
_NOTHING_SPLIT = Split(1.0, frozenset(), 0.0)

REPORT = "report.txt"
NUMBERS = "report.json"


def check_labels(
    options: TrainOptions, out: str | Path | None = None, *, overwrite: bool = False
) -> LabelReport:
    """Look at the scenes and labels of a training run, without training.

    Args:
        options: the whole run.
        out: folder for the report and pictures of samples, scenes and sizes; left out, none.
        overwrite: replace an earlier report.

    Returns:
        The report; a split that cannot be made is one of its warnings.

    Raises:
        OutputError: the folder holds a report already, or cannot be written.
        GeoRetinaError: scenes, labels or options cannot be used at all.

    Examples:
        >>> from geo_retina import check_labels, load_train_options
        >>> print(check_labels(load_train_options("train.yaml")).text().splitlines()[0])
        check of the labels for example
    """
    folder = None if out is None else Path(out)
    if folder is not None:  # before minutes are spent on reading
        make_report_folder(folder, (NUMBERS,), overwrite=overwrite)
    samples, seed = options.samples, options.seed
    training_set = load_training_set(
        options.data,
        place_column=options.split.place_column,
        oriented=options.labels_oriented,
        log_warnings=False,  # they are in the report
    )
    split, problem = _try_split(training_set, options.split, seed)
    own = options.resolved_network
    windows = _windows(training_set, split, samples, seed)
    numbers = _measure(options.name, training_set, split, own, windows, turned=samples.flips)
    warnings = [*training_set.warnings, *([problem] if problem else [])]
    warnings += find_warnings(numbers, window_px=samples.window_px)
    fit = numbers.anchor_coverage if numbers.own_coverage is None else numbers.own_coverage
    misfit = about_anchors(fit, options.assign, own.boxes)
    warnings += [misfit] if misfit else []
    report = LabelReport(**vars(numbers), warnings=tuple(warnings))
    if folder is not None:
        anchors = own.anchor_sides_px or report.anchor_sides_px
        _draw(folder, training_set, split, anchors)
        views = _sample_views(training_set, split, samples, seed)
        draw_samples(views, training_set.classes, folder / "samples.png")
        _write(folder, report)
    return report


def _try_split(
    training_set: TrainingSet, options: SplitOptions, seed: int
) -> tuple[Split, str | None]:
    """Split the ground, or return no split with the sentence that says why."""
    scenes = [each.scene for each in training_set.scenes]
    try:
        split = split_ground(scenes, options, seed=seed, training_set=training_set)
    except TrainingError as error:
        return _NOTHING_SPLIT, str(error)
    return split, None


def _measure(
    name: str,
    training_set: TrainingSet,
    split: Split,
    own: NetworkOptions,
    windows: WindowNumbers | None,
    *,
    turned: bool,
) -> LabelNumbers:
    scenes = [each.scene for each in training_set.scenes]
    gsds_m = [each.gsd_m for each in training_set.scenes]
    sides = sides_px(training_set)
    area_side = np.sqrt(sides.prod(axis=1))
    longest_px = float(np.percentile(sides.max(axis=1), 99))
    ious = np.concatenate([max_ious(each) for each in training_set.scenes])
    all_sides = torch.from_numpy(_sides_of_anchors(training_set, own, sides))
    anchors, own_coverage = _anchors(all_sides, own, turned=turned)
    used = [part for part in Subset if part is not Subset.TEST or split.has_test]
    crs = [_crs_text(each) for each in training_set.scenes]
    shapes = np.array([scene.grid.shape for scene in scenes])
    return LabelNumbers(
        name=name,
        scenes=len(scenes),
        scene_px=(_pair(shapes.min(axis=0)), _pair(shapes.max(axis=0))),
        crs={name: crs.count(name) for name in dict.fromkeys(crs)},
        gsd_m=(min(gsds_m), max(gsds_m)),
        bands=len(scenes[0].bands),
        dtype=scenes[0].dtype,
        counts=training_set.counts,
        sources=training_set.sources,
        parts={part.name.lower(): count_subset(training_set, split, part) for part in used},
        split={
            part.name.lower(): split.describe(part) for part in used if part is not Subset.TRAIN
        },
        sides_px={p: float(np.percentile(area_side, p)) for p in PERCENTILES},
        longest_px=longest_px,
        histogram_px=histogram(area_side),
        angles=measure_angles(training_set) if own.boxes == "oriented" else None,
        overlap={step: float((ious > step).mean()) for step in IOU_STEPS},
        windows=windows,
        levels=anchors.levels,
        anchor_sides_px=anchors.sides_px,
        anchor_ratios=anchors.ratios,
        anchor_coverage=shape_coverage(all_sides, anchors.sides_px, anchors.ratios),
        own_coverage=own_coverage,
        tile_px=choose_tile_px(longest_px, 2 ** max(_BACKBONE_LEVEL, *anchors.levels)),
        overlap_px=int(np.ceil(longest_px)) + OVERLAP_MARGIN_PX,
    )


def _sides_of_anchors(
    training_set: TrainingSet, own: NetworkOptions, sides_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Choose the (N, 2) sides that training fits anchors to."""
    rotated = [each.rotated_px for each in training_set.scenes if each.rotated_px is not None]
    if own.boxes == "upright" or not rotated:
        return sides_px
    return square_sides(np.concatenate(rotated))


def _anchors(
    sides: Tensor, own: NetworkOptions, *, turned: bool
) -> tuple[FittedAnchors, float | None]:
    """Fit anchors as training would, and see how many labels fit those of the options, if any."""
    if own.anchor_sides_px is None:
        fitted = fit_anchors(sides, levels=own.levels, ratios=own.anchor_ratios, turned=turned)
        return fitted, None
    assert own.anchor_ratios is not None
    fitted = fit_anchors(sides, levels=None, turned=turned)
    return fitted, shape_coverage(sides, own.anchor_sides_px, own.anchor_ratios)


def _pair(shape: NDArray[np.int64]) -> tuple[int, int]:
    return int(shape[0]), int(shape[1])


def _crs_text(each: LabelledScene) -> str:
    crs = each.scene.grid.crs
    if crs is None:
        return "none"
    return crs_label(crs)


def _windows(
    training_set: TrainingSet, split: Split, samples: SampleOptions, seed: int
) -> WindowNumbers | None:
    try:
        return measure_windows(training_set, split, samples, seed=seed)
    except TrainingError:  # there is no training ground, which the numbers of the parts say
        return None


def _draw(
    folder: Path,
    training_set: TrainingSet,
    split: Split,
    anchor_sides_px: Sequence[Sequence[float]],
) -> None:
    """Draw the scenes with their labels, and the labels' sizes beside the anchors'."""
    classes = training_set.classes
    draw_samples(_scene_views(training_set, split), classes, folder / "scenes.png")
    sides = np.sqrt(sides_px(training_set).prod(axis=1))
    labels = np.concatenate([each.labels for each in training_set.scenes])
    anchors = [side for level in anchor_sides_px for side in level]
    draw_sizes(sides, labels, classes, anchors, folder / "sizes.png")


def _write(folder: Path, report: LabelReport) -> None:
    """Write the report for people and for machines."""
    write_text(folder / REPORT, report.text() + "\n")
    numbers = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    write_text(folder / NUMBERS, numbers + "\n")


def _sample_views(
    training_set: TrainingSet, split: Split, samples: SampleOptions, seed: int
) -> list[LabelledView]:
    """Draw windows as training does, unscaled; the last ones from anywhere."""
    try:
        draw = WindowDraw(training_set, split, samples)
    except TrainingError:
        return []
    views = []
    for number in range(_SAMPLES):
        rng = np.random.default_rng([seed, number])
        take = draw.choose if number < _SAMPLES * 3 // 4 else draw.anywhere
        scene, window = take(rng, draw.plain_frame())
        each = training_set.scenes[scene]
        title = f"{each.scene.name}\nx {window.col}, y {window.row}"
        views.append(_view(each, window, split, title))
    return views


def _scene_views(training_set: TrainingSet, split: Split) -> list[LabelledView]:
    """Show the scenes with the most labels, whole."""
    counts = np.array([len(each.boxes_px) for each in training_set.scenes])
    order: Sequence[int] = np.argsort(-counts, kind="stable")[:_SCENES].tolist()
    views = []
    for number in order:
        each = training_set.scenes[number]
        title = f"{each.scene.name}: {counts[number]:,} labels"
        views.append(_view(each, each.scene.grid.window, split, title))
    return views


def _view(each: LabelledScene, window: Window, split: Split, title: str) -> LabelledView:
    x = window.col + (np.arange(_SHADE_PX) + 0.5) / _SHADE_PX * window.width
    y = window.row + (np.arange(_SHADE_PX) + 0.5) / _SHADE_PX * window.height
    points = np.stack(np.meshgrid(x, y), axis=-1)
    grid = each.scene.grid
    shade = split.parts(grid, points).astype(np.int8)
    held = each.holds(points.reshape(-1, 2)).reshape(shade.shape)
    beyond = (points < 0).any(axis=-1) | (points >= [grid.width, grid.height]).any(axis=-1)
    shade[~held] = 3
    shade[beyond] = 0
    near = each.near(window)
    ignored = each.ignored_px[each.near_ignored(window)]
    corners = boxes.corners(each.boxes_px[near])
    if each.rotated_px is not None:
        corners = oriented.corners(each.rotated_px[near])
    return LabelledView(title, each.scene, window, corners, each.labels[near], ignored, shade)
