"""How far predicted counts are from labelled counts: by scene, cell or zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Counts:
    """Detections and labels that count, in each of several parts of the ground.

    Errors are found - there.

    Attributes:
        unit: what a part is: ``scene``, ``cell`` or ``zone``.
        names: (U,) str of the parts: the scene, the cell's west south corner, the zone's row.
        found: (U,) int64 detections.
        there: (U,) int64 labels.
    """

    unit: str
    names: NDArray[np.object_]
    found: NDArray[np.int64]
    there: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.found)

    @property
    def bias(self) -> float:
        """Mean error."""
        return float((self.found - self.there).mean())

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.found - self.there).mean())

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt(((self.found - self.there) ** 2).mean()))

    @property
    def r2(self) -> float | None:
        """Coefficient of determination: 1 - squared errors over the labels' squared deviations.

        1 where all counts are right, 0 for always the mean, below 0 for worse. None where all
        parts hold equally many labels.
        """
        spread = float(((self.there - self.there.mean()) ** 2).sum())
        return 1 - float(((self.found - self.there) ** 2).sum()) / spread if spread else None

    def numbers(self) -> dict[str, Any]:
        """Return the number of parts and the four measures, ready for JSON."""
        measures = {"bias": self.bias, "mae": self.mae, "rmse": self.rmse, "r2": self.r2}
        return {"parts": len(self), **measures}

    def to_dict(self) -> dict[str, Any]:
        """Return ``numbers``, with ``names``, ``found`` and ``there`` as lists."""
        columns = {k: getattr(self, k).tolist() for k in ("names", "found", "there")}
        return {**self.numbers(), **columns}


@dataclass(frozen=True)
class CountError:
    """Detections minus labels, in all.

    Attributes:
        total: the difference of those that count; above 0 where too many were found.
        relative: that over the number of labels; None without labels.
        interval: 95 % interval (low, high) of ``relative``; None where none was drawn.
    """

    total: int
    relative: float | None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        interval = None if self.interval is None else list(self.interval)
        return {"total": self.total, "relative": self.relative, "interval": interval}
