"""How memory that was freed is used again, and given back to the system."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from functools import cache

_EVERY_S = 1.0
"""Often enough for what a second leaves, and nothing beside it where units take milliseconds."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**31 - 1, 1 << 25
"""Sizes from which memory is not kept: glibc's greatest, and that of its older releases."""

_last_s = -_EVERY_S


def keep_freed_memory() -> None:
    """Let this process use freed memory again, where glibc would hand it back at once.

    glibc maps every large tensor anew, so that the system fills its pages with zeros first: a
    tenth of the time of detecting on a CPU, and more of training. For processes of our own;
    how a process spends its memory is not for a library to decide, and settings in the
    environment win. ``release_memory`` still gives back what has become free.
    """
    if "GLIBC_TUNABLES" in os.environ or any(key.startswith("MALLOC_") for key in os.environ):
        return
    library = _library()
    if library is None or not hasattr(library, "mallopt"):
        return
    # The one without the other would be worse than none: sizes would no longer adapt.
    if any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _KEEP_BYTES):
        library.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES[0])


def release_memory(*, every_s: float = _EVERY_S) -> None:
    """Hand freed memory back to the system, where the C library can be asked to.

    Blocks of pixels and the tensors made of them are freed after each unit, but glibc keeps what
    several threads took from its heaps, in pieces too scattered to be used again as a whole: over
    hundreds of blocks that came to a gigabyte. Other systems give large pieces back by themselves.

    Args:
        every_s: do nothing where that was done less than this long ago.
    """
    global _last_s
    library, now_s = _library(), time.monotonic()
    if library is None or not hasattr(library, "malloc_trim"):
        return
    if now_s - _last_s >= every_s:
        _last_s = now_s  # another thread that comes now as well does it twice, which is no harm
        library.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """Open the C library of Linux, which may be glibc; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
