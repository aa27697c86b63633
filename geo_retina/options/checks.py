"""Checks that option dataclasses make at birth."""

from __future__ import annotations

from collections.abc import Sequence

from geo_retina.errors import OptionError

INFINITY = float("inf")


def check(options: object, ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse fields outside their closed range; None passes, and lists become tuples."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(options, name, value)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and not (low <= item <= high and item < INFINITY):
                raise OptionError(
                    f"{type(options).__name__}.{name} is {item}, wanted {_span(low, high)}"
                )


def _span(low: float, high: float) -> str:
    return f"{low:g} or more" if high == INFINITY else f"{low:g} to {high:g}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """One sentence for a key nobody knows, with the likeliest one that somebody does."""
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
    return f"unknown option {key}; {hint}"
