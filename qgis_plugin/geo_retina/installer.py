"""Make an environment with geo-retina in it, apart from QGIS. Standard library only."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess  # nosec B404
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from .command import CommandError, clean_environment, start_hidden, start_program

OLDEST = (3, 11)
PACKAGE = "geo-retina"

_POLL_S = 0.1
_CONFIG = "pyvenv.cfg"


def program_in(folder: Path, name: str) -> Path:
    """Give the path of a program in an environment."""
    if sys.platform == "win32":
        return folder / "Scripts" / f"{name}.exe"
    return folder / "bin" / name


def check_folder(folder: Path, forbidden: Sequence[Path]) -> None:
    """Refuse a folder that is QGIS's own, or that holds something else.

    Args:
        folder: where the environment is to be.
        forbidden: folders of QGIS and of the plugin.

    Raises:
        CommandError: it is one.
    """
    place = folder.expanduser().resolve()
    for each in (other.resolve() for other in forbidden):
        if place == each or each in place.parents:
            raise CommandError(
                f"{folder} lies in {each}, which is QGIS's own; choose another folder, such as one "
                "in your home"
            )
    if place.is_file() or (
        place.is_dir() and any(place.iterdir()) and not (place / _CONFIG).is_file()
    ):
        raise CommandError(f"{folder} holds something else; choose a new or an empty folder")


def plan_install(folder: Path, python: str, source: str) -> list[list[str]]:
    """Give the programs to run, one after the other: uv where there is one, else venv and pip.

    Args:
        folder: where the environment is to be.
        python: interpreter to make it of; empty for one on the PATH.
        source: what to install, as pip takes it.

    Raises:
        CommandError: there is no Python that is new enough.
    """
    path = clean_environment(os.environ).get("PATH")
    inner = str(program_in(folder, "python"))
    uv = shutil.which("uv", path=path)
    least = f"{OLDEST[0]}.{OLDEST[1]}"
    if uv:
        make = [uv, "venv", "--allow-existing", "--python", python or f">={least}", str(folder)]
        return [make, [uv, "pip", "install", "--python", inner, source]]
    found = python or shutil.which("python3", path=path) or shutil.which("python", path=path)
    if not found or _version(found) < OLDEST:
        raise CommandError(
            f"{found or 'no Python on the PATH'} is no Python {least} or later; name one, or "
            "install uv (https://docs.astral.sh/uv), which brings its own"
        )
    return [[found, "-m", "venv", str(folder)], [inner, "-m", "pip", "install", source]]


def _version(python: str) -> tuple[int, ...]:
    """Ask a Python for its version; nothing of what is none."""
    try:
        done = subprocess.run(  # nosec B603
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            env=clean_environment(os.environ),
            timeout=30,
            check=True,
            **start_hidden(),
        )
        return tuple(map(int, done.stdout.split()))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def run_logged(
    line: Sequence[str], log: Callable[[str], None], is_canceled: Callable[[], bool]
) -> None:
    """Run a program and hand on each line that it prints.

    Raises:
        CommandError: it cannot be started, failed or was stopped.
    """
    process = start_program(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: queue.Queue[bytes | None] = queue.Queue()
    stream = process.stdout

    def read() -> None:
        for each in stream or ():
            lines.put(each)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        if is_canceled():
            process.terminate()
        try:
            each = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if each is None:
            break
        log(each.decode("utf-8", "replace").rstrip())
    code = process.wait()
    if stream is not None:
        stream.close()
    if is_canceled():
        raise CommandError("stopped; the same again goes on with what is there")
    if code != 0:
        raise CommandError(f"{Path(line[0]).name} failed with exit code {code}; the log says why")
