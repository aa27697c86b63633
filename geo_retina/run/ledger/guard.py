"""What stands around a run's folder: a lock against a second run, and a log for people."""

from __future__ import annotations

import logging
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from geo_retina.errors import OutputError, RunError

LOCK, LOG, PLAN = "lock", "run.log", "plan.json"

PARTS = "part-*-of-*"
"""Pattern of the folders that parts of a run have inside that of the whole."""

BEGUN = (LOCK, LOG, PLAN, PARTS, ".*.draft*", ".*.tmp")
"""Patterns of what a run leaves that was killed before it wrote anything."""


def holds_only(folder: Path, patterns: Collection[str]) -> bool:
    """Check that it is a folder, and that every name in it is of one of the patterns."""
    return folder.is_dir() and all(
        any(fnmatch(entry.name, each) for each in patterns) for entry in folder.iterdir()
    )


def lock_folder(folder: Path) -> FileLock:
    """Take a folder, made where it is missing.

    Raises:
        RunError: another run has it.
        OutputError: it cannot be written.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"another run is writing to {folder}; wait for it, or name another output"
        ) from None
    except NotImplementedError:
        pass  # a file system without locks: nobody can be kept out of it
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
    return lock


class _LogFile(logging.FileHandler):
    """A log whose own failure, on a full disk for example, is no failure of the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: what matters is written elsewhere, and fails there."""


def open_log(path: Path) -> logging.Logger:
    """Open a log of one run; outside the logging tree, which belongs to the application."""
    logger = logging.Logger("geo_retina.run", logging.INFO)
    # Opened when there is something to say, as many parts of a run may be looked at at once.
    handler = _LogFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger
