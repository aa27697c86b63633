"""Install geo-retina into an environment of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessingException,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)

from ..command import Choice, CommandError, ask_api
from ..i18n import tr
from ..installer import PACKAGE, check_folder, plan_install, program_in, run_logged
from ..settings import keep_choice
from .base import FOLDER, Algorithm
from .status import ANY_FILE


class Install(Algorithm):
    """An environment with geo-retina in it."""

    ID = "install"

    def displayName(self) -> str:
        """Name it for people."""
        return tr("Install geo-retina")

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr("Set-up")

    def groupId(self) -> str:
        """Name the group for scripts."""
        return "setup"

    def shortHelpString(self) -> str:
        """Explain it."""
        return tr(
            "Makes a Python environment in a folder of your choice, outside QGIS, installs "
            "geo-retina into it and remembers it. It downloads some gigabytes. uv is used where "
            "it is on the PATH, else Python 3.11 or later with venv and pip."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        folder = QgsProcessingParameterString("FOLDER", tr("Folder to make"))
        self.add(folder, about=tr("New or empty, or an environment that was made here before"))
        python = QgsProcessingParameterFile(
            "PYTHON", tr("Python to make it of"), optional=True, fileFilter=ANY_FILE
        )
        self.add(python, about=tr("Left out, one on the PATH; not the one of QGIS"), advanced=True)
        source = QgsProcessingParameterString("SOURCE", tr("What to install"), PACKAGE)
        self.add(source, about=tr("As pip takes it: a version, or a file"), advanced=True)
        self.addOutput(QgsProcessingOutputString("COMMAND", tr("geo-retina program")))

    def processAlgorithm(
        self, parameters: Mapping[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Make the environment, install, look whether it works, and remember it."""
        folder = Path(self.parameterAsString(parameters, "FOLDER", context)).expanduser()
        python = self.parameterAsFile(parameters, "PYTHON", context) or ""
        source = self.parameterAsString(parameters, "SOURCE", context).strip()
        settings = QgsApplication.qgisSettingsDirPath()
        forbidden = [FOLDER, Path(settings), Path(QgsApplication.prefixPath()), Path(sys.prefix)]
        program = program_in(folder, "geo-retina")
        try:
            check_folder(folder, forbidden)
            for line in plan_install(folder, python, source):
                feedback.pushCommandInfo(shlex.join(line))
                run_logged(line, feedback.pushConsoleInfo, feedback.isCanceled)
            api = ask_api([str(program)])
        except CommandError as error:
            raise QgsProcessingException(str(error)) from error
        keep_choice(Choice(command=str(program)))
        text = tr("geo-retina {} is installed, and used from now on.")
        feedback.pushInfo(text.format(api["geo_retina"]))
        return {"COMMAND": str(program)}
