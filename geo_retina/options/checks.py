"""Checks that option dataclasses make at birth."""

from __future__ import annotations

import codecs
import csv
import unicodedata
from collections.abc import Sequence

from geo_retina.errors import OptionError

INFINITY = float("inf")

_MOST_NAMES = 20
"""Names listed of a file that has many."""


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
                    f"{type(options).__name__}.{name} is {item}, expected {_span(low, high)}"
                )


def _span(low: float, high: float) -> str:
    return f"{low:g} or more" if high == INFINITY else f"{low:g} to {high:g}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Write the error for an unknown key in one sentence, with the likeliest known one."""
    close = _nearest(key, known)
    hint = f"did you mean {close}?" if close else f"known are {', '.join(sorted(known))}"
    return f"unknown option {key}; {hint}"


def it_has(name: str, known: Sequence[str], *, none: str = "none", say: str = "it has") -> str:
    """List known names as the end of a sentence on a name that a file, layer or model lacks.

    Args:
        name: what was asked for.
        known: names that there are, in the order they are to be listed.
        none: what to say where there is none.
        say: how the list begins.

    Returns:
        The first twenty of the names, those with a comma in quotes, and the likeliest.
    """
    shown = ", ".join(quoted(each) for each in known[:_MOST_NAMES])
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    close = _nearest(name, known)
    return f"{say} {shown or none}{more}" + (f"; did you mean {quoted(close)}?" if close else "")


def quoted(name: str) -> str:
    """Quote a name as it is written in a list: where it holds a comma."""
    return f'"{name}"' if "," in name else name


def same_text(text: str) -> str:
    """Normalise a text to the one form in which names are compared: NFC, without blanks around it.

    What looks alike may be written in two ways: macOS parts an accent from its letter, and tables
    pad texts with blanks.
    """
    return unicodedata.normalize("NFC", text).strip()


def split_names(text: str) -> list[str]:
    """Split a list of names at its commas; one in double quotes may hold commas itself."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]


def check_encoding(options: object, *names: str) -> None:
    """Refuse fields that name no text encoding; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        try:
            codecs.lookup(value)
        except (LookupError, ValueError):
            raise OptionError(
                f"{type(options).__name__}.{name} is {value!r}, expected the name of a text "
                "encoding, such as UTF-8, GBK or cp1252"
            ) from None


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Find the likeliest of the known names, whatever the case of their letters."""
    import difflib

    folded = {same_text(each).casefold(): each for each in known}
    close = difflib.get_close_matches(same_text(name).casefold(), list(folded), n=1)
    return folded[close[0]] if close else None
