"""What this version offers to programs that run it."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cyclopts import App

from geo_retina.cli import _inspect, _voice

_PACKAGES = ("torch", "torchvision", "rasterio", "pyogrio", "dask", "lightning")


def print_api(app: App, *, devices: bool) -> int:
    """Print the protocol, commands with their flags, and models, as one JSON object.

    Args:
        app: the commands.
        devices: whether to add devices and versions, which takes the seconds that PyTorch loads.
    """
    from geo_retina import __version__

    answer: dict[str, Any] = {
        "protocol": _voice.PROTOCOL,
        "geo_retina": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "commands": {name: flags_of(app, name) for name in app if not name.startswith("-")},
        "models": [_inspect.card_facts(card) for card in _inspect.bundled_cards()],
    }
    if devices:
        from geo_retina.engine import describe_devices

        answer["packages"] = {name: _version(name) for name in _PACKAGES}
        answer["devices"] = describe_devices()
    print(json.dumps(_voice.as_json(answer), indent=2))
    return 0


def flags_of(app: App, command: str) -> list[str]:
    """List the flags that a command takes, without those that only say no."""
    arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return [each.name for each in arguments if each.name.startswith("--")]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
