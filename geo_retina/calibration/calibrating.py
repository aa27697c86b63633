"""``calibrate``: thresholds, suppression and probabilities of a model on a few labelled scenes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.calibration.first_look import (
    check_objects,
    first_look_lines,
    with_first_look,
)
from geo_retina.calibration.fitting import (
    Fit,
    MatchedScores,
    fit_classes,
    fit_elsewhere,
    limits,
)
from geo_retina.calibration.learn_cells import read_learn_cells
from geo_retina.dataset.labelled_scenes import TrainingSet, load_training_set
from geo_retina.errors import LabelError, OptionError
from geo_retina.evaluation import compare, evaluate, measure_reliability
from geo_retina.grid import Grid
from geo_retina.model import Card, Model, check_model_output, load_model
from geo_retina.options import CalibrateOptions, DataOptions, RunOptions, it_has
from geo_retina.options.training_parts import ScoringOptions
from geo_retina.review import name_reviews
from geo_retina.training.validation.ground import SCORE_FLOOR, ValidationGround, choose_ground
from geo_retina.training.validation.scoring import detect_on_ground

if TYPE_CHECKING:
    import geopandas as gpd

_NMS_IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_FEWEST_LABELS = 10
_RESAMPLES = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What a calibration changed, and what that gains.

    Attributes:
        out: the new model file.
        card: its card.
        labels: objects it stands on.
        f1_before: F1 with the model as it was.
        f1_after: F1 on blocks of ground, with what was fitted to the others; None where all
            labels lie in one block.
        gain: the second minus the first; None as ``f1_after``.
        interval: of the gain, 95 %; None where blocks are too few.
        ece_before: expected calibration error of the scores.
        ece_after: of the probabilities, fitted to other blocks; None as ``f1_after``.
    """

    out: Path
    card: Card
    labels: int
    f1_before: float
    f1_after: float | None
    gain: float | None
    interval: tuple[float, float] | None
    ece_before: float | None
    ece_after: float | None

    def text(self) -> str:
        """Write what changed and what it gains, under one another."""
        before = self.card.metrics["calibration"]
        rows = zip(
            self.card.classes, before["thresholds_before"], self.card.thresholds, strict=True
        )
        lines = [f"{self.labels:,} labels"]
        lines += [f"{name}: score from {a:.3f} to {b:.3f}" for name, a, b in rows]
        lines.append(f"nms_iou: from {before['nms_iou_before']:g} to {self.card.nms_iou:g}")
        if self.f1_after is None or self.gain is None:
            lines.append(f"F1 before: {self.f1_before:.3f}; too little ground for more")
            return "\n".join([*lines, *first_look_lines(self.card)])
        ends = ""
        if self.interval is not None:
            ends = f" (95 % of the gain from {self.interval[0]:+.3f} to {self.interval[1]:+.3f})"
        lines.append(f"F1: from {self.f1_before:.3f} to {self.f1_after:.3f}{ends}")
        if self.ece_before is not None and self.ece_after is not None:
            lines.append(f"calibration error: from {self.ece_before:.3f} to {self.ece_after:.3f}")
        if not self.is_better:
            lines.append("no gain on other ground: thresholds and suppression stay as they were")
        lines += first_look_lines(self.card)
        return "\n".join(lines)

    @property
    def is_better(self) -> bool:
        """Whether new thresholds and suppression gain on ground that they were not fitted to."""
        return self.gain is None or self.gain > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        names = ("labels", "f1_before", "f1_after", "gain", "interval", "ece_before", "ece_after")
        return {name: getattr(self, name) for name in names}


def calibrate(
    model: str | Path | Model,
    data: DataOptions,
    out: str | Path,
    options: CalibrateOptions = CalibrateOptions(),
    run: RunOptions = RunOptions(),
    *,
    overwrite: bool = False,
) -> CalibrationReport:
    """Choose thresholds and suppression anew on a few labelled scenes, and fit probabilities.

    The weights stay as they are. The gain is that of cross-validation by blocks of ground, so
    that what is fitted and what it is judged by are different objects.

    Args:
        model: a model, a model file, or the name of a bundled model.
        data: scenes and their labels; of bands and resolution, what is left out is the model's.
        out: model file to write, ending .safetensors.
        options: what is chosen.
        run: how detections are carried out.
        overwrite: replace an existing file.

    Raises:
        GeoRetinaError: the scenes or labels cannot be used, or are too few, or the file exists.

    Examples:
        >>> from geo_retina import CalibrateOptions, DataOptions, calibrate
        >>> data = DataOptions(scenes="scene.tif", labels="labels.gpkg", class_column="class")
        >>> options = CalibrateOptions(search_nms=False)
        >>> report = calibrate("demo", data, "calibrated.safetensors", options)
        >>> len(report.card.score_maps) == len(report.card.classes)
        True
    """
    out = Path(out)
    check_model_output(out, overwrite=overwrite)
    start = model if isinstance(model, Model) else load_model(model)
    ground, reviewed = gather_ground(start.card, data, options)
    if options.prescreen:
        check_objects(ground.objects)
    trials = [_try(start, start.card.nms_iou, ground, run)]
    if options.search_nms:
        trials += _other_suppressions(start, trials[0], ground, run)
    best = max(trials, key=lambda trial: trial.f1)  # the first, where none is better
    report = _report(out, start.card, trials[0], best, ground)
    if options.prescreen:
        kept = best if report.is_better else trials[0]
        calibrated = replace(start, card=report.card)
        report = replace(report, card=with_first_look(calibrated, kept.found, ground, run))
    # Nobody may count by these cells.
    reviews = name_reviews(reviewed, start.card.metrics.get("calibration"))
    about = {**report.card.metrics["calibration"], **reviews}
    metrics = {**report.card.metrics, "calibration": about}
    report = replace(report, card=replace(report.card, metrics=metrics))
    replace(start, card=report.card).save(out, half=None, overwrite=overwrite)
    return report


def gather_ground(
    card: Card, data: DataOptions, options: CalibrateOptions
) -> tuple[ValidationGround, dict[str, Any] | None]:
    """Gather the scenes and labels, read as the model sees them, and what to tell of a review."""
    if data.review is not None and data.labels:
        raise OptionError(
            "data.review and data.labels are both given, expected one of them to calibrate on; "
            "leave one out"
        )
    filled = replace(
        data,
        bands=data.bands or tuple(band.index for band in card.bands),
        band_names=data.band_names or tuple(band.name for band in card.bands),
        gsd_m=data.gsd_m or card.gsd_m,
        point_size_m=data.point_size_m or card.object_px[1] * card.gsd_m,
        # A few scenes need not show every class.
        classes=data.classes or (None if data.class_column or data.review else card.classes),
    )
    is_oriented = card.network.boxes == "oriented"
    training_set = load_training_set(filled, oriented=is_oriented)
    _check_classes(training_set, card)
    scoring = ScoringOptions(
        bands=filled.bands,
        gsd_m=filled.gsd_m,
        radius_m=options.radius_m,
        precision="auto",
        oriented=is_oriented,
    )
    reviewed = None
    if data.review is None:
        ground = choose_ground(training_set, _everywhere, "the labelled ground", scoring)
    else:
        cells = read_learn_cells(data.review)
        about = (
            f"{int(cells.chosen.sum())} completed cells of use learn of {Path(data.review).name}"
        )
        ground = choose_ground(training_set, cells, about, scoring, cells.outlines)
        reviewed = {"file": Path(data.review).name, **cells.about}
    if ground.objects < _FEWEST_LABELS:
        raise LabelError(
            f"{ground.objects} labels lie on the scenes, expected {_FEWEST_LABELS} or more, as "
            "fewer cannot tell one threshold from another; label more, or keep the model"
        )
    return ground, reviewed


def _everywhere(grid: Grid, points_px: Any) -> Any:
    """Take all ground that was labelled."""
    return np.ones(np.shape(points_px)[:-1], bool)


def _check_classes(training_set: TrainingSet, card: Card) -> None:
    unknown = [name for name in training_set.classes if name not in card.classes]
    if unknown:
        raise LabelError(
            f"the labels have the class {unknown[0]}, which the model does not know; "
            f"{it_has(unknown[0], card.classes)}; leave such labels out with the option where"
        )


@dataclass(frozen=True, eq=False)
class _Trial:
    """The model at one suppression.

    Attributes:
        nms_iou: of the suppression.
        found: detections from the lowest score on.
        matched: which of them are objects.
        fit: to all of them.
        kept: rows of ``found`` that are kept by what was fitted to other blocks, and F1 of
            these; where all lie in one block, by the fit itself.
        f1: of the rows kept.
        probabilities: of ``matched``, fitted to other blocks; None where all lie in one.
    """

    nms_iou: float
    found: gpd.GeoDataFrame
    matched: MatchedScores
    fit: Fit
    kept: gpd.GeoDataFrame
    f1: float
    probabilities: Any


def _try(model: Model, nms_iou: float, ground: ValidationGround, run: RunOptions) -> _Trial:
    card = model.card
    suppressing = replace(model, card=replace(card, nms_iou=nms_iou))
    found = detect_on_ground(suppressing, ground, run)
    matched = MatchedScores.of(evaluate(found, ground.truth, ground.options))
    fit = fit_classes(matched, card.classes, card.thresholds)
    elsewhere = fit_elsewhere(matched, card.classes, card.thresholds)
    if elsewhere is None:
        rows = matched.scores >= limits(matched.name, card.classes, fit.thresholds)
        probabilities = None
    else:
        rows, probabilities = elsewhere
    kept = found.iloc[np.sort(matched.row[rows])]
    f1 = evaluate(kept, ground.truth, ground.options).f1 or 0.0
    log.info("suppression from an IoU of %g on: F1 %.4f", nms_iou, f1)
    return _Trial(nms_iou, found, matched, fit, kept, f1, probabilities)


def _other_suppressions(
    model: Model, start: _Trial, ground: ValidationGround, run: RunOptions
) -> list[_Trial]:
    """Try lower and higher ones as long as they are better; the higher where no lower one is."""
    for tried in (
        [value for value in reversed(_NMS_IOUS) if value < start.nms_iou],
        [value for value in _NMS_IOUS if value > start.nms_iou],
    ):
        better: list[_Trial] = []
        best = start
        for nms_iou in tried:
            trial = _try(model, nms_iou, ground, run)
            if trial.f1 <= best.f1:
                break
            better.append(trial)
            best = trial
        if better:
            return better
    return []


def _error(predicted: NDArray[np.float64], matched: MatchedScores) -> float | None:
    measured = measure_reliability(predicted, matched.is_true)
    return None if measured is None else measured.error


def _report(
    out: Path, card: Card, first: _Trial, best: _Trial, ground: ValidationGround
) -> CalibrationReport:
    names, scores = first.matched.name, first.matched.scores
    above = scores >= limits(names, card.classes, card.thresholds)
    before = first.found.iloc[np.sort(first.matched.row[above])]
    options = replace(ground.options, resamples=_RESAMPLES)
    compared = compare(before, best.kept, ground.truth, options)
    is_judged = best.probabilities is not None
    difference = compared.overall["f1"]
    report = CalibrationReport(
        out=out,
        card=card,
        labels=ground.objects,
        f1_before=compared.a.f1 or 0.0,
        f1_after=compared.b.f1 if is_judged else None,
        gain=difference.difference if is_judged else None,
        interval=difference.interval if is_judged else None,
        ece_before=_error(best.matched.scores, best.matched),
        ece_after=_error(best.probabilities, best.matched) if is_judged else None,
    )
    about = {
        **report.to_dict(),
        "measured_on": ground.measured_on,
        "scenes": list(ground.names),
        "thresholds_before": list(card.thresholds),
        "nms_iou_before": card.nms_iou,
        "scores_from": SCORE_FLOOR,
    }
    # Scores have the meaning of the suppression that they are found with.
    kept = best if report.is_better else first
    calibrated = replace(
        card,
        thresholds=kept.fit.thresholds if report.is_better else card.thresholds,
        nms_iou=kept.nms_iou,
        score_maps=kept.fit.maps,
        prescreen=None,  # it was measured at other thresholds
        metrics={k: v for k, v in card.metrics.items() if k != "prescreen"}
        | {"calibration": about},
    )
    return replace(report, card=calibrated)
