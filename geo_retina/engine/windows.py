"""Small windows around the cells of a level whose boxes are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MIDDLE_CELLS = 4
"""Side of the squares of cells whose boxes are computed together where objects are few."""

_AT_ONCE = 32
"""Such squares that are computed at once."""

_SLOWER = 3
"""How many times as long a cell takes in a window as in a whole level."""

_FAR = 1 << 20
"""Cells, by which a window lies outside of any level."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a level that are computed at once; the last ones may stand for nothing.

    Attributes:
        rows: (N, side, 1) of their cells in the level; the nearest where there are none.
        cols: (N, 1, side) likewise.
        inside: (N, side, side) whether cells are the level's.
        reach: cells at each side that only matter to those in the middle.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    inside: NDArray[np.bool_]
    reach: int

    def put(self, found: NDArray[np.float32], deltas: NDArray[np.float32]) -> None:
        """Put outputs of the middles where they belong in (H, W, A, outputs) of a level."""
        middle = slice(self.reach, -self.reach)
        inside = self.inside[:, middle, middle]
        rows, cols = np.broadcast_arrays(self.rows[:, middle], self.cols[:, :, middle])
        deltas[rows[inside], cols[inside]] = found[inside].reshape(-1, *deltas.shape[2:])


def windows_around(wanted: NDArray[np.bool_], reach: int | None) -> list[Windows] | None:
    """Cover the wanted cells of a level with the middles of windows.

    Args:
        wanted: (H, W).
        reach: cells that an output depends on to each side; None for all.

    Returns:
        As many as are needed, maybe none; None where the whole level is less work.
    """
    height, width = wanted.shape
    cells = np.argwhere(wanted)
    if not len(cells):
        return []
    if reach is None:
        return None
    convolved = ((_MIDDLE_CELLS + 2 * np.arange(reach)) ** 2).sum()
    most = height * width * reach / (_SLOWER * convolved)
    if len(cells) > most * _MIDDLE_CELLS**2:
        return None
    corners, left = [], wanted.copy()
    for row, col in cells.tolist():
        if left[row, col]:
            # No wanted cell is left above; to the left there may be some below.
            first = max(0, col - 1)
            left[row : row + _MIDDLE_CELLS, first : first + _MIDDLE_CELLS] = False
            corners.append((row, first))
    if len(corners) > most:
        return None
    nothing = -len(corners) % _AT_ONCE * [(-_FAR, -_FAR)]
    starts = np.array(corners + nothing) - reach
    steps = np.arange(_MIDDLE_CELLS + 2 * reach)
    rows, cols = starts[:, 0, None, None] + steps[:, None], starts[:, 1, None, None] + steps
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols = rows.clip(0, height - 1), cols.clip(0, width - 1)
    return [
        Windows(rows[part], cols[part], inside[part], reach)
        for part in (slice(i, i + _AT_ONCE) for i in range(0, len(starts), _AT_ONCE))
    ]
