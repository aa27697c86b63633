"""The completed cells of a review that a model may be fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.geodesy import move, reproject
from geo_retina.grid import Grid
from geo_retina.review import NO_CELL, Frame, read_review


@dataclass(frozen=True, eq=False)
class LearnCells:
    """Ground of completed cells of use learn.

    Other places that a person looked at were chosen for being doubtful: scores mean something
    else there.

    Attributes:
        frame: all cells.
        chosen: (N,) whether each is one of them.
        crs: of the cells.
    """

    frame: Frame
    chosen: NDArray[np.bool_]
    crs: pyproj.CRS

    def __call__(self, grid: Grid, points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which pixel positions (..., 2) of a grid lie on this ground."""
        assert grid.crs is not None  # a review without a CRS was refused before
        flat = grid.pixels_to_crs(np.asarray(points_px, np.float64).reshape(-1, 2))
        cell = self.frame.cell_at(move(flat, grid.crs, self.crs))
        inside = np.append(self.chosen, np.False_)[cell] & (cell != NO_CELL)
        return np.asarray(inside.reshape(np.shape(points_px)[:-1]), dtype=bool)

    @property
    def about(self) -> dict[str, Any]:
        """Name these cells for a model's card."""
        return {"frame": self.frame.fingerprint, "cells": np.flatnonzero(self.chosen).tolist()}

    def outlines(self, crs: pyproj.CRS) -> NDArray[np.object_]:
        """Outline this ground in a CRS."""
        squares = self.frame.squares(np.flatnonzero(self.chosen))
        return np.asarray(reproject(squares, self.crs, crs), dtype=object)


def read_learn_cells(path: str) -> LearnCells:
    """Read the completed cells of use learn.

    Raises:
        LabelError: there is none, or the file cannot be read.
    """
    review = read_review(path)
    chosen = review.is_done & (review.frame.use == "learn")
    if not chosen.any() or review.crs is None:
        raise LabelError(
            f"{path} has no completed cell of use learn, expected some to calibrate on; complete "
            "cells in the layer cells, or give other labels"
        )
    return LearnCells(review.frame, chosen, review.crs)
