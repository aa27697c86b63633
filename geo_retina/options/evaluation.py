"""Options of evaluating."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How detections are matched with labels."""

    layer: str | None = None
    """Layer of the labels' file; needed where it holds several."""

    ground: str | None = None
    """Polygons of the ground that was labelled; detections and labels outside do not count."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to."""

    class_column: str | None = None
    """Column of the labels with the class names; left out, classes are not told apart."""

    iou: float = 0.5
    """Polygon labels: the least IoU of a match in precision, recall and F1."""

    radius_m: float | None = None
    """Point labels: the greatest distance of a match from the detection's centre; left out, 6."""

    in_box: bool = False
    """Point labels: match where the point lies inside the detection instead."""

    score: float | None = None
    """Count detections from this score on; AP uses all of them either way."""

    def __post_init__(self) -> None:
        check(self, {"iou": (0, 1), "radius_m": (1e-9, INFINITY), "score": (0, 1)})
        if self.in_box and self.radius_m is not None:
            raise OptionError("in_box and radius_m exclude each other; give one of them")
