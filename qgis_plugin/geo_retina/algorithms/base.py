"""What all algorithms share: parameters, the running of the command, and what is said of it."""

from __future__ import annotations

import html
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingUtils,
)
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QIcon

from .. import inputs
from ..command import CommandError
from ..i18n import tr
from ..process import NOT_COVERED, Event, Outcome, run_command
from ..settings import ask_here

FOLDER = Path(__file__).parents[1]


class Algorithm(QgsProcessingAlgorithm):
    """One command of geo-retina as an algorithm of Processing."""

    ID = ""
    COMMAND = ""

    def __init__(self, *, is_used: bool = False) -> None:
        """Make one, either to be listed when QGIS starts or to be used."""
        super().__init__()
        self._is_used = is_used

    def createInstance(self) -> Algorithm:
        """Make the instance that a dialog or a run uses."""
        return type(self)(is_used=True)

    def name(self) -> str:
        """Name it for scripts."""
        return self.ID

    def icon(self) -> QIcon:
        """Show the plugin's icon."""
        return QIcon(str(FOLDER / "icon.svg"))

    def helpUrl(self) -> str:
        """Point to the help that comes with the plugin."""
        url = QUrl.fromLocalFile(str(FOLDER / "help" / "index.html"))
        url.setFragment(self.ID)
        return url.toString()

    def add(self, parameter: Any, *, about: str = "", advanced: bool = False) -> None:
        """Add a parameter, with a text on it."""
        if about:
            parameter.setHelp(about)
        if advanced:
            advanced_flag = QgsProcessingParameterDefinition.FlagAdvanced
            parameter.setFlags(parameter.flags() | advanced_flag)
        self.addParameter(parameter)

    def given(self, parameters: Mapping[str, Any], name: str) -> bool:
        """Tell whether a parameter was given."""
        return parameters.get(name) not in (None, "", [])

    def number_flags(
        self, parameters: Mapping[str, Any], context: Any, flags: Mapping[str, str]
    ) -> list[str]:
        """Give numbers as flags, those that were given.

        Args:
            parameters: of the run.
            context: of the run.
            flags: by parameter.
        """
        arguments = []
        for name, flag in flags.items():
            if self.given(parameters, name):
                arguments += [flag, f"{self.parameterAsDouble(parameters, name, context):.12g}"]
        return arguments

    def text_flags(
        self, parameters: Mapping[str, Any], context: Any, flags: Mapping[str, str]
    ) -> list[str]:
        """Give texts and paths as flags, those that were given; as ``number_flags``."""
        arguments = []
        for name, flag in flags.items():
            text = self.parameterAsString(parameters, name, context) or ""
            if text.strip():
                arguments.append(f"{flag}={text.strip()}")
        return arguments

    def extra_flags(self, parameters: Mapping[str, Any], context: Any) -> list[str]:
        """Split what the user wrote as on the command line.

        Raises:
            QgsProcessingException: a quote is open.
        """
        text = self.parameterAsString(parameters, "EXTRA", context) or ""
        try:
            return shlex.split(text)
        except ValueError as error:
            raise QgsProcessingException(
                tr("the further flags cannot be read: {}").format(error)
            ) from error

    def temporary(self, name: str) -> Path:
        """Give a file in QGIS's folder for temporary files, which nobody else has."""
        return Path(QgsProcessingUtils.generateTempFilename(name))

    def layer_path(
        self, parameters: Mapping[str, Any], name: str, context: Any, feedback: Any
    ) -> str | None:
        """Give the file of a vector layer as it is used here: its filter and selection applied.

        A file that geo-retina wrote is given as it is where nothing is chosen from it, so that
        its metadata go along. Else the rows are written into a temporary file.
        """
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            return None
        layer = self.parameterAsVectorLayer(parameters, name, context)
        if layer is not None:
            _warn_of_edits(layer, feedback)
        if layer is not None and source.featureCount() == _rows(layer):
            try:
                path, inside = inputs.layer_file(layer)
            except QgsProcessingException:
                path, inside = "", "another"
            if path and inside in (None, inputs.DETECTIONS) and not layer.subsetString():
                return path
        feedback.pushInfo(tr("What is chosen of {} is written to a file").format(name.lower()))
        path = self.temporary(f"{inputs.DETECTIONS}.gpkg")
        return str(inputs.write_features(source, path, feedback))

    def run_geo_retina(
        self, arguments: Sequence[str], feedback: Any, *, told: Collection[str] = ()
    ) -> Outcome:
        """Run the command, hand its events to Processing, and raise what went wrong.

        Args:
            arguments: of the command, after its name.
            feedback: shows progress and messages, and stops it.
            told: warnings that were shown before.

        Raises:
            QgsProcessingException: no geo-retina can be used, or it failed or was stopped.
        """
        command = find_geo_retina(self.COMMAND)
        line = [self.COMMAND, *arguments]
        feedback.pushCommandInfo(shlex.join([*command, *line]))
        seen = set(told)
        outcome = run_command(
            command, line, lambda event: show_event(event, feedback, seen), feedback.isCanceled
        )
        if outcome.code in (0, NOT_COVERED) and not outcome.error:
            return outcome
        if outcome.stopped:
            feedback.reportError(outcome.error)
            raise QgsProcessingException(self.stopped_text())
        raise QgsProcessingException(outcome.error)

    def stopped_text(self) -> str:
        """Say what is left after a stop."""
        return tr("Stopped.")


def find_geo_retina(command: str) -> list[str]:
    """Find the program, and make sure that it has a command.

    Raises:
        QgsProcessingException: there is none, or it is too old for the command.
    """
    try:
        program, api = ask_here()
    except CommandError as error:
        raise QgsProcessingException(str(error)) from error
    if command not in api["commands"]:
        raise QgsProcessingException(
            f"geo-retina {api['geo_retina']} has no command {command}; update it "
            "(pip install -U geo-retina)"
        )
    return program


def show_event(event: Event, feedback: Any, seen: set[str]) -> None:
    """Hand one event to Processing."""
    kind, text = event.get("event"), str(event.get("text") or "")
    if kind == "progress":
        fraction = event.get("fraction")
        if fraction is not None:
            feedback.setProgress(100 * float(fraction))
        feedback.setProgressText(text)
    elif kind == "message" and text not in seen:
        seen.add(text)
        if event.get("level") == "warning":
            feedback.pushWarning(text)
        else:
            feedback.pushInfo(text)


def model_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Describe models in HTML: what they find, at which resolution, of which bands, and licence."""
    rows = []
    for model in models:
        if "gsd_m" not in model:
            continue
        low, high = model["gsd_range_m"]
        facts = tr(
            "{gsd:.2g} m a pixel ({low:.2g} to {high:.2g}); bands {bands}; {licence}"
        ).format(
            gsd=model["gsd_m"],
            low=low,
            high=high,
            bands=", ".join(model["bands"]),
            licence=model["licence"],
        )
        if model.get("boxes") == "oriented":
            facts += tr("; boxes at any angle")
        about = html.escape(str(model["description"]))
        rows.append(f"<p><b>{html.escape(model['name'])}</b>: {about}<br/>{html.escape(facts)}</p>")
    return "".join(rows)


def show_text(page: Path, text: str) -> str:
    """Write a text as a page, and give its path."""
    body = html.escape(text)
    page.write_text(f"<meta charset='utf-8'><pre>{body}</pre>", encoding="utf-8")
    return str(page)


def _rows(layer: Any) -> int:
    return int(layer.featureCount())


def _warn_of_edits(layer: Any, feedback: Any) -> None:
    if layer.isEditable() and layer.isModified():
        feedback.pushWarning(
            tr("{} has edits that are not saved; geo-retina does not see them").format(layer.name())
        )
