"""Find the geo-retina that the user has, and ask what it offers.

Standard library only, so that it can be reasoned about without QGIS. Programs are started without a
shell, and only the one that the user has on the PATH or named; Bandit is told so at these places.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess  # nosec B404
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROTOCOL = 1
"""Version of the protocol that this plugin speaks; docs/programs.md of geo-retina has it."""

INSTALL = "pip install geo-retina"

_PREFIXES = ("PROJ_", "GDAL_", "QT_", "QGIS_")
_NAMES = ("PYTHONHOME", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE")
_ANSWER_S = 60.0
"""Seconds to wait for the first answer: a cold disk and a virus scanner are slow."""

_KEEP_S = 300.0
"""Seconds for which an answer holds."""


class CommandError(Exception):
    """No geo-retina can be used; the text says why and what to do."""


@dataclass(frozen=True)
class Choice:
    """What the user set.

    Attributes:
        command: path of the geo-retina program, or empty.
        python: path of a Python that has geo-retina, or empty.
    """

    command: str = ""
    python: str = ""


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what QGIS sets for its own Python, Qt, GDAL and PROJ."""
    kept = {
        name: value
        for name, value in environment.items()
        if name.upper() not in _NAMES and not name.upper().startswith(_PREFIXES)
    }
    return {**kept, "PYTHONUTF8": "1"}


def find_command(choice: Choice) -> list[str]:
    """Find the program: the one that was set, else on the PATH, else of the chosen Python.

    Raises:
        CommandError: there is none.
    """
    if choice.command:
        if not Path(choice.command).is_file():
            raise CommandError(
                f"the geo-retina command is set to {choice.command}, and there is no such file; "
                "set the right one with the algorithm Status"
            )
        return [choice.command]
    found = shutil.which("geo-retina", path=clean_environment(os.environ).get("PATH"))
    if found:
        return [found]
    if choice.python:
        if not Path(choice.python).is_file():
            raise CommandError(
                f"the Python for geo-retina is set to {choice.python}, and there is no such file; "
                "set the right one with the algorithm Status"
            )
        return [choice.python, "-m", "geo_retina"]
    raise CommandError(
        "no geo-retina was found on the PATH, and none is set; install it in a Python of its own "
        f"({INSTALL}), never in that of QGIS, and name the program with the algorithm Status"
    )


def start_hidden() -> dict[str, Any]:
    """Give the arguments with which Windows opens no console for a program."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}


def start_program(line: Sequence[str], **streams: int) -> subprocess.Popen[bytes]:
    """Start a program outside QGIS's environment.

    Args:
        line: the program and its arguments.
        streams: where its standard streams lead, as for ``subprocess.Popen``.

    Raises:
        CommandError: it cannot be started.
    """
    try:
        return subprocess.Popen(  # nosec B603
            line, env=clean_environment(os.environ), **streams, **start_hidden()
        )
    except OSError as error:
        raise CommandError(f"{line[0]} cannot be started: {error.strerror or error}") from error


def ask_api(command: Sequence[str], *, devices: bool = False) -> dict[str, Any]:
    """Ask a geo-retina what it offers.

    Args:
        command: the program and its first arguments.
        devices: whether to ask for devices and versions too, which takes some seconds.

    Raises:
        CommandError: it cannot be started, is too old or too new, or is no geo-retina.
    """
    line = [*command, "--api", *(["--devices"] if devices else [])]
    name = " ".join(command)
    try:
        done = subprocess.run(  # nosec B603
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(os.environ),
            timeout=_ANSWER_S,
            check=False,
            **start_hidden(),
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{name} did not answer in {_ANSWER_S:g} s; try again") from error
    except OSError as error:
        raise CommandError(f"{name} cannot be started: {error.strerror or error}") from error
    told = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise CommandError(_explain(name, done.returncode, told))
    return read_api(name, done.stdout)


def read_api(name: str, answer: bytes) -> dict[str, Any]:
    """Read what a geo-retina said it offers.

    Raises:
        CommandError: it is no such answer, or of another protocol.
    """
    try:
        api = json.loads(answer)
        protocol = int(api["protocol"])
        known = isinstance(api["commands"], dict) and isinstance(api["models"], list)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise CommandError(f"{name} is not geo-retina, or a broken one: it gave no --api as JSON")
    if protocol != PROTOCOL:
        which = "the plugin" if protocol > PROTOCOL else "geo-retina (pip install -U geo-retina)"
        raise CommandError(
            f"{name} speaks protocol {protocol}, and this plugin {PROTOCOL}; update {which}"
        )
    return api


def _explain(name: str, code: int, told: str) -> str:
    if "No module named geo_retina" in told:
        return f"{name} is a Python without geo-retina; install it there ({INSTALL})"
    if code == 2 and "--api" in told:
        return (
            f"{name} is an older geo-retina than this plugin needs; update it "
            "(pip install -U geo-retina)"
        )
    last = told.splitlines()[-1] if told else "no reason given"
    return f"{name} failed with exit code {code}: {last}"


class ApiCache:
    """Answers of commands, for some minutes; failures too, so that no dialog waits twice."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], tuple[float, dict[str, Any] | CommandError]] = {}

    def ask(self, command: Sequence[str]) -> dict[str, Any]:
        """Ask a command, or remember what it said.

        Raises:
            CommandError: it cannot be used.
        """
        key = tuple(command)
        at, answer = self._answers.get(key, (0.0, None))
        if answer is None or time.monotonic() - at > _KEEP_S:
            try:
                answer = ask_api(command)
            except CommandError as error:
                answer = error
            self._answers[key] = (time.monotonic(), answer)
        if isinstance(answer, CommandError):
            raise answer
        return answer

    def forget(self) -> None:
        """Ask anew the next time."""
        self._answers.clear()
