"""Print what the changelog says of the version that a tag names.

    python scripts/release_notes.py v0.2.0

Fails where the tag is not the version in pyproject.toml, or the changelog has no section of it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the section of a version, without its heading.

    Args:
        tag: the tag of git, such as v0.2.0.
        version: the version of the project, such as 0.2.0.
        changelog: the text of the changelog, with headings such as ``## [0.2.0] - 2026-12-01``.

    Raises:
        ValueError: the tag names another version, or the changelog has no dated section of it.
    """
    if tag != f"v{version}":
        raise ValueError(
            f"tag {tag} is not v{version}, the version in pyproject.toml; change one of them"
        )
    section = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if section is None or not section[1].strip():
        raise ValueError(
            f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with text; write it"
        )
    return section[1].strip()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    try:
        print(release_notes(arguments[0], version, (ROOT / "CHANGELOG.md").read_text("utf-8")))
    except ValueError as error:
        print(f"release_notes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
