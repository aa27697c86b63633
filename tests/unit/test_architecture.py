"""The rooms import only downwards: the contracts in pyproject.toml hold."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_import_contracts():
    """In a process of its own: the linter shuts down all logging, and what handlers write to."""
    program = (
        "import sys; from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    )
    line = [sys.executable, "-c", program, str(ROOT / "pyproject.toml")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


MAY_USE = {
    "Dask lives in run alone": {"run"},
    "rasterio lives in scene and synth alone": {"scene", "synth"},
    "geopandas and pyogrio live in vector and evaluation alone": {
        "vector",
        "evaluation",
        "detector",
    },
}
"""The rooms that a contract leaves out, and therefore allows."""


def test_contracts_name_every_room():
    """A contract lists the rooms it binds, so a room that came later could slip through."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in config["contracts"]}
    layers = contracts["Rooms import only downwards"]["layers"]
    rooms = {name.strip() for line in layers for name in line.split("|")}
    assert {"cli", "run", "nn", "grid", "errors"} <= rooms
    for name, allowed in MAY_USE.items():
        bound = {module.removeprefix("geo_retina.") for module in contracts[name]["source_modules"]}
        assert bound | allowed == rooms, name
        assert not bound & allowed, name


def _modules():
    return sorted(path for path in (ROOT / "geo_retina").rglob("*.py"))


def test_no_file_name_stands_in_three_rooms():
    places = defaultdict(list)
    for path in _modules():
        if path.stem not in ("__init__", "__main__"):
            places[path.stem].append(str(path.relative_to(ROOT)))
    assert not {stem: found for stem, found in places.items() if len(found) > 2}


def test_no_module_bears_the_name_of_its_function():
    for path in _modules():
        module = path.parent.name if path.stem == "__init__" else path.stem
        body = ast.parse(path.read_text()).body
        functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert module not in functions, path


def test_folders_fit_a_head():
    folders = Counter(path.parent for path in _modules())
    assert max(folders.values()) <= 18, folders.most_common(3)


def test_train_options_stay_whole_in_train_and_its_setup_alone():
    """All others take the part they need, which ``options/training_parts.py`` has."""
    whole = defaultdict(set)
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(
                each.annotation and "TrainOptions" in ast.unparse(each.annotation) for each in given
            ):
                whole[str(path.relative_to(ROOT / "geo_retina/training"))].add(node.name)
    assert whole == {
        "trainer.py": {"train"},
        "setup.py": {"prepare", "_shareable"},
        "label_check/check.py": {"check_labels"},
    }


def _module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path, modules):
    """All modules of ours that a file imports, for types alone and inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_module_is_imported_by_what_it_imports():
    """Not even for its type: a value knows nothing of the text that is made of it."""
    modules = {_module_name(path): path for path in _modules()}
    graph = {
        name: {each for each in _imported(path, modules) if each in modules and each != name}
        for name, path in modules.items()
    }
    assert graph["geo_retina.evaluation.result"] >= {"geo_retina.evaluation.text_table"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
