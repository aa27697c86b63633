"""Precision and recall over score thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_retina.evaluation.metrics.scores import Curve

RECALLS = np.linspace(0.0, 1.0, 101)
_MOST_THRESHOLDS = 200


def average_precision(matched: NDArray[np.bool_], labels: int) -> float | None:
    """Average precision as COCO defines it.

    The mean, over 101 recalls from 0 to 1, of the highest precision at that recall or a
    higher one; 0 where that recall is not reached.

    Args:
        matched: (N,) whether each detection matches, by score, highest first.
        labels: number of objects there are.

    Returns:
        From 0 to 1, or None without labels.
    """
    if not labels:
        return None
    # Between matches precision only falls, so the matches alone make the envelope.
    ranks = np.flatnonzero(matched)
    hits = np.arange(1, len(ranks) + 1)
    envelope = np.maximum.accumulate((hits / (ranks + 1))[::-1])[::-1]
    at = np.searchsorted(hits / labels, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(ranks))].mean())


def best_f1(
    matched: NDArray[np.bool_], scores: NDArray[np.float64], labels: int
) -> tuple[float | None, float | None]:
    """Find the highest F1 that a score threshold gives, and the highest such threshold.

    Args:
        matched: (N,) whether each detection adds a match, by score, highest first.
        scores: (N,) their scores; those from the threshold on are kept.
        labels: number of objects there are.

    Returns:
        F1, None where there is neither label nor detection; and the threshold, None where
        nothing matches.
    """
    if not matched.any():
        return (0.0 if labels or len(matched) else None), None
    last = _last_of_score(scores)
    f1 = 2 * np.cumsum(matched)[last] / (labels + last + 1)
    best = int(np.argmax(f1))
    return float(f1[best]), float(scores[last[best]])


def rate_curve(matched: NDArray[np.bool_], scores: NDArray[np.float64], labels: int) -> Curve:
    """Compute precision, recall and F1 by threshold; arguments as of ``best_f1``.

    Returns:
        At most 201 thresholds, evenly spread over the ranks; none without detections.
    """
    last = _last_of_score(scores)
    hits = np.cumsum(matched)[last] if len(last) else np.empty(0)
    f1 = 2 * hits / (labels + last + 1)
    if len(last) > _MOST_THRESHOLDS:
        spread = np.linspace(0, len(scores) - 1, _MOST_THRESHOLDS)
        rows = np.union1d(np.searchsorted(last, spread), np.argmax(f1))
        last, hits, f1 = last[rows], hits[rows], f1[rows]
    recall = hits / labels if labels else np.full(len(last), np.nan)
    return Curve(scores[last], hits / (last + 1), recall, f1)


def _last_of_score(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find ranks at which thresholds lie: detections of one score are kept or left out together."""
    return np.flatnonzero(np.diff(scores, append=-np.inf))
