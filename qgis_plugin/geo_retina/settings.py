"""Remember what the user chose, in QGIS's own settings, and what a geo-retina last offered."""

from __future__ import annotations

import json
from typing import Any

from qgis.core import QgsSettings

from .command import ApiCache, Choice, CommandError, find_command

_COMMAND = "geo_retina/command"
_PYTHON = "geo_retina/python"
_MODELS = "geo_retina/models"

CACHE = ApiCache()


def choice() -> Choice:
    """Read which program the user set."""
    settings = QgsSettings()
    command, python = (str(settings.value(key, "") or "") for key in (_COMMAND, _PYTHON))
    return Choice(command, python)


def keep_choice(chosen: Choice) -> None:
    """Remember which program to use."""
    settings = QgsSettings()
    settings.setValue(_COMMAND, chosen.command)
    settings.setValue(_PYTHON, chosen.python)
    CACHE.forget()


def ask_here() -> tuple[list[str], dict[str, Any]]:
    """Find the command and what it offers; its models are remembered.

    Raises:
        CommandError: none can be used.
    """
    command = find_command(choice())
    api = CACHE.ask(command)
    QgsSettings().setValue(_MODELS, json.dumps(api["models"]))
    return command, api


def known_models(*, ask: bool) -> list[dict[str, Any]]:
    """List the bundled models of the user's geo-retina, or those it had when last asked.

    Args:
        ask: whether to ask it, which takes a second; QGIS's start must not wait for that.
    """
    if ask:
        try:
            models: list[dict[str, Any]] = ask_here()[1]["models"]
        except CommandError:
            pass  # the dialog opens all the same, and running says why not
        else:
            return models
    try:
        remembered = json.loads(str(QgsSettings().value(_MODELS, "") or "[]"))
    except ValueError:
        remembered = []
    return remembered or [{"name": "trees-naip"}, {"name": "cars"}, {"name": "demo"}]
