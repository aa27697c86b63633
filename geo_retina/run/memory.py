"""Giving memory back to the system between blocks."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache

_EVERY_S = 1.0
"""Often enough for what a second leaves, and nothing beside it where units take milliseconds."""

_last_s = -_EVERY_S


def release_memory(*, every_s: float = _EVERY_S) -> None:
    """Hand freed memory back to the system, where the C library can be asked to.

    Blocks of pixels and the tensors made of them are freed after each unit, but glibc keeps what
    several threads took from its heaps, in pieces too scattered to be used again as a whole: over
    hundreds of blocks that came to a gigabyte. Other systems give large pieces back by themselves.

    Args:
        every_s: do nothing where that was done less than this long ago.
    """
    global _last_s
    trim, now_s = _trim(), time.monotonic()
    if trim is not None and now_s - _last_s >= every_s:
        _last_s = now_s  # another thread that comes now as well does it twice, which is no harm
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
