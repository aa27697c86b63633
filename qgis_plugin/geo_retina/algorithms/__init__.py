"""The algorithms of the provider."""

from __future__ import annotations

from .base import Algorithm
from .detect import Detect, Plan
from .install import Install
from .labels import CheckLabels, Train
from .postprocess import Filter, Merge
from .review import EstimateCounts, ReviewQueue
from .scores import Compare, Evaluate
from .status import Status

ALGORITHMS: tuple[type[Algorithm], ...] = (
    *(Detect, Plan, Filter, Merge),
    *(CheckLabels, Train, Evaluate, Compare),
    *(ReviewQueue, EstimateCounts, Status, Install),
)

__all__ = ["ALGORITHMS", "Algorithm"]
