"""Outputs that could not be written, refused before work is spent on them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from geo_retina.errors import OutputError


def check_file_output(path: Path, suffixes: Collection[str] = (), *, overwrite: bool) -> None:
    """Refuse a file that could not be written, before work is spent on it.

    Args:
        path: the file.
        suffixes: one of them is expected, in lower or upper case; none for any.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: another suffix, a folder of that name, an existing file, a link, or a folder
            around it that is missing or cannot be written.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        *most, last = suffixes
        expected = f"one of {', '.join(suffixes)}" if len(most) > 1 else " or ".join([*most, last])
        raise OutputError(f"{path} ends in {path.suffix or 'no suffix'}, expected {expected}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected the name of a file in it")
    check_overwrite(path, overwrite=overwrite)
    check_parent(path)


def check_overwrite(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace what exists, unless that is asked for.

    Raises:
        OutputError: it exists, or is a link.
    """
    refuse_link(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give overwrite=True or another name")


def make_report_folder(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Make the folder of a report, or refuse one that holds an earlier report.

    Args:
        folder: with all folders around it.
        names: files of which a report has at least one.
        overwrite: whether an earlier report may be replaced.

    Raises:
        OutputError: it holds one, or cannot be made or written.
    """
    if not overwrite and any((folder / name).exists() for name in names):
        raise OutputError(
            f"{folder} holds an earlier report; give overwrite=True to replace it, or "
            "another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from error
    check_parent(folder / names[0])


def check_parent(path: Path) -> None:
    """Refuse an output whose folder is missing or cannot be written.

    Raises:
        OutputError: it is so.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"the folder {path.parent} of {path.name} cannot be written; choose another"
        )


def refuse_link(path: Path) -> None:
    """Refuse a link as output: a file that took its place would leave what it leads to as it was.

    Raises:
        OutputError: it is one.
    """
    if path.is_symlink():
        place = os.path.realpath(path)
        raise OutputError(
            f"{path} is a link to {place}, which would stay as it is; give that name as output, or "
            "remove the link"
        )
