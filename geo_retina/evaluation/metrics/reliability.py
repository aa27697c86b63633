"""How scores compare with the share of detections that are true."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PARTS = 10


@dataclass(frozen=True)
class Reliability:
    """Detections in parts of equal number by score: what was said, and what was so.

    Attributes:
        predicted: mean score of each part, rising.
        share: of its detections that are true.
        detections: in it.
        error: mean distance of the two over all detections, the expected calibration error.
    """

    predicted: tuple[float, ...]
    share: tuple[float, ...]
    detections: tuple[int, ...]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def measure_reliability(
    scores: NDArray[np.float64], is_true: NDArray[np.bool_]
) -> Reliability | None:
    """Compare scores, or probabilities, with the share of true ones.

    Naeini et al. 2015 (*AAAI*) have parts of equal width; equal number leaves none to chance.

    Args:
        scores: (N,) of detections.
        is_true: (N,) whether each is an object.

    Returns:
        Up to ten parts; None without detections, or where scores are no shares.
    """
    if not len(scores) or not (scores.min() >= 0 and scores.max() <= 1):
        return None
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(_PARTS, len(order)))
    predicted = [float(scores[part].mean()) for part in parts]
    share = [float(is_true[part].mean()) for part in parts]
    number = [len(part) for part in parts]
    off = np.abs(np.subtract(predicted, share)) @ number / len(order)
    return Reliability(tuple(predicted), tuple(share), tuple(number), float(off))
