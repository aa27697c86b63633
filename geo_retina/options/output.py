"""Options of choosing among detections that were written."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.options.checks import check


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Which detections of a file to keep."""

    score: float | None = None
    """Keep detections from this score on; left out, from the thresholds that the file names for
    each class."""

    classes: tuple[str, ...] | None = None
    """Keep these classes; left out, all."""

    aoi: str | None = None
    """Keep detections whose centre lies in the polygons of this file."""

    def __post_init__(self) -> None:
        check(self, {"score": (0, 1)})
        if isinstance(self.classes, (list, str)):
            names = [self.classes] if isinstance(self.classes, str) else self.classes
            object.__setattr__(self, "classes", tuple(names))
