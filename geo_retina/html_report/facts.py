"""Numbers on a page, each of which knows where in the JSON it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from markupsafe import Markup

Form = Literal["rate", "count", "share", "plain"]
"""How a number is shown: with three decimals, whole with separators, as percent with a sign, as
short as it gets."""

_FORMATS: dict[Form, str] = {
    "rate": ".3f",
    "count": ",",
    "share": "+.1%",
    "plain": ",.10g",
}


class Facts:
    """What is known, as JSON has it, and how it is shown.

    Every number that ``show`` puts on a page carries its place in the JSON (RFC 6901), so that
    any program can check the one against the other.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, *keys: str | int) -> Any:
        """Look up the value under some keys; None where there is none."""
        value: Any = self._values
        for key in keys:
            known = key in value if isinstance(value, Mapping) else _is_within(key, value)
            if not known:
                return None
            value = value[key]
        return value

    def show(self, *keys: str | int, form: Form = "rate") -> Markup:
        """Format a number as HTML; a dash for what has no meaning."""
        value = self.get(*keys)
        if value is None:
            return Markup('<span class="none">&ndash;</span>')
        place = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
        text = format(value, _FORMATS[form])
        shown = Markup('<data value="{}" data-at="{}">{}</data>')
        return shown.format(repr(value), place, text)

    def span(self, *keys: str | int, form: Form = "rate") -> str:
        """Format an interval as HTML, nothing where there is none; keys lead to [low, high]."""
        if self.get(*keys) is None:
            return ""
        return self.show(*keys, 0, form=form) + " to " + self.show(*keys, 1, form=form)


def _is_within(key: str | int, value: Any) -> bool:
    return isinstance(value, list) and isinstance(key, int) and key < len(value)
