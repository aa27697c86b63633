"""Memory that was freed is used again, or goes back to the system."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from geo_retina.run.memory import keep_freed_memory, release_memory

COUNT, SIZE = 2000, 100_000  # below the size from which each piece has pages of its own

HAS_TRIM = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim")


@pytest.mark.skipif(not HAS_TRIM, reason="only glibc can be asked to")
def test_scattered_pieces_that_were_freed_are_given_back():
    pieces = [bytes([i % 256]) * SIZE for i in range(COUNT)]
    kept = pieces[:: COUNT // 10]  # the heap stays in use from end to end
    held = psutil.Process().memory_info().rss
    del pieces
    release_memory(every_s=0)
    assert held - psutil.Process().memory_info().rss > 0.7 * COUNT * SIZE
    assert all(len(piece) == SIZE for piece in kept)


@pytest.mark.skipif(not HAS_TRIM, reason="only glibc can be asked to")
def test_units_of_milliseconds_ask_once_a_second(monkeypatch):
    from geo_retina.run import memory

    clock, asked = [100.0], []
    monkeypatch.setattr(memory, "_last_s", 0.0)
    library = SimpleNamespace(malloc_trim=asked.append)
    monkeypatch.setattr(memory, "_library", lambda: library)
    monkeypatch.setattr(memory.time, "monotonic", lambda: clock[0])
    for _ in range(30):
        release_memory()
        clock[0] += 0.125
    assert len(asked) == 4


@pytest.mark.skipif(not HAS_TRIM, reason="only glibc can be asked to")
@pytest.mark.parametrize("kept", [False, True])
def test_a_large_array_takes_the_pages_of_the_one_before(kept):
    code = f"""
import resource
import numpy as np
from geo_retina.run.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
for turn in range(21):
    np.ones(1 << 26, np.uint8)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    # Pages may be large, so that two processes are compared.
    faults = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )
    assert (faults < 20) == kept


def test_elsewhere_nothing_happens(monkeypatch):
    from geo_retina.run import memory

    monkeypatch.setattr(sys, "platform", "win32")
    memory._library.cache_clear()
    release_memory(every_s=0)
    keep_freed_memory()
    assert memory._library() is None
    memory._library.cache_clear()
