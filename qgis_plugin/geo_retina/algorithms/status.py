"""Say what was found of geo-retina, and choose which one is used."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from configparser import ConfigParser
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputHtml,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFile,
)
from qgis.PyQt.QtCore import QT_VERSION_STR

from ..command import INSTALL, Choice, CommandError, ask_api, find_command
from ..i18n import tr
from ..settings import choice, keep_choice
from .base import FOLDER, Algorithm, show_text

ANY_FILE = "All files (*)"
"""QGIS's own filter wants a dot in the name."""


class Status(Algorithm):
    """What is here, for people and for issues."""

    ID = "status"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Status and choice of geo-retina")

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Set-up")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "setup"

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Says which geo-retina was found, its version, devices and models, or what to type to "
            "install it; the text can be pasted into an issue. Name a geo-retina program or a "
            "Python that has it to try that one, and tick Remember to use it from now on."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        command = QgsProcessingParameterFile(
            "COMMAND", tr("geo-retina program"), optional=True, fileFilter=ANY_FILE
        )
        self.add(command, about=tr("Left out, the one that is remembered, else that on the PATH"))
        python = QgsProcessingParameterFile(
            "PYTHON", tr("or a Python that has it"), optional=True, fileFilter=ANY_FILE
        )
        self.add(python, about=tr("Used where there is no geo-retina on the PATH"))
        keep = QgsProcessingParameterBoolean("REMEMBER", tr("Remember this choice"), False)
        self.add(keep, about=tr("With both left out, what was remembered is forgotten"))
        self.addOutput(QgsProcessingOutputBoolean("USABLE", tr("Whether it can be used")))
        self.addOutput(QgsProcessingOutputString("TEXT", tr("Text for an issue")))
        self.addOutput(QgsProcessingOutputHtml("HTML", tr("Status")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Look, and tell."""
        named = Choice(
            self.parameterAsFile(parameters, "COMMAND", context) or "",
            self.parameterAsFile(parameters, "PYTHON", context) or "",
        )
        remembers = self.parameterAsBool(parameters, "REMEMBER", context)
        chosen = named if remembers or named != Choice() else choice()
        rows, error = describe(chosen, is_strict=bool(named.python and not named.command))
        for label, text in rows.items():
            feedback.pushInfo(f"{label}: {text}")
        if error:
            feedback.reportError(error)
        if remembers and not error:
            keep_choice(chosen)
            feedback.pushInfo(tr("This choice is remembered."))
        text = "\n".join([*(f"{label}: {value}" for label, value in rows.items()), error]).strip()
        page = show_text(self.temporary("status.html"), text)
        return {"USABLE": not error, "TEXT": text, "HTML": page}


def describe(chosen: Choice, *, is_strict: bool = False) -> tuple[dict[str, str], str]:
    """Describe QGIS and the geo-retina that a choice leads to.

    Args:
        chosen: what the user set.
        is_strict: whether to try the Python although there is a program on the PATH.

    Returns:
        Labels and texts; and what is wrong, in a sentence, or an empty text.
    """
    rows = {
        "plugin": plugin_version(),
        "QGIS": f"{Qgis.QGIS_VERSION}, Qt {QT_VERSION_STR}, Python {platform.python_version()}",
        "system": platform.platform(),
    }
    try:
        program = [chosen.python, "-m", "geo_retina"] if is_strict else find_command(chosen)
        rows["command"] = shlex.join(program)
        api = ask_api(program, devices=True)
    except CommandError as error:
        rows["to install"] = INSTALL
        return rows, str(error)
    rows["geo-retina"] = f"{api['geo_retina']}, protocol {api['protocol']}, Python {api['python']}"
    devices = api.get("devices", [])
    rows["devices"] = "; ".join(f"{each['name']}: {each['description']}" for each in devices)
    packages = api.get("packages", {})
    rows["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    rows["models"] = ", ".join(model["name"] for model in api["models"])
    return rows, ""


def plugin_version() -> str:
    """Read the version from the plugin's metadata."""
    metadata = ConfigParser(interpolation=None)
    metadata.read(FOLDER / "metadata.txt", encoding="utf-8")
    return metadata.get("general", "version", fallback="unknown")
