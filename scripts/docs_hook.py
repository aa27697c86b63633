"""Add to the documentation what other files say: commands, public names, decisions, changelog.

MkDocs calls these functions when it builds the site (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import geo_retina
from geo_retina.cli import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PROJECT_PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
}
_HELP_COLUMNS = 76  # what fits beside the navigation

_KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Functions", str.islower),
    ("Options", lambda name: name.endswith("Options")),
    ("Errors", lambda name: name.endswith("Error")),
    ("Values", lambda name: True),
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision in the navigation."""
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for section in config.nav or []:
        for entry in next(iter(section.values())) if isinstance(section, dict) else ():
            if isinstance(entry, dict) and "Decisions" in entry:
                entry["Decisions"] = [f"decisions/{path.name}" for path in decisions]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file under docs/ holds."""
    from mkdocs.structure.files import File

    for uri, text in generated_pages():
        files.append(File.generated(config, uri, content=text))
    return files


def generated_pages() -> Iterator[tuple[str, str]]:
    """Yield the path under docs/ and the text of every generated page."""
    yield "reference/commands.md", commands_page()
    yield "reference/python.md", python_page()
    for uri, source in PROJECT_PAGES.items():
        yield uri, with_links_from_docs((ROOT / source).read_text("utf-8"))


def commands_page() -> str:
    """Return the help of every command, as the command line prints it."""
    parts = ["# Commands\n\nWhat `geo-retina COMMAND --help` prints.\n"]
    for name in (name for name in app if not name.startswith("-")):
        parts.append(f"## geo-retina {name}\n\n```text\n{help_of(name)}\n```\n")
    return "\n".join(parts)


def help_of(command: str) -> str:
    """Return the help of one command, in lines of a fixed width."""
    text = io.StringIO()
    app.help_print([command], console=Console(file=text, width=_HELP_COLUMNS))
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def python_page() -> str:
    """Return directives that show every public name with its docstring, by kind."""
    names = [name for name in geo_retina.__all__ if not name.startswith("_")]
    parts = ["# Python\n\nThe public names of `geo_retina`. Others may change at any time.\n"]
    for title, belongs in _KINDS:
        chosen = [name for name in names if belongs(name)]
        names = [name for name in names if name not in chosen]
        parts.append(f"## {title}\n")
        parts += [f"::: geo_retina.{name}\n" for name in chosen]
    return "\n".join(parts)


def with_links_from_docs(text: str) -> str:
    """Return a page of the project's root with the links that it has under docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for uri, source in PROJECT_PAGES.items():
        text = text.replace(f"]({source}", f"]({uri}")
    return text
