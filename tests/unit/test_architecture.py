"""The rooms import only downwards: the contracts in pyproject.toml hold."""

import tomllib
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]


def test_import_contracts(capsys):
    failed = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert failed == 0, capsys.readouterr().out


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
