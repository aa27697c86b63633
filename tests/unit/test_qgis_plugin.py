"""The QGIS plugin as its files are; what it does is tested in QGIS, by scripts/check-qgis."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "qgis_plugin" / "geo_retina"
FILES = sorted(FOLDER.rglob("*.py"))
OLDEST_PYTHON = (3, 9)  # of QGIS 3.22 on Windows


def imported(path: Path) -> set[str]:
    """First parts of all modules that a file imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_it_is_pyqgis_and_the_standard_library_alone(path):
    allowed = set(sys.stdlib_module_names) | {"qgis", "processing"}
    assert imported(path) <= allowed
    ast.parse(path.read_text("utf-8"), feature_version=OLDEST_PYTHON)
    if path.name in {"command.py", "process.py", "installer.py"}:
        assert "qgis" not in imported(path)


def test_metadata_are_complete():
    parsed = ConfigParser(interpolation=None)
    parsed.read(FOLDER / "metadata.txt", encoding="utf-8")
    values = dict(parsed["general"])
    for name in ("name", "description", "about", "author", "icon", "version", "tags"):
        assert values[name], name
    assert values["license"] == "GPL-2.0-or-later"
    assert values["hasprocessingprovider"] == "yes"
    assert (FOLDER / values["icon"]).is_file()
    assert "GNU GENERAL PUBLIC LICENSE" in (FOLDER / "LICENSE").read_text()


def test_the_protocol_is_that_of_the_command():
    from geo_retina.cli._voice import PROTOCOL

    tree = ast.parse((FOLDER / "command.py").read_text("utf-8"))
    (value,) = (
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PROTOCOL"
    )
    assert value == PROTOCOL


def test_every_flag_that_it_gives_exists():
    """Literals that look like flags, in a file of algorithms, are flags of some command."""
    from geo_retina.cli import _api, app

    known = {flag for name in app if not name.startswith("-") for flag in _api.flags_of(app, name)}
    known |= {"--api", "--devices", "--no-cost"}
    known |= {"--python", "--allow-existing"}  # uv's
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if node.value.startswith("--"):
                assert node.value.rstrip("=").partition("=")[0] in known, f"{path}: {node.value}"


def test_the_zip_is_one_folder_and_equal_each_time(tmp_path):
    script = [sys.executable, ROOT / "scripts" / "zip-qgis-plugin", "--out"]
    made = []
    for name in ("a", "b"):
        done = subprocess.run(
            [*script, tmp_path / name], capture_output=True, text=True, check=True
        )
        made.append(Path(done.stdout.strip()))
    assert made[0].read_bytes() == made[1].read_bytes()
    names = zipfile.ZipFile(made[0]).namelist()
    assert {name.partition("/")[0] for name in names} == {"geo_retina"}
    assert {"geo_retina/metadata.txt", "geo_retina/LICENSE", "geo_retina/__init__.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "tests" in name]


def test_it_passes_its_own_tests_in_qgis():
    python = os.environ.get("QGIS_PYTHON", "/usr/bin/python3")
    command = [python, "-c", "import qgis.core"]
    if not Path(python).exists() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"{python} has no PyQGIS; Debian has it in python3-qgis")
    # End to end with a real geo-retina takes minutes: scripts/check-qgis alone does that.
    env = {**os.environ, "GEO_RETINA_COMMAND": ""}
    done = subprocess.run(
        [ROOT / "scripts" / "check-qgis"], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK" in done.stderr, done.stderr


def test_texts_go_to_translators_and_what_they_did_is_kept(tmp_path):
    script = [sys.executable, ROOT / "scripts" / "translate-qgis-plugin", "xx", "--out", tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    waiting = int(done.stdout.split(": ")[-1].split()[0])
    assert waiting > 100
    path = tmp_path / "geo_retina_xx.ts"
    source = '<source>Detect objects</source>\n      <translation type="unfinished" />'
    text = path.read_text("utf-8")
    assert text.count(source) == 1
    path.write_text(
        text.replace(source, "<source>Detect objects</source><translation>Δ</translation>")
    )
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout.split(": ")[-1].split()[0]) == waiting - 1
    assert "<translation>Δ</translation>" in path.read_text("utf-8")
