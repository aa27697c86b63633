"""Memory that was freed is used again, or goes back to the system."""

import ctypes
import os
import platform
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
@pytest.mark.parametrize(
    ("kept", "setting"),
    [
        (True, {}),
        pytest.param(False, {}, marks=pytest.mark.slow),
        pytest.param(False, {"MALLOC_ARENA_MAX": "8"}, marks=pytest.mark.slow),
    ],
)
def test_a_large_array_takes_the_pages_of_the_one_before(kept, setting):
    if kept and tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 36):
        pytest.skip("older releases of glibc may keep no more than 32 MB")
    code = f"""
import resource
import numpy as np
from geo_retina.run.memory import keep_freed_memory
if {kept or bool(setting)}:  # but settings in the environment win
    keep_freed_memory()
for turn in range(21):
    np.ones(1 << 26, np.uint8)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain | setting, capture_output=True, check=True
    )
    faults = int(done.stdout)
    assert (faults < 20) == kept


@pytest.mark.parametrize(
    ("accepted", "settings"),
    [
        (lambda size: True, [(-3, 2**31 - 1), (-1, 2**31 - 1)]),
        (lambda size: size <= 1 << 25, [(-3, 2**31 - 1), (-3, 1 << 25), (-1, 2**31 - 1)]),
        (lambda size: False, [(-3, 2**31 - 1), (-3, 1 << 25)]),
    ],
)
def test_older_releases_of_glibc_keep_smaller_pieces(monkeypatch, accepted, settings):
    from geo_retina.run import memory

    asked = []
    library = SimpleNamespace(mallopt=lambda what, n: asked.append((what, n)) or accepted(n))
    monkeypatch.setattr(memory, "_library", lambda: library)
    for key in [k for k in os.environ if k.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(key)
    keep_freed_memory()
    assert asked == settings


def test_elsewhere_nothing_happens(monkeypatch):
    from geo_retina.run import memory

    monkeypatch.setattr(sys, "platform", "win32")
    memory._library.cache_clear()
    release_memory(every_s=0)
    keep_freed_memory()
    assert memory._library() is None
    memory._library.cache_clear()
