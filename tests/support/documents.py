"""The fenced blocks of Markdown pages, and what a page says is to be done with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- *(?P<note>[^\n]*?) *-->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = re.compile(r"not run: \S.{9,}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        page: path of its page, from the project's root.
        line: number of its first line in the page, from 1.
        language: what stands behind the three ticks.
        note: text of an HTML comment on the line before it, or "".
        text: what stands in it.
    """

    page: str
    line: int
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name under which the reader is told to save the block."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None

    @property
    def not_run(self) -> bool:
        """Whether the page says that, and why, the block is not run."""
        return _NOT_RUN.fullmatch(self.note) is not None

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of each command, without comments, prompts and variables before it."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if words:
                yield words


def pages() -> list[str]:
    """Return the Markdown pages of the project, from its root, sorted."""
    found = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    return sorted(path.relative_to(PROJECT).as_posix() for path in found)


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (PROJECT / page).read_text("utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            note=match["note"] or "",
            text=match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]
