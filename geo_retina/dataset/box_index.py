"""Finding the few boxes near a window among a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class BoxIndex:
    """Boxes by height, to a factor of two, and by their upper edge among those of one height.

    A box that reaches into a range of rows begins less than its height above it. Taking boxes
    of like height together keeps a single tall one from widening the search for all others.

    Args:
        boxes_px: (N, 4) x_min, y_min, x_max, y_max; N may be 0.
    """

    def __init__(self, boxes_px: NDArray[np.float64]) -> None:
        y_min = boxes_px[:, 1]
        height = boxes_px[:, 3] - y_min
        group = np.frexp(np.maximum(height, 1.0))[1]
        order = np.lexsort((y_min, group))
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        self._groups = [
            (float(height[rows].max()), y_min[rows], rows) for rows in np.split(order, starts)[1:]
        ]

    def near_rows(self, top: int, bottom: int) -> NDArray[np.int64]:
        """Find the boxes that may reach into a range of rows.

        Args:
            top: first row.
            bottom: row after the last.

        Returns:
            Positions, ascending: all boxes with some area in the range, and some more.
        """
        parts = [np.empty(0, np.int64)]
        for tallest, y_min, positions in self._groups:
            # A pixel more than the height, which is rounded.
            start, end = np.searchsorted(y_min, [top - tallest - 1, bottom])
            parts.append(positions[start:end])
        return np.sort(np.concatenate(parts))
