"""Small text files, whole or not at all."""

from __future__ import annotations

import pytest

from geo_retina.errors import OutputError
from geo_retina.files import write_text


def test_an_older_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_text(path, "new: \u00fc\n")
    assert path.read_text("utf-8") == "new: \u00fc\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"a\.json cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "a.json", "x")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_text(tmp_path / "nowhere" / "a.json", "x")
