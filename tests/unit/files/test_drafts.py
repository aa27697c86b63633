"""Files and folders that are made beside their targets and moved into place."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

from geo_retina.errors import OutputError, SceneError
from geo_retina.files import Output, drafts, new_file, new_files, remove_file, scratch_beside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def write(*paths, text="new", overwrite=True, then=lambda: None, also=()):
    """Write a text to files, and to others beside the first; do something before they are moved."""
    with new_files([Output(path, overwrite) for path in paths]) as made:
        for draft in (*made, *(made[0].with_name(name) for name in also)):
            draft.write_text(text)
        then()


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def calls(monkeypatch):
    """What is synced and moved, in order."""
    found = []
    fsync, replace = os.fsync, os.replace

    def note_sync(handle):
        found.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def note_move(source, target):
        found.append(("move", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_move)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to tell what is synced")
def test_all_is_on_the_disk_before_it_is_moved_and_its_name_after(tmp_path, calls):
    with new_file(tmp_path / "a") as draft:
        draft.mkdir()
        (draft / "picture.png").write_text("1")
    assert calls == [
        ("sync", f"{draft}/picture.png"),
        ("sync", str(draft)),
        ("move", str(tmp_path / "a")),
        ("sync", str(tmp_path)),
    ]


def test_many_files_are_synced_each(tmp_path, calls):
    with new_file(tmp_path / "a") as draft:
        draft.mkdir()
        for number in range(50):
            (draft / str(number)).write_text("1")
    assert {where for what, where in calls[:50]} == {f"{draft}/{number}" for number in range(50)}


def test_nothing_waits_for_the_disk_where_a_loss_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("it waited"))
    with new_file(tmp_path / "a", durable=False) as draft:
        draft.write_text("1")
    assert (tmp_path / "a").read_text() == "1"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "a cannot be written: No space left"),
        (OSError("encoder error -2"), "a cannot be written: encoder error -2"),
        (SceneError("b.tif cannot be read"), "^b.tif cannot be read$"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/other/b.tif"), "/other/b.tif"),
        (KeyboardInterrupt(), None),
    ],
)
def test_after_an_error_all_is_as_it_was(tmp_path, error, said):
    (tmp_path / "a").write_text("old")
    passes = said is None or not said.startswith("a cannot")
    with pytest.raises(type(error) if passes else OutputError, match=said):
        write(tmp_path / "a", then=raising(error))
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_one_sentence(small_disk):
    (small_disk / "a").write_text("old")
    with pytest.raises(OutputError, match=r"a cannot be written: No space left on device$"):
        write(small_disk / "a", text="x" * (2 << 20))
    assert names(small_disk) == ["a"]
    assert (small_disk / "a").read_text() == "old"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_new_files_have_the_permissions_that_others_get(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_file(tmp_path / "a") as draft:
            draft.touch(0o600)  # as programs that take care of secrets do
        with new_file(tmp_path / "b") as draft:
            draft.mkdir()
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o666 & ~umask
    assert mode(tmp_path / "b") == 0o777 & ~umask


@pytest.mark.parametrize("old", [0o600, 0o664, 0o444])
def test_replaced_files_hand_their_permissions_on(tmp_path, old):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(old)
    with new_file(tmp_path / "a") as draft:
        draft.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert mode(tmp_path / "a") == old


def test_what_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(OutputError, match="a appeared while it was being written"):
        write(path, overwrite=False, then=lambda: path.write_text("someone else's"))
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "someone else's"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_refusal_midway_brings_every_older_file_back(tmp_path, monkeypatch, has_links):
    old = ["a.gpkg-wal", "a.gpkg", "b.shp", "b.dbf", "b.qix"]
    for name in old:
        (tmp_path / name).write_text(f"old {name}")
    (tmp_path / "b.dbf").unlink()
    (tmp_path / "b.dbf").mkdir()  # a file cannot take its place
    if not has_links:
        monkeypatch.setattr(os, "link", raising(OSError("no links")))
    with pytest.raises(OutputError, match=r"b\.shp cannot be written"):
        write(tmp_path / "b.shp", tmp_path / "a.gpkg", also=["b.dbf", "b.cpg"])
    assert names(tmp_path) == sorted(old)
    for name in old:
        assert name == "b.dbf" or (tmp_path / name).read_text() == f"old {name}"


def test_files_already_moved_come_back(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "theirs").write_text("old")
    with pytest.raises(OutputError, match="b cannot be written"):
        write(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "b" / "theirs").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("a.gpkg", ["a.gpkg-wal", "a.gpkg-shm", "a.gpkg-journal"]),
        ("a.shp", ["a.dbf", "a.shx", "a.prj", "a.cpg", "a.qix", "a.sbn", "a.sbx", "a.qpj"]),
        ("a.tif", ["a.tif.aux.xml", "a.tif.ovr", "a.tif.msk"]),
    ],
)
def test_what_belonged_to_an_older_file_goes(tmp_path, name, stale):
    others = ["b.dbf", "a.txt", "a.gpkg.aux", "b.gpkg-wal"]
    for each in (name, *stale, *others):
        (tmp_path / each).write_text("old")
    with new_file(tmp_path / name) as draft:
        draft.write_text("new")
    assert names(tmp_path) == sorted([name, *others])
    for each in stale:
        (tmp_path / each).write_text("old")
    remove_file(tmp_path / name)
    assert names(tmp_path) == sorted(others)


LEAVE = """
import os, pathlib, sys
from geo_retina.files import new_file
with new_file(pathlib.Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os._exit(9)
"""


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    done = subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path / "a.txt")])
    assert done.returncode == 9
    assert names(tmp_path) == [".a.txt.draft"]
    assert (tmp_path / ".a.txt.draft" / "a.txt").read_text() == "half"
    with new_file(tmp_path / "a.txt") as draft:
        assert names(draft.parent) == []
        draft.write_text("whole")
    assert names(tmp_path) == ["a.txt"]


def test_drafts_of_those_who_still_write_are_left_alone(tmp_path):
    with new_file(tmp_path / "a") as first:
        first.write_text("first")
        with new_file(tmp_path / "a") as second:
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second"
        assert first.read_text() == "first"
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_without_locks_nobody_takes_a_draft_for_abandoned(tmp_path, monkeypatch):
    refuse = raising(OSError(errno.ENOLCK, "no locks available"))
    monkeypatch.setattr(drafts.fcntl, "flock", refuse)
    (tmp_path / ".a.draft").mkdir()
    (tmp_path / ".a.draft" / "a").write_text("of another machine, perhaps")
    with new_file(tmp_path / "a") as draft:
        draft.write_text("1")
    assert names(tmp_path) == [".a.draft", "a"]
    assert (tmp_path / ".a.draft" / "a").read_text() == "of another machine, perhaps"


def test_a_folder_set_aside_by_a_killed_process_comes_back(tmp_path):
    """It had moved the old one away, and not yet the new one into place."""
    aside = tmp_path / ".chips.draft" / ".replaced" / "chips"
    aside.mkdir(parents=True)
    (aside / "old.png").write_text("old")
    with scratch_beside(tmp_path / "chips"):
        assert names(tmp_path / "chips") == ["old.png"]
    assert names(tmp_path) == ["chips"]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    """Made beforehand, it was told of as one that appeared, when all was detected."""
    (tmp_path / "trees").mkdir()
    with new_file(tmp_path / "trees", overwrite=False) as draft:
        draft.mkdir()
        (draft / "all.parquet").write_text("new")
    assert (tmp_path / "trees" / "all.parquet").read_text() == "new"


def test_a_folder_takes_the_place_of_a_full_one(tmp_path):
    (tmp_path / "a").mkdir(0o750)
    (tmp_path / "a" / "old").write_text("old")
    with new_file(tmp_path / "a") as draft:
        draft.mkdir()
        (draft / "new").write_text("new")
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path) == ["a"]
    assert mode(tmp_path / "a") == 0o750


def test_names_may_be_as_long_as_they_can_be(tmp_path):
    path = tmp_path / f"{'ü' * 120}.geojson"
    with new_file(path) as draft:
        draft.write_text("1")
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("place", ["real", "nowhere"])
def test_a_link_is_refused_and_stays(tmp_path, place):
    write(tmp_path / "real", text="old")
    (tmp_path / "a").symlink_to(tmp_path / place)
    with pytest.raises(OutputError, match=rf"a is a link to .*{place}, which would stay"):
        write(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "real").read_text() == "old"


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="a cannot be written: No such file or directory"):
        write(tmp_path / "nowhere" / "a")
