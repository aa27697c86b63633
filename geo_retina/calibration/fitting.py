"""Thresholds and score maps by class, fitted to matched detections, and to parts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_retina.calibration.score_maps import best_threshold, fit_score_map
from geo_retina.evaluation import IGNORED, TRUE, Evaluation
from geo_retina.model import ScoreMap

FEW_LABELS = 30
"""A class with fewer labels takes the threshold and the map of all classes together."""

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class MatchedScores:
    """Detections and labels that count, once matched.

    Attributes:
        row: (N,) position of each detection in the table it came from.
        name: (N,) its class.
        scores: (N,) float64.
        is_true: (N,) whether it adds an object to those of higher scores.
        block: (N,) key of its block of ground.
        labels: class of each label.
        label_block: key of the block of each label.
    """

    row: NDArray[np.int64]
    name: NDArray[np.object_]
    scores: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    block: NDArray[np.int64]
    labels: NDArray[np.object_]
    label_block: NDArray[np.int64]

    @classmethod
    def of(cls, evaluation: Evaluation) -> MatchedScores:
        """Take what counts of an evaluation of all detections."""
        found, truth = evaluation.matches.detections, evaluation.matches.labels
        found = found.take(found.by_score != IGNORED)
        truth = truth.take(truth.outcome != IGNORED)
        return cls(
            found.row,
            found.class_name,
            found.score.astype(np.float64),
            found.by_score == TRUE,
            found.block,
            truth.class_name,
            truth.block,
        )

    def part(self, found: NDArray[np.bool_], labels: NDArray[np.bool_]) -> MatchedScores:
        """Take some of the detections and labels."""
        return MatchedScores(
            self.row[found],
            self.name[found],
            self.scores[found],
            self.is_true[found],
            self.block[found],
            self.labels[labels],
            self.label_block[labels],
        )


@dataclass(frozen=True)
class Fit:
    """What was fitted, by class in the order of the model.

    Attributes:
        thresholds: score thresholds.
        maps: of scores to probabilities.
    """

    thresholds: tuple[float, ...]
    maps: tuple[ScoreMap, ...]


def fit_classes(matched: MatchedScores, classes: Sequence[str], thresholds: Sequence[float]) -> Fit:
    """Fit a map to each class with enough labels, and to all, and choose thresholds by them.

    Args:
        matched: detections and labels.
        classes: of the model.
        thresholds: what stays where nothing was detected.
    """
    shared = fit_score_map(matched.scores, matched.is_true)
    of_all = best_threshold(matched.scores, shared.apply(matched.scores), len(matched.labels))
    chosen, maps = [], []
    for name, before in zip(classes, thresholds, strict=True):
        rows, labels = matched.name == name, int((matched.labels == name).sum())
        scores = matched.scores[rows]
        if labels < FEW_LABELS or not len(scores):
            maps.append(shared)
            chosen.append(before if of_all is None else of_all)
            continue
        own = fit_score_map(scores, matched.is_true[rows])
        best = best_threshold(scores, own.apply(scores), labels)
        maps.append(own)
        chosen.append(before if best is None else best)
    return Fit(tuple(chosen), tuple(maps))


def fit_elsewhere(
    matched: MatchedScores, classes: Sequence[str], thresholds: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Judge each block of ground by what was fitted to the others (cross-validation).

    Returns:
        (N,) whether a detection is kept, and its probability; None where all lie in one block.
    """
    keys = np.unique(np.concatenate([matched.block, matched.label_block]))
    if len(keys) < 2:
        return None
    random = np.random.default_rng(0)
    fold_of = random.permutation(len(keys)) % min(_FOLDS, len(keys))
    fold = fold_of[np.searchsorted(keys, matched.block)]
    label_fold = fold_of[np.searchsorted(keys, matched.label_block)]
    kept, probabilities = np.zeros(len(fold), bool), np.zeros(len(fold))
    for each in range(int(fold_of.max()) + 1):
        fit = fit_classes(matched.part(fold != each, label_fold != each), classes, thresholds)
        here = fold == each
        kept[here] = matched.scores[here] >= limits(matched.name[here], classes, fit.thresholds)
        probabilities[here] = apply_maps(matched, here, classes, fit.maps)
    return kept, probabilities


def apply_maps(
    matched: MatchedScores,
    chosen: NDArray[np.bool_],
    classes: Sequence[str],
    maps: Sequence[ScoreMap],
) -> NDArray[np.float64]:
    """Map the scores of some detections by the map of their class."""
    names, scores = matched.name[chosen], matched.scores[chosen]
    probabilities = scores.copy()
    for name, each in zip(classes, maps, strict=True):
        rows = names == name
        probabilities[rows] = each.apply(scores[rows])
    return probabilities


def limits(
    names: NDArray[np.object_], classes: Sequence[str], thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """Give the threshold of each detection's class."""
    of: Mapping[str, float] = dict(zip(classes, thresholds, strict=True))
    return np.array([of[name] for name in names], np.float64)
