"""Memory that was freed goes back to the system."""

import ctypes
import sys

import psutil
import pytest

from geo_retina.run.memory import release_memory

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
    monkeypatch.setattr(memory, "_trim", lambda: asked.append)
    monkeypatch.setattr(memory.time, "monotonic", lambda: clock[0])
    for _ in range(30):
        release_memory()
        clock[0] += 0.125
    assert len(asked) == 4


def test_elsewhere_nothing_happens(monkeypatch):
    from geo_retina.run import memory

    monkeypatch.setattr(sys, "platform", "win32")
    memory._trim.cache_clear()
    release_memory(every_s=0)
    assert memory._trim() is None
    memory._trim.cache_clear()
