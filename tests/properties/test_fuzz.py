"""Damaged files of every kind: a result or one sentence, whatever the damage.

The short version of ``scripts/fuzz``, which goes on for as long as is wanted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing.dangers import DANGERS
from support.fuzzing.judging import judge
from support.fuzzing.kitchen import stock
from support.fuzzing.targets import TARGETS
from support.stubs import LOADED_BY_RUNS, load_stub_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOADED_BY_RUNS, load_stub_model)
        stock(folder)
        yield folder


@pytest.mark.parametrize("kind", TARGETS)
def test_damage_ends_in_a_result_or_a_sentence(kind, kitchen):
    @settings(max_examples=8)
    @given(st.data())
    def damaged(data) -> None:
        def choose(n: int) -> int:
            return data.draw(st.integers(0, n - 1))

        with tempfile.TemporaryDirectory() as folder:
            command = TARGETS[kind](choose, kitchen, Path(folder))
            verdict = judge(command)
        assert verdict.fault is None, f"{command}: {verdict.fault}"

    damaged()


def test_the_good_files_are_good(kitchen, tmp_path):
    scene, model = str(kitchen / "good.tif"), str(kitchen / "model.safetensors")
    found, labels = str(kitchen / "found.gpkg"), kitchen / "labels.gpkg"
    for command in (
        ["plan", scene, "--model", model],
        ["filter", found, "--out", str(tmp_path / "out.gpkg")],
        *(
            ["evaluate", found, str(labels.with_name(f"labels.{ending}"))]
            for ending in ("gpkg", "fgb", "geojson", "parquet", "shp.zip")
        ),
    ):
        verdict = judge(command)
        assert verdict.code == 0, verdict
        assert verdict.fault is None, verdict


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alias_bomb", "once its aliases are written out"),
        ("huge_image", "expected a number of pixels"),
        ("huge_network", "do not fit its card"),
        ("huge_tiff", "GiB of memory"),
        ("huge_tile", "expected at most 65536"),
        ("huge_vrt_plan", "tiles, expected at most"),
        ("list_of_itself", "is a list itself"),
    ],
)
def test_the_sentence_names_what_was_asked_for(name, said, kitchen, tmp_path):
    verdict = judge(DANGERS[name](kitchen, tmp_path))
    assert verdict.code in (1, 2)
    assert said in verdict.said


def test_what_asks_for_very_much_is_refused_in_little_time_and_memory():
    """In a process of its own, with limits that end it."""
    command = [sys.executable, str(SCRIPT), "--inputs", str(len(DANGERS)), *DANGERS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert all(f"| {name}" in ended.stdout for name in DANGERS)
