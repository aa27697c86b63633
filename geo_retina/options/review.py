"""Options of a review: how many cases and cells, and how they are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check


@dataclass(frozen=True, kw_only=True)
class ReviewOptions:
    """What a person is asked to look at."""

    against: str | None = None
    """Another file of detections of the same ground; where the two disagree, there are cases."""

    labels: str | None = None
    """A layer of labels of the same ground, in place of another file of detections."""

    labels_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    budget: int = 300
    """Cases that wait for a person, beside those in cells; running again fills them up."""

    cells: int = 80
    """Cells drawn in all, of both uses; a greater number later continues the random order."""

    learn_share: float = 0.5
    """Share of the cells that are for training; the others are for counting and never trained
    on. Fixed at the first drawing."""

    cell_size_m: float | None = None
    """Side of the cells; left out, such that a cell holds about four objects. Fixed at the first
    drawing."""

    strata: int = 5
    """Groups of cells by number of detections from which cells are drawn. Fixed at the first
    drawing."""

    zones: str | None = None
    """Polygons, such as districts, for which there should be counts of their own. Fixed at the
    first drawing."""

    zones_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    zone_column: str | None = None
    """Column with the names of the zones; left out, they are numbered."""

    random_state: int = 0
    """Of the order in which cells are drawn. Fixed at the first drawing."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "budget": (0, INFINITY),
                "cells": (0, INFINITY),
                "learn_share": (0, 1),
                "cell_size_m": (1e-6, INFINITY),
                "strata": (1, 50),
                "random_state": (0, INFINITY),
            },
        )
        if self.against is not None and self.labels is not None:
            raise OptionError(
                "ReviewOptions.against and ReviewOptions.labels are both given; give one of them"
            )
        for name, needs in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needs) is None:
                raise OptionError(
                    f"ReviewOptions.{name} is given without a file; name it with "
                    f"ReviewOptions.{needs}"
                )


_NEEDS = {"labels_layer": "labels", "zones_layer": "zones", "zone_column": "zones"}
