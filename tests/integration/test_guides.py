"""The guides' commands work as they stand, one after the other in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from geo_retina.cli import main

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(bash|yaml|python)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("guide", ["guide-analyst.md", "guide-engineer.md"])
def test_commands_of_a_guide(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for file, language, text in _BLOCK.findall((DOCS / guide).read_text()):
        if file:
            Path(file).write_text(text)
        elif language == "python":
            exec(compile(text, guide, "exec"), {})
        elif language == "bash":
            for line in filter(None, text.splitlines()):
                program, *arguments = shlex.split(line, comments=True)
                assert program == "geo-retina", line
                code = main(arguments)
                assert code == 0, f"{line}\n{capsys.readouterr().err}"
                ran += 1
    assert ran >= 6
