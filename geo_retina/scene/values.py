"""Map the numbers in a file to the values that a model expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 1e-3
"""Share of a scene's values that may lie outside the range of the model's type."""


@dataclass(frozen=True)
class ValueMap:
    """Per band, ``number * scale + offset``, then held between ``low`` and ``high``.

    Attributes:
        scale: per band.
        offset: per band.
        low: least value; None for no limit.
        high: greatest value; None for no limit.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_tags(cls, scales: Sequence[float], offsets: Sequence[float]) -> ValueMap | None:
        """Map values by a file's scale and offset tags; None where they change nothing."""
        if all(scale in (0, 1) for scale in scales) and not any(offsets):
            return None
        return cls(tuple(float(s) or 1.0 for s in scales), tuple(float(o) for o in offsets))

    def __call__(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """Apply to (bands, ...) numbers of any type; float32 in the same shape."""
        shape = (-1,) + (1,) * (numbers.ndim - 1)
        scale, offset = (np.reshape(v, shape) for v in (self.scale, self.offset))
        values = numbers * scale + offset
        if self.low is not None or self.high is not None:
            values = np.clip(values, self.low, self.high)
        return values.astype(np.float32)


@dataclass(frozen=True)
class ValueRange:
    """What a model's type of numbers can hold, for a scene whose own type is of another kind.

    Attributes:
        low: least value.
        high: greatest value.
        looked_at: pixels of the scene that were found to lie within.
    """

    low: float
    high: float
    looked_at: int = 0

    def __str__(self) -> str:
        return f"{self.low:.6g} to {self.high:.6g}"

    def is_left(self, values: NDArray[Any]) -> bool:
        """Check whether more than a few values (bands, n) lie outside.

        One in a thousand may, as resampling overshoots at edges; values between two whole numbers
        belong to the nearer one.
        """
        outside = (values < self.low - 0.5) | (values > self.high + 0.5)
        return bool(outside.mean() > _FEW) if values.size else False
