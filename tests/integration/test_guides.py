"""The guides' commands work as they stand, one after the other in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import geo_retina
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


def test_the_reference_holds_every_name_and_command(tmp_path):
    path = tmp_path / "reference.md"
    script = DOCS.parent / "scripts" / "reference"
    subprocess.run([sys.executable, script, path], check=True, env={**os.environ, "COLUMNS": "100"})
    text = path.read_text()
    for name in set(geo_retina.__all__) - {"__version__"}:
        assert f"### {name}\n" in text
    assert "--min-score" in text
    assert "### geo-retina merge\n" in text
