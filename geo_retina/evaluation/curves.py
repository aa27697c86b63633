"""Precision and recall over score thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RECALLS = np.linspace(0.0, 1.0, 101)


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
    hits = np.cumsum(matched)
    recall = hits / labels
    precision = hits / np.arange(1, len(matched) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(matched))].mean())


def best_f1(
    matched: NDArray[np.bool_], scores: NDArray[np.float64], labels: int
) -> tuple[float | None, float | None]:
    """The highest F1 that a score threshold gives, and the highest such threshold.

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
    # Detections of one score are kept or left out together.
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    f1 = 2 * np.cumsum(matched)[last] / (labels + last + 1)
    best = int(np.argmax(f1))
    return float(f1[best]), float(scores[last[best]])
