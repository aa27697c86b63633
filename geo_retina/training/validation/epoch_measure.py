"""Measure an epoch by one number, so that the best one can be kept."""

from __future__ import annotations

from typing import Literal

import numpy as np

from geo_retina.errors import TrainingError
from geo_retina.evaluation import Evaluation
from geo_retina.options.training_parts import BestBy

Measure = Literal["f1", "f1_and_ap", "f1_band"]

BAND = 0.1
"""How far the thresholds of ``f1_band`` reach to either side of the best one."""

_STEPS = 11


def choose_measure(best_by: BestBy, *, by_radius: bool) -> Measure:
    """Choose what epochs are compared by.

    F1 alone hangs on few objects around one threshold. Where boxes are scored by IoU, how well
    they fit says more; points have no such score, so there a range of thresholds is looked at.

    Args:
        best_by: as the options say; auto chooses by the kind of labels.
        by_radius: whether detections are matched by the distance of their centres.

    Raises:
        TrainingError: the measure needs boxes, and labels are points.
    """
    if best_by == "auto":
        return "f1_band" if by_radius else "f1_and_ap"
    if best_by == "f1_and_ap" and by_radius:
        raise TrainingError(
            "best_by is f1_and_ap, but detections are matched by the distance of centres, which "
            "gives no AP50:95; take f1_band or f1, or leave best_by out"
        )
    return best_by


def measure_epoch(measure: Measure, f1: float, ap: float | None, every: Evaluation) -> float:
    """Compute the number by which epochs are compared, from 0 to 1.

    Args:
        measure: which one.
        f1: F1 at the thresholds that suit the model.
        ap: average precision over IoU 0.5 to 0.95; None counts as 0.
        every: the evaluation of all detections, with its curve.
    """
    if measure == "f1":
        return f1
    if measure == "f1_and_ap":
        return (f1 + (ap or 0.0)) / 2
    return mean_f1_around_best(every)


def mean_f1_around_best(every: Evaluation) -> float:
    """Average F1 over 11 thresholds, up to 0.1 below and above that of the best F1.

    A threshold above all scores keeps nothing and has an F1 of 0; one below all keeps everything.
    """
    curve, best = every.overall.curve, every.overall.best_score
    if curve is None or best is None:  # nothing matches
        return 0.0
    thresholds = best + np.linspace(-BAND, BAND, _STEPS)
    rising = curve.scores[::-1]
    # Rounding must not push the best threshold itself past its detection.
    first = np.searchsorted(rising, thresholds - 1e-9)
    f1 = np.append(curve.f1[::-1], 0.0)
    return float(f1[first].mean())
