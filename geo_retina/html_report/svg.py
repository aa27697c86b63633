"""Plots as SVG text: sharp at any size, light or dark as the page around them.

Colours come from the page's style sheet: marks carry classes such as ``s0``, the first series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

SERIES = 7
"""Series that the style sheet has colours for."""

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 44


@dataclass(frozen=True)
class Plot:
    """A plane to draw on.

    Attributes:
        x: (low, high) of the horizontal axis.
        y: (low, high) of the vertical axis.
        x_label: what goes to the right.
        y_label: what goes up.
        steps: names of the places 0, 1, 2 ... on the horizontal axis, instead of numbers.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    steps: tuple[str, ...] = ()

    def to_page(self, x: float, y: float) -> tuple[float, float]:
        """Move a point to the picture."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + across * width, _TOP + (1 - up) * height

    def line(self, points: Iterable[tuple[float, float]], mark: str) -> str:
        """Draw a line straight from point to point; nothing without points."""
        path = " ".join("{:.1f},{:.1f}".format(*self.to_page(x, y)) for x, y in points)
        return f'<polyline class="line {mark}" points="{path}"/>' if path else ""

    def dot(self, x: float, y: float, mark: str, tip: str, radius: float = 4.0) -> str:
        """Draw a point with a tooltip."""
        cx, cy = self.to_page(x, y)
        return (
            f'<circle class="dot {mark}" cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def bar(self, x: tuple[float, float], y: float, mark: str, tip: str) -> str:
        """Draw a bar from the foot of the plane up to y, between two x."""
        (left, top), (right, foot) = self.to_page(x[0], y), self.to_page(x[1], self.y[0])
        return (
            f'<rect class="bar {mark}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{max(foot - top, 0):.1f}"><title>{escape(tip)}</title></rect>'
        )

    def upright(self, x: float, text: str) -> str:
        """Draw a dashed line from foot to top with a word on it."""
        (across, foot), (_, top) = self.to_page(x, self.y[0]), self.to_page(x, self.y[1])
        anchor, shift = ("end", -5) if across > _WIDTH / 2 else ("start", 5)
        return (
            f'<line class="mark" x1="{across:.1f}" y1="{top:.1f}" x2="{across:.1f}" '
            f'y2="{foot:.1f}"/><text class="note" text-anchor="{anchor}" x="{across + shift:.1f}" '
            f'y="{foot - 7:.1f}">{escape(text)}</text>'
        )

    def svg(self, title: str, marks: Iterable[str]) -> Markup:
        """Put marks into a whole picture.

        Args:
            title: said by screen readers.
            marks: what ``line``, ``dot``, ``bar`` and ``upright`` gave, the lowest first.
        """
        return Markup(
            f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(title)}">{self._frame()}{"".join(marks)}</svg>'
        )

    def _frame(self) -> str:
        parts = []
        for value, text in self._x_ticks():
            x, foot = self.to_page(value, self.y[0])
            parts.append(
                f'<text text-anchor="middle" x="{x:.1f}" y="{foot + 16:.1f}">{text}</text>'
            )
        for value in ticks(*self.y):
            left, y = self.to_page(self.x[0], value)
            right, _ = self.to_page(self.x[1], value)
            parts.append(
                f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>'
                f'<text text-anchor="end" x="{left - 6:.1f}" y="{y + 4:.1f}">{value:g}</text>'
            )
        middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text class="axis" text-anchor="middle" x="{middle_x:.1f}" y="{_HEIGHT - 6}">'
            f"{escape(self.x_label)}</text>"
            f'<text class="axis" text-anchor="middle" transform="translate(14 {middle_y:.1f}) '
            f'rotate(-90)">{escape(self.y_label)}</text>'
        )
        return "".join(parts)

    def _x_ticks(self) -> list[tuple[float, str]]:
        if self.steps:
            return [(to_page, escape(name)) for to_page, name in enumerate(self.steps)]
        return [(value, f"{value:g}") for value in ticks(*self.x)]


def ticks(low: float, high: float) -> list[float]:
    """Choose about five round numbers from low to high; both finite and high above low."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]
