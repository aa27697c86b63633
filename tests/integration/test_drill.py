"""The drill of benchmarks/drill.py, in small: real processes that are killed while they work."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_run_in_which_everything_breaks_ends_as_an_unbroken_one(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    drill = importlib.import_module("drill")
    flags = {"--scenes": 10, "--workers": 2, "--seconds": 0.3, "--every": 20}
    assert drill.main([str(word) for pair in flags.items() for word in pair]) == 0
    told = capsys.readouterr().out
    assert "the scheduler killed once, the client twice" in told
    assert "same is True" in told
    assert " 0 objects" not in told
