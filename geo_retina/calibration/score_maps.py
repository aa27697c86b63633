"""Turn scores into probabilities by a rising map of two parameters.

logit p = a + b logit s with b > 0 (Platt 1999 on logits; the symmetric case of beta calibration,
Kull, Silva Filho and Flach 2017, *AISTATS*). Two parameters stand on few labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from geo_retina.model import ScoreMap

Floats = NDArray[np.float64]

_PRIOR = 1.0
"""Standard deviation of a and log b around the map that leaves scores as they are."""


def fit_score_map(scores: Floats, is_true: NDArray[np.bool_]) -> ScoreMap:
    """Fit the map under which the detections that are true are likeliest.

    A weak prior towards scores as they are keeps few or separable detections from an end.

    Args:
        scores: (N,) from 0 to 1; N may be 0, which leaves scores as they are.
        is_true: (N,) whether each is an object.
    """
    logits = ScoreMap.logits(scores)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        a, log_b = parameters
        z = a + np.exp(log_b) * logits
        left = 1 / (1 + np.exp(-z)) - is_true
        value = np.logaddexp(0, z).sum() - z[is_true].sum()
        slope = np.array([left.sum(), (left * np.exp(log_b) * logits).sum()])
        pull = parameters / _PRIOR**2
        return float(value + 0.5 * (parameters * pull).sum()), slope + pull

    a, log_b = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return ScoreMap(intercept=float(a), slope=float(np.exp(log_b)))


def best_threshold(scores: Floats, probabilities: Floats, labels: int) -> float | None:
    """Choose the threshold with the best expected F1.

    2 sum p / (n + L) over the n detections from it on, p their probabilities: smoother in the
    labels than the F1 that they give, and so nearer to that of ground that nobody labelled.

    Returns:
        The middle between the last detection kept and the next one; None without detections.
    """
    if not len(scores):
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    f1 = 2 * np.cumsum(probabilities[order]) / (np.arange(1, len(order) + 1) + labels)
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # a threshold cannot part equal scores
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return float((ranked[best] + below) / 2)
