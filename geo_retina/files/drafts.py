"""The one writer: files and folders made beside their targets and moved into place, whole."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from geo_retina.errors import GeoRetinaError, OutputError
from geo_retina.files.output_checks import refuse_link

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj")
_RASTER_PARTS = (".aux.xml", ".ovr", ".msk")
_SIDECARS = {
    ".gpkg": ("-wal", "-shm", "-journal"),
    ".tif": _RASTER_PARTS,
    ".tiff": _RASTER_PARTS,
}
"""What programs leave beside a file, by its suffix, and would take for a part of a new one."""

_MANY = 16
"""Files from which on they are synced so many at a time."""

_ASIDE = ".replaced"
"""In a folder of drafts: what they take the place of."""


class Output(NamedTuple):
    """A file or folder to write, and whether it may take the place of one that exists."""

    path: Path
    overwrite: bool = True


@contextmanager
def new_file(path: Path, *, overwrite: bool = True, durable: bool = True) -> Iterator[Path]:
    """Lend a path to make a file or folder at, and move it into place at the end.

    As ``new_files``, for one target.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with new_file(Path(folder, "a.csv")) as draft:
    ...         _ = draft.write_text("1,2")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.csv']
    """
    with new_files([Output(path, overwrite)], durable=durable) as (draft,):
        yield draft


@contextmanager
def new_files(targets: Sequence[Output], *, durable: bool = True) -> Iterator[list[Path]]:
    """Lend paths to make files or folders at, and move all into place at the end, or none.

    Every path has the name of its target, in a hidden folder of its own beside it. What else is
    made in that folder, such as the parts of a shapefile, is moved along. What belonged to an
    older file of the same name and would be taken for a part of the new one goes: journals of
    SQLite, parts of shapefiles, overviews and masks of rasters. New files have the permissions
    of those that they replace.

    After an error every older file is as it was, and nothing is left behind. A process that is
    killed leaves older files too, and its drafts, named ``.NAME.draft``; the next write of the
    same target removes them.

    Args:
        targets: where to; their folders exist.
        durable: wait until all is on the disk, so that a power cut leaves the old file or the
            new one. Without it, a file may be cut short by a power cut.

    Raises:
        OutputError: a target is a link, or came to exist meanwhile and is not to be replaced, or
            the disk refuses.
    """
    for target in targets:
        refuse_link(target.path)
    with ExitStack() as stack:
        folders = [stack.enter_context(scratch_beside(target.path)) for target in targets]
        drafts = [f / target.path.name for f, target in zip(folders, targets, strict=True)]
        try:
            yield drafts
            for target in targets:
                if _holds_anything(target.path) and not target.overwrite:
                    raise OutputError(
                        f"{target.path} appeared while it was being written; it was left as it is"
                    )
            if durable:
                for folder in folders:
                    _sync_tree(folder)
            _move_into_place([(d, target.path) for d, target in zip(drafts, targets, strict=True)])
            if durable:
                for parent in {target.path.absolute().parent for target in targets}:
                    _sync(parent)
        except GeoRetinaError:
            raise
        except OSError as error:
            path = _refused(error, folders, targets)
            if path is None:
                raise
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _holds_anything(path: Path) -> bool:
    """Tell whether there is something to lose: an empty folder is as good as none."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Lend an empty hidden folder beside a file, on the same disk; it goes away in any case.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder, lock = _take_folder(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_file(path: Path) -> None:
    """Remove a file, where there is one, with what belongs to it and would outlive it."""
    for each in (path, *_sidecars(path)):
        each.unlink(missing_ok=True)


def _sidecars(path: Path) -> list[Path]:
    """List what an older file may have left beside itself, there or not."""
    suffix = path.suffix.lower()
    if suffix == ".shp":
        return [path.with_suffix(part) for part in _SHAPEFILE_PARTS]
    return [path.with_name(path.name + ending) for ending in _SIDECARS.get(suffix, ())]


def _take_folder(path: Path) -> tuple[Path, int | None]:
    """Make a folder for drafts, or empty the one that a killed process left.

    Returns:
        The folder, and what holds it against other processes; None where the file system has no
        locks, so that a folder in use cannot be distinguished from one that was left, and such
        ones stay.
    """
    for number in itertools.count():
        # Cut, as the name of a file may be as long as names can be.
        folder = path.with_name(f".{path.name[:50]}.draft{number or ''}")
        try:
            folder.mkdir()
            is_new = True
        except FileExistsError:
            is_new = False
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # in use; or its owner removed it just now; or it is none of ours
        if lock is None and not is_new:
            continue
        try:
            if not is_new:
                _clear(folder)
        except OSError:
            if lock is not None:
                os.close(lock)
            continue
        return folder, lock
    raise AssertionError  # there is always another number


def _lock(folder: Path) -> int | None:
    """Hold a folder until the process ends or closes it; None where there are no locks.

    Raises:
        OSError: it is held already, or is not there any more.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise FileNotFoundError(errno.ENOENT, "replaced by another", str(folder))
    except OSError as error:
        os.close(handle)
        # Some network file systems have no locks, or none on folders.
        if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    return handle


def _clear(folder: Path) -> None:
    """Remove what a killed process left; a folder that it had set aside goes back to its place."""
    for kept in (folder / _ASIDE).glob("*"):
        place = folder.with_name(kept.name)
        if kept.is_dir() and not kept.is_symlink() and not place.exists():
            os.replace(kept, place)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync_tree(folder: Path) -> None:
    """Wait until all that is in a folder is on the disk, many files at a time."""
    walked = list(os.walk(folder))
    files = [Path(root, name) for root, _, names in walked for name in names]
    if len(files) < _MANY:
        for path in files:
            _sync(path)
    else:
        with ThreadPoolExecutor(_MANY) as pool:
            list(pool.map(_sync, files))
    for root, _, _ in walked[1:]:  # the first will not outlive the move
        _sync(Path(root))


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # which opens no folders
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (is_folder and error.errno == errno.EINVAL):  # some file systems cannot
            raise
    finally:
        os.close(handle)


def _move_into_place(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move drafts, with all that was made beside them, over their targets; or none of them."""
    undo: list[tuple[Path | None, Path]] = []
    try:
        for draft, target in moves:
            # The file itself comes last: where it is, its parts are.
            parts = sorted(draft.parent.iterdir(), key=lambda part: part.name == draft.name)
            new = {part.name for part in parts}
            # Journals go first: SQLite would replay an older file's into the new one.
            for old in [each for name in new for each in _sidecars(target.with_name(name))]:
                if old.name not in new and os.path.lexists(old):
                    aside = _keep_at(draft.parent, old)
                    os.replace(old, aside)
                    undo.append((aside, old))
            for part in parts:
                is_last = draft == moves[-1][0] and part == parts[-1]
                _move(part, target.with_name(part.name), undo, is_last=is_last)
    except OSError:
        for kept, place in reversed(undo):
            with suppress(OSError):
                place.unlink() if kept is None else os.replace(kept, place)
        raise


def _keep_at(folder: Path, old: Path) -> Path:
    """Make a place in a folder of drafts for what a draft replaces."""
    (folder / _ASIDE).mkdir(exist_ok=True)
    return folder / _ASIDE / old.name


def _move(part: Path, place: Path, undo: list[tuple[Path | None, Path]], *, is_last: bool) -> None:
    """Move one file or folder into place, with the permissions of what it replaces."""
    found = os.stat(place) if place.exists() else None
    mode = None if part.is_dir() else part.parent.stat().st_mode & 0o666
    if found is not None:
        mode = stat.S_IMODE(found.st_mode)
    if mode is not None:
        with suppress(OSError):  # a file system without them
            part.chmod(mode)
    if found is None:
        undo.append((None, place))
    elif part.is_dir():
        kept = _keep_at(part.parent, place)
        os.replace(place, kept)  # a folder with something in it cannot be replaced
        undo.append((kept, place))
    elif not is_last:  # what comes last is there or not, and nothing after it can fail
        kept = _keep_at(part.parent, place)
        with suppress(OSError):  # a file system without hard links
            os.link(place, kept, follow_symlinks=False)
            undo.append((kept, place))
    os.replace(part, place)


def _refused(error: OSError, folders: Sequence[Path], targets: Sequence[Output]) -> str | None:
    """Which targets the disk refused; None where the error is about another file."""
    paths = [target.path for target in targets]
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not names:
        return ", ".join(str(path) for path in paths)
    for folder, path in zip(folders, paths, strict=True):
        if any(name.startswith(str(folder)) for name in names) or str(path.parent) in names:
            return str(path)
    return None
