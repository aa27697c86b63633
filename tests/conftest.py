"""What all tests share: Hypothesis profiles and the way to data that is not in the repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).parents[1]

# Derandomised, so that a test which passed here passes everywhere. To look for new
# counterexamples: HYPOTHESIS_PROFILE=explore.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _COMMON, derandomize=True, max_examples=60)
settings.register_profile("ci", _COMMON, derandomize=True, max_examples=100)
settings.register_profile("explore", _COMMON, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real test data: GEO_RETINA_DATA."""
    root = Path(os.environ.get("GEO_RETINA_DATA", PROJECT / ".." / "shared" / "data")).resolve()
    if not root.is_dir():
        pytest.skip(f"needs the real test data, which is not at {root}; set GEO_RETINA_DATA")
    return root


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)
