"""Hold what a check of labels found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from geo_retina.training.label_check.numbers import LabelNumbers
from geo_retina.training.label_check.text import describe_check


@dataclass(frozen=True, kw_only=True)
class LabelReport(LabelNumbers):
    """What a training's labels and scenes are like, and what needs attention.

    Attributes:
        warnings: one sentence on each thing that needs attention.
    """

    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Write the report for people, several lines."""
        return describe_check(self, self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return asdict(self)
