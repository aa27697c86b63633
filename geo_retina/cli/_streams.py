"""The standard streams of the program, which may be closed, full, or poor in characters."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import IO, Any, TextIO


class OutputFault(OSError):
    """Standard output cannot be written, unlike any other file."""


class _Output(io.FileIO):
    """Standard output, whose failures can be distinguished from those of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFault(error.errno, error.strerror) from error


class _Errors(io.FileIO):
    """Standard error; where it is full or gone, nobody is left to report to."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def open_streams() -> None:
    """Give the program three standard streams that take any text.

    Services, cron and windowed Pythons start programs with some of them closed. Each then leads
    nowhere: left free, its number would go to the next file that is opened, and what a library
    writes to standard error would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY
            _lead_nowhere(number, mode)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def _text(number: int, stream: Any) -> TextIO:
    """Open a text stream like one of the interpreter's, or in place of it."""
    return io.TextIOWrapper(
        io.BufferedWriter((_Errors if number == 2 else _Output)(number, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        # A name of a file may hold what the terminal's encoding does not.
        errors="backslashreplace",
        line_buffering=number == 2 or getattr(stream, "write_through", False) or os.isatty(number),
    )


def tell(text: str) -> None:
    """Print to standard error; where that is full or gone, nobody is left to report to."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def end_output() -> None:
    """Print nothing more to standard output; nobody reads it any longer."""
    _give_up(sys.stdout)


def _give_up(stream: IO[Any]) -> None:
    """Let a stream lead nowhere, or the interpreter would try once more when it ends."""
    with suppress(OSError, ValueError):  # a stream that is no file
        _lead_nowhere(stream.fileno(), os.O_WRONLY)


def _lead_nowhere(number: int, mode: int) -> None:
    nowhere = os.open(os.devnull, mode)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
