"""Every output of the package goes through the one writer, and outlives a kill."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.killed_writers import FOUND, WRITERS

ROOT = Path(__file__).parents[3]
SOURCES = sorted([*(ROOT / "geo_retina").rglob("*.py"), *(ROOT / "pipelines").glob("*.py")])
HOME = ROOT / "geo_retina" / "files" / "drafts.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    program = ROOT / "tests" / "support" / "killed_writers.py"
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(program), str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / FOUND).read_text())


@pytest.mark.parametrize("number", range(len(WRITERS)), ids=list(WRITERS.values()))
def test_a_kill_leaves_the_old_file_and_the_next_run_succeeds(found, number):
    became = list(found.values())[number]
    assert became["signals"] == [9, 9]
    assert became["half"] == {}
    assert len(became["before"]) >= 1
    assert became["after"] == became["before"]
    assert became["drafts"] != []
    assert became["next"] != became["before"]
    assert became["drafts_next"] == []


def _imports(tree: ast.AST, names: set[str]) -> bool:
    return any(
        alias.name in names
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geo_retina.files")
        for alias in node.names
    )


def test_every_writer_is_among_those_killed():
    """Those of text alone are one with ``write_text``, which is."""
    users = {
        path.relative_to(ROOT / "geo_retina").with_suffix("").as_posix().replace("/", ".")
        for path in SOURCES
        if path.is_relative_to(ROOT / "geo_retina")
        and path.name != "__init__.py"
        and _imports(ast.parse(path.read_text()), {"new_file", "new_files"})
    }
    assert users == {module for module in WRITERS.values() if "." in module} - {"export.stac"}


def _moves(tree: ast.AST) -> list[str]:
    """What renames a file or makes a temporary one: by its name, or by the shape of the call."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil", "tempfile"):
            found += [alias.name for alias in node.names if alias.name in _MOVERS]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        name, alone = node.func.attr, len(node.args) == 1 and not node.keywords
        # Path.replace takes one argument, str.replace two or more.
        if (of in ("os", "shutil", "tempfile") and name in _MOVERS) or (
            name in ("replace", "rename") and alone
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


_MOVERS = {
    *("replace", "rename", "renames", "move", "link", "symlink"),
    *("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile"),
}


@pytest.mark.parametrize(
    "line",
    [
        "os.replace(a, b)",
        "draft.replace(path)",
        "Path(a).rename(b)",
        "tempfile.mkstemp(dir=a)",
        "from os import replace",
        "shutil.move(a, b)",
    ],
)
def test_a_second_writer_would_be_seen(line):
    assert len(_moves(ast.parse(line))) == 1


def test_files_are_moved_by_the_one_writer_alone():
    found = {str(path): _moves(ast.parse(path.read_text())) for path in SOURCES if path != HOME}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert len(_moves(ast.parse(HOME.read_text()))) > 3
    assert not _moves(ast.parse("name.replace('a', 'b'); dataclasses.replace(run, block_px=1)"))
