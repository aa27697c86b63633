"""Runs a command in this process and says what is wrong with how it ended."""

from __future__ import annotations

import contextlib
import io
import re
import time
import traceback
import warnings
from dataclasses import dataclass

from geo_retina.cli import main

MEMORY_BYTES = 2 << 30
"""More than a command may take for any file as small as these."""

_CODES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Verdict:
    """How a command ended.

    Attributes:
        code: its exit code, or -1 where an exception escaped.
        fault: what is wrong with it; None where nothing is.
        said: what it wrote to standard error.
        seconds: how long it took.
        more_bytes: by how much its memory grew at the most.
    """

    code: int
    fault: str | None
    said: str
    seconds: float
    more_bytes: int


def judge(arguments: list[str]) -> Verdict:
    """Run one command line; it must end with a result or with one sentence."""
    out, err = io.StringIO(), io.StringIO()
    before, start = _reset_peak(), time.monotonic()
    code, escaped = -1, ""
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            code = main(arguments)
        except BaseException:
            escaped = traceback.format_exc()
    seconds, more = time.monotonic() - start, max(0, _memory("VmHWM") - before)
    said = err.getvalue()
    fault = escaped or _fault(code, said)
    if fault is None and more > MEMORY_BYTES:
        fault = f"took {more >> 20} MiB more"
    return Verdict(code, fault or None, said, seconds, more)


def _fault(code: int, said: str) -> str | None:
    if code not in _CODES:
        return f"exit code {code}"
    if "Traceback" in said or re.search(r"\bunexpected \w+(Error|Exception|Warning)", said):
        return said
    sentences = [line for line in said.splitlines() if line.startswith("geo-retina: ")]
    if code in (1, 2) and (len(sentences) != 1 or len(sentences[0]) > 4000):
        return f"exit code {code} with {len(sentences)} sentences: {said[:4000]}"
    return None


def _memory(name: str) -> int:
    with open("/proc/self/status") as file:
        found = re.search(rf"{name}:\s+(\d+) kB", file.read())
    return int(found.group(1)) << 10 if found else 0


def _reset_peak() -> int:
    """Forget the greatest memory so far, where the system allows it, and tell what is in use."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _memory("VmRSS")
