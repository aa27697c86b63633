"""Giving memory back to the system between blocks."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can be asked to.

    Blocks of pixels and the tensors made of them are freed after each unit, but glibc keeps what
    several threads took from its heaps, in pieces too scattered to be used again as a whole: over
    hundreds of blocks that came to a gigabyte. Other systems give large pieces back by themselves.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
