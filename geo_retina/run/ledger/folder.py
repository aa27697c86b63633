"""The ledger: what a run has done so far, on disk, so that it can go on after a crash.

A folder with ``manifest.json``, one Parquet file per finished task batch, and ``run.log`` for
people. Every file but the log is written whole or not at all, by the client alone.
A lock keeps a second run out; it goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock

from geo_retina.detections import Detections
from geo_retina.errors import OutputError, RunError
from geo_retina.files import new_file, write_text
from geo_retina.run.ledger.block_results import (
    BlockResult,
    check_results,
    read_results,
    write_results,
)
from geo_retina.run.ledger.guard import BEGUN, LOCK, LOG, holds_only, lock_folder, open_log
from geo_retina.run.ledger.manifest import (
    MANIFEST,
    check_continues,
    extended,
    foreign_folder,
    read_manifest,
)

_HELD_FILES = 64
_HELD_ROWS = 1 << 18
"""Detections of files that are held while scenes are read, at some 60 bytes each."""


@dataclass(frozen=True, eq=False)
class SceneRecord:
    """One scene in the ledger.

    Attributes:
        scene_index: position of the scene in the run.
        results: what became of its blocks, in order; their detections stay on disk.
    """

    scene_index: int
    results: tuple[BlockResult, ...]
    _places: dict[int, tuple[Path, int]]
    _files: _Files

    def count(self) -> int:
        """Count the detections of all blocks, before these are merged with each other."""
        results = (self._read(result.block) for result in self.results)
        return sum(len(each.detections) + len(each.undecided) for each in results)

    def undecided(self) -> Detections:
        """Read the undecided detections of all blocks, one block at a time."""
        return Detections.concat(self._read(result.block).undecided for result in self.results)

    def settled(self, blocks: Collection[int]) -> Detections:
        """Read the settled detections of some blocks, by index."""
        listed = [result.block for result in self.results if result.block in blocks]
        return Detections.concat(self._read(block).detections for block in listed)

    def _read(self, block: int) -> BlockResult:
        path, place = self._places[block]
        return self._files.read(path)[place]


class _Files:
    """Reads files of finished task batches; holds the last few, as scenes share them."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, list[BlockResult]] = OrderedDict()
        self._rows = 0

    def read(self, path: Path) -> list[BlockResult]:
        if path not in self._held:
            self._held[path] = read_results(path)
            self._rows += _rows_of(self._held[path])
            while len(self._held) > (1 if self._rows > _HELD_ROWS else _HELD_FILES):
                self._rows -= _rows_of(self._held.popitem(last=False)[1])
        self._held.move_to_end(path)
        return self._held[path]


def _rows_of(results: Iterable[BlockResult]) -> int:
    return sum(len(each.detections) + len(each.undecided) for each in results)


class _Entry(NamedTuple):
    """Where a block's result lies, and the result without its detections."""

    path: Path
    place: int
    result: BlockResult


class Ledger:
    """A run's folder, locked until ``close``; ``log`` writes to the file in it."""

    def __init__(self, folder: Path, manifest: dict[str, Any], lock: FileLock) -> None:
        self.folder = folder
        self.manifest = manifest
        self.log = open_log(folder / LOG)
        self._lock = lock
        self._index: dict[tuple[int, int], _Entry] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        manifest: dict[str, Any],
        *,
        restart: bool = False,
        extend: bool = False,
    ) -> Ledger:
        """Begin a run, or go on with one that was begun.

        Args:
            folder: the run's folder; made where it is missing.
            manifest: as ``manifest_for`` makes it.
            restart: discard what is there.
            extend: let the run have further scenes, after those that it had.

        Raises:
            RunError: the folder holds another run, or is no run's folder, or a run that is
                still going on.
            OutputError: it cannot be written.
        """
        if restart:
            _check_own(folder)
        else:
            read_manifest(folder)
        lock = lock_folder(folder)
        try:
            if restart:
                _clear(folder)
            return cls._open_locked(folder, manifest, lock, extend=extend)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(
        cls, folder: Path, manifest: dict[str, Any], lock: FileLock, *, extend: bool
    ) -> Ledger:
        found = read_manifest(folder)
        versions = manifest["versions"]
        if found is not None:
            found = extended(found, manifest) if extend else found
            check_continues(folder, found, manifest)
            versions = {**found["versions"], **versions}
        try:
            ledger = cls(folder, found or manifest, lock)
            with contextlib.ExitStack() as stack:
                stack.callback(ledger.close)
                ledger._read_index()
                ledger.update({"versions": versions})
                stack.pop_all()
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
        return ledger

    def update(self, changes: dict[str, Any]) -> None:
        """Change the manifest, on disk too."""
        self.manifest = {**self.manifest, **changes}
        text = json.dumps(self.manifest, indent=1, sort_keys=True)
        write_text(self.folder / MANIFEST, text)

    def _file(self, task_batch: int) -> Path:
        return self.folder / f"unit-{task_batch:07d}.parquet"

    def _read_index(self) -> None:
        """Index what lies in the folder, but for files cut short by a crash of the machine.

        The blocks of those are done again, so every file is read whole, once; the results of later
        task batches are known without reading them.
        """
        scenes = len(self.manifest["fixed"]["scenes"])
        for path in self._files():
            try:
                self._note(path, check_results(path, scenes))
            except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
                self.log.warning(
                    "%s is damaged (%s), so its blocks are done again", path.name, error
                )

    def _note(self, path: Path, results: list[BlockResult]) -> None:
        """Index the results of a file; of several tries of a block, the latest of the best."""
        for place, result in enumerate(results):
            key = result.scene_index, result.block
            known = self._index.get(key)
            if known is None or (
                not known.result.is_whole and known.result.lost_px >= result.lost_px
            ):
                self._index[key] = _Entry(path, place, result.without_detections())

    def adopt(self, other: Ledger) -> None:
        """Take over what another ledger holds, whose files stay where they are.

        A block that both finished counts once.

        Raises:
            RunError: they found different things in it.
        """
        files, others = _Files(), _Files()
        for key, entry in sorted(other._index.items()):
            own = self._index.get(key)
            if own is not None and own.result.is_whole and entry.result.is_whole:
                mine, theirs = (
                    every.read(each.path)[each.place]
                    for every, each in ((files, own), (others, entry))
                )
                if not mine.is_same(theirs):
                    raise RunError(
                        f"block {key[1]} of scene {key[0] + 1} was detected twice with different "
                        f"results, in {own.path.parent} and {entry.path.parent}; remove one of the "
                        "two folders"
                    )
            elif own is None or own.result.lost_px > entry.result.lost_px:
                self._index[key] = entry

    def blocks_known(self) -> set[tuple[int, int]]:
        """List scene and block of every block that was tried, with success or not."""
        return set(self._index)

    def blocks_done(self) -> set[tuple[int, int]]:
        """List scene and block of every block of which nothing failed."""
        return {key for key, entry in self._index.items() if entry.result.is_whole}

    def next_task_batch(self) -> int:
        """Choose a number that no finished task batch has."""
        return max((int(path.stem.removeprefix("unit-")) for path in self._files()), default=-1) + 1

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("unit-*.parquet"))

    def write(self, task_batch: int, records: list[BlockResult]) -> None:
        """Record a finished task batch.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        path = self._file(task_batch)
        try:
            with new_file(path) as draft:
                write_results(draft, records)
        except OutputError as error:
            raise OutputError(
                f"{error}; what was finished before is kept, and the same command goes on from "
                "there"
            ) from error
        self._note(path, records)

    def scenes(self) -> Iterator[SceneRecord]:
        """Read what was found, scene by scene in the run's order."""
        files = _Files()
        index = sorted(self._index.items(), key=lambda each: each[0])
        for scene, group in groupby(index, key=lambda each: each[0][0]):
            entries = [entry for _, entry in group]
            places = {entry.result.block: (entry.path, entry.place) for entry in entries}
            yield SceneRecord(scene, tuple(entry.result for entry in entries), places, files)

    def close(self) -> None:
        """Let others have the folder."""
        for handler in self.log.handlers:
            with contextlib.suppress(OSError):  # what was not flushed does not fit on the disk
                handler.close()
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder, the lock at last."""
        _clear(self.folder)
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove everything but the lock, drafts of killed processes too."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _check_own(folder: Path) -> None:
    """Refuse to discard any other folder; a run's is one also where its manifest is damaged.

    Raises:
        RunError: it holds what no run writes.
    """
    if folder.exists() and not holds_only(folder, (MANIFEST, "unit-*.parquet", *BEGUN)):
        raise foreign_folder(folder)
