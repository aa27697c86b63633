"""Errors of the library name options; each command's user reads them as flags, or as keys."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

import geo_retina
from geo_retina import options
from geo_retina.cli import COMMANDS, app, main
from geo_retina.cli._option_names import answering, as_flags, flag_name
from geo_retina.config import load_train_options
from geo_retina.errors import OptionError

BY_NAME = {flag_name(command.__name__): command for command in COMMANDS}
CLASSES = [each for each in map(options.__dict__.get, options.__all__) if is_dataclass(each)]
FIELDS = [f"{each.__name__}.{field.name}" for each in CLASSES for field in fields(each)]
PYTHON_ONLY = {"SynthOptions", *(c.__name__ for c in CLASSES if "_parts" in c.__module__)}
"""What no user of a command chooses, or chooses as a field of another class."""


@cache
def flags_of(command: str) -> set[str]:
    """All flags that the parser takes, whatever the table of names says."""
    found = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return {name for argument in found for name in argument.names if name.startswith("--")}


def is_key(name: str, folder: Path) -> bool:
    """Whether a training's config may hold a key, by what its reader says of one without value."""
    values = {"data": {"scenes": "a.tif", "labels": [{"path": "b.gpkg"}]}}
    *groups, key = name.split(".")
    node = values
    for group in groups:
        node = node.setdefault(group, {})
        node = node[0] if isinstance(node, list) else node
    node.setdefault(key, None)
    path = folder / "c.yaml"
    path.write_text(json.dumps(values))
    try:
        load_train_options(path)
    except OptionError as error:
        return "unknown option" not in str(error)
    return True


@pytest.mark.parametrize("option", FIELDS)
def test_every_option_is_a_flag_or_a_key(option, tmp_path):
    name = as_flags(f"{option} is 0, expected more").removesuffix(" is 0, expected more")
    if option.partition(".")[0] in PYTHON_ONLY:
        assert name == option
    elif name.startswith("--"):
        assert any(name in flags_of(command) for command in BY_NAME)
    else:
        assert is_key(name, tmp_path)


def test_a_key_that_no_config_may_hold(tmp_path):
    assert not is_key("loss.alfa", tmp_path)
    assert not is_key("data.labels.lair", tmp_path)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_command_has_is_named_by_its_own_flags(name):
    """``merge`` has the options of merging as ``--iou``, ``detect`` as ``--merge.iou``."""
    own = [hint for hint in get_type_hints(BY_NAME[name]).values() if hint in CLASSES]
    for each in own:
        for field in fields(each):
            assert as_flags(f"{each.__name__}.{field.name}", BY_NAME[name]) in flags_of(name)


def test_the_forms_that_sentences_have():
    def said(sentence: str, command: str) -> str:
        return as_flags(sentence, BY_NAME[command])

    wide = "give DetectOptions.stretch=(2, 98), RunOptions.restart=True or MergeOptions.edge_px."
    assert said(wide, "detect") == "give --stretch 2,98, --restart or --merge.edge-px."
    assert said('try RunOptions.device="auto"', "detect") == "try --device auto"
    assert said("DetectOptions.min_score=0.25", "filter") == "--min-score 0.25"
    assert said("without the argument crs, or overwrite=True", "merge") == (
        "without --crs, or --overwrite"
    )
    assert said("MergeOptions.iou is 2", "merge") == "--iou is 2"
    assert said("data.layer in the config, data.classes", "export-chips") == "--layer, data.classes"
    assert said('RunOptions.device="cpu", resume=True', "train") == "device=cpu, --resume"
    assert said("the override lr=x: bad, the option encoding", "train") == (
        "--set lr=x: bad, data.encoding"
    )
    assert said("a file called MyOptions.iou", "merge") == "a file called MyOptions.iou"


def test_a_sentence_is_said_to_the_user_of_the_command():
    with answering(BY_NAME["merge"]):
        assert as_flags("MergeOptions.iou") == "--iou"
    assert as_flags("MergeOptions.iou") == "--merge.iou"


def test_every_error_is_translated(capsys, tmp_path):
    """Also those that are no fault of an option: ``OutputError`` here."""
    (tmp_path / "out.tif").write_text("mine")
    arguments = ["nowhere.gpkg", "--density", "10", "--out", str(tmp_path / "out.tif")]
    assert main(["preview", *arguments]) == 1
    assert "exists; give --overwrite or another name" in capsys.readouterr().err


def texts_of(path: Path) -> list[str]:
    """All texts of a module, without its documentation."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # a text that stands alone
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documented
    ]


def test_the_library_knows_no_flags():
    root = Path(geo_retina.__file__).parent
    flag = re.compile(r"(?<![\w(-])--[a-z][a-z-]+(?![\w:-]*:)")  # not CSS, as in var(--tone)
    found = [
        f"{path.relative_to(root)}: {text}"
        for path in root.rglob("*.py")
        if "cli" not in path.relative_to(root).parts
        for text in texts_of(path)
        if flag.search(text)
    ]
    assert not found
