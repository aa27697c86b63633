"""Pages as a browser sees them: every number, and what its JSON says at the same place."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass
class Page:
    """What a page holds.

    Attributes:
        values: the JSON in the element ``evaluation``.
        numbers: pairs of a place in the JSON and the text shown for it.
        links: all addresses that the page names.
        tags: names of all elements.
        text: all text that is no number's, script's or style's.
    """

    values: dict[str, Any] = field(default_factory=dict)
    numbers: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._inside: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.page.tags.append(tag)
        self.page.links += [str(known[k]) for k in ("href", "src", "srcset") if k in known]
        if tag in ("data", "script", "style"):
            self._inside = (tag, known.get("data-at") or known.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.page.text += data
        elif self._inside == ("script", "evaluation"):
            self.page.values = json.loads(data)
        elif self._inside[0] == "data":
            self.page.numbers.append((self._inside[1], data))


def read_page(html: str) -> Page:
    """Take a page apart."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


def at(values: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901)."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        values = values[int(key)] if isinstance(values, list) else values[key]
    return values


def assert_shown_as(text: str, value: float) -> None:
    """A text is the number, to the digits that it has."""
    shown = text.replace(",", "")
    share = 0.01 if shown.endswith("%") else 1.0
    digits = shown.rstrip("%").partition(".")[2]
    tolerance = 0.5000001 * share * 10.0 ** -len(digits)
    assert float(shown.rstrip("%")) * share == pytest.approx(value, abs=tolerance), text
    if isinstance(value, int):
        assert float(shown) == value


def find_browser() -> str:
    """The path of a Chromium; skips the test where there is none."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("needs Chromium, which is not installed; with Debian: apt-get install chromium")


def browse(path: Path, folder: Path) -> tuple[str, list[str]]:
    """Open a page from disk in a headless Chromium that reaches no network.

    Returns:
        The document as it stands once loaded, and the lines that its console got.
    """
    command = [
        *(find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu"),
        *(f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *("--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom"),
        path.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
