"""Every fenced block of README and docs is run here, or its page says why it is not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError
from support.documents import PROJECT, Block, blocks_of, pages

import geo_retina
from geo_retina.cli import app, main
from geo_retina.config import load_train_options

CI_RUN = "ci: run"
"""The note of the block that .ci/run runs."""

PYTHON_RUN = "run: python"
"""The note of a block of Python that runs by itself."""

PLAIN = "text"
"""Output and drawings: nothing that anybody would run."""


def tutorials() -> list[str]:
    """The pages of the first day, in the order of the navigation."""
    for section in yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]:
        if "Your first day" in section:
            return [f"docs/{page}" for page in section["Your first day"]]
    raise AssertionError("mkdocs.yml has no section 'Your first day'")


TUTORIALS = tutorials()
BLOCKS = [block for page in pages() for block in blocks_of(page)]


def is_run(block: Block) -> bool:
    if block.page in TUTORIALS:
        return block.file is not None or block.language in {"bash", "python"}
    return block.note in (CI_RUN, PYTHON_RUN) or block.language == "yaml"


def test_the_tutorials_work_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = set()
    for block in (block for page in TUTORIALS for block in blocks_of(page)):
        if block.not_run:
            continue
        if block.file:
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
        else:
            for program, *arguments in block.commands():
                assert program == "geo-retina", f"{block}: {program}"
                code = main(arguments)
                assert code == 0, f"{block}: {arguments}\n{capsys.readouterr().err}"
                ran.add(arguments[0])
    assert ran >= {"demo", "detect", "preview", "filter", "check-labels", "train", "evaluate"}
    assert Path("weekend.gpkg").stat().st_size > 10_000


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.note == PYTHON_RUN], ids=str)
def test_python_that_runs_by_itself(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "block"})
    number, *_ = capsys.readouterr().out.split()
    assert int(number) > 0


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block):
    assert block.language, f"{block} names no language; write {PLAIN} behind the ticks for output"
    if block.language == PLAIN:
        assert block.text.split()[0] not in {"geo-retina", "python", "pip", "$"}, str(block)
    else:
        assert is_run(block) or block.not_run, (
            f"{block} is run by no test; write <!-- not run: the reason --> in the line before it"
        )


def test_every_fence_is_seen():
    """The pattern misses no block: fences come in pairs, and each pair is a block."""
    for page in pages():
        fences = [line for line in (PROJECT / page).read_text().splitlines() if "```" in line]
        fences = [line for line in fences if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(blocks_of(page)), page


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in {"bash", "console"}], ids=str)
def test_flags_of_commands_exist(block):
    """Also where a command is not run, its flags are parsed as the command line does it."""
    for program, *arguments in block.commands():
        if program != "geo-retina":
            continue
        try:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{block}: {' '.join(arguments)}: {error}")


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "yaml" and not b.not_run], ids=str
)
def test_configs_are_read(block, tmp_path):
    """Keys and values of a shown config are those of the options, also of a part of one."""
    config = tmp_path / "config.yaml"
    config.write_text(block.text)
    data = yaml.safe_load(block.text).get("data", {})
    stand_ins = {"scenes": "data.scenes=[some.tif]", "labels": "data.labels=some.gpkg"}
    options = load_train_options(
        config, [stand_ins[key] for key in sorted(set(stand_ins) - set(data))]
    )
    assert options.data.labels


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_public_names_in_python_exist(block):
    compile(block.text, str(block), "exec")
    names = re.findall(r"\bgeo_retina\.(\w+)", block.text)
    assert set(names) <= set(geo_retina.__all__), str(block)


def test_the_block_that_ci_runs_is_the_readmes():
    marked = [block for block in BLOCKS if block.note == CI_RUN]
    assert [block.page for block in marked] == ["README.md"]
    assert [words[0] for words in marked[0].commands()] == ["pip", "scripts/check"]


def test_ci_runs_the_marked_block_wherever_it_stands(tmp_path):
    """.ci/run with stand-ins for python3 and pip, on a README with other blocks around."""
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((PROJECT / ".ci" / "run").read_bytes())
    script.chmod(0o755)
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nmkdir -p "$3/bin" && : > "$3/bin/activate"\n')
    stand_in.chmod(0o755)
    other, wanted = "```bash\nexit 7\n```\n", "```bash\necho first\necho second\n```\n"
    environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}"}

    def run(readme: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "README.md").write_text(readme)
        return subprocess.run([script], capture_output=True, text=True, env=environment)

    done = run(f"{other}{other}<!-- ci: run -->\n{wanted}{other}")
    assert (done.returncode, done.stdout) == (0, "first\nsecond\n")
    failed = run(f"<!-- ci: run -->\n{other}")
    assert failed.returncode == 7
    unmarked = run(f"{other}{wanted}")
    assert unmarked.returncode == 1
    assert "has no ```bash block after the line <!-- ci: run -->" in unmarked.stderr
