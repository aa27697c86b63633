"""Old flags are read, said to be old, and refused beside the new ones."""

from __future__ import annotations

import pytest

from geo_retina.cli import main

ARGUMENTS = ["plan", "nowhere.tif", "--model", "demo"]


@pytest.mark.parametrize("given", [["--views", "2"], ["--views=2"]])
def test_an_old_flag(capsys, given):
    code = main([*ARGUMENTS, *given])
    told = capsys.readouterr().err
    assert "geo-retina: --views is the old name of --tta; write --tta\n" in told
    assert code == 1  # for the scene alone, which is not there
    assert "nowhere.tif" in told.splitlines()[-1]


def test_both_flags(capsys):
    assert main([*ARGUMENTS, "--views", "2", "--tta=4"]) == 2
    assert "--views and --tta are both given" in capsys.readouterr().err


def test_an_old_key_in_a_config(capsys, tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("views: 2\n")
    assert main([*ARGUMENTS, "--config", str(path)]) == 1
    told = capsys.readouterr().err
    assert "views is the old name of tta" in told
    assert "Warning" not in told  # a sentence, not Python's own form of a warning
    assert told.count("old name") == 1


@pytest.mark.parametrize(
    "given",
    [
        [*ARGUMENTS, "--merge.method", "soft-nms"],
        [*ARGUMENTS, "--merge.soft-sigma=0.4"],
        ["merge", "a.gpkg", "--out", "b.gpkg", "--method", "fuse"],
    ],
)
def test_a_flag_that_is_none_any_more(capsys, given):
    assert main(given) == 2
    told = capsys.readouterr().err
    assert "soft-nms and fuse are in benchmarks/soft_and_fused.py of the source now" in told
    assert "leave --" in told
