"""What commands say: to people as text, to programs as JSON.

With ``--progress json`` standard output carries one JSON object a line and nothing else;
docs/programs.md is the schema. A stream that is full or closed costs no result: the run goes on
in silence, and its exit code tells of the stream in the end.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from geo_retina.cli import _streams
from geo_retina.cli._option_names import as_flags
from geo_retina.files import check_file_output, write_text

PROTOCOL = 1
"""Version of the events and of what ``--api`` prints; it rises when a client must change.

New keys and new kinds of event do not raise it.
"""

ProgressStyle = Literal["auto", "bar", "lines", "json", "none"]

_STANDARD_OUTPUT = Path("-")
_DASHED_FILE = re.compile(r"-[^-].*\.[A-Za-z][A-Za-z0-9]*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """How a command reports what it does, to people or to programs."""

    progress: ProgressStyle = "auto"
    """How to show progress: a bar, a line a minute (auto: a bar where somebody watches, else
    lines), lines of JSON on standard output, or none."""

    json: Path | None = None
    """Write the result as JSON to this file too; - is standard output, and what people read
    goes to standard error then."""

    stop_with_stdin: Annotated[bool, Parameter(negative="")] = False
    """Stop, as Ctrl-C does, when standard input is closed; for programs that start this one."""


Reports = Annotated[Reporting, Parameter(name="*", group=Group("Reporting", sort_key=9))]
REPORTING = Reporting()


@dataclass
class _Voice:
    """How the command that runs speaks.

    Attributes:
        events: whether in lines of JSON.
        aside: whether text for people goes to standard error.
        command: name of the command; None before one is known.
        result: what it gave.
        error: the sentence it failed with.
        fault: why standard output takes no more events.
        done: whether it has ended and is not to be stopped any more.
    """

    events: bool = False
    aside: bool = False
    command: str | None = None
    result: Mapping[str, Any] | None = None
    error: str | None = None
    fault: OSError | None = None
    done: bool = False


_voice = _Voice()
_one_at_a_time = threading.Lock()


@contextmanager
def speaking(tokens: Sequence[str]) -> Iterator[None]:
    """Speak as the arguments of one command line ask for, even if they turn out to be wrong."""
    global _voice
    before, _voice = _voice, _Voice(events=_asks_for_events(tokens))
    try:
        yield
    finally:
        _voice.done = True
        _voice = before


def _asks_for_events(tokens: Sequence[str]) -> bool:
    pairs = pairwise([*tokens, ""])
    asked = any(pair == ("--progress", "json") or pair[0] == "--progress=json" for pair in pairs)
    return asked and "--quiet" not in tokens


def bind_dashes(tokens: Sequence[str]) -> list[str]:
    """Write dashes that begin no flag such that the parser does not take them for one.

    ``--json -`` becomes ``--json=-``, and what has a file's extension gets ``./`` in front: a
    shell that expands ``*.tif`` may find ``-12_5.tif``.
    """
    bound: list[str] = []
    for token in tokens:
        if token == "-" and bound[-1:] == ["--json"]:
            bound[-1] = "--json=-"
        elif _DASHED_FILE.fullmatch(token):
            bound.append(f"./{token}")
        else:
            bound.append(token)
    return bound


def begin(command: str, reporting: Reporting) -> None:
    """Say which command begins, and stop it when it is asked to stop."""
    from geo_retina import __version__

    _voice.command = command
    _voice.aside = reporting.json == _STANDARD_OUTPUT
    send("started", protocol=PROTOCOL, geo_retina=__version__, command=command)
    if reporting.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=(_voice,), daemon=True).start()


def _stop_with_stdin(voice: _Voice) -> None:
    """Interrupt the main thread when standard input ends."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    if voice.done:
        return
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:  # unlike interrupt_main, it also ends what the thread waits for
        ident = threading.main_thread().ident
        assert ident is not None
        signal.pthread_kill(ident, signal.SIGINT)


def check_json(reporting: Reporting, *, overwrite: bool) -> None:
    """Refuse a file for the result that could not be written, before work is spent on it.

    Raises:
        OutputError: the file exists and is not to be replaced, or its folder is missing.
    """
    if reporting.json is not None and reporting.json != _STANDARD_OUTPUT:
        check_file_output(reporting.json, overwrite=overwrite)


def say(text: str) -> None:
    """Tell people what came out."""
    if _voice.events:
        send("message", level="info", text=text)
    elif _voice.aside:
        _streams.tell(text)
    else:
        print(text)


def warn(text: str) -> None:
    """Tell what the user must know, apart from the results."""
    text = as_flags(text)
    _streams.tell(f"geo-retina: {text}")
    send("message", level="warning", text=text)


def fail(sentence: str) -> None:
    """Tell why the command failed; its last event repeats it."""
    sentence = as_flags(sentence)
    _streams.tell(f"geo-retina: {sentence}")
    _voice.error = sentence


def result(reporting: Reporting, values: Mapping[str, Any]) -> None:
    """Hand over what a command gave, to the file of ``--json`` and to its last event."""
    values = as_json(values)
    _voice.result = values
    if reporting.json is None:
        return
    text = json.dumps(values, indent=2)
    if reporting.json != _STANDARD_OUTPUT:
        write_text(reporting.json, text + "\n")
        say(f"written to {reporting.json}")
    elif not _voice.events:
        print(text)


def send(event: str, **values: Any) -> None:
    """Print an event, if a program listens."""
    if _voice.events:
        print_event(event, **values)


def print_event(event: str, **values: Any) -> None:
    """Print an event; where standard output takes none, remember why and print no more."""
    voice = _voice
    if voice.fault is not None:
        return
    line = json.dumps({"event": event, **as_json(values)})
    with _one_at_a_time:
        try:
            print(line, flush=True)
        except OSError as error:
            voice.fault = error
            _streams.end_output()


def finish(code: int) -> OSError | None:
    """Say how the command ended, and why standard output did not take all, if so."""
    _voice.done = True
    values = {"command": _voice.command, "code": code, "error": _voice.error}
    send("finished", **values, result=_voice.result)
    return _voice.fault


def as_json(value: Any) -> Any:
    """Turn a value into what JSON can hold: NaN and infinity become null, paths text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return as_json(value.item()) if hasattr(value, "item") else str(value)
