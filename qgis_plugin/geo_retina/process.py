"""Run one geo-retina command: its events out, a stop in. Standard library only."""

from __future__ import annotations

import json
import queue
import subprocess  # nosec B404
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from .command import start_program

STOPPED = 130
NOT_COVERED = 3

_POLL_S = 0.1
_STOP_S = 120.0
"""Seconds that a command may take to stop before it is killed: blocks on a device end first."""

_LAST_LINES = 40

Event = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code.
        result: the object it gave, empty after an error.
        error: a sentence; empty where it did not fail.
        stopped: whether it was asked to stop and did.
    """

    code: int
    result: dict[str, Any]
    error: str
    stopped: bool


def run_command(
    command: Sequence[str],
    arguments: Sequence[str],
    on_event: Callable[[Event], None],
    is_canceled: Callable[[], bool],
) -> Outcome:
    """Run a command to its end, or stop it when that is asked for.

    Args:
        command: the program and its first arguments.
        arguments: the command's name and what belongs to it.
        on_event: called with each event, in the caller's thread.
        is_canceled: asked ten times a second.

    Raises:
        CommandError: the program cannot be started.
    """
    line = [*command, *arguments, "--progress", "json", "--stop-with-stdin"]
    pipe = subprocess.PIPE
    process = start_program(line, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        return _follow(process, on_event, is_canceled)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            _close(stream)


def _follow(
    process: subprocess.Popen[bytes],
    on_event: Callable[[Event], None],
    is_canceled: Callable[[], bool],
) -> Outcome:
    """Hand events on until the process ends."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    last_errors: deque[str] = deque(maxlen=_LAST_LINES)
    readers = [
        threading.Thread(target=_read_lines, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(
            target=_read_lines,
            args=(process.stderr, lambda line: line and last_errors.append(_text(line))),
            daemon=True,
        ),
    ]
    for reader in readers:
        reader.start()
    finished: Event = {}
    kill_at: float | None = None
    while True:
        if kill_at is None and is_canceled():
            _ask_to_stop(process)
            kill_at = time.monotonic() + _STOP_S
        if kill_at is not None and time.monotonic() > kill_at:
            process.kill()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if line is None:
            break
        event = _parse(line)
        if event.get("event") == "finished":
            finished = event
        elif event:
            on_event(event)
        else:
            last_errors.append(_text(line))
    code = process.wait()
    readers[1].join(timeout=5)
    return _outcome(code, finished, last_errors, asked=kill_at is not None)


def _outcome(code: int, finished: Event, last_errors: Sequence[str], *, asked: bool) -> Outcome:
    error = finished.get("error") or ""
    if not finished or (code not in (0, NOT_COVERED) and not error):
        told = "; ".join(last_errors) or "it said nothing"
        error = f"geo-retina ended with exit code {code} before it was done: {told}"
    stopped = asked and code not in (0, NOT_COVERED)
    return Outcome(code, finished.get("result") or {}, error, stopped)


def _ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it by a signal, or where there is none, on Windows, by closing its standard input.

    One of both, as a second interrupt would disturb the first one's tidying up.
    """
    if sys.platform == "win32":
        _close(process.stdin)
    else:
        process.terminate()


def _close(stream: IO[bytes] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:
        return  # the other end has gone


def _read_lines(stream: IO[bytes] | None, put: Callable[[bytes | None], object]) -> None:
    """Put each line, and None at the end."""
    try:
        for line in stream or ():
            put(line)
    except (OSError, ValueError):  # the stream was closed
        pass
    put(None)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()


def _parse(line: bytes) -> Event:
    """Read an event; empty for what is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
