"""Options of estimating how many objects there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check

Estimator = Literal["prediction-powered", "difference", "ratio", "plain"]


@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """What is counted, by which estimator."""

    by: Literal["class"] | None = None
    """Estimate for each class too."""

    zones: str | None = None
    """Polygons, such as districts, to estimate totals of; with an interval where the cells were
    drawn with these zones."""

    zones_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    zone_column: str | None = None
    """Column with the names of the zones; left out, they are numbered."""

    labels: str | None = None
    """True objects, in place of a person's entries: all drawn cells count as completed."""

    labels_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    class_column: str | None = None
    """Column of the labels with the class names; left out, all are of the only class."""

    radius_m: float | None = None
    """For precision and recall where detections must be matched with objects: the greatest
    distance of their centres; left out, half the side of the detection."""

    score: float | None = None
    """Count detections from this score on; left out, from the threshold they were made with."""

    estimator: Estimator = "prediction-powered"
    """How detections are used: each counts for as much as fits the cells best, for one
    (difference), or for the ratio of the totals (ratio); plain uses the cells alone."""

    target: float | None = None
    """Also report about how many cells it takes until the interval reaches this share of the total
    to either side: 0.05, or 5%."""

    def __post_init__(self) -> None:
        check(
            self,
            {"radius_m": (1e-9, INFINITY), "score": (0, 1), "target": (0.001, 1)},
        )
        for name, known in (("estimator", get_args(Estimator)), ("by", (None, "class"))):
            if getattr(self, name) not in known:
                expected = ", ".join(map(str, filter(None, known)))
                raise OptionError(
                    f"EstimateOptions.{name} is {getattr(self, name)}, expected {expected}"
                )
        for name, needs in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needs) is None:
                raise OptionError(
                    f"EstimateOptions.{name} is given without a file; name it with "
                    f"EstimateOptions.{needs}"
                )


_NEEDS = {
    "labels_layer": "labels",
    "class_column": "labels",
    "zones_layer": "zones",
    "zone_column": "zones",
}
